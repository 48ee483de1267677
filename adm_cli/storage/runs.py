"""The folder of a run: what is to be drawn, which images are safely there, and going on with it.

run.json                  kind, settings, environment and every image asked for; its own SHA-256
.run.json.copy            the same bytes again: one of the two can be damaged
manifest.jsonl            a line an image, written after the image is safely on disk
manifest-3-of-8.jsonl     the same of one shard; all manifests of a folder count together
class0207_seed000000.png  an image
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
from typing import TypeVar

from adm_cli.errors import OutputError, RunError, UsageError
from adm_cli.storage.files import (
    explain_os_error,
    leftovers,
    make_folder,
    refuse_existing,
    remove_leftover,
    sync_folder,
)
from adm_cli.storage.links import check_below, remove, remove_folder
from adm_cli.storage.locks import hold
from adm_cli.storage.manifests import Record, read_manifest
from adm_cli.storage.plans import Item, Plan, check_items, differences, read_plan, render_plan
from adm_cli.storage.sealed import both_copies, copies_agree, write_copies

BASE, HIDDEN_BASE = "base", ".base"
# Of a line: how many images were computed at once, where it was not the run's setting; in a stack
# also for the small picture.
BATCH_SIZES = ("batch_size", "base_batch_size")
_LOCK_SECONDS = 60.0  # for the others to write their few lines
_T = TypeVar("_T")


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
            raise UsageError(f"--shard {text}: expected i/n with i from 1 to n, such as 3/8")
        return cls(int(match[1]), int(match[2]))

    def within(self, outer: Shard) -> Shard:
        """This part of the part ``outer``, which others may divide in another way."""
        index = (self.index - 1) * outer.count + outer.index
        return Shard(index, outer.count * self.count)

    def share(self, items: Sequence[_T]) -> Sequence[_T]:
        """Every ``count``-th: each shard has images of every class."""
        return items[self.index - 1 :: self.count]

    @property
    def name(self) -> str:
        """The stem of its manifest's name."""
        return "manifest" if self.count == 1 else f"manifest-{self.index}-of-{self.count}"

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


