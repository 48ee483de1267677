"""JSON files that vouch for themselves: the last field is the SHA-256 of all that stands before it.

Each is written twice, the second time as ``.NAME.copy``: one of the two can be damaged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adm_cli.files.budget import parse_json
from adm_cli.files.disk import atomic_write, file_digest, read_file
from adm_cli.files.lists import decode_text

_MOST_BYTES = 2**31
_MARK = b'  "sha256": "'


def seal(body: bytes) -> bytes:
    """A whole file of ``body``: an indented object's fields, each with its comma and line end."""
    return body + _MARK + f'{hashlib.sha256(body).hexdigest()}"\n}}\n'.encode()


def sealed_json(value: Mapping[str, Any], rows: str | None = None) -> bytes:
    """A whole file of an object's fields; of the last one, ``rows``, each item has a line.

    That one may come one by one.
    """
    head = {name: field for name, field in value.items() if name != rows}
    body = json.dumps(head, indent=2)[:-2]
    if rows is not None:
        lines = ",\n    ".join(map(json.dumps, value[rows]))
        body += f',\n  "{rows}": [\n    {lines}\n  ]'
    return seal(f"{body},\n".encode())


def _digest(whole: bytes) -> str:
    return whole[-len(f'{"":64}"\n}}\n') :][:64].decode()


def is_sealed(data: bytes) -> bool:
    """Whether a file's bytes are those that were written."""
    body, mark, _ = data.rpartition(_MARK)
    return bool(mark) and data == seal(body)


def as_written(data: bytes) -> bytes | None:
    """A file's bytes as they were written, also after a tool for texts has changed their encoding,
    line ends, indents or the file's end; None if they say anything else.
    """
    if is_sealed(data):
        return data
    plain = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    if is_sealed(plain):
        return plain
    try:
        value = parse_json(decode_text(data))
        digest = value.pop("sha256")
        layouts = (sealed_json(value, rows) for rows in (None, *list(value)[-1:]))
        return next((whole for whole in layouts if _digest(whole) == digest), None)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


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
