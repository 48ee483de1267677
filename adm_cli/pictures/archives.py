"""Where pictures are read from: folders, zips and uncompressed tars, as lists of names.

Nothing is read until it is asked for.
"""

from __future__ import annotations

import os
import re
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from adm_cli.errors import AdmError, UsageError, how_many, trim, why_unread
from adm_cli.files.budget import MOST_FILES, LimitedFile, TooMuchError, counted
from adm_cli.files.disk import open_file
from adm_cli.files.long_zips import LongZip
from adm_cli.pictures.decode import EXTENSIONS, MOST_BYTES

_UNTIDY = re.compile(r"\\|//|(?:^|/)\.(?:/|$)|^/|/$")
# hidden, or what systems put beside files: copies of attributes, previews, what was thrown away
_NOT_OURS = re.compile(
    r"(?:^|/)(?:\.|(?:__MACOSX|@eaDir|#recycle|\$RECYCLE\.BIN|lost\+found|"
    r"System Volume Information)/)"
)
_MAYBE_UNTIDY = re.compile(r"[\\/][/.]|\\")
_MOST_VISITS = 8  # to one folder, by links: folders that link to each other have endless paths
_LONGEST_NAME = 4096  # characters, as systems have it
_MOST_HEADER = 2**18  # bytes of all that a tar says of one file: names, attributes, gaps
_MOST_ATTRIBUTES = 100  # that a tar gives to all its files, each of which gets a copy


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
        try:
            return list(counted(self._walk(), "files", 10 * MOST_FILES))
        except TooMuchError as error:
            raise UsageError(f"{self.path} has {error}") from None

    def _walk(self) -> Iterator[str]:
        visits: Counter[str] = Counter()  # of real folders
        for folder, folders, files in os.walk(self.path, followlinks=True, onerror=_refuse):
            below = Path(folder).relative_to(self.path)
            above = {os.path.realpath(self.path / p) for p in (below, *below.parents)}
            real = {n: os.path.realpath(Path(folder, n)) for n in folders if n[0] != "."}
            visits.update(real.values())
            folders[:] = [
                name
                for name, place in real.items()
                if place not in above and visits[place] <= _MOST_VISITS  # a link in a circle
            ]
            for name in files:
                yield (below / name).as_posix()

    def read(self, name: str, most: int) -> bytes:
        with open_file(self.path / name) as file:
            return file.read(min(os.fstat(file.fileno()).st_size, most + 1))


class _OpenZip(NamedTuple):
    owner: int  # the process
    file: LongZip
    places: Mapping[str, int]


class ZipSource:
    """A zip file, opened anew in every process that reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: _OpenZip | None = None
        self._open()

    def _open(self) -> _OpenZip:
        opened = self._opened
        if opened is None or opened.owner != os.getpid():  # a position cannot be shared
            file = LongZip(self.path)
            places = {
                _tidy(_zip_name(name, says_utf8=bool(utf8))): i
                for i, (name, utf8) in enumerate(zip(file.names, file.says_utf8, strict=True))
            }
            opened = self._opened = _OpenZip(os.getpid(), file, places)  # as one, for threads
        return opened

    def names(self) -> list[str]:
        return list(self._open().places)

    def garbled(self) -> list[str]:
        """Names in a code page that the zip does not say, read as the standard's, cp437."""
        opened = self._open()
        return [
            name
            for name, i in opened.places.items()
            if not name.isascii()
            and not opened.file.says_utf8[i]
            and name == _tidy(opened.file.names[i])
        ]

    def read(self, name: str, most: int) -> bytes:
        opened = self._open()
        return opened.file.read(opened.places[name], most)

    def __getstate__(self) -> Path:
        return self.path

    def __setstate__(self, path: Path) -> None:
        self.path, self._opened = path, None


class TarSource:
    """An uncompressed tar, as WebDataset shards are: indexed once, then read at any place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.places: dict[str, tuple[int, int]] = {}
        self.links = 0  # pictures of which the tar holds a name and no bytes
        self.first_link = ""
        with open_file(path) as raw:
            # the library takes the lengths of names and attributes from the file
            limited: Any = LimitedFile(raw, _MOST_HEADER, in_all=_MOST_HEADER)
            with tarfile.open(fileobj=limited, mode="r:") as file:
                kept: Any = file
                for member in counted(iter(file.next, None), "files", MOST_FILES):
                    kept.members.clear()  # every one until the end
                    limited.renew()
                    if len(file.pax_headers) > _MOST_ATTRIBUTES:
                        raise TooMuchError(f"over {_MOST_ATTRIBUTES} attributes")
                    if member.isfile() and not member.issparse():
                        self.places[_tidy(member.name)] = (member.offset_data, member.size)
                    elif not member.isdir() and member.name.lower().endswith(EXTENSIONS):
                        self.links += 1
                        self.first_link = self.first_link or _tidy(member.name)
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


def _zip_name(name: str, *, says_utf8: bool) -> str:
    """A file's name; where it is UTF-8 and the zip does not say so, as some tools write it."""
    if name.isascii() or says_utf8:
        return name
    try:
        return name.encode("cp437").decode("utf-8")
    except UnicodeError:
        return name


