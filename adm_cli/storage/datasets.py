"""Sets of pictures: folders, zips and tar shards, their labels, and the class ids they become.

A set is a list of names first; nothing is decoded until it is asked for.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from adm_cli.errors import AdmError, UsageError, did_you_mean
from adm_cli.imagenet import imagenet_classes, imagenet_names
from adm_cli.storage.pictures import EXTENSIONS, MOST_BYTES

LABELS = ("auto", "folders", "names", "none")  # or the path of a CSV file

_WNID = re.compile(r"n\d{8}")
_WHOLE = re.compile(r"-?\d{1,99}")
_MOST_CLASSES = 10**6
_LABEL_BYTES = 100_000  # of a .cls or .json beside a picture
_ENOUGH = 10  # pictures of a class that can spare one for validation
_FILE_COLUMNS = ("file", "filename", "file_name", "path", "image", "name")
_LABEL_COLUMNS = ("label", "class", "class_name", "class_id", "category")


class Source(Protocol):
    """Somewhere that pictures are read from by name."""

    path: Path

    def names(self) -> list[str]: ...  # relative, with "/"

    def read(self, name: str, most: int) -> bytes: ...  # at most a byte more than ``most``


@dataclass(frozen=True)
class Picture:
    """A picture by name: ``source`` indexes the set's sources, ``label`` its class id."""

    source: int
    name: str
    label: int | None


@dataclass(frozen=True)
class ImageSet:
    """Pictures and what their labels mean; ``classes`` maps the ids that occur to names."""

    sources: tuple[Source, ...]
    pictures: tuple[Picture, ...]
    classes: Mapping[int, str]
    num_classes: int | None  # of the whole numbering: 1000 for any part of ImageNet

    def __len__(self) -> int:
        return len(self.pictures)

    def read(self, index: int) -> bytes:
        """The bytes of a picture's file; raises AdmError if it cannot be read."""
        picture = self.pictures[index]
        return _read(self.sources[picture.source], picture.name)

    def name(self, index: int) -> str:
        """Where a picture is, for a person."""
        picture = self.pictures[index]
        return f"{self.sources[picture.source].path}/{picture.name}"

    def labels(self) -> npt.NDArray[np.int64]:
        """Class ids [N]; -1 where there is none."""
        values = [-1 if p.label is None else p.label for p in self.pictures]
        return np.array(values, dtype=np.int64)

    def part(self, indices: Sequence[int]) -> ImageSet:
        """Some of the pictures, with the same classes."""
        return replace(self, pictures=tuple(self.pictures[i] for i in indices))

    def fingerprint(self) -> str:
        """A hash of every name and label: the same pictures in the same order, or not."""
        digest = hashlib.sha256()
        for picture in self.pictures:
            digest.update(f"{picture.source} {picture.name!a} {picture.label}\n".encode())
        return digest.hexdigest()


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
            entries = {_tidy(e.filename): e for e in file.infolist() if not e.is_dir()}
            opened = self._opened = _OpenZip(os.getpid(), file, entries)  # as one, for threads
        return opened

    def names(self) -> list[str]:
        return list(self._open().entries)

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


