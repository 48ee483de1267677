"""Rates that nobody chose."""

from __future__ import annotations

from typing import Any

import pytest

from adm_cli.config import Kind
from adm_cli.training.defaults import resolve_training

OWN, PAPERS = (6e-4, "cosine"), (1e-4, "none")


@pytest.mark.parametrize(
    ("kind", "options", "rate"),
    [
        ("diffusion", {}, OWN),
        ("upsampler", {"size": "64", "channels": 64}, OWN),
        ("diffusion", {"preset": "tiny"}, OWN),
        ("diffusion", {"preset": "imagenet64"}, PAPERS),
        ("diffusion", {"preset": "ablation-base"}, PAPERS),
        ("diffusion", {"flags": "--image_size 64"}, PAPERS),
        ("upsampler", {"init": "tiny_upsampler"}, PAPERS),
        ("classifier", {}, (3e-4, "linear")),
        ("classifier", {"init": "tiny"}, (3e-4, "linear")),
        ("diffusion", {"lr": 2e-4}, (2e-4, "cosine")),
        ("diffusion", {"init": "tiny", "anneal": "cosine"}, (1e-4, "cosine")),
    ],
)
def test_rates(kind: Kind, options: dict[str, Any], rate: tuple[float, str]) -> None:
    found = resolve_training(kind, options, 1000)
    assert (found.lr, found.anneal) == rate
