"""Contact sheets: every picture is where its labels say, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from adm_cli.pictures.images import Pixels
from adm_cli.pictures.sheets import class_sheet, contact_sheet


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


def test_rows_are_classes() -> None:
    drawn = [picture for row in pictures(4, 3, 64, 64) for picture in row]
    by_class = class_sheet(drawn[:6], list("aabbcc"), list("010101"))
    rows = [drawn[0:2], drawn[2:4], drawn[4:6]]
    assert np.array_equal(by_class, contact_sheet(rows, "abc", ["seed 0", "seed 1"]).pixels)
    mixed = class_sheet(drawn[:5], list("aabac"), list("01234"))
    rows = [[drawn[0], drawn[1], drawn[3]], [drawn[2]], [drawn[4]]]
    assert np.array_equal(mixed, contact_sheet(rows, "abc", [""] * 3).pixels)
    one = class_sheet(drawn[:5], ["x"] * 5, list("01234"))
    rows = [drawn[:3], drawn[3:5]]
    assert np.array_equal(one, contact_sheet(rows, ["x", ""], [""] * 3).pixels)


def test_names_stand_above_pictures_that_are_alone() -> None:
    drawn = [picture for row in pictures(1, 4, 64, 64) for picture in row]
    names = ["a", "b", "a name that is longer than that", "d"]
    rows, captions = [drawn[:2], drawn[2:]], [names[:2], ["a name that is\nlonger than\nthat", "d"]]
    shown = class_sheet(drawn, names, list("0123"))

    sheet = contact_sheet(rows, ["", ""], ["", ""], captions)
    assert np.array_equal(shown, sheet.pixels)
    for top in sheet.tops:
        assert (shown[top - 20 : top, sheet.lefts[0] : sheet.lefts[0] + 64] < 128).any()
