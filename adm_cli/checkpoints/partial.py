"""A file that is not whole yet, and what of it is known to be good.

Bytes go to ``NAME.ID.partial``; beside it ``NAME.ID.partial.json`` records the version being
fetched and the SHA-256 of every piece of it. ID is of the version, so bytes of two versions never
meet in a file, and two processes that write to one file write the same bytes to the same places.
A byte counts as here only while the hash of its piece agrees with the disk: what was lost in a
crash or damaged later is fetched again, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from adm_cli.files.budget import parse_json, whole_text
from adm_cli.files.disk import (
    atomic_write,
    explained,
    make_folder,
    open_to_change,
    read_text,
)
from adm_cli.files.links import check_inside, remove

PIECE = 1 << 20  # bytes

_SAVE_SECONDS = 1.0  # between records: what a killed process fetches again
_BLOCK = 1 << 22
_MOST_LENGTH = 1 << 50  # of a file

Pieces = Mapping[int, tuple[int, str]]  # index: bytes from its start, their SHA-256


@dataclass(frozen=True)
class Version:
    """What a server says of the content it offers."""

    length: int  # bytes
    etag: str | None = None  # as sent, with the W/ of weak ones
    modified: str | None = None
    md5: str | None = None  # hexadecimal

    @property
    def validator(self) -> str | None:
        """For If-Range: weak tags do not promise equal bytes (RFC 9110, 13.1.5)."""
        if self.etag is not None and not self.etag.startswith("W/"):
            return self.etag
        return self.modified

    @property
    def id(self) -> str:
        words = json.dumps([self.length, self.etag, self.modified])
        return hashlib.sha256(words.encode()).hexdigest()[:12]


class Partial:
    """The bytes of one version of ``target`` that are here; close it after use.

    Raises OutputError where the disk refuses.
    """

    def __init__(
        self, target: Path, version: Version, url: str, pieces: Pieces | None = None
    ) -> None:
        self.version, self.url = version, url
        self.path = target.with_name(f"{target.name}.{version.id}.partial")
        self.pieces = dict(pieces or {})
        self.here = sum(filled for filled, _ in self.pieces.values())  # bytes known to be good
        self._digest = hashlib.sha256()  # of the piece being written, up to the position
        self._position = 0
        self._saved = time.monotonic()
        make_folder(target.parent)
        with self._explained():
            self._file = open_to_change(self.path)

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()

    @property
    def written(self) -> int:
        """`here`, and what is written of the present piece."""
        index, inside = divmod(self._position, PIECE)
        return self.here + max(0, inside - self._filled(index))

    @property
    def whole(self) -> bool:
        return self.here == self.version.length

    def gaps(self) -> list[tuple[int, int]]:
        """What is missing, as ``[start, end)`` in order."""
        found: list[tuple[int, int]] = []
        for start in range(0, self.version.length, PIECE):
            filled = self._filled(start // PIECE)
            end = min(start + PIECE, self.version.length)
            if start + filled == end:
                continue
            if found and found[-1][1] == start and filled == 0:
                found[-1] = (found[-1][0], end)
            else:
                found.append((start + filled, end))
        return found

    def verify(self) -> int:
        """Reads what is recorded and forgets pieces that are not so; returns the bytes lost."""
        lost = 0
        for index, (filled, digest) in list(self.pieces.items()):
            if hashlib.sha256(self._read(index * PIECE, filled)).hexdigest() != digest:
                del self.pieces[index]
                lost += filled
        self.here -= lost
        return lost

    def begin(self, offset: int) -> None:
        """What is written next goes to ``offset``: the start of the file or of a gap."""
        start = offset - offset % PIECE
        self._digest = hashlib.sha256(self._read(start, offset - start))
        self._position = offset

    def write(self, data: bytes) -> None:
        """Bytes in order from where `begin` said; pieces that are whole already stay untouched."""
        view = memoryview(data)
        while view:
            index, inside = divmod(self._position, PIECE)
            part, view = view[: PIECE - inside], view[PIECE - inside :]
            size = min(PIECE, self.version.length - index * PIECE)
            if inside == 0:
                self._digest = hashlib.sha256()
            if self._filled(index) < size:
                self._write(part)
            self._digest.update(part)
            self._position += len(part)
            if inside + len(part) == size:
                self._record(index, size)
                if time.monotonic() - self._saved >= _SAVE_SECONDS:
                    self.save()

    def pause(self) -> None:
        """Record all that was written, to the last byte."""
        index, inside = divmod(self._position, PIECE)
        if inside:
            self._record(index, inside)
        self.save()

    def save(self) -> None:
        self._saved = time.monotonic()
        record = {"url": self.url, **asdict(self.version), "piece": PIECE, "pieces": self.pieces}
        with atomic_write(_record_of(self.path)) as file:
            file.write(json.dumps(record).encode())

    def digests(self, algorithms: Iterable[str]) -> dict[str, str]:
        """Of the file as it is on disk; for ``algorithms`` see `file_digests`."""
        self._flush()
        with self._explained():
            os.fsync(self._file.fileno())
            self._file.seek(0)
            return _digests(self._file, algorithms)

    def rename(self, target: Path) -> bool:
        """Close, and give the file its name; False if another process has taken it away.

        Where locks do nothing, another may have finished it and a third begun again under the same
        name since it was verified: so it moves to a name of our own first, to see what it is.
        """
        verified = os.fstat(self._file.fileno())
        self.close()
        own = self.path.with_name(f".adm-{uuid.uuid4().hex}.whole")
        check_inside(own.parent)
        with self._explained():
            try:
                os.rename(self.path, own)
                if not os.path.samestat(verified, os.stat(own)):
                    os.replace(own, self.path)
                    return False
                os.replace(own, target)
            except FileNotFoundError:
                return False
            except OSError:
                with suppress(OSError):  # back, so that nothing is fetched again
                    os.rename(own, self.path)
                raise
        with suppress(OSError):  # of no use without the file; removed with the other leftovers
            remove(_record_of(self.path))
        return True

    def discard(self) -> None:
        """Raises OutputError where it cannot be removed."""
        self.close()
        for path in (_record_of(self.path), self.path):
            with explained(f"cannot remove {path}"):
                remove(path)

    def _filled(self, index: int) -> int:
        return self.pieces.get(index, (0, ""))[0]

    def _record(self, index: int, filled: int) -> None:
        before = self._filled(index)
        if filled > before:
            self._flush()
            self.here += filled - before
            self.pieces[index] = (filled, self._digest.hexdigest())

    def _read(self, offset: int, count: int) -> bytes:
        try:
            self._file.seek(offset)
            return self._file.read(count)
        except OSError:
            return b""  # its hash will differ

    def _write(self, part: memoryview) -> None:
        with self._explained():
            self._file.seek(self._position)
            self._file.write(part)

    def _flush(self) -> None:
        with self._explained():
            self._file.flush()

    def _explained(self) -> AbstractContextManager[None]:
        return explained(f"cannot write {self.path}")


def find_partial(target: Path) -> Partial | None:
    """The partial of ``target`` that holds most, as its record says: `verify` it before use."""
    best: Partial | None = None
    for record in target.parent.glob(f"{_escaped(target.name)}.*.partial.json"):
        found = _open_recorded(target, record)
        if found is None:
            continue
        if best is not None:
            fuller, other = (found, best) if found.here > best.here else (best, found)
            other.close()
            found = fuller
        best = found
    return best


def _open_recorded(target: Path, record: Path) -> Partial | None:
    """None for a record that is damaged, or without its file."""
    if not record.with_suffix("").is_file():
        return None
    try:
        facts = parse_json(read_text(record))
        if facts["piece"] != PIECE:
            return None
        version = Version(**{name: facts[name] for name in Version.__dataclass_fields__})
        pieces = {
            whole_text(i): (int(f), str(digest)) for i, (f, digest) in facts["pieces"].items()
        }
        url = str(facts["url"])
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError,
    ):  # fmt: skip
        return None
    if not _sensible(version):
        return None
    if record.name != f"{target.name}.{version.id}.partial.json":
        return None
    for index, (filled, _) in pieces.items():
        if not (index >= 0 and 0 < filled <= min(PIECE, version.length - index * PIECE)):
            return None
    return Partial(target, version, url, pieces)


def _sensible(version: Version) -> bool:
    """Whether a record's values are of the types that they should be."""
    words = (version.etag, version.modified, version.md5)
    length = type(version.length) is int and 0 <= version.length <= _MOST_LENGTH
    return length and all(word is None or isinstance(word, str) for word in words)


def partial_bytes(target: Path) -> int:
    """How much of ``target`` is here, as recorded."""
    found = find_partial(target)
    if found is None:
        return 0
    found.close()
    return found.here


def remove_partials(target: Path) -> None:
    """Every version of ``target`` that was not finished."""
    for path in target.parent.glob(f"{_escaped(target.name)}.*.partial*"):
        remove(path)


def file_digests(path: Path, algorithms: Iterable[str]) -> dict[str, str]:
    """Hexadecimal digests of a file in one pass, by name: "sha256", "md5"."""
    with path.open("rb") as file:
        return _digests(file, algorithms)


def _digests(file: IO[bytes], algorithms: Iterable[str]) -> dict[str, str]:
    digests = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
    while block := file.read(_BLOCK):
        for digest in digests.values():
            digest.update(block)
    return {name: digest.hexdigest() for name, digest in digests.items()}


def _record_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _escaped(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