def open_images(
    paths: Sequence[Path],
    *,
    labels: str = "auto",
    known: ImageSet | None = None,
) -> ImageSet:
    """Lists the pictures of folders, zips and uncompressed tars, and finds their classes.

    ``labels``: "folders" takes the top folder's name as the class, "names" the file name up to
    its first underscore (the original's way), "none" gives no classes, "auto" the first of these
    that fits; anything else is a CSV file of names and labels. WebDataset's ``.cls`` and ``.json``
    files beside pictures count as labels for "auto". ``known`` is a set whose class ids these
    must have, as a validation set must.

    Raises UsageError where there is nothing to read or the labels make no sense.
    """
    sources = tuple(_open_source(path) for path in paths)
    listed = [
        (number, name) for number, source in enumerate(sources) for name in _sorted_names(source)
    ]
    pictures = [entry for entry in listed if entry[1].lower().endswith(EXTENSIONS)]
    if not pictures:
        raise UsageError(
            f"no pictures in {', '.join(map(str, paths))}: expected {', '.join(EXTENSIONS)} files "
            f"in folders, .zip or uncompressed .tar files"
        )
    if known is not None and not known.classes:
        labels = "none"
    found = _find_labels(sources, listed, pictures, labels)
    if any(label is None for label in found):
        if known is not None and known.classes:
            raise UsageError(
                "the validation pictures have no labels, which the training pictures have: "
                "label them, or pass --labels none for both"
            )
        plain = [Picture(source, name, None) for source, name in pictures]
        return ImageSet(sources, tuple(plain), {}, None)
    words = [label for label in found if label is not None]
    ids, classes, count = _number_classes(words) if known is None else _known_ids(words, known)
    numbered = [
        Picture(source, name, ids[word])
        for (source, name), word in zip(pictures, words, strict=True)
    ]
    return ImageSet(sources, tuple(numbered), classes, count)


def keep_classes(images: ImageSet, chosen: Sequence[int]) -> ImageSet:
    """Only the pictures of some classes; ids stay as they are."""
    if not images.classes:
        return images
    wanted = set(chosen)
    part = images.part([i for i, p in enumerate(images.pictures) if p.label in wanted])
    return replace(part, classes={i: n for i, n in images.classes.items() if i in wanted})


def match_classes(images: ImageSet, known: Mapping[int, str]) -> ImageSet:
    """The pictures of a model's classes, under the ids that these have there.

    ``known`` maps the model's ids to names. A class is the one of its id and name, else of its
    name, else, where it is called by a plain number, of that id. Raises UsageError for pictures
    without labels, or if none is left.
    """
    if not images.classes:
        raise UsageError(
            "the pictures have no labels: put each class in a folder of its own, "
            "or pass --labels with a CSV file"
        )
    by_name = {name: i for i, name in known.items()}
    imagenet = imagenet_names()
    ids: dict[int, int] = {}
    for i, name in images.classes.items():
        same = by_name.get(name)
        if known.get(i) == name or (name == str(i) and i in known and same is None):
            ids[i] = i
        elif same is not None and not (imagenet.get(i) == name == imagenet.get(same)):
            ids[i] = same  # ImageNet has two cranes: there ids count
    kept = [replace(p, label=ids[p.label]) for p in images.pictures if p.label in ids]
    if not kept:
        ours, theirs = (", ".join(list(c.values())[:5]) for c in (images.classes, known))
        raise UsageError(
            f"the model knows none of the pictures' {len(images.classes)} classes ({ours}): "
            f"expected some of its own {len(known)} ({theirs})"
        )
    there = {p.label for p in kept}
    classes = {i: known[i] for i in sorted(known) if i in there}
    return replace(images, pictures=tuple(kept), classes=classes)


