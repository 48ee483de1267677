"""Contact sheets with labelled rows and columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from adm_cli.pictures.images import Pixels

_SMALLEST = 64  # pixels of a picture's longer side; smaller ones are enlarged by a whole factor
_GAP = 6
_FONT_SIZE = 13
_PAPER, _INK, _MISSING = (255, 255, 255), (0, 0, 0), (230, 230, 230)


class Sheet(NamedTuple):
    """A contact sheet, and where its pictures are."""

    pixels: Pixels  # uint8 [H', W', 3]
    tops: list[int]  # of the rows
    lefts: list[int]  # of the columns
    factor: int  # every pixel of a picture is a square of this side


def contact_sheet(
    images: Sequence[Sequence[Pixels | None]], rows: Sequence[str], columns: Sequence[str]
) -> Sheet:
    """Pictures [R][C], each uint8 [H, W, 3], or None for a grey one that is missing.

    ``rows`` [R] and ``columns`` [C] are labels, perhaps of several lines. All pictures have one
    size; small ones are enlarged by a whole factor, so that no pixel changes.
    """
    there = [picture for row in images for picture in row if picture is not None]
    height, width = there[0].shape[:2]
    factor = max(1, math.ceil(_SMALLEST / max(height, width)))
    font = ImageFont.load_default(size=_FONT_SIZE)
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))

    def size(text: str) -> tuple[int, int]:
        _, _, right, bottom = measure.multiline_textbbox((0, 0), text, font=font)
        return math.ceil(right), math.ceil(bottom)

    beside = max(size(text)[0] for text in rows) + 2 * _GAP
    above = max(size(text)[1] for text in columns) + 2 * _GAP
    wide = max(width * factor, *(size(text)[0] for text in columns)) + _GAP
    high = max(height * factor, *(size(text)[1] for text in rows)) + _GAP
    sheet = Image.new("RGB", (beside + wide * len(columns), above + high * len(rows)), _PAPER)
    pen = ImageDraw.Draw(sheet)
    indent = (wide - _GAP - width * factor) // 2
    tops = [above + high * i for i in range(len(rows))]
    lefts = [beside + wide * i + indent for i in range(len(columns))]
    for left, text in zip(lefts, columns, strict=True):
        middle = left + width * factor / 2
        pen.multiline_text(
            (middle, above - _GAP), text, _INK, font=font, anchor="md", align="center"
        )
    for top, text in zip(tops, rows, strict=True):
        middle = top + height * factor / 2
        pen.multiline_text(
            (beside - _GAP, middle), text, _INK, font=font, anchor="rm", align="right"
        )
    missing = np.full((height, width, 3), _MISSING, dtype=np.uint8)
    for top, row in zip(tops, images, strict=True):
        for left, picture in zip(lefts, row, strict=True):
            pixels = missing if picture is None else picture
            large = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
            sheet.paste(Image.fromarray(large), (left, top))
    return Sheet(np.asarray(sheet), tops, lefts, factor)
