"""Drawing a run by several processes of this machine, as if by one.

Each batch is one that a single process would compute, and goes to one of the workers; so at the
same batch size and number of threads of a process the pictures are the same, byte for byte.
"""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adm_cli.errors import AdmError
from adm_cli.events import Note
from adm_cli.sampling.beside import make_beside
from adm_cli.sampling.drawing.draw import (
    NOTHING,
    WHOLE,
    Only,
    draw,
    drop_base,
    image_tasks,
    those_there,
)
from adm_cli.sampling.drawing.easel import Events
from adm_cli.sampling.drawing.models import Models
from adm_cli.sampling.drawing.paint import batches
from adm_cli.sampling.drawing.worker import Assignment, Share, WeightsLoaded, WorkerFailure
from adm_cli.sampling.events import BatchDone, Ended, Event, ImageDone, Started, Step
from adm_cli.sampling.folder import RunFolder, Shard, Survey
from adm_cli.sampling.outputs import Extras
from adm_cli.sampling.run import Run

# The modules of this process, wherever they are, and nothing of the present folder.
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[1:]; "
    "from adm_cli.sampling.drawing.worker import serve; serve()"
)


def draw_shared(
    run: Run,
    folder: RunFolder,
    models: Models,
    *,
    workers: int,
    shard: Shard = WHOLE,
    beside: Extras = NOTHING,
    keep_base: bool = False,
    overwrite: bool = False,
) -> Events:
    """As `draw`, by ``workers`` processes on the CPU, or as many as there are batches.

    Stopped by an error or by Ctrl-C, it stops them all; what they have finished is kept and told.
    Where one of them fails or dies that is told, the others go on to the end, and then its error
    is raised.
    """
    folder.check(run, overwrite=overwrite)
    wanted = folder.survey(run.images, shard, overwrite=overwrite)
    begun = run if overwrite else folder.as_begun(run)
    count = min(workers, sum(1 for _ in _batches(begun, folder, wanted.missing)))
    if count < 2:
        if len(wanted.missing):
            yield Note(f"{_images(len(wanted.missing))} are one batch, which one process draws: "
                       f"a smaller --batch-size gives {workers} workers one each")  # fmt: skip
        yield from draw(run, folder, models, shard=shard, beside=beside, keep_base=keep_base,
                        overwrite=overwrite)  # fmt: skip
        return
    yield from models.plan(run, keep_base=keep_base)
    with Crew(count, run.threads) as crew:
        crew.prepare(models)
        run, changes = folder.begin(run, overwrite=overwrite)
        if changes:
            yield Note(f"since {folder.path} was begun, this has changed: {', '.join(changes)}")
        work = _SharedWork(run, folder, crew, shard)
        yield from work.draw(wanted, beside, models)


def _batches(run: Run, folder: RunFolder, missing: npt.NDArray[np.int64]) -> Iterator[list[str]]:
    for tasks in image_tasks(run, folder, missing):
        for images in batches(run, tasks):
            yield [image.file for image in images]


def _images(count: int) -> str:
    return f"{count:,} images"


