"""JSON files that vouch for themselves: the last field is the SHA-256 of all that stands before it.

Each is written twice, the second time as ``.NAME.copy``: one of the two can be damaged.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from adm_cli.files.disk import atomic_write, file_digest, read_file

_MOST_BYTES = 2**31
_MARK = b'  "sha256": "'


def seal(body: bytes) -> bytes:
    """A whole file of ``body``: an indented object's fields, each with its comma and line end."""
    return body + _MARK + f'{hashlib.sha256(body).hexdigest()}"\n}}\n'.encode()


def is_sealed(data: bytes) -> bool:
    """Whether a file's bytes are those that were written."""
    body, mark, _ = data.rpartition(_MARK)
    return bool(mark) and data == seal(body)


def as_written(data: bytes) -> bytes | None:
    """A file's bytes as they were written, also after a tool for texts has changed their line ends
    or put a mark in front; None if they are others.
    """
    plain = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    return next((found for found in (data, plain) if is_sealed(found)), None)


def is_whole(path: Path) -> bool:
    """Whether a file is to the last byte as it was written; raises OSError."""
    return is_sealed(read_file(path, _MOST_BYTES))


def both_copies(path: Path) -> tuple[Path, Path]:
    """A file and its copy."""
    return path, path.with_name(f".{path.name}.copy")


def write_copies(path: Path, data: bytes) -> None:
    """Writes both, one after the other."""
    for copy in both_copies(path):
        with atomic_write(copy) as file:
            file.write(data)


def copies_agree(path: Path) -> bool:
    """Whether both copies are there and equal."""
    try:
        first, second = (file_digest(copy) for copy in both_copies(path))
    except OSError:
        return False
    return first == second
