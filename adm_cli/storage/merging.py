"""Runs gathered into one file: the original's npz, a zip, or WebDataset tars.

Images are read one at a time, each checked against its hash, so that memory does not grow with
their number. They stand in the order of ``run.json``, whichever shard drew them and when.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from adm_cli.budget import whole_number
from adm_cli.errors import AdmError, RunError, UsageError
from adm_cli.storage.files import atomic_write, explain_os_error, read_file
from adm_cli.storage.images import Pixels, decode_picture
from adm_cli.storage.manifests import Record
from adm_cli.storage.pictures import MOST_BYTES
from adm_cli.storage.plans import Plan
from adm_cli.storage.runs import RunFolder

_NUMBER = re.compile(r"%0?\d{0,2}d")  # in the name of a tar among several
_AGREE = ("model_sha256", "size")  # settings that images of one set have in common
OnImage = Callable[[int], None]


@dataclass(frozen=True)
class Entry:
    """An image of a run, safely on disk when the run was opened."""

    path: Path
    record: Record

    def read(self) -> bytes:
        """The file's bytes; raises RunError if they are not those that were written."""
        try:
            data = read_file(self.path, MOST_BYTES)
        except OSError as error:
            raise RunError(explain_os_error(f"cannot read {self.path}", error)) from error
        if hashlib.sha256(data).hexdigest() != self.record["sha256"]:
            raise RunError(
                f"{self.path} is damaged: run adm verify {self.path.parent} --repair first"
            )
        return data

    def pixels(self) -> Pixels:
        """uint8 [H, W, 3]; raises RunError, also for what is no picture or too large for one."""
        try:
            return decode_picture(self.read())
        except AdmError as error:
            raise RunError(f"{self.path}: {error}") from None


def open_runs(folders: Sequence[Path], *, partial: bool = False) -> tuple[Plan, list[Entry]]:
    """The first run's plan and the images of all, run by run in the order they were asked for.

    Raises RunError for a run that is incomplete, unless ``partial``, for runs of different
    models, and for an image that is in two of them.
    """
    plans = [RunFolder(folder).read() for folder in folders]
    entries: list[Entry] = []
    for folder, plan in zip(folders, plans, strict=True):
        for name in _AGREE:
            mine, first = plan.settings.get(name), plans[0].settings.get(name)
            if mine != first:
                raise RunError(
                    f"{folder} and {folders[0]} do not belong together: {name} is {mine!s:.12} "
                    f"and {first!s:.12}"
                )
        kept = RunFolder(folder).kept(plan.items)
        missing = len(plan.items) - len(kept)
        if missing and not partial:
            raise RunError(
                f"{folder} is incomplete: {missing} of {len(plan.items)} images are missing; "
                f"finish it with the command that began it, or pass --partial"
            )
        entries += [Entry(folder / i.file, kept[i.file]) for i in plan.items if i.file in kept]
    if not entries:
        raise RunError(f"{folders[0]} has no images yet")
    names = [entry.path.name for entry in entries]
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise RunError(f"{twice} is in two of the runs: an image may be there once")
    return plans[0], entries


def merge_npz(path: Path, plan: Plan, entries: Sequence[Entry], on_image: OnImage) -> None:
    """The original's layout: arr_0 uint8 [N, H, W, 3], arr_1 int64 [N] if all have classes.

    Adds seeds and the settings ("adm"), which the original's evaluator passes over.
    """
    first = entries[0].pixels()
    classes = _column(entries, "class", -(2**63), 2**63 - 1)
    seeds = _column(entries, "seed", 0, 2**64 - 1)
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(entries), *first.shape)}
    with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:
        with archive.open(zipfile.ZipInfo("arr_0.npy"), "w", force_zip64=True) as member:
            npy.write_array_header_1_0(member, header)
            for i, entry in enumerate(entries):
                pixels = entry.pixels()
                if pixels.shape != first.shape:
                    raise RunError(f"{entry.path} has another size than {entries[0].path}")
                member.write(pixels.tobytes())
                on_image(i + 1)
        if classes is not None:
            _write_array(archive, "arr_1", np.array(classes, dtype=np.int64))
        if seeds is not None:
            _write_array(archive, "seeds", np.array(seeds, dtype=np.uint64))
        facts = {**plan.environment, **plan.settings}
        _write_array(archive, "adm", np.array(json.dumps(facts)))


def _column(entries: Sequence[Entry], name: str, least: int, most: int) -> list[int] | None:
    """A whole number of every image; None where one has none. Raises RunError for a wrong one."""
    found = []
    for entry in entries:
        value = entry.record.get(name)
        if value is None:
            return None
        try:
            found.append(whole_number(value, least, most))
        except ValueError as error:
            raise RunError(f"{entry.path}: its {name} is {error}: damaged manifest") from None
    return found


def _write_array(archive: zipfile.ZipFile, name: str, array: np.ndarray[Any, Any]) -> None:
    buffer = io.BytesIO()
    npy.write_array(buffer, array, allow_pickle=False)
    archive.writestr(zipfile.ZipInfo(f"{name}.npy"), buffer.getvalue())


def merge_zip(path: Path, entries: Sequence[Entry], on_image: OnImage) -> None:
    """The pictures as they are, uncompressed, and a line about each in ``manifest.jsonl``."""
    with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:
        for i, entry in enumerate(entries):
            archive.writestr(zipfile.ZipInfo(entry.path.name), entry.read())
            on_image(i + 1)
        lines = "".join(json.dumps(entry.record) + "\n" for entry in entries)
        archive.writestr(zipfile.ZipInfo("manifest.jsonl"), lines)


def merge_tars(
    path: Path, entries: Sequence[Entry], shard_size: int | None, on_image: OnImage
) -> list[Path]:
    """WebDataset tars: for each image its picture, class (``.cls``) and record (``.json``).

    With ``shard_size`` ``path`` is a pattern of `tar_path`, and every file but the last has so
    many images. The same images give the same bytes.
    """
    size = shard_size or len(entries)
    paths = []
    for number, start in enumerate(range(0, len(entries), size)):
        paths.append(path if shard_size is None else tar_path(path, number))
        with _tar(paths[-1]) as archive:
            for i, entry in enumerate(entries[start : start + size]):
                for name, data in _members(entry):
                    info = tarfile.TarInfo(name)  # time 0, no owner
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
                on_image(start + i + 1)
    return paths


def tar_path(pattern: Path, number: int) -> Path:
    """The ``number``-th of several tars: ``set-%06d.tar``; raises UsageError for no such pattern.

    ``%%`` stands for a percent sign.
    """
    text = str(pattern)
    if len(_NUMBER.findall(text.replace("%%", ""))) != 1 or text.replace("%%", "").count("%") != 1:
        raise UsageError(
            f"--output {pattern}: with --shard-size expected a place for the number, such as "
            f"set-%06d.tar"
        )
    return Path(text % number)


@contextmanager
def _tar(path: Path) -> Iterator[tarfile.TarFile]:
    with atomic_write(path) as file:
        stream: IO[bytes] = file
        # which is USTAR, but for names that have no place in that
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
            yield archive


def _members(entry: Entry) -> Iterable[tuple[str, bytes]]:
    key = entry.path.stem.replace(".", "_")  # WebDataset's key ends at the first point
    yield key + entry.path.suffix, entry.read()
    if entry.record.get("class") is not None:
        yield f"{key}.cls", str(entry.record["class"]).encode()
    yield f"{key}.json", json.dumps(entry.record).encode()
