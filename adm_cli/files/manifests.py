"""Manifests: a line a file that is safely on disk, each with a checksum of its own.

A line is a JSON object whose last field, ``crc``, is the CRC-32 of all that stands before it. One
that was torn by a crash, or damaged since, is therefore known, and passed over.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

from adm_cli.errors import RunError, UsageError
from adm_cli.files.budget import parse_json
from adm_cli.files.disk import (
    atomic_write,
    explain_os_error,
    explained,
    open_file,
    open_to_append,
    sync_folder,
)
from adm_cli.files.links import check_below
from adm_cli.files.names import check_name

Record = dict[str, Any]  # file, bytes, sha256, and the facts of the image

_MARK = b', "crc": "'
_NAME = re.compile(r"manifest(-\d+-of-\d+)?\.jsonl", re.ASCII)
_decode = json.JSONDecoder().raw_decode  # half the time of `json.loads`
MOST_OTHERS = 10_000  # files of a folder that are no images of its run
_MOST_LINE = 2**20  # bytes; what is longer is damaged, and counts as several


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
    if not mark or line[len(body) :] != _seal(body):
        return None
    try:
        record: Record = parse_json(body.decode() + "}")
        size, digest = record["bytes"], record["sha256"]
        check_name(record["file"])
    except (ValueError, KeyError, TypeError, RecursionError, UsageError):
        return None
    again = record.get("again", 0)
    good = type(size) is int and size >= 0 and isinstance(digest, str) and type(again) is int
    return record if good else None


def read_lines(path: Path, start: int = 0) -> Iterator[bytes]:
    """The lines of a manifest from the byte ``start`` on, one at a time; the last may be torn.

    Of a longer line than can be, pieces. Raises RunError if the file cannot be read.
    """
    try:
        with open_file(path) as file:
            file.seek(start)
            yield from iter(partial(file.readline, _MOST_LINE), b"")
    except FileNotFoundError:
        return  # nothing was written yet
    except OSError as error:
        raise RunError(explain_os_error(f"cannot read {path}", error)) from error


def whole_records(path: Path) -> Iterator[Record]:
    """The records of a manifest's whole lines, one at a time."""
    for line in read_lines(path):
        if (record := parse_line(line)) is not None:
            yield record


def damaged_lines(path: Path) -> Iterator[int | None]:
    """The numbers, from 1, of lines that are damaged; None if the last one has no end."""
    for number, line in enumerate(read_lines(path), 1):
        if parse_line(line) is None and line != b"\n":
            yield number if line.endswith(b"\n") else None


class Records(Mapping[str, Record]):
    """What the manifests of a folder say of each file, by its name.

    Of a file a line is held, not an object: a million of them take 0.5 GB.
    """

    def __init__(self) -> None:
        self._lines: dict[str, bytes] = {}
        self._bytes: dict[str, int] = {}
        self._again: dict[str, int] = {}  # of those that were made again

    def __getitem__(self, name: str) -> Record:
        record: Record = _decode(self._lines[name].decode())[0]  # which was read by `parse_line`
        del record["crc"]
        return record

    def __contains__(self, name: object) -> bool:
        return name in self._lines

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def told(self, name: str) -> Mapping[str, Any]:
        """The record of a file, read from its line when more than the name is asked for."""
        return _Told(self, name)

    def bytes_of(self, name: str) -> int:
        """The size of a file, as its line says."""
        return self._bytes[name]

    def add(self, record: Record, line: bytes) -> None:
        """Takes a line in, unless a later one of that file is there: it has a higher "again"."""
        name, again = record["file"], record.get("again", 0)
        if again >= self._again.get(name, 0 if name in self._lines else again):
            self._lines[name], self._bytes[name] = line, record["bytes"]
            if again:
                self._again[name] = again

    def remove_all(self) -> None:
        """Forgets everything."""
        self._lines.clear()
        self._bytes.clear()
        self._again.clear()


class _Told(Mapping[str, Any]):
    """A record of which mostly the file alone is shown: of 50,000 it is told in a row."""

    def __init__(self, records: Records, file: str) -> None:
        self._records, self._file = records, file

    def __getitem__(self, name: str) -> Any:
        return self._file if name == "file" else self._records[self._file][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._records[self._file])

    def __len__(self) -> int:
        return len(self._records[self._file])


class Manifests:
    """The manifests of a folder, each read once, and what others append to them as it comes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._records = Records()
        self._ends: dict[Path, tuple[int, int]] = {}  # the file's number, and bytes that were read

    def paths(self) -> list[Path]:
        """The manifests, one a shard; what others called alike is none."""
        names: list[str] = []
        with suppress(OSError):
            names = os.listdir(self.folder)  # of many, in a third of the time that a glob takes
        return [self.folder / name for name in sorted(names) if _NAME.fullmatch(name)]

    def records(self, known: Callable[[str], bool] | None = None) -> Records:
        """What they say now. Of files that are not ``known`` at most `MOST_OTHERS` are held.

        A file that was lost and made again has two lines, of which the later counts.
        """
        sizes = {}
        for path in self.paths():
            with suppress(FileNotFoundError):
                found = path.stat()
                sizes[path] = (found.st_ino, found.st_size)
        for path, (number, end) in self._ends.items():
            if path not in sizes or sizes[path][0] != number or sizes[path][1] < end:
                self._records.remove_all()  # written anew, or gone
                self._ends.clear()
                break
        for path, (number, size) in sizes.items():
            _, end = self._ends.get(path, (number, 0))
            if size > end:
                self._ends[path] = (number, self._read(path, end, known))
        return self._records

    def _read(self, path: Path, end: int, known: Callable[[str], bool] | None) -> int:
        others = 0
        for line in read_lines(path, end):
            if not line.endswith(b"\n") and len(line) < _MOST_LINE:
                break  # torn, or being written
            end += len(line)
            record = parse_line(line)
            if record is None:
                continue
            name = record["file"]
            if known is not None and not known(name) and name not in self._records:
                others += 1
                if others > MOST_OTHERS:
                    continue
            self._records.add(record, line)
        return end


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
        with explained(f"cannot write {path}"), ExitStack() as failed:
            self._file = failed.enter_context(open_to_append(path))
            size = _whole_bytes(path)
            if size < self._file.tell():
                if alone:
                    self._file.truncate(size)
                else:
                    self._file.write(b"\n")
            sync_folder(path.parent)
            failed.pop_all()

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Returns when the lines are safe; raises OutputError, with as few of them as can be.

        Also where a link took the place of the file since it was opened.
        """
        check_below(self.path.parent, (self.path.name,))
        data = b"".join(render_line(record) for record in records)
        with explained(f"cannot write {self.path}"):
            before = os.fstat(self._file.fileno()).st_size
            _write_all(self._file, data, before)
            os.fsync(self._file.fileno())

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
