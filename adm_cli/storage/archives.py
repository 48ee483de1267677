"""Where pictures are read from: folders, zips and uncompressed tars, as lists of names.

Nothing is read until it is asked for.
"""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

from adm_cli.errors import AdmError, UsageError
from adm_cli.storage.pictures import MOST_BYTES

_UTF8_FLAG = 0x800  # of a zip's entry (APPNOTE.TXT 4.4.4): its name is in UTF-8


class Source(Protocol):
    """Somewhere that pictures are read from by name."""

    path: Path

    def names(self) -> list[str]: ...  # relative, with "/"

    def read(self, name: str, most: int) -> bytes: ...  # at most a byte more than ``most``


class FolderSource:
    """A folder and everything below it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        found = []
        for folder, folders, files in os.walk(self.path, followlinks=True, onerror=_refuse):
            below = Path(folder).relative_to(self.path)
            above = {os.path.realpath(self.path / p) for p in (below, *below.parents)}
            folders[:] = [
                name
                for name in folders
                if not name.startswith(".")
                and os.path.realpath(Path(folder, name)) not in above  # a link in a circle
            ]
            found += [(below / name).as_posix() for name in files]
        return found

    def read(self, name: str, most: int) -> bytes:
        if not stat.S_ISREG(os.stat(self.path / name).st_mode):
            raise OSError("not a regular file")  # a pipe would be waited for, a device has no end
        with (self.path / name).open("rb") as file:
            return file.read(most + 1)


class _OpenZip(NamedTuple):
    owner: int  # the process
    file: zipfile.ZipFile
    entries: Mapping[str, zipfile.ZipInfo]


class ZipSource:
    """A zip file, opened anew in every process that reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: _OpenZip | None = None
        self._open()

    def _open(self) -> _OpenZip:
        opened = self._opened
        if opened is None or opened.owner != os.getpid():  # a position cannot be shared
            file = zipfile.ZipFile(self.path)
            entries = {_tidy(_zip_name(e)): e for e in file.infolist() if not e.is_dir()}
            opened = self._opened = _OpenZip(os.getpid(), file, entries)  # as one, for threads
        return opened

    def names(self) -> list[str]:
        return list(self._open().entries)

    def garbled(self) -> list[str]:
        """Names in a code page that the zip does not say, read as the standard's, cp437."""
        entries = self._open().entries
        return [name for name, e in entries.items() if not (name.isascii() or _says_utf8(e, name))]

    def read(self, name: str, most: int) -> bytes:
        opened = self._open()
        entry = opened.entries[name]
        if entry.file_size > most:  # before anything unfolds
            raise OSError(f"{entry.file_size:,} bytes are too many")
        with opened.file.open(entry) as file:
            return file.read(most + 1)

    def __getstate__(self) -> Path:
        return self.path

    def __setstate__(self, path: Path) -> None:
        self.path, self._opened = path, None


class TarSource:
    """An uncompressed tar, as WebDataset shards are: indexed once, then read at any place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.places: dict[str, tuple[int, int]] = {}
        with tarfile.open(path, "r:") as file:
            for member in file:
                if member.isfile() and not member.issparse():
                    self.places[_tidy(member.name)] = (member.offset_data, member.size)
            end = file.offset
        with path.open("rb") as raw:
            raw.seek(end)
            if raw.read(tarfile.BLOCKSIZE).strip(b"\0"):  # which tarfile takes for the end
                raise tarfile.ReadError(f"damaged at byte {end}")

    def names(self) -> list[str]:
        return list(self.places)

    def read(self, name: str, most: int) -> bytes:
        offset, size = self.places[name]
        size = min(size, most + 1)
        with self.path.open("rb") as file:
            file.seek(offset)
            data = file.read(size)
        if len(data) != size:
            raise OSError(f"{self.path} is cut short")
        return data


def _refuse(error: OSError) -> None:
    raise UsageError(f"cannot read the folder {error.filename}: {error.strerror}")


def _zip_name(entry: zipfile.ZipInfo) -> str:
    """An entry's name; where it is UTF-8 and the zip does not say so, as some tools write it."""
    if entry.filename.isascii() or entry.flag_bits & _UTF8_FLAG:
        return entry.filename
    try:
        return entry.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return entry.filename


def _says_utf8(entry: zipfile.ZipInfo, name: str) -> bool:
    return bool(entry.flag_bits & _UTF8_FLAG) or name != _tidy(entry.filename)


def name_doubts(source: Source, names: list[str]) -> list[str]:
    """What is to be doubted of a source's names, for a person: letters that may be others."""
    odd = [name for name in names if any("\ud800" <= c <= "\udfff" for c in name)]
    if isinstance(source, ZipSource):
        odd += source.garbled()
    if not odd:
        return []
    shown = odd[0].encode("ascii", "backslashreplace").decode()
    what = "names are" if len(odd) > 1 else "name is"
    return [f"{source.path.name}: {len(odd)} {what} not in UTF-8 and may be garbled, e.g. {shown}"]


def _tidy(name: str) -> str:
    """A name in an archive as a folder would give it; some tools write ./ or \\ into zips."""
    parts = name.replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", "."))


def read_entry(source: Source, name: str, most: int = MOST_BYTES) -> bytes:
    """A file's bytes, one more than ``most`` at most; raises AdmError if it cannot be read."""
    try:
        return source.read(name, most)
    except Exception as error:  # damaged archives raise many kinds
        reason = str(error) or type(error).__name__
        raise AdmError(f"cannot read {source.path}/{name}: {reason}") from None


def open_source(path: Path) -> Source:
    """A folder, zip or uncompressed tar; raises UsageError for anything else."""
    if os.path.isdir(path):  # unlike Path's, this raises nothing, however long the name
        return FolderSource(path)
    if not os.path.exists(path):
        raise UsageError(f"no such folder or file of pictures: {path}")
    if not os.path.isfile(path):  # a pipe would be waited for
        raise UsageError(f"{path} is not a regular file: expected a folder, a .zip or a .tar")
    try:
        if path.suffix.lower() == ".zip" or zipfile.is_zipfile(path):
            return ZipSource(path)
        if path.suffix.lower() == ".tar":
            return TarSource(path)
    except Exception as error:  # damaged archives raise many kinds
        raise UsageError(f"cannot read {path}: {str(error) or type(error).__name__}") from None
    if path.suffix.lower() in (".gz", ".tgz", ".bz2", ".xz", ".zst"):
        raise UsageError(
            f"{path} is compressed as a whole, so that no picture can be found in it quickly: "
            f"unpack it, or make a plain .tar or .zip of it"
        )
    if path.suffix.lower() in (".npy", ".npz"):
        raise UsageError(f"{path} holds arrays, expected a folder, a .zip or a .tar of pictures")
    raise UsageError(f"{path}: expected a folder, a .zip or an uncompressed .tar of pictures")


def sorted_names(source: Source) -> list[str]:
    """In the original's order: folder by folder, each sorted, without hidden files."""
    paths = [PurePosixPath(name).parts for name in source.names()]
    seen = [p for p in paths if p and p[0] != "__MACOSX" and not any(x[0] == "." for x in p)]
    return ["/".join(parts) for parts in sorted(seen)]
