"""DDIM backwards: an image to its latent and back again, without guidance.

python examples/invert.py
"""

from __future__ import annotations

from functools import partial

import torch

from adm_cli import (
    NoiseSchedule,
    SamplingConfig,
    ddim_reverse,
    ddim_sample,
    generate,
    load_pipeline,
)
from adm_cli.pictures.images import to_model_range

pipeline = load_pipeline("tiny", guided=False)
config = SamplingConfig(seeds=(0,), classes=(970,), sampler="dpm++2m", steps="20")
(batch,) = generate(pipeline, config)
x_0 = to_model_range(batch.images)  # float32 [1, 3, 32, 32] in [-1, 1]

model = partial(pipeline.model, y=torch.tensor([970]))
prediction = pipeline.diffusion.prediction  # what the network's output is: v
for steps in ("ddim50", "ddim200"):
    schedule = NoiseSchedule.cosine(1000).respace(steps)
    *_, latent, _pure_noise = ddim_reverse(
        model, schedule, x_0, prediction=prediction, clip_denoised=False
    )
    *_, back = ddim_sample(
        model,
        schedule,
        latent.x,
        noise=lambda _i, like: torch.zeros_like(like),
        prediction=prediction,
        clip_denoised=False,
    )
    error = (back.x - x_0).abs().mean() * 127.5
    print(f"{steps}: latent std {latent.x.std():.3f}, mean error {error:.2f} of 255")
