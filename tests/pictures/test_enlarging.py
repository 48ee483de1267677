"""Pictures made twice as large without a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from adm_cli.pictures.enlarging import enlarge_picture
from adm_cli.pictures.images import Pixels


def smooth(height: int, width: int) -> Pixels:
    """Waves of eight pixels and more, far from 0 and 255; each channel its own."""
    y, x, channel = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    waves = np.sin(2 * np.pi * (x + channel) / 8) + np.cos(2 * np.pi * y / (9 + channel))
    return (128 + 40 * waves).round().astype(np.uint8)


def left(large: Pixels, small: Pixels) -> float:
    """The largest difference of averages of 2x2 pixels to ``small``."""
    height, width, channels = small.shape
    averages = large.reshape(height, 2, width, 2, channels).mean((1, 3))
    return float(np.abs(averages - small).max())


def seen(pixels: NDArray[Any]) -> list[NDArray[Any]]:
    """On its side, upside down and in a mirror."""
    return [pixels.swapaxes(0, 1), pixels[::-1], pixels[:, ::-1]]


@pytest.mark.parametrize("method", ["bicubic", "lanczos"])
def test_the_filter_of_pillow(method: str) -> None:
    """Not square, so that the sides cannot be exchanged."""
    values = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    filter_ = Image.Resampling[method.upper()]
    expected = np.asarray(Image.fromarray(values).resize((10, 6), filter_))
    assert np.array_equal(enlarge_picture(values, method), expected)


@pytest.mark.parametrize("size", [(12, 20), (20, 12)])
def test_what_is_back_projected_averages_to_the_small_picture(size: tuple[int, int]) -> None:
    small = smooth(*size)
    large = enlarge_picture(small, "back-projection")
    assert large.shape == (2 * size[0], 2 * size[1], 3)
    assert left(large, small) < 1  # rounding, and the last of the passes
    assert left(large, small) < left(enlarge_picture(small, "bicubic"), small) / 4


def test_back_projection_keeps_what_is_even_and_does_not_tell_the_sides_apart() -> None:
    flat = np.full((5, 7, 3), (0, 90, 255), dtype=np.uint8)
    assert np.array_equal(enlarge_picture(flat, "back-projection"), flat.repeat(2, 0).repeat(2, 1))
    small = np.random.default_rng(1).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    large = enlarge_picture(small, "back-projection").astype(int)
    for moved, expected in zip(seen(small), seen(large), strict=True):
        again = enlarge_picture(np.ascontiguousarray(moved), "back-projection")
        assert np.abs(again - expected).max() <= 1  # sums in another order, rounded


def test_one_pixel_can_be_back_projected() -> None:
    pixel = np.array([[[3, 200, 77]]], dtype=np.uint8)
    large = enlarge_picture(pixel, "back-projection")
    assert np.array_equal(large, np.broadcast_to(pixel, (2, 2, 3)))
