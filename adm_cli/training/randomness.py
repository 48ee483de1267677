"""Every random number of training is a function of the seed and the step: nothing to save, and
a run that was stopped goes on exactly as if it had not been.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def key(seed: int, *parts: object) -> int:
    """A seed from 0 to 2^64 - 1 for one purpose; different parts give unrelated seeds."""
    text = " ".join(map(str, (seed, *parts))).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def generator(seed: int, *parts: object, device: torch.device | str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(key(seed, *parts))


def uniforms(seed: int, step: int, purpose: str, *shape: int) -> Tensor:
    """Uniform numbers in [0, 1), float32, for the whole batch of a step."""
    return torch.rand(shape, generator=generator(seed, purpose, step), dtype=torch.float32)


def image_noise(
    seed: int, purpose: object, places: range, shape: tuple[int, ...], device: torch.device
) -> Tensor:
    """Standard normal noise [len(places), *shape], a generator an image.

    So a process may draw its share of a batch alone, and sees what one process would.
    """
    return torch.stack(
        [
            torch.randn(
                shape,
                generator=generator(seed, "noise", purpose, i, device=device),
                device=device,
                dtype=torch.float32,
            )
            for i in places
        ]
    )
