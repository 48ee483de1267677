"""Pictures made twice as large without a model."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adm_cli.checkpoints.presets import ENLARGEMENT_FACTOR
from adm_cli.pictures.images import Pixels

_Values = NDArray[np.float64]

# Keys' cubic with a = -0.5, as Pillow's, a quarter of a pixel right of a pixel's centre: weights of
# the pixels from -2 to 2. A quarter to the left it is mirrored. All are whole numbers of 128ths.
_RIGHT = np.array([0.0, -9.0, 111.0, 29.0, -3.0]) / 128
_LEFT = _RIGHT[::-1]
_PASSES = 4  # of the correction: each leaves at most 5/16 of what the one before left


def enlarge_picture(pixels: Pixels, method: str) -> Pixels:
    """uint8 [H, W, 3] enlarged to [2H, 2W, 3] by a method of `presets.ENLARGEMENTS`.

    The same values on every machine. ``bicubic`` and ``lanczos`` are Pillow's filters;
    ``back-projection`` is bicubic, sharpened until averages of 2x2 pixels are ``pixels`` again
    (iterative back-projection, Irani & Peleg 1991, here along each side by itself).
    """
    if method == "back-projection":
        return _back_projected(pixels)
    height, width = (ENLARGEMENT_FACTOR * side for side in pixels.shape[:2])
    filter_ = {"bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}[method]
    return np.asarray(Image.fromarray(pixels).resize((width, height), filter_))


def _back_projected(pixels: Pixels) -> Pixels:
    values = pixels.astype(np.float64)
    for axis in (0, 1):
        values = _enlarged(values, axis)
    return np.rint(values).clip(0, 255).astype(np.uint8)


def _enlarged(values: _Values, axis: int) -> _Values:
    """Twice as long along ``axis``: bicubic of values whose pairs then average to ``values``.

    Enlarging, then averaging pairs, is one filter of the small values: they are corrected.
    """
    weighted = partial(_weighted, axis=axis)
    small = values
    for _ in range(_PASSES):
        small = small + (values - weighted(small, weights=(_LEFT + _RIGHT) / 2))
    pairs = np.stack([weighted(small, weights=_LEFT), weighted(small, weights=_RIGHT)], axis + 1)
    shape = list(values.shape)
    shape[axis] *= 2
    return pairs.reshape(shape)


def _weighted(values: _Values, *, axis: int, weights: _Values) -> _Values:
    """Sums of five neighbours along ``axis``; beyond the edge the picture is mirrored."""
    around = [(2, 2) if side == axis else (0, 0) for side in range(values.ndim)]
    padded = np.pad(values, around, mode="symmetric")
    length, total = values.shape[axis], np.zeros_like(values)
    for start, weight in enumerate(weights):  # one product after the other: no fused rounding
        total += weight * padded.take(range(start, start + length), axis)
    return total
