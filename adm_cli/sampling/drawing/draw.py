"""Drawing the images of a run into its folder: what is missing, whoever stops it and when."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from adm_cli.devices import use_threads
from adm_cli.errors import NotFiniteError, OutputError, trim
from adm_cli.events import Note
from adm_cli.sampling.beside import make_beside
from adm_cli.sampling.choosing.images import Image
from adm_cli.sampling.drawing.batch import OVERFLOW_ADVICE, class_and_seed
from adm_cli.sampling.drawing.easel import Easel, Events
from adm_cli.sampling.drawing.film import (
    Film,
    film_due,
    note_film,
    remove_film,
    write_film,
)
from adm_cli.sampling.drawing.models import Models
from adm_cli.sampling.drawing.paint import (
    DrawnBatch,
    ImageTask,
)
from adm_cli.sampling.drawing.refilm import film_again, late_film
from adm_cli.sampling.drawing.writer import ImageWriter, check_room
from adm_cli.sampling.events import BatchDone, Ended, Event, ImageDone, Started, Step
from adm_cli.sampling.folder import (
    HIDDEN_BASE,
    RunFolder,
    Shard,
    Survey,
    batch_sizes_of,
)
from adm_cli.sampling.outputs import Extras
from adm_cli.sampling.run import Run

_CHUNK = 256  # batches that are prepared at once, so that memory does not grow with the images
WHOLE, NOTHING = Shard(), Extras()
Only = Mapping[str, Mapping[str, int]]  # files, and batch sizes where they are not in the lines


def draw(
    run: Run,
    folder: RunFolder,
    models: Models,
    *,
    shard: Shard = WHOLE,
    only: Only | None = None,
    beside: Extras = NOTHING,
    keep_base: bool = False,
    overwrite: bool = False,
) -> Events:
    """Begins or goes on with a run: draws those of its images that are not there.

    Weights are loaded only where images are missing, before anything is written. Stopped at any
    time, by an error or by Ctrl-C, it keeps and tells what is done. Images that are there are told
    too, so that the events are the same however often a run is drawn. ``only`` are the files to
    draw, if given; ``keep_base`` keeps the small pictures of a stack.

    Raises RunError where the folder holds another run, OutputError where it cannot be written to,
    and NotFiniteError, once all others are kept, if images were not finite: these stay missing.
    """
    folder.check(run, overwrite=overwrite)
    film, late = beside.film, False
    if film is not None and not overwrite:
        late = film_due(folder, run, film)
    wanted = folder.survey(run.images, shard, only, overwrite=overwrite)
    busy = len(wanted.missing) > 0 or late
    if busy:
        yield from models.prepare(run, keep_base=keep_base)
    run, changes = folder.begin(run, overwrite=overwrite)
    if changes:
        yield Note(f"since {folder.path} was begun, this has changed: {', '.join(changes)}")
    if busy:
        run = replace(run, device=models.device.type)  # a repair may take place on another
        yield from take_threads(folder, run)
    if film is not None and overwrite:
        remove_film(film)  # of other images, which are gone
    easel = Easel(run, folder, models, shard, draw, overwrite=overwrite)
    # Small pictures that come first have a folder until all images are there.
    both = len(wanted.missing) > 0 and not folder.bases()
    work = _Work(run, folder, easel, shard, only, beside)
    yield from work.draw(wanted)
    try:
        if film is not None and late:
            tasks = next(work.chunks(np.arange(len(run.images))))
            yield from late_film(easel, film, tasks, both=both)
        elif film is not None:
            note_film(folder, run, film)
    finally:
        drop_base(folder, run)


def take_threads(folder: RunFolder, run: Run) -> Iterator[Note]:
    """From here on the number of CPU threads computes with which the run was begun."""
    mine = torch.get_num_threads()
    if not use_threads(run.threads):
        text = f"threads {trim(run.threads, 20)} -> {mine}"
        yield Note(f"since {folder.path} was begun, this has changed: {text}")
    elif run.threads not in (None, mine):
        yield Note(f"computing with {run.threads} CPU threads, as {folder.path} was begun")


def draw_share(
    run: Run, folder: RunFolder, models: Models, shard: Shard, only: Only
) -> Events:  # fmt: skip
    """Draws the files ``only`` of a run that was begun, as one of several processes, ``shard``."""
    yield from take_threads(folder, run)
    easel = Easel(run, folder, models, shard, draw)
    work = _Work(run, folder, easel, shard, only, NOTHING)
    yield from work.draw(folder.survey(run.images, shard, only))


def those_there(folder: RunFolder, wanted: Survey) -> Iterator[ImageDone]:
    """Tells of the images that were drawn before."""
    records = folder.records()
    for file in wanted.there:
        yield ImageDone(folder.path, records.told(file), new=False)


def image_tasks(
    run: Run, folder: RunFolder, missing: npt.NDArray[np.int64], only: Only | None = None
) -> Iterator[list[ImageTask]]:
    """Images, some at a time, with the batch sizes that are known of them."""
    if not len(missing):
        return
    records, size = folder.records(), _CHUNK * run.batch_size
    for first in range(0, len(missing), size):
        tasks = []
        for place in missing[first : first + size]:
            image = run.images[place]
            record = records.get(image.file)
            sizes = (only or {}).get(image.file, {})
            tasks.append(ImageTask(image, sizes if record is None else batch_sizes_of(record)))
        yield tasks


def drop_base(folder: RunFolder, run: Run) -> None:
    """Removes the small pictures of a finished run that were not to be kept."""
    base = folder.inner(HIDDEN_BASE)
    if base.path.is_dir() and not len(folder.survey(run.images).missing):
        base.discard()


class _Work:
    """The images of a run that a process draws."""

    def __init__(
        self, run: Run, folder: RunFolder, easel: Easel, shard: Shard, only: Only | None,
        beside: Extras,
    ) -> None:  # fmt: skip
        self.run, self.folder, self.easel, self.shard = run, folder, easel, shard
        self.only, self.beside = only, beside
        self.film: Film | None = None
        self.writer = ImageWriter(folder, shard)
        self.drawn = 0
        self.overflowed: list[Image] = []
        self.started = time.monotonic()

    def draw(self, wanted: Survey) -> Events:
        """Draws, writes, and makes what goes beside the images, as far as they are there."""
        run, folder = self.run, self.folder
        if self.beside.film is not None and not folder.drawn_any(run.images):
            every = Film.spacing(run.num_steps)
            self.film = Film(self.beside.film, every, self.easel.steps, len(run.images))
        if len(wanted.missing):
            yield from self.easel.begin(self.chunks(wanted.missing))
            height, width = run.size  # a PNG seldom has less
            check_room(folder.path, len(wanted.missing) * (height * width * 3 // 2))
            self.writer.open()  # refused before anything is told, if another process draws these
        self.started = time.monotonic()
        failure: BaseException | None = None
        try:
            if len(wanted.missing):  # another process may have finished some before it let go
                wanted = folder.survey(run.images, self.shard, self.only)
            yield from self._paint(wanted)
        except GeneratorExit:  # whoever listened has left
            self.writer.close()
            raise
        except BaseException as error:
            failure = error
        yield from self._end(wanted, failure)
        if self.overflowed:
            raise _overflow(folder, self.overflowed)

    def _paint(self, wanted: Survey) -> Events:
        total = len(wanted.there) + len(wanted.missing)
        easel = self.easel
        yield Started(self.folder.path, total, len(wanted.there), easel.steps, easel.what)
        yield from those_there(self.folder, wanted)
        for tasks in self.chunks(wanted.missing):
            for found in self.easel.paint(tasks):
                if isinstance(found, list):
                    yield from self._keep(found)
                    continue
                if isinstance(found, Step) and self.film is not None and not self.film.images:
                    self.film.add(found)
                yield found
                yield from self._safe()

    def chunks(self, missing: npt.NDArray[np.int64]) -> Iterator[list[ImageTask]]:
        return image_tasks(self.run, self.folder, missing, self.only)

    def _keep(self, batch: DrawnBatch) -> Events:
        if self.film is not None and not self.film.images:
            self.film.end(self.run, batch)
        for image in (done.image for done in batch if done.pixels is None):
            self.overflowed.append(image)
            yield Note(f"{_named(self.folder, image)} is not finite and is not written")
        if good := [done for done in batch if done.pixels is not None]:
            self.writer.add(good)
        yield BatchDone(len(batch))
        yield from self._safe()

    def _safe(self) -> Iterator[ImageDone]:
        self.writer.check()
        yield from self._told()

    def _told(self) -> Iterator[ImageDone]:
        for record in self.writer.told():
            self.drawn += 1
            yield ImageDone(self.folder.path, record, new=True)

    def _end(self, wanted: Survey, failure: BaseException | None) -> Events:
        """Keeps and tells what is done, and raises what stopped the work."""
        for act in (self._finish_writing, self._make_beside):
            try:
                yield from act()
            except GeneratorExit:
                raise
            except OutputError as error:
                failure = error
            except BaseException as error:
                failure = failure or error
        self.drawn += sum(1 for _ in self.writer.told())  # safe, and untold as the telling failed
        there, seconds = len(wanted.there), time.monotonic() - self.started
        total = there + len(wanted.missing)
        yield Ended(self.folder.path, total, there, self.drawn, seconds)
        if failure is not None:
            raise failure

    def _finish_writing(self) -> Events:
        try:
            self.writer.close()
        finally:
            yield from self._told()
        self.writer.check()

    def _make_beside(self) -> Events:
        folder, run, shard = self.folder, self.run, self.shard
        yield from make_beside(folder, run, shard, self.beside)
        if self.film is not None and folder.drawn_any(run.images):
            yield from write_film(folder, self.film, shard)  # else it is filmed again


def _overflow(folder: RunFolder, images: Sequence[Image]) -> NotFiniteError:
    are = "is" if len(images) == 1 else f"and {len(images) - 1:,} more are"
    return NotFiniteError(f"{_named(folder, images[0])} {are} not finite: {OVERFLOW_ADVICE}")


def _named(folder: RunFolder, image: Image) -> str:
    return f"{folder.path / image.file} ({class_and_seed(image.class_id, image.seed)})"


def draw_film(
    run: Run, folder: RunFolder, models: Models, path: Path, facts: Mapping[str, Any], *,
    keep_base: bool,
) -> Generator[Event, None, bool]:  # fmt: skip
    """Draws the images of a film that was lost once more, for the film alone.

    Writes nothing, and returns False, if it would not be what its ``facts`` say: where both stages
    of a stack were filmed and no longer fit into memory together, or not as many images as then.
    """
    yield from models.prepare(run, keep_base=keep_base)
    yield from take_threads(folder, run)
    easel = Easel(run, folder, models, Shard(), draw)
    try:
        return (yield from film_again(easel, path, facts))
    finally:
        drop_base(folder, run)
