"""Convolutions of 3x3 with a quarter of the multiplications (Lavin and Gray, arXiv 1509.09308).

F(4x4, 3x3): a tile of 4x4 results is made from 6x6 values by 36 products where the definition has
144. The products of each of the 36 places are a group of one convolution of 1x1, which oneDNN
computes at the processor's full rate (torch's matrix products, by MKL, know less of some); so
this beats the best direct convolution where there are channels and pixels enough.

B batch, C and O channels, T tiles.
"""

from __future__ import annotations

from functools import cache
from math import gcd

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SIDE = 4  # of a tile of results
_EDGE = _SIDE + 2  # of the values it is made of
_POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)  # and infinity: 0, 1, -1, 2, -2 err twice as much
LEAST_CHANNELS = 128  # below, changing bases costs what the products save
_PLACES = _EDGE**2
_TILES = 64  # of a call of oneDNN, which for other numbers lays kernels out anew or crawls
_AT_ONCE = 2**21  # values of tiles cut out of maps: few enough for caches


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
    """[O, C, 3, 3] -> as `convolve` takes them, laid out by oneDNN: four times the memory."""
    o, c = weight.shape[:2]
    kernels = _bases()[1] @ weight.permute(2, 3, 0, 1).reshape(9, -1)  # [36, O * C]
    dense = kernels.view(_PLACES * o, c, 1, 1).to_mkldnn()
    shape = [1, _PLACES * c, _TILES, 1]
    reorder = torch._C._nn.mkldnn_reorder_conv2d_weight
    return reorder(dense, [0, 0], [1, 1], [1, 1], _PLACES, shape)  # type: ignore[call-arg]


def convolve(x: Tensor, kernels: Tensor, bias: Tensor | None) -> Tensor:
    """[B, C, H, W] channels-last, float32, and ``kernels`` of `change_kernels` -> [B, O, H, W] so.

    Stride 1, a border of zeros; tiles must fill the maps (`divides`).
    """
    rows = x.permute(0, 2, 3, 1)  # [B, H, W, C]
    b, h, w, c = rows.shape
    o = kernels.shape[0] // _PLACES
    out = rows.new_empty(b, h, w, o)
    across = w // _SIDE
    most = _AT_ONCE // (_PLACES * max(c, o) * across)  # rows of tiles at once
    full = _TILES // gcd(_TILES, across)  # as many fill each call
    most = max(most - most % full, min(most, full))
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
    """[B, H + 2, W + 2, C] and kernels -> [B, H, W, O]."""
    b, h, w, c = padded.shape
    down, across = (h - 2) // _SIDE, (w - 2) // _SIDE
    of_image, of_row, of_pixel, _ = padded.stride()
    shape = (b, down, across, _EDGE, _EDGE, c)
    steps = (of_image, _SIDE * of_row, _SIDE * of_pixel, of_row, of_pixel, 1)
    tiles = padded.as_strided(shape, steps).reshape(-1, _PLACES, c)  # [T, 36, C]
    results = torch.cat(
        [_results(part, kernels) for part in torch.split(tiles, _TILES)]
    )  # [T, 16, O]
    return (
        results.view(b, down, across, _SIDE, _SIDE, -1)
        .permute(0, 1, 3, 2, 4, 5)
        .reshape(b, h - 2, w - 2, -1)
    )


def _results(tiles: Tensor, kernels: Tensor) -> Tensor:
    """Of up to 64 tiles [T, 36, C] -> [T, 16, O]."""
    of_tiles, _, of_results = _bases()
    count, _, c = tiles.shape
    if count < _TILES:
        tiles = F.pad(tiles, (0, 0, 0, 0, 0, _TILES - count))
    changed = torch.bmm(of_tiles.expand(_TILES, -1, -1), tiles)
    columns = changed.view(1, _TILES, 1, _PLACES * c).permute(0, 3, 1, 2)  # [1, 36C, 64, 1]
    products = torch.ops.mkldnn._convolution_pointwise(
        columns, kernels, None, [0, 0], [1, 1], [1, 1], _PLACES, "none", [], ""
    )
    products = products.permute(0, 2, 3, 1).view(_TILES, _PLACES, -1)  # [64, 36, O]
    return torch.bmm(of_results.expand(count, -1, -1), products[:count])