def name_doubts(source: Source, names: list[str]) -> list[str]:
    """What is to be doubted of a source's names, for a person: links, odd letters."""
    foreign = (name for name in names if not name.isascii())  # few, where there are a million
    odd = [name for name in foreign if any("\ud800" <= c <= "\udfff" for c in name)]
    if isinstance(source, ZipSource):
        odd += source.garbled()
    notes = []
    if isinstance(source, TarSource) and source.links:
        notes.append(
            f"{source.path.name}: passed over {how_many(source.links, 'link')} in place of "
            f"pictures, e.g. {source.first_link} (tar --dereference stores these)"
        )
    if not odd:
        return notes
    shown = odd[0].encode("ascii", "backslashreplace").decode()
    what = "names are" if len(odd) > 1 else "name is"
    return [
        *notes,
        f"{source.path.name}: {len(odd)} {what} not in UTF-8 and may be garbled, e.g. {shown}",
    ]


def _tidy(name: str) -> str:
    """A name in an archive as a folder would give it; some tools write ./ or \\ into zips."""
    if not _MAYBE_UNTIDY.search(name) and name[:1] not in ("/", ".") and name[-1:] != "/":
        return name  # in a third of the time
    if not _UNTIDY.search(name):
        return name
    parts = name.replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", "."))


def read_entry(source: Source, name: str, most: int = MOST_BYTES) -> bytes:
    """A file's bytes, one more than ``most`` at most; raises AdmError if it cannot be read."""
    try:
        return source.read(name, most)
    except Exception as error:  # damaged archives raise many kinds
        why = why_unread(error, "it is damaged").replace(f"{source.path} ", "it ")
        raise AdmError(f"cannot read {source.path}/{name}: {why}") from None


def open_source(path: Path) -> Source:
    """A folder, zip or uncompressed tar; raises UsageError for anything else."""
    if os.path.isdir(path):  # unlike Path's, this raises nothing, however long the name
        return FolderSource(path)
    if not os.path.exists(path):
        raise UsageError(f"no such folder or file of pictures: {path}")
    if not os.path.isfile(path):  # a pipe would be waited for
        raise UsageError(f"{path} is not a regular file: expected a folder, a .zip or a .tar")
    if path.suffix.lower() in (".npy", ".npz"):
        first = "" if path.suffix.lower() == ".npy" else "['arr_0']"
        raise UsageError(
            f"{path} holds arrays, expected a folder, a .zip or a .tar of pictures: python -c "
            f"\"import numpy, os, PIL.Image; os.mkdir('pictures'); [PIL.Image.fromarray(x).save("
            f"f'pictures/{{i}}.png') for i, x in enumerate(numpy.load({path.name!a}){first})]\" "
            f"makes them"
        )
    try:
        if path.suffix.lower() == ".zip" or zipfile.is_zipfile(path):
            return ZipSource(path)
        if path.suffix.lower() == ".tar":
            return TarSource(path)
    except Exception as error:  # damaged archives raise many kinds
        raise UsageError(f"cannot read {path}: {why_unread(error, 'it is damaged')}") from None
    if path.suffix.lower() in (".gz", ".tgz", ".bz2", ".xz", ".zst"):
        raise UsageError(
            f"{path} is compressed as a whole, so that no picture can be found in it quickly: "
            f"unpack it, or make a plain .tar or .zip of it"
        )
    raise UsageError(f"{path}: expected a folder, a .zip or an uncompressed .tar of pictures")


def sorted_names(source: Source) -> list[str]:
    """In the original's order: folder by folder, each sorted, without hidden files.

    As lists of their parts would be, with less memory: no name has a character below "\\0".
    """
    seen = [n for n in source.names() if n and not _NOT_OURS.search(n)]
    if long := next((name for name in seen if len(name) > _LONGEST_NAME), None):
        raise UsageError(
            f"{source.path} has a name of {len(long):,} characters: {trim(long, 40)}..."
        )
    return sorted(seen, key=lambda name: name.replace("/", "\0"))
