"""Weights for Inception that are a rule, not a file."""

from __future__ import annotations

import math
import zlib
from functools import cache

import torch
from torch import Tensor

from adm_cli.evaluation.inception import InceptionV3


@cache
def rule_weights() -> dict[str, Tensor]:
    """By each tensor's name and shape; the golden outputs were made with the same."""
    with torch.device("meta"):
        state = InceptionV3().state_dict()
    return {name: _draw(name, tuple(value.shape)) for name, value in state.items()}


def _draw(name: str, shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if name.endswith("bn.running_var"):
        return 0.5 + torch.rand(shape, generator=generator)
    if name.endswith("bn.weight"):
        return 0.8 + 0.4 * torch.rand(shape, generator=generator)
    normal = torch.randn(shape, generator=generator)
    if len(shape) > 1:
        return normal * math.sqrt(2 / math.prod(shape[1:]))
    return 0.1 * normal
