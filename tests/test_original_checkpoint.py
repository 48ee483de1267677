"""A real checkpoint in the original's own format, from file to picture, against the original.

Its files are not part of the project; they lie beside the full set of golden arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from adm_cli.checkpoints.loading import load_model
from adm_cli.diffusion.guidance import classifier_guidance
from adm_cli.diffusion.samplers import SAMPLERS
from adm_cli.diffusion.schedule import NoiseSchedule
from adm_cli.pictures.images import to_uint8
from tests.conftest import Result
from tests.golden_arrays import ROOT, Arrays

FOLDER = ROOT.parent / "checkpoints"
PAIR = FOLDER / "tiny32_diffusion.pt"
CLASSES = "1,145,207,291,323,386,779,950,963,970"
DIFFUSION = (
    "--attention_resolutions 8 --class_cond True --image_size 32 --learn_sigma True "
    "--diffusion_steps 1000 --noise_schedule cosine --num_channels 32 --channel_mult 1,2,4 "
    "--num_head_channels 32 --num_res_blocks 2 --resblock_updown True "
    "--use_new_attention_order True --use_scale_shift_norm True"
)
CLASSIFIER = (
    "--image_size 32 --classifier_width 32 --classifier_depth 1 --noise_schedule cosine "
    "--classifier_channel_mult 1,2,4 --classifier_attention_resolutions 8"
)


@pytest.mark.skipif(
    not (FOLDER / "tiny32_diffusion.pt").is_file(), reason="needs the full set of golden arrays"
)
@pytest.mark.parametrize(
    ("case", "sampler", "steps", "scale", "most_off"),
    [
        ("ddim25_scale0", "ddim", "ddim25", 0.0, 0),
        ("ddim25_scale4", "ddim", "ddim25", 4.0, 0),
        ("ddpm25_scale4", "ddpm", "25", 4.0, 16),
    ],
)
def test_samples_of_the_original(
    adm: Callable[..., Result],
    tmp_path: Path,
    case: str,
    sampler: str,
    steps: str,
    scale: float,
    most_off: int,
) -> None:
    """Converted by its flags, from the original's own noise: the original's pictures."""
    for name, flags in (("diffusion", DIFFUSION), ("classifier", CLASSIFIER)):
        original, ours = FOLDER / f"tiny32_{name}.pt", tmp_path / f"{name}.safetensors"
        done = adm("convert", original, "--output", ours, "--classes", CLASSES, "--flags", flags)
        assert done.code == 0, done.err
    golden = Arrays(FOLDER / "tiny32_samples.safetensors")
    model = load_model(tmp_path / "diffusion.safetensors")
    classifier = load_model(tmp_path / "classifier.safetensors")
    *_, last = SAMPLERS[sampler](
        partial(model, y=golden["y"]),
        NoiseSchedule.cosine(1000).respace(steps),
        golden[f"{case}.x_T"],
        # stored in loop order, which counts down
        noise=lambda i, like: (
            golden[f"{case}.noise"][24 - i] if sampler == "ddpm" else torch.zeros_like(like)
        ),
        guidance=classifier_guidance(classifier, golden["y"], scale) if scale else None,
    )
    off = (to_uint8(last.x).int() - golden[f"{case}.sample_uint8"].int()).abs()
    assert off.max() <= 1
    assert (off > 0).sum() <= most_off  # of 12,288