class _SharedWork:
    """What the workers draw, told as what one process draws."""

    def __init__(self, run: Run, folder: RunFolder, crew: Crew, shard: Shard) -> None:
        self.run, self.folder, self.crew, self.shard = run, folder, crew, shard
        self.shown: Path | None = None  # the folder of which progress is told
        self.places: dict[int, Path | None] = {}  # and where each worker is
        self.notes: set[str] = set()  # each is told once
        self.told: set[str] = set()  # files of new images

    def draw(self, wanted: Survey, beside: Extras, models: Models) -> Events:
        started, failure = time.monotonic(), None
        with self.folder.lock(self.shard.name):  # refused, if another process draws these
            self.crew.assign(self._shares(wanted))
            try:
                for worker, event in self.crew.events():
                    yield from self._told(worker, event, wanted)
            except GeneratorExit:
                raise
            except BaseException as error:
                failure = error
            yield from self._rest(wanted)
            safe = self.folder.survey(self.run.images, self.shard).there
            yield from self._untold(safe, wanted)
        there = len(wanted.there)
        failure = failure or self.crew.failure()
        drop_base(self.folder, self.run)
        try:
            yield from self._beside(beside, models, whole=failure is None)
        except GeneratorExit:
            raise
        except BaseException as error:
            failure = failure or error
        seconds, total = time.monotonic() - started, there + len(wanted.missing)
        yield Ended(self.folder.path, total, there, len(safe) - there, seconds)
        if failure is not None:
            raise failure

    def _shares(self, wanted: Survey) -> Iterator[Share]:
        """Batches in turn, so that all workers end at about the same time."""
        count = len(self.crew)
        shares: list[dict[str, dict[str, int]]] = [{} for _ in range(count)]
        for i, files in enumerate(_batches(self.run, self.folder, wanted.missing)):
            shares[i % count].update((file, {}) for file in files)
        for i, files_of_one in enumerate(shares):
            only: Only = files_of_one
            part = Shard(i + 1, count).within(self.shard)
            yield Share(self.run, self.folder.path, part, only)

    def _told(self, worker: int, event: Event, wanted: Survey) -> Events:
        if isinstance(event, Started):
            self.places[worker] = event.folder
            if self.shown is None or event.folder == self.folder.path != self.shown:
                self.shown = event.folder
                yield from self._begun(event, wanted)
        elif isinstance(event, ImageDone):
            if event.folder == self.folder.path:
                self.told.add(str(event.record["file"]))
            yield event
        elif isinstance(event, (Step, BatchDone)):
            if self.places.get(worker) == self.shown:
                yield replace(event, worker=worker)
        elif isinstance(event, Note) and event.text not in self.notes:
            self.notes.add(event.text)
            yield event

    def _begun(self, event: Started, wanted: Survey) -> Events:
        """Of all workers, what one of them has begun: the run, or first its small pictures."""
        if event.folder is not None and event.folder != self.folder.path:
            files = [self.run.images[place].file for place in wanted.missing]
            inner = RunFolder(event.folder).survey(self.run.images, only=files)
            yield replace(event, images=len(files), there=len(inner.there))
            return
        there = len(wanted.there)
        yield replace(event, images=there + len(wanted.missing), there=there)
        yield from those_there(self.folder, wanted)

    def _rest(self, wanted: Survey) -> Events:
        """Stops the workers, and tells what they have finished by then."""
        self.crew.stop()
        insisted: BaseException | None = None
        for worker, event in self.crew.events(patient=True):
            if isinstance(event, (ImageDone, Note)):
                try:
                    yield from self._told(worker, event, wanted)
                except GeneratorExit:
                    raise
                except BaseException as error:  # somebody insists
                    self.crew.kill()
                    insisted = error
        if insisted is not None:
            raise insisted

    def _untold(self, safe: Sequence[str], wanted: Survey) -> Events:
        """Images whose worker was killed before its word of them was heard, or a signal took it."""
        records, known = self.folder.records(), self.told.union(wanted.there)
        for file in safe:
            if file not in known:
                yield ImageDone(self.folder.path, records.told(file), new=True)

    def _beside(self, beside: Extras, models: Models, *, whole: bool) -> Events:
        folder, run, shard = self.folder, self.run, self.shard
        if beside.film is not None and whole:  # as of images that were there before
            for event in draw(run, folder, models, shard=shard, beside=beside,
                              keep_base=models.keep_base):  # fmt: skip
                of_film = not isinstance(event, (Started, Ended)) or event.folder is None
                if of_film and not isinstance(event, ImageDone):
                    yield event
            return
        yield from make_beside(folder, run, shard, beside)