def split_images(images: ImageSet, fraction: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Training and validation pictures: ``fraction`` of every class, rounded, for validation.

    At least one of a class of ten or more; a class of one picture keeps it for training. The
    choice depends on ``seed`` and on each class alone.
    """
    by_class: dict[int | None, list[int]] = {}
    for i, picture in enumerate(images.pictures):
        by_class.setdefault(picture.label, []).append(i)
    held: set[int] = set()
    for label, members in by_class.items():
        least = 1 if fraction and len(members) >= _ENOUGH else 0
        count = min(max(round(len(members) * fraction), least), len(members) - 1)
        key = hashlib.blake2b(f"split {seed} {label}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key, "big"))
        order = torch.randperm(len(members), generator=generator).tolist()
        held.update(members[i] for i in order[:count])
    everything = range(len(images))
    return (
        images.part([i for i in everything if i not in held]),
        images.part([i for i in everything if i in held]),
    )


def class_counts(images: ImageSet) -> dict[int, int]:
    """Pictures a class."""
    counts = Counter(p.label for p in images.pictures if p.label is not None)
    return dict(sorted(counts.items()))


def _refuse(error: OSError) -> None:
    raise UsageError(f"cannot read the folder {error.filename}: {error.strerror}")


def _tidy(name: str) -> str:
    """A name in an archive as a folder would give it; some tools write ./ or \\ into zips."""
    parts = name.replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", "."))


def _read(source: Source, name: str, most: int = MOST_BYTES) -> bytes:
    try:
        return source.read(name, most)
    except Exception as error:  # damaged archives raise many kinds
        reason = str(error) or type(error).__name__
        raise AdmError(f"cannot read {source.path}/{name}: {reason}") from None


def _open_source(path: Path) -> Source:
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
    raise UsageError(f"{path}: expected a folder, a .zip or an uncompressed .tar of pictures")


def _sorted_names(source: Source) -> list[str]:
    """In the original's order: folder by folder, each sorted, without hidden files."""
    paths = [PurePosixPath(name).parts for name in source.names()]
    seen = [p for p in paths if p and p[0] != "__MACOSX" and not any(x[0] == "." for x in p)]
    return ["/".join(parts) for parts in sorted(seen)]


def _find_labels(
    sources: Sequence[Source],
    listed: Sequence[tuple[int, str]],
    pictures: Sequence[tuple[int, str]],
    labels: str,
) -> list[str | None]:
    """A label's word for every picture, or None for all."""
    names = [name for _, name in pictures]
    if labels == "none":
        return [None] * len(names)
    if labels not in LABELS:
        return list(_csv_labels(Path(labels), names))
    if labels == "auto":
        beside = _labels_beside(sources, listed, pictures)
        if beside is not None:
            return list(beside)
    cut = _common_folders(names)
    tops = [parts[0] if len(parts := name.split("/")[cut:]) > 1 else None for name in names]
    if labels == "folders" or (labels == "auto" and any(tops)):
        bare = [name for name, top in zip(names, tops, strict=True) if top is None]
        if bare:
            raise UsageError(
                f"{len(bare)} of {len(names)} pictures are in no class folder, e.g. {bare[0]}: "
                f"move them into one, or pass --labels names or --labels none"
            )
        return list(tops)
    firsts = [name.rsplit("/", 1)[-1] for name in names]
    words = [first.split("_")[0] for first in firsts]
    camera = len(set(words)) == 1 and not _WNID.fullmatch(words[0])  # IMG_0001.jpg, IMG_0002.jpg
    if labels == "auto" and (camera or not all("_" in first for first in firsts)):
        return [None] * len(names)
    return list(words)


def _common_folders(names: Sequence[str]) -> int:
    """Leading folders that hold everything and so name no class, as in ``train/cat/1.jpg``."""
    split = [name.split("/") for name in names]
    shortest = min(len(parts) for parts in split)
    cut = 0
    while shortest - cut > 2:
        first = split[0][cut]
        if _WNID.fullmatch(first) or any(parts[cut] != first for parts in split):
            break
        cut += 1
    return cut


def _labels_beside(
    sources: Sequence[Source],
    listed: Sequence[tuple[int, str]],
    pictures: Sequence[tuple[int, str]],
) -> list[str] | None:
    """WebDataset's labels: ``7.cls`` or a "label" in ``7.json`` beside ``7.jpg``."""
    beside = {}
    for number, name in listed:
        stem, _, ending = name.rpartition(".")
        if ending.lower() in ("cls", "json"):
            beside[number, stem] = name
    label_names = [beside.get((number, name.rpartition(".")[0])) for number, name in pictures]
    if not any(label_names):
        return None
    found = []
    advice = "mend it, or pass --labels folders, names, none or a CSV file"
    for (number, name), label_name in zip(pictures, label_names, strict=True):
        path = sources[number].path
        if label_name is None:
            raise UsageError(f"{path}/{name} has no label beside it, unlike others: {advice}")
        text = _read(sources[number], label_name, _LABEL_BYTES).decode("utf-8", "replace").strip()
        if label_name.lower().endswith("json"):
            text = _json_label(text)
        if not text:
            raise UsageError(f"{path}/{label_name}: expected a label: {advice}")
        found.append(text)
    return found


def _json_label(text: str) -> str:
    """The "label" or "cls" of a JSON object, or nothing."""
    try:
        value = json.loads(text)
        label = value["label"] if "label" in value else value["cls"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""
    return str(label) if type(label) in (int, str) else ""


def _csv_labels(path: Path, names: Sequence[str]) -> list[str]:
    """A label for every name, from rows of file name and label with or without a heading."""
    if not os.path.isfile(path):
        hint = did_you_mean(str(path), LABELS)
        raise UsageError(f"--labels {path}: expected {', '.join(LABELS)} or a CSV file{hint}")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"cannot read {path} as CSV: {error}") from None
    if not rows or min(len(row) for row in rows) < 2:
        raise UsageError(f"{path}: expected at least two columns in every row, file name and label")
    heading = [cell.strip().lower() for cell in rows[0]]
    file_column = next((i for i, c in enumerate(heading) if c in _FILE_COLUMNS), None)
    label_column = next((i for i, c in enumerate(heading) if c in _LABEL_COLUMNS), None)
    if file_column is not None and label_column is not None:
        rows = rows[1:]
    else:
        file_column, label_column = 0, 1
    table: dict[str, str] = {}
    for row in rows:
        if max(file_column, label_column) >= len(row):
            raise UsageError(f"{path}: the row {','.join(row)!a:.60} has too few columns")
        key = row[file_column].strip().replace("\\", "/").removeprefix("./")
        table[key] = row[label_column].strip()
    found = [table.get(name, table.get(name.rsplit("/", 1)[-1])) for name in names]
    missing = [name for name, label in zip(names, found, strict=True) if not label]
    if missing:
        raise UsageError(
            f"{path} has no label for {len(missing)} of {len(names)} pictures, e.g. {missing[0]}"
        )
    return [label for label in found if label]


def _number_classes(words: Sequence[str]) -> tuple[dict[str, int], dict[int, str], int]:
    """Ids of words, names of ids, and how many ids there are.

    WordNet ids get ImageNet's numbers, whole numbers stay what they are, anything else is
    numbered in order of its name.
    """
    unique = sorted(set(words))
    of_imagenet = {row.wnid: row.id for row in imagenet_classes()}
    if all(word in of_imagenet for word in unique):
        ids = {word: of_imagenet[word] for word in unique}
        names = imagenet_names()
        return ids, {i: names[i] for i in sorted(ids.values())}, len(names)
    if all(_WHOLE.fullmatch(word) for word in unique):
        ids = {word: int(word) for word in unique}
        low, high = min(ids.values()), max(ids.values())
        if low < 0 or high >= _MOST_CLASSES:
            raise UsageError(
                f"labels must be from 0 to {_MOST_CLASSES - 1}, got {low if low < 0 else high}"
            )
        return ids, {i: str(i) for i in sorted(ids.values())}, high + 1
    for word in unique:
        if not word.isprintable():
            raise UsageError(f"the class name {word!a:.60} has characters that cannot be printed")
    return {w: i for i, w in enumerate(unique)}, dict(enumerate(unique)), len(unique)


def _known_ids(
    words: Sequence[str], known: ImageSet
) -> tuple[dict[str, int], Mapping[int, str], int | None]:
    """As `_number_classes`, by another set's numbers; raises UsageError for any other word."""
    ids = {name: i for i, name in known.classes.items()}
    ids |= {r.wnid: r.id for r in imagenet_classes() if known.classes.get(r.id) == r.names[0]}
    numbers = {word: int(word) for word in set(words) if _WHOLE.fullmatch(word)}  # 007 is 7
    ids |= {word: i for word, i in numbers.items() if known.classes.get(i) == str(i)}
    strange = sorted(set(words) - set(ids))
    if strange:
        raise UsageError(
            f"the validation pictures have {len(strange)} classes that the training pictures "
            f"have not, e.g. {strange[0]}"
        )
    return ids, known.classes, known.num_classes
