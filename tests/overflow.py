"""Weights whose every value is finite, and whose network overflows."""

from __future__ import annotations

from pathlib import Path

from adm_cli.checkpoints.format import save_model
from adm_cli.checkpoints.header import ModelInfo
from adm_cli.checkpoints.loading import build_model
from adm_cli.config import ClassifierConfig, UNetConfig
from tests.conftest import TOY_CLASSES, TOY_DIFFUSION, randomise

LOST = 3  # the class whose pictures overflow
LARGE = 3e38  # a float32


def overflowing(
    path: Path,
    config: UNetConfig | ClassifierConfig,
    tensor: str = "label_emb.weight",
    where: int | slice = LOST,
    seed: int = 0,
) -> Path:
    """A toy of ``config``, `LARGE` in rows ``where`` of a tensor; by default of one class."""
    state = dict(randomise(build_model(config), seed).state_dict())
    state[tensor][where] = LARGE
    assert all(bool(value.isfinite().all()) for value in state.values())
    save_model(path, state, ModelInfo(config, TOY_DIFFUSION, TOY_CLASSES))
    return path