class RunFolder:
    """Reads and writes one run. Safe to use from several processes, a shard each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file, self.copy = both_copies(path / "run.json")

    def exists(self) -> bool:
        """Whether a run was begun here."""
        return self.file.exists() or self.copy.exists()

    def read(self) -> Plan:
        """What the run is; raises RunError if that is damaged, or nothing is here."""
        first: RunError | None = None
        for path in (self.file, self.copy):
            try:
                return read_plan(path)
            except RunError as error:
                first = first or error
        assert first is not None
        raise first

    def check(self, plan: Plan, *, automatic: Sequence[str] = (), overwrite: bool = False) -> None:
        """Raises what `begin` would, before any work; writes nothing."""
        check_items(plan.items)
        check_below(self.path, (BASE, HIDDEN_BASE))
        if overwrite:
            return
        if self.exists():
            self._check_same(self.read(), plan, automatic)
        else:
            refuse_existing([self.path / item.file for item in plan.items])

    def begin(
        self, plan: Plan, *, automatic: Sequence[str] = (), overwrite: bool = False
    ) -> tuple[Plan, list[str]]:
        """Begins the run, or goes on with it, and says what the environment has become.

        Settings named in ``automatic`` were chosen by the program, not asked for: a run that is
        here keeps its own. Images may be added to those asked for. Raises RunError where another
        setting differs or an image is here that is not asked for, OutputError where a fresh run
        would replace files; ``overwrite`` removes the old run and replaces them instead.
        """
        make_folder(self.path)
        with self.lock("run", seconds=_LOCK_SECONDS) as alone:
            self.check(plan, automatic=automatic, overwrite=overwrite)
            if alone:
                self._clean()
            if overwrite and self.exists():
                self._erase()
            if not self.exists():
                self._write(plan)
                return plan, []
            old = self.read()
            adopted = {name: old.settings[name] for name in automatic if name in old.settings}
            plan = replace(plan, settings={**plan.settings, **adopted})
            if old.items != plan.items or not self.whole():
                self._write(replace(plan, environment=old.environment))
            noted = {name: old.environment.get(name) for name in plan.environment}
            return plan, differences(noted, plan.environment)

    def inner(self, name: str) -> RunFolder:
        """A run within this one; raises OutputError for a link, which may lead to another."""
        check_below(self.path, (name,))
        return RunFolder(self.path / name)

    def bases(self) -> list[RunFolder]:
        """The runs of small pictures in a stack's, as far as there are any. Raises as `inner`."""
        inner = [self.inner(name) for name in (BASE, HIDDEN_BASE)]
        return [run for run in inner if run.exists()]

    def records(self) -> dict[str, Record]:
        """What the manifests say of every image and other file, by file name.

        A file that was lost and made again has two lines, the later one with a higher "again".
        """
        found: dict[str, Record] = {}
        for path in self.manifests():
            for record in read_manifest(path).records:
                if record.get("again", 0) >= found.get(record["file"], record).get("again", 0):
                    found[record["file"]] = record
        return found

    def present(self) -> dict[str, Record]:
        """The records of those files that are there with the recorded size."""
        return {name: record for name, record in self.records().items() if self.fits(record)}

    def kept(self, items: Iterable[Item]) -> dict[str, Record]:
        """The records of those items that are `present`, in the items' order."""
        present = self.present()
        return {item.file: present[item.file] for item in items if item.file in present}

    def drawn_any(self, items: Iterable[Item]) -> bool:
        """Whether at least one of those items is `present`."""
        known = self.records()
        return any(item.file in known and self.fits(known[item.file]) for item in items)

    def missing(self, shard: Shard, items: Iterable[Item]) -> list[Item]:
        """Those items that are not `present`, each with the batch sizes to compute it at.

        One that was lost: as it was drawn before. Else, so that a run that is gone on with equals
        one that was not interrupted: what the item says, or the smallest of the shard's own lines,
        to which it came down when memory ran out.
        """
        known = self.records()
        return [
            item
            for item in self._sized(shard, items, known)
            if item.file not in known or not self.fits(known[item.file])
        ]

    def sized(self, shard: Shard, items: Iterable[Item]) -> list[Item]:
        """Those items, whether there or not, with the batch sizes that `missing` would say."""
        return self._sized(shard, items, self.records())

    def _sized(
        self, shard: Shard, items: Iterable[Item], known: Mapping[str, Record]
    ) -> list[Item]:
        own = [_sizes(record) for record in read_manifest(self.manifest(shard)).records]
        least = {
            name: min(sizes[name] for sizes in own if name in sizes)
            for name in BATCH_SIZES
            if any(name in sizes for sizes in own)
        }
        return [
            item._replace(
                batch_sizes=_sizes(known[item.file])
                if item.file in known
                else {**least, **item.batch_sizes}
            )
            for item in items
        ]

    def manifest(self, shard: Shard) -> Path:
        return self.path / f"{shard.name}.jsonl"

    def manifests(self) -> list[Path]:
        return sorted(self.path.glob("manifest*.jsonl"))

    def whole(self) -> bool:
        """Whether both copies of ``run.json`` are there and equal."""
        return copies_agree(self.file)

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
            f"another process is drawing into {self.path} ({name}): wait for it, or share "
            f"the work out with --shard"
        )
        with hold(self.path / f".{name}.lock", busy, seconds=seconds) as alone:
            yield alone

    def fits(self, record: Record) -> bool:
        """Whether the file is there with the recorded size."""
        try:
            size = os.stat(self.path / record["file"]).st_size
        except OSError:
            return False
        return bool(size == record["bytes"])

    def _check_same(self, old: Plan, new: Plan, automatic: Sequence[str]) -> None:
        before, after = (
            {"kind": plan.kind, **{k: v for k, v in plan.settings.items() if k not in automatic}}
            for plan in (old, new)
        )
        changed = differences(before, after)
        if changed:
            raise RunError(
                f"{self.path} holds a run with other settings: {', '.join(changed)}; choose "
                f"another --out, or pass --overwrite to start anew"
            )
        wanted = {item.file for item in new.items}
        names = {item.file for item in old.items}
        surplus = [name for name in self.records() if name in names and name not in wanted]
        if surplus:
            raise RunError(
                f"{len(surplus)} images of {self.path} are not among those asked for now, e.g. "
                f"{surplus[0]}: ask for them too (--seeds gives every class the same seeds), "
                f"choose another --out, or pass --overwrite to start anew"
            )

    def discard_if_empty(self) -> None:
        """Takes back a folder in which a run left no image."""
        if not self.records():
            for pattern in ("manifest*.jsonl", ".*.lock", self.file.name, self.copy.name):
                for path in self.path.glob(pattern):
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

    def _write(self, plan: Plan) -> None:
        write_copies(self.file, render_plan(plan))

    def _erase(self) -> None:
        """Removes the run; manifests first, so that at no time an image is wrongly vouched for.

        Raises RunError while another process draws into it.
        """
        with ExitStack() as stack:
            for path in self.manifests():
                stack.enter_context(self.lock(path.stem))
            names = set(self.records())
            with suppress(RunError):
                names |= {item.file for item in self.read().items}
            self._remove(self.manifests())
            self._remove([self.path / name for name in names])
            self._remove([self.copy, self.file])

    def _remove(self, paths: Iterable[Path]) -> None:
        try:
            for path in paths:
                remove(path)
        except OSError as error:
            raise OutputError(explain_os_error(f"cannot remove {path}", error)) from error
        sync_folder(self.path)


def _sizes(record: Record) -> dict[str, int]:
    """The batch sizes of a line that could be."""
    found = {name: record[name] for name in BATCH_SIZES if name in record}
    return {name: size for name, size in found.items() if type(size) is int and size > 0}
