"""Lists and tables that people write: text of any line ends, CSV of any separator, JSON lines.

The one reader of them: what Excel, pandas, shells and Windows make of a list is the same list.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator

from adm_cli.files.budget import MOST_FILES, MOST_TABLE, TooMuchError, check_bytes, counted

_SEPARATORS = "\t;,|"  # the first of them that parts every line; else white space before the last
_BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_REMARK = re.compile(rb"\s*(?:#[ \t][^\n]*|sep=.)(?:\n|\Z)")  # the second is of Excel
_MOST_LINE = 2**20  # bytes
_MOST_CELLS = 8 * MOST_FILES


def decode_text(data: bytes) -> str:
    """UTF-8, or UTF-16 with a byte order mark; every line ends with a newline alone.

    Raises ValueError for what is no text.
    """
    return _decoded(_tidy(data))


def text_lines(data: bytes) -> Iterator[str]:
    """The lines of `decode_text` that are not empty, one by one, with their ends."""
    check_bytes(len(data), MOST_TABLE)
    for line in counted(io.BytesIO(_tidy(data)), "lines", 2 * MOST_FILES):
        check_bytes(len(line), _MOST_LINE)
        if line.strip():
            yield _decoded(line)


def read_rows(data: bytes) -> list[list[str]]:
    """The cells of a table, without empty lines, each without white space around it.

    Cells are parted by tabs, semicolons, commas or bars, whichever parts all lines; without any,
    the last word of a line is its second cell. Remarks in front are passed over. Raises ValueError
    for what is no such table.
    """
    data = _tidy(data)
    while remark := _REMARK.match(data):
        data = data[remark.end() :]
    separator = _separator(lambda: text_lines(data))
    if separator is None:
        words = (line.rsplit(None, 1) for line in text_lines(data))
        return list(counted(words, "rows", MOST_FILES))
    rows: list[list[str]] = []
    cells = 0
    try:
        for row in csv.reader(text_lines(data), delimiter=separator):
            cells += len(row)
            if len(rows) == MOST_FILES or cells > _MOST_CELLS:
                raise TooMuchError(f"over {MOST_FILES:,} rows or {_MOST_CELLS:,} cells")
            if any(tidy := [cell.strip() for cell in row]):
                rows.append(tidy)
    except csv.Error as error:
        raise ValueError(str(error)) from None
    return rows


def _tidy(data: bytes) -> bytes:
    """UTF-8 without marks, with plain newlines; of one character's size, whatever letters."""
    encoding = next((e for mark, e in _BYTE_ORDER_MARKS.items() if data.startswith(mark)), "utf-8")
    if encoding == "utf-16":
        data = data.decode(encoding).encode()
    if b"\0" in data:
        raise ValueError("it holds zero bytes and is no text")
    marks = data.replace(b"\xef\xbb\xbf", b"")
    return marks.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        there = data[max(0, error.start - 10) : error.end + 5]
        shown = there.decode("ascii", "backslashreplace")
        raise ValueError(f"'{shown}' is not UTF-8: save it as UTF-8") from None


def _separator(lines: Callable[[], Iterator[str]]) -> str | None:
    """What parts every line, or the first, which may be a heading of more cells than the rest."""
    first = next(lines(), "")
    for separator in _SEPARATORS:
        if separator in first and all(separator in line for line in lines()):
            return separator
    return next((separator for separator in _SEPARATORS if separator in first), None)
