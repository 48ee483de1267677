"""What a file or text that others made may cost: the one rule of every reader.

Bytes, entries, depth and the size of numbers are bounded here, before they are spent. All
that goes beyond raises `TooMuchError`, a ValueError, which every reader tells in one line as it
tells of damage. No reader calls a parser of its own: JSON is read by `parse_json`, archives
through a `LimitedFile`, whatever comes one by one through `counted`.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import IO, Any, TypeVar

from adm_cli.errors import kind_of, trim

MOST_TEXT = 2**24  # bytes of a text: nobody writes a larger one by hand
MOST_TABLE = 2**27  # bytes of a table: two rows for each of ImageNet's pictures
MOST_ENTRIES = 1_000_000  # of a text
MOST_FILES = 1_500_000  # of an archive, or rows of a table: ImageNet, and room
MOST_DEPTH = 32  # of brackets within brackets; what is written out again must stay below Python's
MOST_WHOLE = 2**64  # no whole number is as large: seeds are below
MOST_DIGITS = 20  # of a whole number in a text: of many longer ones, all may hash alike as keys
MOST_READS = 1_000_000  # of one picture, or of what stands before a file in an archive

_BLOCK = 2**20
_MARKS = b'"[]{},'
_OTHERS = bytes(set(range(256)) - set(_MARKS))
_STEP = {**dict.fromkeys(b"[{", 1), **dict.fromkeys(b"]}", -1), ord(","): 0}

T = TypeVar("T")


class TooMuchError(ValueError):
    """More than a file may cost."""


def parse_json(
    text: str | bytes,
    *,
    most: int = MOST_TEXT,
    entries: int = MOST_ENTRIES,
    depth: int = MOST_DEPTH,
    object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """As `json.loads`, of ``most`` bytes, so many ``entries`` in all and a nesting of ``depth``.

    Whole numbers end below `MOST_WHOLE`, others are finite or say NaN or Infinity in words. Raises
    ValueError, and nothing else, for what is no such JSON.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    check_bytes(len(data), most)
    if not isinstance(text, str):
        text = data.decode(json.detect_encoding(data), "surrogatepass")
        data = text.encode("utf-8", "surrogatepass")
    _check_outline(data, entries, depth)
    decoder = _DECODER
    if object_pairs_hook is not None:
        decoder = _decoder(object_pairs_hook)
    try:
        return decoder.decode(text.removeprefix("\ufeff"))
    except RecursionError:  # of whatever Python, should the outline say otherwise
        raise TooMuchError(f"over {depth} brackets in one another") from None


def _check_outline(data: bytes, entries: int, depth: int) -> None:
    """Counts the brackets and commas that stand in no string."""
    if len(data) <= entries and data.count(b"[") + data.count(b"{") <= depth:
        return
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    data = data.translate(None, _OTHERS)
    inside, outline = 0, bytearray()
    for start in range(0, len(data), _BLOCK):
        parts = data[start : start + _BLOCK].split(b'"')
        outline += b"".join(parts[inside::2])
        inside ^= (len(parts) - 1) & 1
        if len(outline) > 2 * entries:  # a bracket is closed, too
            raise TooMuchError(f"over {entries:,} entries")
    if sum(outline.count(mark) for mark in b",[{") > entries:
        raise TooMuchError(f"over {entries:,} entries")
    if max(accumulate(map(_STEP.__getitem__, outline)), default=0) > depth:
        raise TooMuchError(f"over {depth} brackets in one another")


def _whole(digits: str) -> int:
    if len(digits) > 21 or abs(number := int(digits)) >= MOST_WHOLE:
        raise TooMuchError(f"the number {digits:.24}... is too large")
    return number


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise TooMuchError(f"the number {digits:.24} is too large")
    return number


def _decoder(hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> json.JSONDecoder:
    return json.JSONDecoder(parse_int=_whole, parse_float=_finite, object_pairs_hook=hook)


_DECODER = _decoder()  # making one takes as long as reading a line of a manifest


def check_bytes(size: int, most: int) -> None:
    """Raises TooMuchError for more bytes than ``most``."""
    if size > most:
        shown = f"{most / 1e6:,.0f} MB" if most >= 10**6 else f"{most:,} bytes"
        raise TooMuchError(f"over {shown} are too many")


def counted(items: Iterable[T], what: str, most: int = MOST_ENTRIES) -> Iterator[T]:
    """``items``; raises TooMuchError, naming ``what`` they are, when more than ``most`` come."""
    for count, item in enumerate(items):
        if count >= most:
            raise TooMuchError(f"over {most:,} {what}")
        yield item


def whole_number(value: object, least: int, most: int) -> int:
    """``value``, a whole number from ``least`` to ``most``; raises ValueError for anything else."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{_short(value)}, expected a whole number from {least} to {most}")
    return value


def whole_text(text: str) -> int:
    """The whole number that a text is; raises ValueError for anything else, or over 20 digits."""
    if len(text) > MOST_DIGITS + 1:
        raise TooMuchError(f"{text:.24}..., expected a number of {MOST_DIGITS} digits at most")
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{trim(text, 24)}, expected a whole number") from None


def finite_number(value: object) -> float:
    """``value`` as a float; raises ValueError for what is no number, not finite, or too large."""
    try:
        number = float(value) if type(value) in (int, float) else math.nan  # type: ignore[arg-type]
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{_short(value)}, expected a finite number")
    return number


def _short(value: object) -> str:
    """Any value for a message: Python refuses to write out whole numbers of 5,000 digits."""
    if type(value) is int and abs(value) >= 10**40:
        return "a number of over 40 digits"
    return f"{trim(value, 40)}" if isinstance(value, (str, int, float)) else kind_of(value)


def few_reads(file: IO[bytes]) -> IO[bytes]:
    """``file``, of which `MOST_READS` parts may be read; then TooMuchError is raised."""
    read, left = file.read, iter(range(MOST_READS))

    def counting(size: int = -1) -> bytes:
        if next(left, None) is None:
            raise TooMuchError(f"over {MOST_READS:,} parts")
        return read(size)

    file.read = counting  # type: ignore[method-assign]
    return file


class LimitedFile:
    """A binary file whose every single read is of ``most`` bytes at most, for libraries that take
    a length from the file and memory for it at once.

    ``mark`` begins every entry of what is read so; more of them than ``entries`` are refused.
    ``in_all`` bytes may be read between two calls of `renew`, where that is given.
    """

    def __init__(
        self,
        file: IO[bytes],
        most: int,
        *,
        mark: bytes = b"",
        entries: int = MOST_FILES,
        in_all: int | None = None,
    ) -> None:
        self.file, self.most, self.mark, self.entries = file, most, mark, entries
        self.in_all = in_all
        self.renew()
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    def renew(self) -> None:
        """Begins to count what is read anew."""
        self.read_since = 0

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size < _BLOCK:  # of more than is there, or too much, no memory is taken
            here = self.tell()
            left = self.seek(0, io.SEEK_END) - here
            self.seek(here)
            check_bytes(left if size < 0 else size, self.most)
            size = left if size < 0 else min(size, left)
        check_bytes(size, self.most)
        data = self.file.read(size)
        self.read_since += len(data)
        if self.in_all is not None:
            check_bytes(self.read_since, self.in_all)
        if self.mark and data.count(self.mark) > self.entries:
            raise TooMuchError(f"over {self.entries:,} files")
        return data

    def readline(self) -> bytes:
        line = self.file.readline(self.most + 1)
        check_bytes(len(line), self.most)
        return line

    def seekable(self) -> bool:
        return True
