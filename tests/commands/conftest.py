"""`adm sample` on the toy models, quick enough to run often."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Tensor

from adm_cli.models.fast import FastResBlock
from tests.conftest import Result, Toys


@pytest.fixture
def draw(adm: Callable[..., Result], toys: Toys) -> Callable[..., Result]:
    """`adm sample` with the toy models in 2 steps; an option given again wins."""

    def call(*arguments: object) -> Result:
        models = ("--model", toys.model, "--classifier", toys.classifier)
        return adm("sample", *models, "--steps", 2, "--device", "cpu", *arguments)

    return call


@pytest.fixture
def fast_blocks(monkeypatch: pytest.MonkeyPatch) -> list[FastResBlock]:
    """Blocks of `adm_cli.models.fast`, each as often as it computes."""
    real, found = FastResBlock._forward, []

    def forward(block: FastResBlock, x: Tensor, emb: Tensor) -> Tensor:
        found.append(block)
        return real(block, x, emb)

    monkeypatch.setattr(FastResBlock, "_forward", forward)
    return found
