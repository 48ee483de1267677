"""Manifests: a line a file that is safely on disk, each with a checksum of its own.

A line is a JSON object whose last field, ``crc``, is the CRC-32 of all that stands before it. One
that was torn by a crash, or damaged since, is therefore known, and passed over.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from adm_cli.budget import parse_json
from adm_cli.errors import OutputError, RunError, UsageError
from adm_cli.storage.files import (
    atomic_write,
    explain_os_error,
    open_file,
    open_to_append,
    sync_folder,
)
from adm_cli.storage.plans import check_name

Record = dict[str, Any]  # file, bytes, sha256, and the facts of the image

_MARK = b', "crc": "'
_MOST_LINE = 2**20  # bytes; what is longer is damaged, and counts as several


@dataclass
class Manifest:
    """What could be read of a manifest."""

    records: list[Record] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)  # line numbers, from 1
    torn: bool = False  # the last line has no end


def render_line(record: Mapping[str, Any]) -> bytes:
    body = json.dumps(record).encode()[:-1]
    return body + _seal(body)


def _seal(body: bytes) -> bytes:
    return _MARK + f'{zlib.crc32(body):08x}"}}\n'.encode()


def parse_line(line: bytes) -> Record | None:
    """The record of a whole line, its end included; None if it is damaged."""
    if line.endswith(b"\r\n"):  # as a tool for texts leaves them
        line = line[:-2] + b"\n"
    body, mark, _ = line.rpartition(_MARK)
    if not mark or line != body + _seal(body):
        return None
    try:
        record = parse_json(body + b"}")
        size, digest = record["bytes"], record["sha256"]
        check_name(record["file"])
    except (ValueError, KeyError, TypeError, RecursionError, UsageError):
        return None
    again = record.get("again", 0)
    good = type(size) is int and size >= 0 and isinstance(digest, str) and type(again) is int
    return record if good else None


def read_manifest(path: Path) -> Manifest:
    """Every whole line of a manifest; raises RunError if the file cannot be read."""
    found = Manifest()
    try:
        with open_file(path) as file:
            lines = iter(partial(file.readline, _MOST_LINE), b"")
            for number, line in enumerate(lines, 1):
                record = parse_line(line)
                if record is not None:
                    found.records.append(record)
                elif not line.endswith(b"\n"):
                    found.torn = True
                elif line != b"\n":
                    found.damaged.append(number)
    except FileNotFoundError:
        pass  # nothing was written yet
    except OSError as error:
        raise RunError(explain_os_error(f"cannot read {path}", error)) from error
    return found


def rewrite_manifest(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Replaces a manifest by one of whole lines."""
    with atomic_write(path) as file:
        for record in records:
            file.write(render_line(record))


class ManifestWriter:
    """Appends lines, synced; what a crash left of a line is cut off first."""

    def __init__(self, path: Path, *, alone: bool) -> None:
        """``alone``: no other process writes to it. Otherwise a torn line is ended, not cut off."""
        self.path = path
        try:
            with ExitStack() as failed:
                self._file = failed.enter_context(open_to_append(path))
                size = _whole_bytes(path)
                if size < self._file.tell():
                    if alone:
                        self._file.truncate(size)
                    else:
                        self._file.write(b"\n")
                sync_folder(path.parent)
                failed.pop_all()
        except OSError as error:
            raise OutputError(explain_os_error(f"cannot write {path}", error)) from error

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Returns when the lines are safe; raises OutputError, with as few of them as can be."""
        data = b"".join(render_line(record) for record in records)
        try:
            before = os.fstat(self._file.fileno()).st_size
            _write_all(self._file, data, before)
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OutputError(explain_os_error(f"cannot write {self.path}", error)) from error

    def close(self) -> None:
        self._file.close()


def _write_all(file: Any, data: bytes, before: int) -> None:
    """Writes to the end; takes back what it wrote if that fails."""
    try:
        while data:
            data = data[file.write(data) :]
    except OSError:
        if os.fstat(file.fileno()).st_size > before:
            file.truncate(before)
        raise


def _whole_bytes(path: Path) -> int:
    """Length of a file up to the end of its last whole line."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 65536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
    return 0
