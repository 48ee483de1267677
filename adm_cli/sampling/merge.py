"""Runs gathered into one file: the original's npz, a zip, or WebDataset tars.

Images are read one at a time, each checked against its hash, so that memory does not grow with
their number. They stand in the order of ``run.json``, whichever shard drew them and when.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shlex
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from adm_cli.errors import AdmError, RunError, UsageError, are, one_of, told_of
from adm_cli.events import AnyPath, Count, Note, OnEvent, as_paths, ignore
from adm_cli.files.budget import whole_number
from adm_cli.files.disk import (
    atomic_write,
    check_writable,
    explained,
    free_disk,
    read_file,
    refuse_existing,
    size_text,
)
from adm_cli.files.manifests import Record
from adm_cli.files.strict import type_checked
from adm_cli.pictures.decode import MOST_BYTES
from adm_cli.pictures.images import Pixels, decode_own
from adm_cli.sampling.events import FileMade
from adm_cli.sampling.folder import RunFolder
from adm_cli.sampling.recipes.recipe import run_recipe
from adm_cli.sampling.run import Run

_BLOCK = 512  # bytes of a tar: a head, and what a file is padded to
_ZIP_ENTRY = 76  # bytes beside a name, which stands there twice
_NUMBER = re.compile(r"%0?\d{0,2}d")  # in the name of a tar among several
OnImage = Callable[[int], None]
_SUFFIXES = (".npz", ".zip", ".tar")


@type_checked
def merge(
    runs: AnyPath | Sequence[AnyPath],
    output: AnyPath,
    shard_size: int | None = None,
    partial: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    *,
    on_event: OnEvent | None = None,
) -> list[FileMade]:
    """Gathers runs into an npz as the original's evaluator reads it, a zip, or WebDataset tars.

    As ``adm merge``, whose options these are. Returns the files, each with its number of images;
    with ``dry_run`` nothing is written, and about how many bytes each would have is told, too.
    Raises UsageError for a name that cannot be, OutputError where files are there, RunError for
    runs that are damaged, incomplete or do not belong together.
    """
    out, tell = Path(output), on_event or ignore
    _check_name(out, shard_size)
    run, entries = open_runs(as_paths(runs), partial=partial)
    size = shard_size or len(entries)
    parts = [entries[start : start + size] for start in range(0, len(entries), size)]
    paths = [out if shard_size is None else tar_path(out, i) for i in range(len(parts))]
    if not dry_run:
        check_writable(out.parent)
    if not overwrite:
        refuse_existing(paths)
    if dry_run:
        return _planned(paths, parts, run, tell)

    def on_image(done: int) -> None:
        tell(Count("images", done, len(entries)))

    if out.suffix == ".npz":
        merge_npz(out, run, entries, on_image)
    elif out.suffix == ".zip":
        merge_zip(out, entries, on_image)
    else:
        merge_tars(paths, parts, on_image)
    made = [FileMade(path, {"images": len(p)}) for path, p in zip(paths, parts, strict=True)]
    for file in made:
        tell(file)
    return made


def _planned(
    paths: Sequence[Path], parts: Sequence[Sequence[Entry]], run: Run, tell: OnEvent
) -> list[FileMade]:
    """The files to come, and what there is room for."""
    sizes = [merged_bytes(path.suffix, run, part) for path, part in zip(paths, parts, strict=True)]
    folder = next(path for path in paths[0].absolute().parents if path.exists())
    text = (
        f"about {size_text(sum(sizes))}, {size_text(free_disk(folder))} are free; no network "
        f"runs, and memory holds one picture: it takes as long as reading and writing them"
    )
    tell(Note(text))
    return [
        FileMade(path, {"images": len(part), "bytes": count})
        for path, part, count in zip(paths, parts, sizes, strict=True)
    ]


def _check_name(output: Path, shard_size: int | None) -> None:
    if output.suffix not in _SUFFIXES:
        raise UsageError(f"--output {output}: expected a name that ends in {one_of(_SUFFIXES)}")
    if shard_size is None:
        return
    if output.suffix != ".tar":
        raise UsageError(f"--shard-size divides tars: {output} is none")
    tar_path(output, 0)  # raises for no pattern


@dataclass(frozen=True)
class Entry:
    """An image of a run, safely on disk when the run was opened."""

    path: Path
    record: Record

    def read(self) -> bytes:
        """The file's bytes; raises RunError if they are not those that were written."""
        with explained(f"cannot read {self.path}", RunError):
            data = read_file(self.path, MOST_BYTES)
        if hashlib.sha256(data).hexdigest() != self.record["sha256"]:
            run = shlex.quote(str(self.path.parent))
            raise RunError(f"{self.path} is damaged: run adm verify {run} --repair first")
        return data

    def pixels(self) -> Pixels:
        """uint8 [H, W, 3]; raises RunError, also for what is no picture or too large for one."""
        try:
            return decode_own(self.read())
        except AdmError as error:
            raise RunError(told_of(self.path, str(error))) from None


