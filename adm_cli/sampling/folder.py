"""The folder of a run: what is to be drawn, which images are safely there, and going on with it.

run.json                  the stages, what computes them, and every image asked for; its own SHA-256
.run.json.copy            the same bytes again: one of the two can be damaged
manifest.jsonl            a line an image, written after the image is safely on disk
manifest-3-of-8.jsonl     the same of one shard; all manifests of a folder count together
0207_golden-retriever_seed000000.png    an image, of a class with a name
base/, .base/             of a stack: the run of the small pictures, kept or in passing

Every line carries a checksum, so a torn or damaged one is passed over and its image drawn again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from adm_cli.errors import RunError, UsageError, how_many, trim
from adm_cli.files.differences import differences
from adm_cli.files.disk import (
    explained,
    leftovers,
    make_folder,
    refuse_existing,
    remove_leftover,
    sync_folder,
)
from adm_cli.files.links import check_below, remove, remove_folder
from adm_cli.files.locks import hold
from adm_cli.files.manifests import Manifests, Record, Records, whole_records
from adm_cli.files.own import is_own, refuse_foreign, refuse_other_kind
from adm_cli.files.sealed import both_copies, copies_agree, is_whole, write_copies
from adm_cli.sampling.choosing.images import Images
from adm_cli.sampling.run import Run, changed_settings, environment, read_run, render_run

BASE, HIDDEN_BASE = "base", ".base"
# Of a line: how many images were computed at once, where it was not the run's setting; in a stack
# also for the small picture.
BATCH_SIZES = ("batch_size", "base_batch_size")
_LOCK_SECONDS = 60.0  # for the others to write their few lines
_LOCK = re.compile(r"\.(run|manifest(-\d+-of-\d+)?)\.lock", re.ASCII)


class Survey(NamedTuple):
    """What is to be drawn of a run."""

    there: Sequence[str]  # files that are on disk, as their lines say
    missing: npt.NDArray[np.int64]  # places of the images to draw


@dataclass(frozen=True)
class Shard:
    """One of ``count`` equal parts of a run, counted from 1."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """``"3/8"``; raises UsageError."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(
                f"--shard {trim(text, 40)}: expected i/n with i from 1 to n, such as 3/8"
            )
        return cls(int(match[1]), int(match[2]))

    def within(self, outer: Shard) -> Shard:
        """This part of the part ``outer``, which others may divide in another way."""
        index = (self.index - 1) * outer.count + outer.index
        return Shard(index, outer.count * self.count)

    @property
    def places(self) -> slice:
        """Of its images, every ``count``-th: each shard has images of every class."""
        return slice(self.index - 1, None, self.count)

    @property
    def name(self) -> str:
        """The stem of its manifest's name."""
        return "manifest" if self.count == 1 else f"manifest-{self.index}-of-{self.count}"

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


