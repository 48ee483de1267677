"""What a person sees: results on stdout, everything else on stderr."""

from __future__ import annotations

import io
import json
import math
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console

err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
out = Console(highlight=False, soft_wrap=True, emoji=False)

INTERRUPTED = 128 + signal.SIGINT  # exit code

_LONGEST = 1200  # of an error, in characters
_LONGEST_WORD = 300  # no path is as long
_MOST = 2**18  # looked at: more than an argument can have, what follows one is shown
_LONG = re.compile(rf"\S{{{_LONGEST_WORD + 3},}}")
_WORD = re.compile(r"""(?<!\S)(?:'[^']*'|"[^"]*")(?:[.,:;)]\S*)?(?!\S)|\S+""")


def on_terminal() -> bool:
    """Whether a person sees what goes to stdout as it comes."""
    return sys.stdout.isatty()


def note(text: str) -> None:
    """One line for a person, on stderr."""
    say(f"adm: {one_line(text)}")


def print_json(value: Mapping[str, Any]) -> None:
    """One object on one line; null for NaN and infinities, which JSON has not."""
    print(json.dumps(_finite(value), allow_nan=False), flush=True)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns on stdout: the first to the left, numbers to the right."""
    lines = [[one_line(cell) for cell in row] for row in (heading, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heading))]
    for line in lines:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        print("  ".join(cells).rstrip())


def fail(error: BaseException) -> None:
    """One line on stderr, without a traceback; what a file or name of megabytes says is cut."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename or 'the output cannot be written'}"
    text = _LONG.sub(lambda found: f"{found[0][:_LONGEST_WORD]}...", text[:_MOST])
    text = one_line(text)
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST - 4]} ..."
    say(f"adm: error: {text}", style="red")


def say(text: str, **how: Any) -> None:
    """On stderr; a terminal gets no word cut in two that fits into a row."""
    err.print(at_words(text, err.width) if err.is_terminal else text, markup=False, **how)


def at_words(text: str, width: int) -> str:
    """``text`` with rows of ``width`` columns filled up by blanks where the next word is too long.

    Not broken by line ends: copied from a terminal it is one line still, and a command runs. What
    stands in quotes is one word, to which no blanks are added.
    """
    rows, column = "", 0
    for word in _WORD.findall(text):
        length = cell_len(word)
        blanks = 1 if rows else 0
        if column + blanks + length >= width and length < width:
            blanks, column = width - column, 0
        else:
            column += blanks
        rows += " " * blanks + word
        column = (column + length) % width
    return rows


def take_back(text: str) -> None:
    """Removes what was written last to the terminal, on the same line."""
    if text:
        back = "\b" * len(text)
        sys.stderr.write(f"{back}{' ' * len(text)}{back}")
        sys.stderr.flush()


def one_line(text: str) -> str:
    """``text`` on one line, with nothing in it that a terminal would obey."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def debugging() -> bool:
    return os.environ.get("ADM_DEBUG", "0") not in ("", "0")


class _Patient(io.FileIO):
    """What cannot be written is lost: a full disk or a closed pipe for messages stops no work."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def prepare_streams() -> None:
    """The standard streams, fit for any caller and any file name.

    One that the caller closed leads nowhere; else a picture's file could get its number, and
    whatever a library prints.
    """
    for handle, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(handle)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(handle, mode, closefd=False))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = io.TextIOWrapper(
            io.BufferedWriter(_Patient(2, "wb", closefd=False)),
            encoding=sys.stderr.encoding,
            errors=sys.stderr.errors,
            line_buffering=True,
        )


def flush(*, quiet: bool) -> int:
    """Writes out what was printed; returns an exit code."""
    try:
        sys.stdout.flush()
        return 0
    except BrokenPipeError:  # whoever read it had enough
        _hush()
    except OSError as error:
        _hush()
        if not quiet:
            fail(error)
    return 1


def _hush() -> None:
    """Nothing more can be printed, so nothing may complain either."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
