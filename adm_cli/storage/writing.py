"""Images to disk, encoded and written by a thread while the next ones are drawn."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from adm_cli.errors import OutputError
from adm_cli.storage.files import explain_os_error, file_digest, free_disk, write_files
from adm_cli.storage.images import Pixels, Recipe, encode_image
from adm_cli.storage.links import remove
from adm_cli.storage.manifests import ManifestWriter, Record
from adm_cli.storage.plans import Item
from adm_cli.storage.runs import RunFolder, Shard

_QUEUED = 2  # batches that may wait: sampling goes on, memory does not grow
_SPARE_BYTES = 2**20  # of disk, for manifests and what else is written


@dataclass(frozen=True)
class Finished:
    """An image that is drawn and not yet written."""

    item: Item
    pixels: Pixels | None  # uint8 [H, W, 3]; None: not finite, so that it cannot be written
    recipe: Recipe | None
    facts: Mapping[str, Any] = field(default_factory=dict)  # for its line, beside the item's


class ImageWriter:
    """Writes the images of one shard of a run, holding its lock.

    A batch is encoded, synced and renamed as one, then its lines go to the manifest. Use it as a
    context; leaving it, for whatever reason, finishes what was handed over. ``on_record`` is
    called in the caller's thread with the record of each image that is safe.
    """

    def __init__(self, run: RunFolder, shard: Shard, on_record: Callable[[Record], None]) -> None:
        self.run, self.shard, self.on_record = run, shard, on_record
        self._todo: queue.Queue[Sequence[Finished] | None] = queue.Queue(_QUEUED)
        self._safe: queue.SimpleQueue[Record] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        self._closing = ExitStack()
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Takes the lock and begins; raises RunError if another process has it."""
        with ExitStack() as stack:
            alone = stack.enter_context(self.run.lock(self.shard.name))
            self._prefix = f".adm-{self.shard.name}-"
            if alone:  # nobody else's: these were left behind by a killed writer
                for path in self.run.path.glob(f"{self._prefix}*.tmp"):
                    with suppress(OSError):
                        remove(path)
            self._manifest = ManifestWriter(self.run.manifest(self.shard), alone=alone)
            stack.callback(self._manifest.close)
            lost = {n: r for n, r in self.run.records().items() if not self.run.fits(r)}
            self._again = {name: record.get("again", 0) + 1 for name, record in lost.items()}
            thread = threading.Thread(target=self._work, name="adm-writer", daemon=True)
            thread.start()
            self._thread = thread
            self._closing = stack.pop_all()

    def __enter__(self) -> ImageWriter:
        self.open()
        return self

    def add(self, images: Sequence[Finished]) -> None:
        """Hands over images; waits while the disk is behind. Raises what went wrong in writing."""
        self.poll()
        self._todo.put(images)

    def poll(self) -> None:
        """Reports what has become safe; raises what went wrong in writing."""
        while not self._safe.empty():
            self.on_record(self._safe.get())
        if self._failure is not None:
            raise self._failure

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        with self._closing:
            try:
                self._finish()
            except KeyboardInterrupt:  # what is drawn is still kept, unless somebody insists
                self._finish()
                raise
        try:
            self.poll()
        except BaseException as failure:
            if error is None or isinstance(failure, OutputError):
                raise failure from None

    def _finish(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            self._todo.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (images := self._todo.get()) is not None:
            if self._failure is not None:
                continue  # so that nobody waits for room in the queue
            try:
                self._write(images)
            except BaseException as error:
                self._failure = error

    def _write(self, images: Sequence[Finished]) -> None:
        files = [(image.item.file, _encoded(image)) for image in images]
        check_room(self.run.path, sum(len(data) for _, data in files))
        placed, failure = write_files(self.run.path, files, self._prefix)
        records = [
            self._record(image, data)
            for image, (_, data) in zip(images[:placed], files, strict=False)
        ]
        self._manifest.append(records)
        for record in records:
            self._safe.put(record)
        if failure is not None:
            raise failure

    def _record(self, image: Finished, data: bytes) -> Record:
        name, digest = image.item.file, hashlib.sha256(data).hexdigest()
        again = {"again": self._again[name]} if name in self._again else {}
        facts = {**image.item.facts, **image.facts, **again}
        return {"file": name, **facts, "bytes": len(data), "sha256": digest}


def _encoded(image: Finished) -> bytes:
    assert image.pixels is not None  # or it would not have been handed over
    return encode_image(image.pixels, Path(image.item.file).suffix, image.recipe)


def record_file(run: RunFolder, shard: Shard, name: str, facts: Mapping[str, Any]) -> None:
    """Notes a file that was made beside the images, so that damage to it is found too."""
    size, digest = file_digest(run.path / name)
    old = run.records().get(name)
    if old is not None and (old["bytes"], old["sha256"]) == (size, digest):
        return
    again = {} if old is None else {"again": old.get("again", 0) + 1}
    record = {"file": name, **facts, **again, "bytes": size, "sha256": digest}
    with run.lock(shard.name) as alone:
        manifest = ManifestWriter(run.manifest(shard), alone=alone)
        try:
            manifest.append([record])
        finally:
            manifest.close()


def check_room(folder: Path, needed: int) -> None:
    """Raises OutputError if ``folder``'s disk has no room for so many bytes."""
    try:
        free = free_disk(folder)
    except OSError as error:
        raise OutputError(explain_os_error(f"cannot write to {folder}", error)) from error
    if free < needed + _SPARE_BYTES:
        raise OutputError(
            f"cannot write to {folder}: {_megabytes(needed)} are needed and {_megabytes(free)} "
            f"free: the disk is full; make room and run the same command again"
        )


def _megabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
