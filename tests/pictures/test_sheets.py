"""Contact sheets: every picture is where its labels say, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from adm_cli.pictures.images import Pixels
from adm_cli.pictures.sheets import contact_sheet


def pictures(rows: int, columns: int, height: int, width: int) -> list[list[Pixels]]:
    rng = np.random.default_rng(0)
    shape = (rows, columns, height, width, 3)
    return [list(row) for row in rng.integers(0, 256, shape, dtype=np.uint8)]


@pytest.mark.parametrize(("height", "width", "factor"), [(8, 8, 8), (32, 48, 2), (70, 64, 1)])
def test_pictures_are_whole_and_where_they_belong(height: int, width: int, factor: int) -> None:
    images = pictures(3, 4, height, width)
    labels = ["goldfish\nseed 0", "x", "a name that is longer than the picture is wide"]
    columns = ["scale 0", "scale 10\nddim25", "a wide column label", ""]
    sheet = contact_sheet(images, labels, columns)
    assert sheet.factor == factor
    for top, row in zip(sheet.tops, images, strict=True):
        for left, picture in zip(sheet.lefts, row, strict=True):
            part = sheet.pixels[top : top + factor * height, left : left + factor * width]
            for i in range(factor):  # every pixel became a square
                assert np.array_equal(part[i::factor, (i * 3) % factor :: factor], picture)
    # nothing overlaps, and the labels leave ink beside and above
    assert min(np.diff(sheet.tops)) >= factor * height
    assert min(np.diff(sheet.lefts)) >= factor * width
    assert (sheet.pixels[: sheet.tops[0]] < 128).any()
    assert (sheet.pixels[sheet.tops[0] :, : sheet.lefts[0]] < 128).any()


def test_missing_pictures_are_grey() -> None:
    ((one, two),) = pictures(1, 2, 64, 64)
    whole, part = (contact_sheet([row], ["a"], ["b", "c"]) for row in ([one, two], [one, None]))
    assert part.lefts == whole.lefts
    top, left = part.tops[0], part.lefts[1]
    assert (part.pixels[top : top + 64, left : left + 64] == 230).all()
    assert np.array_equal(part.pixels[:, :left], whole.pixels[:, :left])
