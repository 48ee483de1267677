"""Sets of pictures: folders, zips and tar shards, their labels, and the class ids they become.

A set is a list of names first; nothing is decoded until it is asked for.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from adm_cli.classes.folder_ids import known_ids, number_classes
from adm_cli.classes.imagenet import imagenet_names
from adm_cli.errors import AdmError, UsageError, how_many
from adm_cli.pictures.archives import Source, name_doubts, open_source, read_entry, sorted_names
from adm_cli.pictures.decode import EXTENSIONS, SOME_ENDINGS, decode_picture
from adm_cli.pictures.depth import ValueRange
from adm_cli.pictures.doubts import alike, beside_runs, strange, twice
from adm_cli.pictures.labels import Named, find_labels
from adm_cli.pictures.splits import ROLES, describe_splits, find_splits, half_splits

_ENOUGH = 10  # pictures of a class that can spare one for validation
_NO_PICTURES = frozenset(  # whose files belong to a set and are none of its pictures
    "txt json jsonl ndjson csv tsv cls class label target class_id label_id xml md rst html htm "
    "yaml yml toml ini cfg log pdf py ipynb sh db lock sha256 md5 parquet xlsx xls crc".split()
)
_NO_PICTURE_NAMES = frozenset("readme license licence copying makefile authors changelog".split())


@dataclass(frozen=True, slots=True)  # there may be a million
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
    notes: tuple[str, ...] = ()  # lines for a person: what was guessed or passed over
    values: ValueRange | None = field(default=None, compare=False)  # of more than 8 bits

    def __len__(self) -> int:
        return len(self.pictures)

    def read(self, index: int) -> bytes:
        """The bytes of a picture's file; raises AdmError if it cannot be read."""
        picture = self.pictures[index]
        return read_entry(self.sources[picture.source], picture.name)

    def decode(self, index: int) -> Image.Image:
        """A picture, RGB; raises AdmError if it cannot be read."""
        return decode_picture(self.read(index), self.name(index), self.values)

    def read_quietly(self, index: int) -> bytes:
        """As `read`; nothing where it cannot be read, which is told when it is its turn."""
        try:
            return self.read(index)
        except AdmError:
            return b""

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


@dataclass(frozen=True)
class Listing:
    """The files of some sources; ``pictures`` with the split each is in, a role of `ROLES`."""

    sources: tuple[Source, ...]
    files: tuple[tuple[int, str], ...]  # source, name
    pictures: tuple[tuple[Named, str | None], ...]
    splits: Mapping[str, Mapping[str, int]]  # role to its folders and their numbers of pictures
    notes: tuple[str, ...]  # lines for a person


def list_pictures(paths: Sequence[Path]) -> Listing:
    """Lists the pictures of folders, zips and uncompressed tars, and the splits they are in.

    Raises UsageError where there is nothing to read.
    """
    sources = tuple(open_source(path) for path in paths)
    files: list[tuple[int, str]] = []
    pictures: list[tuple[Named, str | None]] = []
    splits: dict[str, Counter[str]] = {role: Counter() for role in ROLES}
    notes: list[str] = []
    for number, source in enumerate(sources):
        names = sorted_names(source)
        files += [(number, name) for name in names]
        mine = [name for name in names if name.lower().endswith(EXTENSIONS)]
        if beside := beside_runs(source, names, mine):
            notes.append(f"passed over, no images of their run: {', '.join(sorted(beside)[:3])}")
            mine = [name for name in mine if name not in beside]
        notes += name_doubts(source, mine) + twice(mine)
        for name, part in zip(mine, find_splits(mine), strict=True):
            pictures.append((Named(number, name, part.name), part.role))
            if part.role is not None:
                splits[part.role][part.folder] += 1
        if halves := half_splits(mine) if not any(splits.values()) else []:
            one = len(halves) == 1
            what = "looks like a split" if one else "look like splits"
            rest = "what is beside it does not" if one else "others beside them do not"
            notes.append(f"{' and '.join(halves)} {what}, {rest}")
    unread = _unread([name for _, name in files])
    if not pictures:
        found = f"; it holds {unread}" if unread else ""
        raise UsageError(
            f"no pictures in {', '.join(map(str, paths))}: expected {SOME_ENDINGS} files "
            f"in folders, .zip or uncompressed .tar files{found}"
        )
    if unread:
        notes.append(f"passed over files that are not read as pictures: {unread}")
    there = {role: dict(counts) for role, counts in splits.items() if counts}
    return Listing(sources, tuple(files), tuple(pictures), there, tuple(notes))