class RunFolder:
    """Reads and writes one run. Safe to use from several processes, a shard each.

    What the folder knows is read once, and then what others add to it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._before = os.path.join(path, "")  # a file's name: joined 50,000 times, .2 s less
        self.file, self.copy = both_copies(path / "run.json")
        self._manifests = Manifests(path)
        self._run: tuple[object, Run] | None = None  # and the state of its files

    def exists(self) -> bool:
        """Whether a run was begun here."""
        return self.file.exists() or self.copy.exists()

    def read(self) -> Run:
        """What the run is; raises RunError if that is damaged, or nothing is here."""
        state = self._state()
        if self._run is not None and self._run[0] == state:
            return self._run[1]
        first: RunError | None = None
        for path in (self.file, self.copy):
            try:
                run = read_run(path)
            except RunError as error:
                first = first or error
            else:
                self._run = (state, run)
                return run
        assert first is not None
        if not self.exists():
            raise first
        raise RunError(
            f"{first}, and its copy is no better: put either back, or the command that began the "
            f"run draws it anew with --overwrite"
        )

    def check(self, run: Run, *, overwrite: bool = False) -> None:
        """Raises what `begin` would, before any work; writes nothing."""
        check_below(self.path, (BASE, HIDDEN_BASE))
        self._check_books()
        self._check_images(run.images)
        if overwrite:
            return
        if self.exists():
            self._check_same(self.read(), run)
        else:
            refuse_existing([self.path / name for name in self._names_taken(run.images)])

    def _check_books(self) -> None:
        """Raises OutputError where what is called as a book of ours is somebody else's."""
        books = [path for path in (self.file, self.copy) if path.exists()]
        if not any(map(is_own, books)):
            books += [p for p in self.manifests() if not any(whole_records(p))]
            refuse_foreign(books, "choose another --out")
            refuse_other_kind(self.path, self.file.name)

    def _check_images(self, images: Images) -> None:
        """Raises OutputError where an image would take the place of somebody else's file."""
        records = self.records()
        if len(records) < len(images):
            names = (name for name in self._names_taken(images) if name not in records)
            refuse_foreign((self.path / name for name in names), "choose another --out")

    def as_begun(self, run: Run) -> Run:
        """``run`` as the run that is here, if there is one, goes on.

        With its settings of ``run.chosen``, and its images' names: what an image is called may
        depend on the version of adm that began the run. Raises as `read`.
        """
        if not self.exists():
            return run
        self._check_books()
        old = self.read()
        kept = {name: getattr(old, name) for name in run.chosen}
        return replace(run, images=run.images.named_as(old.images), **kept)

    def begin(self, run: Run, *, overwrite: bool = False) -> tuple[Run, list[str]]:
        """Begins the run, or goes on with it, and says what the environment has become.

        Of the settings in ``run.chosen`` a run that is here keeps its own. Images may be added to
        those asked for. Raises RunError where another setting differs or an image is here that is
        not asked for, OutputError where a fresh run would replace files; ``overwrite`` removes the
        old run and replaces them instead.
        """
        make_folder(self.path)
        with self.lock("run", seconds=_LOCK_SECONDS) as alone:
            self.check(run, overwrite=overwrite)
            if alone:
                self._clean()
            if overwrite and self.exists():
                self._erase()
            if not self.exists():
                self._write(run)
                return run, []
            old, run = self.read(), self.as_begun(run)
            if old.images != run.images or not self.whole():
                self._write(replace(old, images=run.images))
            now = environment(run)
            noted = {name: value for name, value in environment(old).items() if name in now}
            return run, differences(noted, now)

    def inner(self, name: str) -> RunFolder:
        """A run within this one; raises OutputError for a link, which may lead to another."""
        check_below(self.path, (name,))
        return RunFolder(self.path / name)

    def bases(self) -> list[RunFolder]:
        """The runs of small pictures in a stack's, as far as there are any. Raises as `inner`."""
        inner = [self.inner(name) for name in (BASE, HIDDEN_BASE)]
        return [run for run in inner if run.exists()]

    def records(self) -> Records:
        """What the manifests say of every image and other file, by file name.

        A file that was lost and made again has two lines, the later one with a higher "again".
        """
        try:
            images = self.read().images
        except RunError:
            return self._manifests.records()
        return self._manifests.records(lambda name: images.find(name) is not None)

    def survey(
        self,
        images: Images,
        shard: Shard | None = None,
        only: Iterable[str] | None = None,
        *,
        overwrite: bool = False,
    ) -> Survey:
        """Which of the images of a shard are there, and which are to be drawn.

        If ``only`` is given, of those files, whichever shard they belong to; to ``overwrite``, all.
        """
        shard = shard or Shard()
        wanted = np.zeros(len(images), dtype=bool)
        if only is None:
            wanted[shard.places] = True
        else:
            wanted[[place for name in only if (place := images.find(name)) is not None]] = True
        there = []
        for place, name in () if overwrite else self._there(images):
            if wanted[place]:
                there.append(name)
                wanted[place] = False
        return Survey(there, np.flatnonzero(wanted))

    def _there(self, images: Images) -> Iterator[tuple[int, str]]:
        """The places of images that are there, and their files, in order."""
        records = self.records()
        found = ((images.find(name), name) for name in records)
        for place, name in sorted((place, name) for place, name in found if place is not None):
            if self._holds(name, records):
                yield place, name

    def kept(self, images: Images) -> Iterator[Record]:
        """The records of those images that are there, in their order."""
        records = self.records()
        return (records[name] for _, name in self._there(images))

    def has(self, name: str) -> bool:
        """Whether a file is there as its line says."""
        records = self.records()
        return name in records and self._holds(name, records)

    def drawn_any(self, images: Images) -> bool:
        """Whether at least one of the images is there."""
        records = self.records()
        return any(images.find(name) is not None and self._holds(name, records) for name in records)

    def manifest(self, shard: Shard) -> Path:
        return self.path / f"{shard.name}.jsonl"

    def manifests(self) -> list[Path]:
        return self._manifests.paths()

    def whole(self) -> bool:
        """Whether both copies of ``run.json`` are there as they were written."""
        return copies_agree(self.file) and is_whole(self.file)

    def restore(self) -> None:
        """Writes both copies of ``run.json`` anew from the one that can be read."""
        self._write(self.read())

    @contextmanager
    def lock(self, name: str, *, seconds: float = 0.0) -> Iterator[bool]:
        """Holds a lock of the run; False where the file system has none.

        It saves work, not data: files are whole and equal whoever writes them. Raises RunError
        if another process has it and keeps it for ``seconds``.
        """
        busy = (
            f"another process is drawing into {self.path} ({name}): wait for it "
            f"(adm sample, edit and upsample --shard share work out)"
        )
        with hold(self.path / f".{name}.lock", busy, seconds=seconds) as alone:
            yield alone

    def _holds(self, name: str, records: Records) -> bool:
        """Whether a file of ``records`` is there with the recorded size."""
        try:
            return os.stat(self._before + name).st_size == records.bytes_of(name)
        except OSError:
            return False

    def _names_taken(self, images: Images) -> list[str]:
        """Files of the folder that bear the name of an image."""
        with suppress(OSError):
            return sorted(
                (name for name in os.listdir(self.path) if images.find(name) is not None),
                key=images.find,  # type: ignore[arg-type]
            )
        return []

    def _check_same(self, old: Run, new: Run) -> None:
        if changed := changed_settings(old, new):
            alone = {text.split()[0] for text in changed} <= {"dtype", "upsampler_dtype"}
            goes_on = f"--dtype {old.first.dtype} goes on with it; " if alone else ""
            raise RunError(
                f"{self.path} holds a run with other settings: {', '.join(changed)}; {goes_on}"
                f"choose another --out, or pass --overwrite to start anew"
            )
        if old.images == new.images:
            return
        surplus = [
            name
            for name in self.records()
            if old.images.find(name) is not None and new.images.find(name) is None
        ]
        if surplus:
            raise RunError(
                f"{self.path} has {how_many(len(surplus), 'image')} beside those asked for now, "
                "e.g. "
                f"{surplus[0]}: ask for them too (--seeds gives every class the same seeds), "
                f"choose another --out, or pass --overwrite to start anew"
            )

    def discard_if_empty(self) -> None:
        """Takes back a folder in which a run left no image."""
        if not self.records():
            locks = [path for path in self.path.glob(".*.lock") if _LOCK.fullmatch(path.name)]
            for path in (*self.manifests(), *locks, self.file, self.copy):
                with suppress(OSError):
                    remove(path)
        with suppress(OSError):
            remove_folder(self.path)

    def discard(self) -> None:
        """Removes the run and all its images."""
        with self.lock("run", seconds=_LOCK_SECONDS):
            self._erase()
        self.discard_if_empty()

    def _clean(self) -> None:
        """Removes what killed writers left behind; a shard may be at work on images."""
        for path in leftovers(self.path):
            if not path.name.startswith(".adm-manifest"):
                remove_leftover(path)

    def _write(self, run: Run) -> None:
        write_copies(self.file, render_run(run))
        self._run = (self._state(), run)

    def _state(self) -> object:
        """Changes when either copy of ``run.json`` is replaced."""
        return [_file_state(path) for path in (self.file, self.copy)]

    def _erase(self) -> None:
        """Removes the run; manifests first, so that at no time an image is wrongly vouched for.

        Raises RunError while another process draws into it.
        """
        with ExitStack() as stack:
            for path in self.manifests():
                stack.enter_context(self.lock(path.stem))
            names = list(self.records())
            with suppress(RunError):
                taken = self._names_taken(self.read().images)
                names += [name for name in taken if is_own(self.path / name)]
            self._remove(self.manifests())
            self._remove([self.path / name for name in names])
            self._remove([self.copy, self.file])
            self._manifests, self._run = Manifests(self.path), None

    def _remove(self, paths: Iterable[Path]) -> None:
        for path in paths:
            with explained(f"cannot remove {path}"):
                remove(path)
        sync_folder(self.path)


def batch_sizes_of(record: Mapping[str, object]) -> dict[str, int]:
    """The batch sizes of a line that could be."""
    found = {name: record[name] for name in BATCH_SIZES if name in record}
    return {name: size for name, size in found.items() if type(size) is int and size > 0}


def _file_state(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
