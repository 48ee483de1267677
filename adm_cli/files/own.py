"""Files that adm wrote, told from those of others that are called alike.

What it makes says so inside: weights and states in their metadata, pictures, films, plots and
pages in a field for that, an npz by an array of that name, books by their first or last field.
Where such a file is to be written under a name that nobody gave, or removed, one of somebody else's
stays, whatever the command was told.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from adm_cli.errors import OutputError
from adm_cli.files.budget import MOST_TEXT
from adm_cli.files.disk import open_file, read_file
from adm_cli.files.sealed import as_written

SOFTWARE = "adm"  # the field of that name in a picture that carries no recipe
_FOLDERS = {"run.json": "a run", "sweep.json": "a sweep", "settings.json": "a training"}
_END = 2**16  # bytes at either end of a file, in which it says what it is

_MARKS = re.compile(
    rb"tEXtSoftware\0adm|iTXtadm\0"  # PNG: sheets and plots; an image
    rb'|"(?:film|sequence)": |"adm": "'  # what WebP and GIF say
    rb"|\x011\0\x02\0\0\0\x04adm\0"  # EXIF's Software, of a WebP without a recipe
    rb'|<meta name="generator" content="adm">'
    rb'|"format":"adm[-"]'  # weights and states
    rb"|adm\.npy"
    rb'|\A(?:\xef\xbb\xbf)?\{\r?\n  "format": \d|\n  "sha256": "[0-9a-f]{64}"\r?\n\}\s*\Z'  # books
    rb'|\A\{\r?\n  "kind": "[a-z]+",\r?\n  "config": \{'  # of a training
)


def is_own(path: Path) -> bool:
    """Whether a file says that adm wrote it, or holds nothing that could be lost.

    False for one that cannot be read.
    """
    try:
        with open_file(path) as file:
            start = file.read(_END)
            file.seek(max(len(start), file.seek(0, os.SEEK_END) - _END))
            rest = file.read(_END)
    except OSError:
        return False
    marked = any(_MARKS.search(part) for part in (start, rest, start + rest))
    return marked or not start.strip(b"\0") or _is_book(path)


def _is_book(path: Path) -> bool:
    """Whether it is one whose encoding or layout a tool for texts has changed."""
    if path.suffix not in (".json", ".copy"):
        return False
    try:
        return as_written(read_file(path, MOST_TEXT)) is not None
    except OSError:
        return False


def refuse_foreign(paths: Iterable[Path], mend: str) -> None:
    """Raises OutputError for the first of the files that is there and not adm's own.

    ``mend`` says what would do, beside moving it away.
    """
    for path in paths:
        if os.path.lexists(path) and not is_own(path):
            raise OutputError(
                f"{path} is there, and nothing in it says that adm wrote it, so it stays: {mend}, "
                f"or move it away"
            )


def refuse_other_kind(folder: Path, book: str) -> None:
    """Raises OutputError for the folder of another kind than that with ``book``: of both in one,
    a command would show, verify or measure one alone."""
    for name, what in _FOLDERS.items():
        if name != book and is_own(folder / name):
            raise OutputError(f"{folder} is the folder of {what}: choose another --out")


def if_sweep(folder: Path) -> str | None:
    """What to say where one run is expected and ``folder`` is a sweep, which holds several."""
    if not is_own(folder / "sweep.json"):
        return None
    cells = sorted(folder.glob("*/run.json"))
    such = f", such as {cells[0].parent}" if cells else ""
    return f"{folder} is a sweep: name the folder of a cell{such}"