class Crew:
    """Processes that draw, in a session of their own: a terminal's Ctrl-C is for this one alone."""

    def __init__(self, count: int, threads: int | None) -> None:
        self._messages: queue.Queue[tuple[int, Any]] = queue.Queue()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._going: set[int] = set()
        self._failures: dict[int, AdmError] = {}
        self._stopped = False
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads or 1)}
        with ExitStack() as stack:
            stack.callback(self._end)
            for i in range(count):
                process = subprocess.Popen(
                    [sys.executable, "-c", _PROGRAM, *sys.path],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
                    start_new_session=True,
                    creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
                )  # fmt: skip
                self._processes.append(process)
                self._going.add(i)
                threading.Thread(target=self._listen, args=(i, process), daemon=True).start()
            stack.pop_all()

    def __len__(self) -> int:
        return len(self._processes)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def prepare(self, models: Models) -> None:
        """Lets all load the weights; raises the error of one that cannot."""
        debug = os.environ.get("ADM_DEBUG", "0") not in ("", "0")
        for i in range(len(self)):
            self._order(i, Assignment(models, debug))
        waiting = set(self._going)
        while waiting:
            worker, message = self._next()
            if isinstance(message, WeightsLoaded):
                waiting.discard(worker)
            elif worker in self._failures:
                raise self._failures[worker]

    def assign(self, shares: Iterator[Share]) -> None:
        """Lets each draw its share."""
        for i, share in enumerate(shares):
            self._order(i, share)

    def events(self, *, patient: bool = False) -> Iterator[tuple[int, Event]]:
        """What each does, until all have ended; ``patient``: the first Ctrl-C is not yet an end."""
        while self._going:
            try:
                worker, message = self._next()
            except KeyboardInterrupt:
                if not patient:
                    raise
                self.kill()
                continue
            failure = self._failures.get(worker)
            if message is not None and failure is None:
                yield worker, message
            elif message is None and failure is not None and self._going and not self._stopped:
                yield worker, Note(f"{failure}; meanwhile the other workers go on")

    def stop(self) -> None:
        """Lets all end with what they have; their last events come yet."""
        self._stopped = self._stopped or bool(self._going)
        for process in self._processes:
            if process.stdin is not None:
                with suppress(OSError):
                    process.stdin.close()

    def kill(self) -> None:
        """Ends all at once; what is recorded stays so."""
        self._stopped = True
        for process in self._processes:
            process.kill()

    def failure(self) -> AdmError | None:
        """The first worker's that failed."""
        return self._failures[min(self._failures)] if self._failures else None

    def _order(self, worker: int, order: object) -> None:
        pipe = self._processes[worker].stdin
        assert pipe is not None
        with suppress(OSError):  # it has died, which is told when it is heard
            pickle.dump(order, pipe)
            pipe.flush()

    def _listen(self, worker: int, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        try:
            while True:
                self._messages.put((worker, pickle.load(process.stdout)))
        except Exception:  # its end, perhaps amid a message
            process.wait()
            self._messages.put((worker, None))

    def _next(self) -> tuple[int, Any]:
        """A message; None for the end of a worker, whose failure is noted."""
        worker, message = self._messages.get()
        if isinstance(message, WorkerFailure):
            self._failures[worker] = message.error
        elif message is None:
            self._going.discard(worker)
            code = self._processes[worker].returncode
            if code and worker not in self._failures and not self._stopped:
                self._failures[worker] = self._death(worker, code)
        return worker, message

    def _death(self, worker: int, code: int) -> AdmError:
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return AdmError(
            f"worker {worker + 1} of {len(self)} {how} (does memory suffice for so many?): the "
            f"other workers' images are kept, and the same command draws the rest"
        )

    def _end(self) -> None:
        """Leaves none behind."""
        self.stop()
        for process in self._processes:
            try:
                process.wait(timeout=0 if not self._going else 60)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                process.kill()
                process.wait()
            if process.stdout is not None:
                with suppress(OSError):
                    process.stdout.close()
