"""How an upsampler's small pictures are made in training: by several filters, and noisy.

So that what it enlarges later, the pictures of another model, is no stranger to it (conditioning
augmentation: arXiv 2106.15282, section 3). B images, C channels, h w the small pictures' size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from adm_cli.config import UNetConfig
from adm_cli.devices import send
from adm_cli.training.config import TrainingConfig
from adm_cli.training.randomness import image_noise, uniforms


def _box(x: float) -> float:
    return float(-0.5 < x <= 0.5)


def _triangle(x: float) -> float:
    return max(0.0, 1 - abs(x))


def _cubic(x: float) -> float:
    """Keys' kernel with a = -0.5, as of Pillow and of torch's antialiased bicubic."""
    x = abs(x)
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    return ((-0.5 * x + 2.5) * x - 4) * x + 2 if x < 2 else 0.0


def _lanczos(x: float) -> float:
    if x == 0:
        return 1.0
    return math.sin(math.pi * x) * math.sin(math.pi * x / 3) * 3 / (math.pi * x) ** 2 * (abs(x) < 3)


# Each a function and how far it reaches.
KERNELS: dict[str, tuple[Callable[[float], float], float]] = {
    "area": (_box, 0.5),
    "bilinear": (_triangle, 1.0),
    "bicubic": (_cubic, 2.0),
    "lanczos": (_lanczos, 3.0),
}


@lru_cache(maxsize=64)
def kernel_weights(large: int, small: int, kernel: str) -> Tensor:
    """Weights [small, large], float64, that shrink a row of values, as Pillow's filter does."""
    function, radius = KERNELS[kernel]
    scale = large / small
    rows = torch.zeros(small, large, dtype=torch.float64)
    for i in range(small):
        center = (i + 0.5) * scale
        first = max(0, int(center - radius * scale + 0.5))
        last = min(large, int(center + radius * scale + 0.5))
        for j in range(first, last):
            rows[i, j] = function((j + 0.5 - center) / scale)
    return rows / rows.sum(dim=1, keepdim=True)


@lru_cache(maxsize=64)
def _weights_beside(
    large: int, small: int, kernel: str, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """`kernel_weights` where the images are, sent there once."""
    return send(kernel_weights(large, small, kernel), device, dtype)


def shrink(x: Tensor, size: tuple[int, int], kernel: str) -> Tensor:
    """[B, C, H, W] at ``size`` (h, w), by a filter of `KERNELS`."""
    rows, columns = (
        _weights_beside(large, small, kernel, x.device, x.dtype)
        for large, small in zip(x.shape[2:], size, strict=True)
    )
    return rows @ x @ columns.T  # [B, C, h, w]


def small_size(config: UNetConfig, x: Tensor) -> tuple[int, int]:
    """Of the small pictures of ``x`` [B, C, H, W], which may be crops."""
    assert config.low_res_size is not None
    height, width = (
        side * low // whole
        for side, low, whole in zip(
            x.shape[2:], config.low_res_size, config.image_size, strict=True
        )
    )
    return height, width


def low_resolution(x: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, C, H, W] made small by averaging areas, the upsampler's input where nothing varies."""
    return F.interpolate(x, size, mode="area")


def crop_squares(x: Tensor, uniform: Tensor, side: int) -> Tensor:
    """A square [B, C, side, side] of each image, where uniform numbers [B, 2] say."""
    room = torch.tensor([x.shape[2] - side + 1, x.shape[3] - side + 1])
    corners = (uniform * room).long().tolist()
    parts = [
        image[:, top : top + side, left : left + side]
        for image, (top, left) in zip(x, corners, strict=True)
    ]
    return torch.stack(parts)


def degraded(
    x: Tensor, config: UNetConfig, training: TrainingConfig, step: int, places: slice
) -> tuple[Tensor | None, Tensor | None]:
    """The small pictures of ``x``, the images ``places`` of a step's batch, and their noise [B].

    None where the one is only averaged areas, the other is not told the network.
    """
    seed, count, largest = training.seed, training.batch_size, config.low_res_noise
    if config.low_res_size is None or not (training.vary_kernel or largest is not None):
        return None, None
    size = small_size(config, x)
    small = low_resolution(x, size)
    if training.vary_kernel:
        chosen = (uniforms(seed, step, "kernels", count)[places] * len(KERNELS)).long().tolist()
        names = list(KERNELS)
        small = torch.cat(
            [shrink(x[i : i + 1], size, names[kernel]) for i, kernel in enumerate(chosen)]
        )
    if largest is None:
        return small, None
    level = (uniforms(seed, step, "low_res_noise", count)[places] * largest).to(x)
    shape = tuple(small.shape[1:])
    numbers = range(places.start, places.stop)
    noise = image_noise(seed, f"low_res {step}", numbers, shape, x.device)
    return small + level[:, None, None, None] * noise, level
