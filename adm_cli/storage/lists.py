"""Lists and tables that people write: text of any line ends, CSV of any separator, JSON lines.

The one reader of them: what Excel, pandas, shells and Windows make of a list is the same list.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

_SEPARATORS = "\t;,"  # the first of them that parts every line; else white space before the last
_BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


def decode_text(data: bytes) -> str:
    """UTF-8, or UTF-16 with a byte order mark; every line ends with a newline alone.

    Raises ValueError for what is no text.
    """
    encoding = next((e for mark, e in _BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8")
    text = data.decode(encoding)
    if "\0" in text:
        raise ValueError("it holds zero bytes and is no text")
    return text.replace("\ufeff", "").replace("\r\n", "\n").replace("\r", "\n")


def read_rows(data: bytes) -> list[list[str]]:
    """The cells of a table, without empty lines, each without white space around it.

    Cells are parted by tabs, semicolons or commas, whichever parts all lines; without any, the
    last word of a line is its second cell. Raises ValueError for what is no such table.
    """
    lines = [line for line in decode_text(data).split("\n") if line.strip()]
    separator = _separator(lines)
    if separator is None:
        return [line.rsplit(None, 1) for line in lines]
    try:
        rows = list(csv.reader(io.StringIO("\n".join(lines)), delimiter=separator))
    except csv.Error as error:
        raise ValueError(str(error)) from None
    tidy = [[cell.strip() for cell in row] for row in rows]
    return [row for row in tidy if any(row)]


def _separator(lines: Sequence[str]) -> str | None:
    """What parts every line, or the first, which may be a heading of more cells than the rest."""
    for only in (lines, lines[:1]):
        for separator in _SEPARATORS:
            if only and all(separator in line for line in only):
                return separator
    return None
