"""`adm sample` on the toy models, quick enough to run often."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from torch import Tensor

from adm_cli.models.fast import FastResBlock
from adm_cli.pictures.images import Pixels, make_grid, open_picture
from adm_cli.sampling.folder import RunFolder
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


def terminal() -> Console:
    """What `console.err` is where stderr is a terminal."""
    return Console(
        stderr=True, force_terminal=True, width=80, highlight=False, soft_wrap=True, emoji=False
    )


def plain_grid(folder: str) -> Pixels:
    """A run's pictures in order, as the last frame of a film shows them."""
    run = RunFolder(Path(folder))
    kept = run.kept(run.read().images)
    return make_grid(np.stack([open_picture(run.path / record["file"])[0] for record in kept]))
