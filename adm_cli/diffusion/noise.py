"""Where an image's noise comes from: a generator of its own, seeded by its own seed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def noise_source(seeds: Sequence[int], shape: tuple[int, ...]) -> Callable[[], Tensor]:
    """Standard normal noise [N, *shape] a call, each row from a generator of its own."""
    generators = [torch.Generator().manual_seed(_generator_seed(seed)) for seed in seeds]
    return lambda: torch.stack([torch.randn(shape, generator=g) for g in generators])


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