def _unread(names: Sequence[str], most: int = 4) -> str:
    """Numbers of files by ending, but of pictures and of what usually comes with them."""
    counts: Counter[str] = Counter()
    for name in names:
        file = name.rpartition("/")[2].lower()
        stem, _, ending = file.rpartition(".")
        if not stem or not ending:  # no dot, or one that begins or ends the name
            stem, ending = file, ""
        if ending in _NO_PICTURES or stem in _NO_PICTURE_NAMES or f".{ending}" in EXTENSIONS:
            continue
        counts[f".{ending}" if ending else "without ending"] += 1
    shown = [f"{count} {ending}" for ending, count in counts.most_common(most)]
    return ", ".join(shown) + (", ..." if len(counts) > most else "")


def open_images(
    paths: Sequence[Path],
    *,
    labels: str = "auto",
    known: ImageSet | None = None,
) -> ImageSet:
    """`list_pictures` and `label_pictures` in one: all pictures, in whatever split."""
    return label_pictures(list_pictures(paths), labels=labels, known=known)


def label_pictures(
    listing: Listing,
    *,
    labels: str = "auto",
    known: ImageSet | None = None,
    role: str | None = None,
) -> ImageSet:
    """The pictures of a listing, of one split if ``role`` says so, and their classes.

    ``labels``: "folders" takes the top folder's name as the class, "names" the file name up to
    its first underscore (the original's way), "none" gives no classes, "auto" the first of these
    that fits; anything else is a file of names and labels (`label_files`). Files of labels in the
    set, such as ``dataset.json``, and WebDataset's ``.cls`` and ``.json`` beside pictures come
    first for "auto". ``known`` is a set whose class ids these must have, as a validation set must.

    Raises UsageError where the labels make no sense.
    """
    sources = listing.sources
    pictures = [named for named, own in listing.pictures if role is None or own in (role, None)]
    notes = list(listing.notes)
    if role is None and listing.splits:
        merged = {folder: n for counts in listing.splits.values() for folder, n in counts.items()}
        notes.append(f"splits, used together: {describe_splits(merged)}")
    if known is not None and not known.classes:
        labels = "none"
    found = find_labels(sources, listing.files, pictures, labels)
    notes += found.notes
    if found.words is None:
        if known is not None and known.classes:
            raise UsageError(
                "the validation pictures have no labels, which the training pictures have: "
                "label them, or pass --labels none for both"
            )
        plain = tuple(Picture(p.source, p.name, None) for p in pictures)
        return ImageSet(sources, plain, {}, None, tuple(notes))
    classes: Mapping[int, str]
    count: int | None
    if known is None:
        ids, classes, count = number_classes(found.words)
    else:
        ids, classes = known_ids(found.words, known.classes), known.classes
        count = known.num_classes
    notes += alike(classes.values()) + (strange(found.words) if known is None else [])
    numbered = tuple(
        Picture(p.source, p.name, ids[word]) for p, word in zip(pictures, found.words, strict=True)
    )
    return ImageSet(sources, numbered, classes, count, tuple(notes))


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
            "the model knows none of the pictures' "
            f"{how_many(len(images.classes), 'class', 'classes')} ({ours}): "
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


def pictures_per_class(images: ImageSet) -> dict[int, int]:
    """Pictures a class."""
    counts = Counter(p.label for p in images.pictures if p.label is not None)
    return dict(sorted(counts.items()))
