"""Convolutions of 3x3 with a quarter of the multiplications (Lavin and Gray, arXiv 1509.09308).

F(4x4, 3x3): a tile of 4x4 results is made from 6x6 values by 36 products where the definition has
144. Tiles, kernels and products are changed of basis by matrix products, which a CPU does at its
full rate; so this beats the best direct convolution where there are channels and pixels enough.

B batch, C and O channels, T tiles.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SIDE = 4  # of a tile of results
_EDGE = _SIDE + 2  # of the values it is made of
_POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)  # and infinity: 0, 1, -1, 2, -2 err twice as much
LEAST_CHANNELS = 128  # below, changing bases costs what the products save
_AT_ONCE = 2**21  # values of changed tiles: few enough for caches, many for matrix products


@cache
def _bases() -> tuple[Tensor, Tensor, Tensor]:
    """Of tiles [36, 36], kernels [36, 9] and results [16, 36]: Toom and Cook's, for both axes."""
    points = torch.tensor(_POINTS, dtype=torch.float64, device="cpu")

    def values_of_polynomials(terms: int) -> Tensor:  # at the points and infinity
        at_infinity = torch.eye(terms, dtype=torch.float64, device="cpu")[-1:]
        return torch.cat(
            [points[:, None] ** torch.arange(terms, device="cpu"), at_infinity]
        )  # [6, terms]

    tiles = torch.linalg.inv(values_of_polynomials(_EDGE)).T
    kernels, results = values_of_polynomials(3), values_of_polynomials(_SIDE).T
    of_tiles, of_kernels, of_results = (
        torch.kron(m, m).float().contiguous() for m in (tiles, kernels, results)
    )
    return of_tiles, of_kernels, of_results


def suits(convolution: nn.Conv2d) -> bool:
    """Whether `convolve` can take its place and is faster on large maps."""
    channels = min(convolution.in_channels, convolution.out_channels)
    return convolution.kernel_size == (3, 3) and channels >= LEAST_CHANNELS


def divides(height: int, width: int) -> bool:
    """Whether tiles fill a map of that size."""
    return height % _SIDE == width % _SIDE == 0


def change_kernels(weight: Tensor) -> Tensor:
    """[O, C, 3, 3] -> [36, C, O]: four times the memory."""
    o, c = weight.shape[:2]
    return (_bases()[1] @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(-1, c, o)


def convolve(x: Tensor, kernels: Tensor, bias: Tensor | None) -> Tensor:
    """[B, C, H, W] channels-last, float32, and kernels of `change_kernels` -> [B, O, H, W] so.

    Stride 1, a border of zeros; tiles must fill the maps (`divides`).
    """
    rows = x.permute(0, 2, 3, 1)  # [B, H, W, C]
    b, h, w, c = rows.shape
    o = kernels.shape[-1]
    out = rows.new_empty(b, h, w, o)
    most = _AT_ONCE // (_EDGE**2 * max(c, o) * (w // _SIDE))  # rows of tiles at once
    images, height = max(1, most // (h // _SIDE)), _SIDE * max(1, min(most, h // _SIDE))
    for i in range(0, b, images):
        for top in range(0, h, height):
            part = slice(i, i + images), slice(top, top + height)
            out[part] = _band(_with_border(rows[part[0]], top, height), kernels)
    if bias is not None:
        out += bias
    return out.permute(0, 3, 1, 2)


def _with_border(rows: Tensor, top: int, height: int) -> Tensor:
    """``height`` rows (fewer at the end) of [B, H, W, C] and one more on each of the four sides,
    zeros beyond the map."""
    h = rows.shape[1]
    bottom = min(top + height, h)
    inner = rows[:, max(top - 1, 0) : bottom + 1]
    return F.pad(inner, (0, 0, 1, 1, int(top == 0), int(bottom == h)))


def _band(padded: Tensor, kernels: Tensor) -> Tensor:
    """[B, H + 2, W + 2, C] and [36, C, O] -> [B, H, W, O]."""
    b, h, w, c = padded.shape
    down, across, o = (h - 2) // _SIDE, (w - 2) // _SIDE, kernels.shape[-1]
    of_image, of_row, of_pixel, _ = padded.stride()
    shape = (_EDGE, _EDGE, b, down, across, c)
    steps = (of_row, of_pixel, of_image, _SIDE * of_row, _SIDE * of_pixel, 1)
    tiles = padded.as_strided(shape, steps).reshape(_EDGE**2, -1)  # [36, T * C]
    of_tiles, _, of_results = _bases()
    tiles = (of_tiles @ tiles).view(_EDGE**2, -1, c)
    results = of_results @ torch.bmm(tiles, kernels).view(_EDGE**2, -1)  # [16, T * O]
    return (
        results.view(_SIDE, _SIDE, b, down, across, o)
        .permute(2, 3, 0, 4, 1, 5)
        .reshape(b, h - 2, w - 2, o)
    )
