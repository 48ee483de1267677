"""The Python interface, rung by rung: what `adm sample --class 207 --scale 4` does inside.

python examples/guided_sampling.py [picture.png]
"""

from __future__ import annotations

import sys
from functools import partial

import torch
from PIL import Image

from adm_cli import (
    NoiseSchedule,
    classifier_guidance,
    dpm_solver_sample,
    limited_guidance,
    load_model,
)
from adm_cli.pictures.images import to_uint8

labels = torch.tensor([207, 950])  # golden retriever, orange
model = load_model("tiny")  # v and variance of p(x_{t-1} | x_t), class-conditional
classifier = load_model("tiny_classifier")  # log p(y | x_t)
schedule = NoiseSchedule.cosine(1000).respace("20")
guidance = classifier_guidance(classifier, labels, scale=4.0)

generator = torch.Generator().manual_seed(0)
x_T = torch.randn(2, 3, 32, 32, generator=generator)

for step in dpm_solver_sample(
    partial(model, y=labels),
    schedule,
    x_T,
    noise=lambda _i, like: torch.randn(like.shape, generator=generator),
    guidance=limited_guidance(guidance, 0, 850),  # not at almost pure noise
    prediction="v",
):
    if step.i % 5 == 0:
        print(f"step {step.i}: x_t has standard deviation {step.x.std():.3f}")

pictures = to_uint8(step.x).numpy()  # uint8 [2, 32, 32, 3]
path = sys.argv[1] if len(sys.argv) > 1 else "guided.png"
Image.fromarray(pictures[0]).save(path)
print(path)