def open_runs(folders: Sequence[Path], *, partial: bool = False) -> tuple[Run, list[Entry]]:
    """The first run's settings and the images of all, run by run in the order they were asked for.

    Raises RunError for a run that is incomplete, unless ``partial``, for runs of different
    models, and for an image that is in two of them.
    """
    opened = [RunFolder(folder) for folder in folders]
    runs = [folder.read() for folder in opened]
    entries: list[Entry] = []
    for folder, run in zip(opened, runs, strict=True):
        for name, mine, first in (
            ("model_sha256", run.first.model_sha256, runs[0].first.model_sha256),
            ("size", run.size, runs[0].size),
        ):
            if mine != first:
                raise RunError(
                    f"{folder.path} and {folders[0]} do not belong together: {name} is "
                    f"{mine!s:.12} and {first!s:.12}"
                )
        kept = [Entry(folder.path / record["file"], record) for record in folder.kept(run.images)]
        missing = len(run.images) - len(kept)
        if missing and not partial:
            raise RunError(
                f"{folder.path} is incomplete: {missing} of {len(run.images)} images "
                f"{are(missing)} missing; "
                f"finish it with the command that began it, or pass --partial"
            )
        entries += kept
    if not entries:
        raise RunError(f"{folders[0]} has no images yet")
    if len(runs) > 1:
        _check_once(entries)
    return runs[0], entries


def _check_once(entries: Sequence[Entry]) -> None:
    """Raises RunError for an image that is there twice, whatever its class is called."""
    names: set[str] = set()
    for entry in entries:
        mine = {entry.path.name, _drawn_as(entry)}
        if not names.isdisjoint(mine):
            raise RunError(f"{entry.path.name} is in two of the runs: an image may be there once")
        names |= mine


def _drawn_as(entry: Entry) -> str:
    """Equal for two images that are the same but for the class's name; of an enlarged one, its
    file.
    """
    if "input" in entry.record:
        return entry.path.name
    what = [entry.record.get(name) for name in ("class", "mixture", "scale", "cfg", "seed")]
    return f"{what} {entry.path.suffix}"


def merge_npz(path: Path, run: Run, entries: Sequence[Entry], on_image: OnImage) -> None:
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
        _write_array(archive, "adm", np.array(json.dumps(run_recipe(run) if run.metadata else {})))


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


def merge_tars(paths: Sequence[Path], parts: Sequence[Sequence[Entry]], on_image: OnImage) -> None:
    """WebDataset tars: for each image its picture, class (``.cls``) and record (``.json``).

    The same images give the same bytes.
    """
    done = 0
    for path, part in zip(paths, parts, strict=True):
        with _tar(path) as archive:
            for entry in part:
                for name, data in _members(entry):
                    info = tarfile.TarInfo(name)  # time 0, no owner
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
                done += 1
                on_image(done)


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


def merged_bytes(suffix: str, run: Run, entries: Sequence[Entry]) -> int:
    """About the size of what `merge` writes of these images."""
    if suffix == ".npz":
        height, width = run.size
        return len(entries) * (height * width * 3 + 2 * 8)
    lines = [len(json.dumps(entry.record)) for entry in entries]
    files: list[int] = [entry.record["bytes"] for entry in entries]
    if suffix == ".zip":
        names = sum(2 * len(entry.path.name) + _ZIP_ENTRY for entry in entries)
        return sum(files) + sum(lines) + names
    labels = [1 for entry in entries if entry.record.get("class") is not None]
    members = [*files, *lines, *labels]
    return sum(_BLOCK + -(-size // _BLOCK) * _BLOCK for size in members)
