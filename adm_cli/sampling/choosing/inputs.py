"""Pictures to enlarge: files, folders, the original's npz, and runs of ours, in the order given.

Every picture is read once in advance, so that a bad one is refused before any work, and again when
its turn comes: a set may be larger than memory.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from adm_cli.errors import AdmError, UsageError
from adm_cli.events import Count, Note, OnEvent, ignore
from adm_cli.files.disk import read_file
from adm_cli.files.foreign import read_start
from adm_cli.files.own import if_sweep
from adm_cli.pictures.decode import (
    EXTENSIONS,
    MOST_BYTES,
    SOME_ENDINGS,
    decode_picture,
    fit_picture,
    pixels_of,
)
from adm_cli.pictures.depth import ValueRange, parse_value_range
from adm_cli.pictures.images import Pixels, recipe_in
from adm_cli.pictures.npz import ENDINGS, ImageArrays, read_image_arrays
from adm_cli.pictures.ranges import guess_by_peaks
from adm_cli.pictures.unreadable import refuse_any
from adm_cli.sampling.folder import RunFolder
from adm_cli.sampling.merge import Entry, open_runs

Size = tuple[int, int]
_MOST_IN_FILE = 200_000  # pictures of an array, each of which is looked at before any work


@dataclass(frozen=True)
class InputPicture:
    """A small picture, and what is known of it."""

    stem: str  # of the name of what is made from it
    where: str  # for a person
    size: Size  # height, width, as it is stored
    pixels_sha256: str  # of uint8 [H, W, 3] as the upsampler sees it
    recipe: Mapping[str, Any] | None  # what made it, if it says so
    label: int | None  # a class id that comes beside it
    seed: int | None  # likewise
    read: Callable[[], Pixels]


@dataclass(frozen=True)
class InputPictures:
    """A set of `InputPicture`, read as they are asked for, at ``size`` where that is given."""

    items: Sequence[InputPicture]
    size: Size | None
    values: ValueRange | None = None  # of those that have 16 bits

    def __len__(self) -> int:
        return len(self.items)

    def resized(self, index: int) -> bool:
        """Whether a picture is fitted to the set's size."""
        return self.size not in (None, self.items[index].size)

    def __getitem__(self, index: int) -> Pixels:
        """uint8 [H, W, 3]; raises AdmError if it is no longer what it was."""
        item = self.items[index]
        pixels = _fitted(item.read(), self.size)
        if pixels_sha256(pixels) != item.pixels_sha256:
            raise AdmError(f"{item.where} has changed since the start: run the command again")
        return pixels


