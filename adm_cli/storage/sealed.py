"""JSON files that vouch for themselves: the last field is the SHA-256 of all that stands before it.

Each is written twice, the second time as ``.NAME.copy``: one of the two can be damaged.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from adm_cli.storage.files import atomic_write, file_digest

_MARK = b'  "sha256": "'


def seal(body: bytes) -> bytes:
    """A whole file of ``body``: an indented object's fields, each with its comma and line end."""
    return body + _MARK + f'{hashlib.sha256(body).hexdigest()}"\n}}\n'.encode()


def is_sealed(data: bytes) -> bool:
    """Whether a file's bytes are those that were written."""
    body, mark, _ = data.rpartition(_MARK)
    return bool(mark) and data == seal(body)


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
