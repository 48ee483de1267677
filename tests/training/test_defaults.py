"""Optimizers and rates that nobody chose."""

from __future__ import annotations

from typing import Any

import pytest

from adm_cli.config import Kind
from adm_cli.training.defaults import resolve_training

OWN, PAPERS = ("muon", 1.2e-3, "none"), ("adamw", 1e-4, "none")


@pytest.mark.parametrize(
    ("kind", "options", "how"),
    [
        ("diffusion", {}, OWN),
        ("upsampler", {"size": "64", "channels": 64}, OWN),
        ("diffusion", {"preset": "tiny"}, OWN),
        ("diffusion", {"preset": "tiny-stack"}, OWN),
        ("diffusion", {"preset": "imagenet64"}, PAPERS),
        ("diffusion", {"preset": "ablation-base"}, PAPERS),
        ("diffusion", {"flags": "--image_size 64"}, PAPERS),
        ("upsampler", {"init": "tiny_upsampler"}, PAPERS),
        ("classifier", {}, ("muon", 3e-4, "linear")),
        ("classifier", {"init": "tiny"}, ("adamw", 3e-4, "linear")),
        ("classifier", {"preset": "imagenet64"}, ("adamw", 3e-4, "linear")),
        ("diffusion", {"lr": 2e-4}, ("muon", 2e-4, "none")),
        ("diffusion", {"optimizer": "adamw"}, ("adamw", 1.2e-3, "none")),
        ("diffusion", {"init": "tiny", "anneal": "cosine"}, ("adamw", 1e-4, "cosine")),
    ],
)
def test_how(kind: Kind, options: dict[str, Any], how: tuple[str, float, str]) -> None:
    found = resolve_training(kind, options, 1000)
    assert (found.optimizer, found.lr, found.anneal) == how