def pixels_sha256(pixels: Pixels) -> str:
    """A hash of a picture's size and values, whatever file holds it."""
    head = "x".join(map(str, pixels.shape)).encode()
    return hashlib.sha256(head + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def open_inputs(
    paths: Sequence[Path],
    on_event: OnEvent = ignore,
    *,
    resize: Size | None = None,
    values: str | None = None,
) -> InputPictures:
    """The pictures of files, folders (sorted) and npz files, one after the other.

    ``resize`` fits every picture to that height and width. ``values`` is ``--value-range``; without
    it that of 16-bit files is guessed, and said. ``on_event`` takes `Count` and `Note`. Raises
    UsageError where there is nothing to read, AdmError for a picture that cannot be.
    """
    within: ValueRange | None
    notes: list[str] = []
    if values is not None:
        within = parse_value_range(values)
    else:
        files = [file for path in paths for file in _plain_files(path)]
        within, notes = guess_by_peaks(files, lambda i: _read_quietly(Path(files[i])))
    found: list[InputPicture] = []
    bad: list[str] = []
    for path in paths:
        for item in _open(path, resize, within, bad):
            found.append(item)
            on_event(Count("pictures read", len(found), None))
    refuse_any(bad, len(bad) + len(found))
    for note in notes:
        on_event(Note(note))
    return InputPictures(found, resize, within)


def _plain_files(path: Path) -> list[str]:
    """The picture files of an input that is a file or folder; what is wrong is told later."""
    if os.path.isfile(path):
        return [str(path)]
    if not os.path.isdir(path) or RunFolder(path).exists():
        return []
    try:
        return [str(file) for file in _files(path)]
    except AdmError:
        return []


def _read_quietly(path: Path) -> bytes:
    try:
        return _read_file(path)
    except AdmError:
        return b""


def run_picture(run: RunFolder, file: str) -> InputPicture:
    """An image of a run, which must be there; raises RunError where it is damaged."""
    return _entry_picture(Entry(run.path / file, run.records()[file]), None)


def find_inputs(
    wanted: Sequence[tuple[str, str]],
    near: Path,
    given: Sequence[Path],
    size: Size | None,
    values: ValueRange | None = None,
) -> list[InputPicture | None]:
    """Pictures that were used before, by `InputPicture.where` and hash; None for a lost one.

    A relative name is looked for in the present folder and in those above ``near``, then a picture
    of any name among ``given``. ``size`` is that to which they were fitted, ``values`` the range
    of their 16 bits. Raises as `open_inputs` for ``given`` alone.
    """
    bad: list[str] = []
    others = {item.pixels_sha256: item for path in given for item in _open(path, size, values, bad)}
    refuse_any(bad, len(bad) + len(others))
    opened: dict[Path, list[InputPicture]] = {}

    def look(where: str, digest: str) -> InputPicture | None:
        match = re.fullmatch(r"(.+)\[(\d{1,9})\]", where, re.DOTALL)
        for folder in (Path(), *near.absolute().parents):
            path, index = folder / where, 0
            if match is not None and not os.path.isfile(path):
                path, index = folder / match[1], int(match[2])
            if path not in opened:
                opened[path] = _open_quietly(path, size, values)
            found = opened[path][index : index + 1]
            if found and found[0].pixels_sha256 == digest:
                return found[0]
        return others.get(digest)

    return [look(where, digest) for where, digest in wanted]


def _open_quietly(path: Path, size: Size | None, values: ValueRange | None) -> list[InputPicture]:
    """The pictures of a file; none where they cannot be read."""
    try:
        return list(_open(path, size, values, [])) if os.path.isfile(path) else []
    except AdmError:
        return []


def _open(
    path: Path, resize: Size | None, values: ValueRange | None, bad: list[str]
) -> Iterator[InputPicture]:
    """The pictures of an input; what is wrong with a file of one picture goes to ``bad``."""
    # unlike Path's, these raise nothing, however long the name
    if os.path.isdir(path) and RunFolder(path).exists():
        for entry in open_runs([path], partial=True)[1]:
            yield _entry_picture(entry, resize)
    elif os.path.isdir(path):
        if (sweep := if_sweep(path)) is not None:
            raise UsageError(sweep)
        for file in _files(path):
            yield from _if_readable(file, resize, values, bad)
    elif not os.path.exists(path):
        raise UsageError(f"no such picture, folder or npz: {path}")
    elif not os.path.isfile(path):  # a pipe would be waited for
        raise UsageError(f"{path} is not a regular file: expected a picture, folder or npz")
    elif path.suffix.lower() in ENDINGS or read_start(path).startswith(b"PK\3\4"):
        yield from _array_pictures(read_image_arrays(path), resize)
    else:
        yield from _if_readable(path, resize, values, bad)


def _files(folder: Path) -> list[Path]:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise UsageError(f"cannot read the folder {folder}: {error.strerror}") from None
    files = [
        folder / name
        for name in names
        if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
    ]
    if files:
        return files
    below = [name for name in names if os.path.isdir(folder / name) and name[0] != "."]
    hint = f"; name the folders in it, e.g. {folder / below[0]}" if below else ""
    raise UsageError(f"no pictures in {folder}: expected {SOME_ENDINGS} files{hint}")


def _if_readable(
    path: Path, resize: Size | None, values: ValueRange | None, bad: list[str]
) -> Iterator[InputPicture]:
    try:
        yield _picture(path, resize, values)
    except AdmError as error:
        bad.append(str(error))


def _picture(path: Path, resize: Size | None, values: ValueRange | None) -> InputPicture:
    data = _read_file(path)
    image, recipe = decode_picture(data, str(path), values), recipe_in(data)
    del data  # each of these is large where the picture is
    pixels = pixels_of(image)
    del image
    return InputPicture(
        path.stem,
        str(path),
        pixels.shape[:2],
        pixels_sha256(_fitted(pixels, resize)),
        recipe,
        None,
        None,
        partial(_read_picture, path, values),
    )


def _entry_picture(entry: Entry, resize: Size | None) -> InputPicture:
    """An image of a run, with the class and seed of its line in the manifest."""
    data = entry.read()
    pixels = pixels_of(decode_picture(data, str(entry.path)))
    label, seed = entry.record.get("class"), entry.record.get("seed")
    return InputPicture(
        entry.path.stem,
        str(entry.path),
        pixels.shape[:2],
        pixels_sha256(_fitted(pixels, resize)),
        recipe_in(data),
        label if type(label) is int else None,
        seed if type(seed) is int else None,
        partial(_read_picture, entry.path),
    )


def _read_picture(path: Path, values: ValueRange | None = None) -> Pixels:
    return pixels_of(decode_picture(_read_file(path), str(path), values))


def _read_file(path: Path) -> bytes:
    try:
        return read_file(path, MOST_BYTES)
    except OSError as error:
        raise AdmError(f"cannot read {path}: {error.strerror or error}") from None


def _array_pictures(arrays: ImageArrays, resize: Size | None) -> Iterator[InputPicture]:
    if len(arrays.images) > _MOST_IN_FILE:
        raise UsageError(
            f"{arrays.path}: {arrays.images}, expected {_MOST_IN_FILE:,} pictures to enlarge at "
            f"most: save them in several files"
        )
    for i in range(len(arrays.images)):
        pixels = arrays.image(i)
        label = None if arrays.labels is None else int(arrays.labels[i])
        seed = None if arrays.seeds is None else int(arrays.seeds[i])
        recipe = arrays.recipe
        if recipe is not None:  # of the run: what tells its images apart stands beside it
            recipe = {**recipe, "class": label, "seed": seed}
        yield InputPicture(
            f"{i:06d}",
            f"{arrays.path}[{i}]",
            pixels.shape[:2],
            pixels_sha256(_fitted(pixels, resize)),
            recipe,
            label,
            seed,
            partial(arrays.image, i),
        )


def _fitted(pixels: Pixels, size: Size | None) -> Pixels:
    return pixels if size is None else fit_picture(pixels, size)
