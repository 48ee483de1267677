"""Where an image's noise comes from: a generator of its own, seeded by its own seed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


def noise_source(seeds: Sequence[int], shape: tuple[int, ...]) -> Callable[[], Tensor]:
    """Standard normal noise [N, *shape] a call, each row from a generator of its own."""
    generators = [torch.Generator().manual_seed(_generator_seed(seed)) for seed in seeds]

    def draw() -> Tensor:  # float32 whatever torch's default is: another type has other numbers
        rows = [
            torch.randn(shape, generator=g, dtype=torch.float32, device="cpu") for g in generators
        ]
        return torch.stack(rows)

    return draw


class Toward(NamedTuple):
    """How far an image's noise is on its way to that of another seed."""

    seed: int
    fraction: float  # 0 to 1


def source_between(
    seeds: Sequence[int], toward: Sequence[Toward], shape: tuple[int, ...]
) -> Callable[[], Tensor]:
    """As `noise_source`, every row on the way from the noise of its seed to that of another.

    Also where it is drawn for a step, so that a sampler that adds noise goes that way, too.
    """
    first, second = noise_source(seeds, shape), noise_source([to.seed for to in toward], shape)
    fractions = [to.fraction for to in toward]
    return lambda: slerp(first(), second(), fractions)


def slerp(a: Tensor, b: Tensor, fractions: Sequence[float]) -> Tensor:
    """The point of the arc from each row of ``a`` [N, ...] to that of ``b``, at its fraction.

    Spherical interpolation (Shoemake 1985): of two independent draws of normal noise it is about
    as long as they are, where a straight line's middle is shorter by the root of two. At 0 and 1
    it is the row itself.
    """
    return torch.stack([_slerp(*row) for row in zip(a, b, fractions, strict=True)])


def _slerp(a: Tensor, b: Tensor, fraction: float) -> Tensor:
    lengths = float(a.double().norm() * b.double().norm())
    angle = math.acos(max(-1.0, min(1.0, float((a.double() * b.double()).sum()) / lengths)))
    whole = math.sin(angle)
    if whole < 1e-6:  # of the same direction
        return (1 - fraction) * a + fraction * b
    return (
        math.sin((1 - fraction) * angle) / whole * a + math.sin(fraction * angle) / whole * b
    )  # fmt: skip


def upsampling_seed(seed: int) -> int:
    """The seed of an upsampler's noise for a picture of ``seed``.

    A hash, so that the two stages' noise is independent though one seed stands for both.
    """
    return _hashed(f"upsampler {seed}")


def noisy_low_res(low_res: Tensor, level: float, seeds: Sequence[int]) -> Tensor:
    """Small images [N, 3, h, w] with Gaussian noise of standard deviation ``level`` on them.

    Drawn anew from a hash of each image's seed: what else is drawn for it stays the same.
    """
    draw = noise_source([_hashed(f"low_res {seed}") for seed in seeds], tuple(low_res.shape[1:]))
    return low_res + level * draw().to(low_res)


def _generator_seed(seed: int) -> int:
    """torch's CPU generator sees 32 bits: seeds beyond are hashed, so that none is its twin."""
    return seed if seed < 2**32 else _hashed(f"seed {seed}")


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")
