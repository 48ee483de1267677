"""What is said of files that hold weights and cannot be taken as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adm_cli.checkpoints.loading import build_model
from tests.conftest import TOY_CLASSIFIER, TOY_UNET, Result

Adm = Callable[..., Result]
CASES: dict[str, tuple[Callable[[], Any], dict[str, Any], str]] = {
    "a newer pickle": (
        lambda: {"x": torch.zeros(1)},
        {"pickle_protocol": 4},
        "torch.save(weights, 'weights.pt') without pickle_protocol= writes what can be read",
    ),
    "nothing": (dict, {}, "expected a dictionary of tensors, got an empty one"),
    "a classifier": (
        lambda: build_model(TOY_CLASSIFIER).state_dict(),
        {},
        "a classifier, and none of the published models: pass the flags it was trained with, e.g. "
        '--flags "--image_size 64 --classifier_width 128 ..."',
    ),
    "a diffusion model": (
        lambda: build_model(TOY_UNET).state_dict(),
        {},
        "a diffusion model, and none of the published models",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_says_what_it_is_and_what_to_do(adm: Adm, name: str) -> None:
    make, how, said = CASES[name]
    torch.save(make(), "x.pt", **how)
    done = adm("convert", "x.pt")
    assert done.code in (1, 2)
    assert said in done.err


def test_a_folder_needs_no_flags(adm: Adm) -> None:
    Path("x").mkdir()
    done = adm("convert", "x", "--flags", "--image_size 8")
    assert "leave out --flags, --preset, --weights and --null-class" in done.err
