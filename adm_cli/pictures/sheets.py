"""Contact sheets with labelled rows and columns."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from adm_cli.pictures.images import Pixels

_MOST_COLUMNS = 16  # of a sheet with a row a class
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
    images: Sequence[Sequence[Pixels | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    captions: Sequence[Sequence[str]] = (),
) -> Sheet:
    """Pictures [R][C], each uint8 [H, W, 3], or None for a grey one that is missing.

    ``rows`` [R] and ``columns`` [C] are labels, perhaps of several lines, ``captions`` [R][C] stand
    above each picture. A row that is shorter leaves its end empty. All pictures have one size;
    small ones are enlarged by a whole factor, so that no pixel changes.
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
    said = [text for row in captions for text in row]
    wide = max(width * factor, *(size(text)[0] for text in (*columns, *said))) + _GAP
    lift = max((size(text)[1] + _GAP // 2 for text in said), default=0)  # room for a caption
    high = max(height * factor + lift, *(size(text)[1] for text in rows)) + _GAP
    sheet = Image.new("RGB", (beside + wide * len(columns), above + high * len(rows)), _PAPER)
    pen = ImageDraw.Draw(sheet)
    indent = (wide - _GAP - width * factor) // 2
    tops = [above + lift + high * i for i in range(len(rows))]
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
    for top, row_captions in zip(tops, captions, strict=False):
        for left, text in zip(lefts, row_captions, strict=False):
            middle = left + width * factor / 2
            pen.multiline_text(
                (middle, top - _GAP // 2), text, _INK, font=font, anchor="md", align="center"
            )
    missing = np.full((height, width, 3), _MISSING, dtype=np.uint8)
    for top, row in zip(tops, images, strict=True):
        for left, picture in zip(lefts, row, strict=False):
            pixels = missing if picture is None else picture
            large = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
            sheet.paste(Image.fromarray(large), (left, top))
    return Sheet(np.asarray(sheet), tops, lefts, factor)


def class_sheet(pictures: Sequence[Pixels], classes: Sequence[str], seeds: Sequence[str]) -> Pixels:
    """uint8 [H', W', 3]: pictures [N], each uint8 [H, W, 3], by class, in the order they come in.

    Each class has a row with its name, or several; ``""`` is no class. Seeds stand above the
    columns where they are the same in all rows. Of classes with one picture each, the name stands
    above it.
    """
    groups: dict[str, list[int]] = {}
    for i, name in enumerate(classes):
        groups.setdefault(name, []).append(i)
    largest = max(map(len, groups.values()))
    if largest == 1 or len(groups) == 1:
        groups = {"": list(range(len(pictures)))} if largest == 1 else groups
        columns = math.ceil(math.sqrt(len(pictures)))
    else:
        columns = min(largest, _MOST_COLUMNS)
    rows, labels = [], []
    for name, places in groups.items():
        for start in range(0, len(places), columns):
            rows.append(places[start : start + columns])
            labels.append("" if start else _wrapped(name, 24))
    columns = min(columns, max(map(len, rows)))
    heads = [{seeds[row[i]] for row in rows if i < len(row)} for i in range(columns)]
    same = len(groups) > 1 and all(len(head) == 1 for head in heads)
    captions = [[_wrapped(classes[i], 14) for i in row] for row in rows] if largest == 1 else []
    return contact_sheet(
        [[pictures[i] for i in row] for row in rows],
        labels,
        [f"seed {next(iter(head))}" if same else "" for head in heads],
        captions,
    ).pixels


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width, max_lines=3, placeholder=" ..."))
