"""Images to disk, encoded and written by a thread while the next ones are drawn."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from adm_cli.errors import OutputError
from adm_cli.files.disk import explained, file_digest, free_disk, size_text, write_files
from adm_cli.files.links import remove
from adm_cli.files.manifests import ManifestWriter, Record
from adm_cli.pictures.images import Pixels, Recipe, encode_image
from adm_cli.sampling.choosing.images import Image
from adm_cli.sampling.folder import RunFolder, Shard

_QUEUED = 2  # batches that may wait: sampling goes on, memory does not grow
_SPARE_BYTES = 2**20  # of disk, for manifests and what else is written


@dataclass(frozen=True)
class DrawnImage:
    """An image that is drawn and not yet written."""

    image: Image
    pixels: Pixels | None  # uint8 [H, W, 3]; None: not finite, so that it cannot be written
    recipe: Recipe | None
    facts: Mapping[str, Any] = field(default_factory=dict)  # for its line, beside the image's


class ImageWriter:
    """Writes the images of one shard of a run, holding its lock.

    A batch is encoded, synced and renamed as one, then its lines go to the manifest. `close`
    finishes what was handed over.
    """

    def __init__(self, run: RunFolder, shard: Shard) -> None:
        self.run, self.shard = run, shard
        self._todo: queue.Queue[Sequence[DrawnImage] | None] = queue.Queue(_QUEUED)
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
            self._known = self.run.records()
            self._metadata = self.run.read().metadata
            thread = threading.Thread(target=self._work, name="adm-writer", daemon=True)
            thread.start()
            self._thread = thread
            self._closing = stack.pop_all()

    def add(self, images: Sequence[DrawnImage]) -> None:
        """Hands over images; waits while the disk is behind. Raises what went wrong in writing."""
        self.check()
        self._todo.put(images)

    def check(self) -> None:
        """Raises what went wrong in writing."""
        if self._failure is not None:
            raise self._failure

    def told(self) -> Iterator[Record]:
        """The records of images that have become safe, each once."""
        while not self._safe.empty():
            yield self._safe.get()

    def close(self) -> None:
        """Finishes what was handed over, and lets go of the lock."""
        with self._closing:
            try:
                self._finish()
            except KeyboardInterrupt:  # what is drawn is still kept, unless somebody insists
                self._finish()
                raise

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

    def _write(self, images: Sequence[DrawnImage]) -> None:
        if not self._metadata:
            images = [replace(done, recipe=None) for done in images]
        files = [(done.image.file, _encoded(done)) for done in images]
        check_room(self.run.path, sum(len(data) for _, data in files))
        placed, failure = write_files(self.run.path, files, self._prefix)
        records = [
            self._record(done, data)
            for done, (_, data) in zip(images[:placed], files, strict=False)
        ]
        self._manifest.append(records)
        for record in records:
            self._safe.put(record)
        if failure is not None:
            raise failure

    def _record(self, done: DrawnImage, data: bytes) -> Record:
        name, digest = done.image.file, hashlib.sha256(data).hexdigest()
        lost = self._known.get(name)  # or it would not be drawn again
        again = {} if lost is None else {"again": lost.get("again", 0) + 1}
        facts = {**done.image.facts(), **done.facts, **again}
        return {"file": name, **facts, "bytes": len(data), "sha256": digest}


def _encoded(done: DrawnImage) -> bytes:
    assert done.pixels is not None  # or it would not have been handed over
    return encode_image(done.pixels, Path(done.image.file).suffix, done.recipe)


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
    with explained(f"cannot write to {folder}"):
        free = free_disk(folder)
    if free < needed + _SPARE_BYTES:
        raise OutputError(
            f"cannot write to {folder}: {size_text(needed)} are needed and {size_text(free)} "
            f"free: the disk is full; make room and run the same command again"
        )
