"""The stages of a run before its folder: both at once, or one after the other."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from adm_cli.errors import NotFiniteError
from adm_cli.sampling.choosing.inputs import InputPicture, run_picture
from adm_cli.sampling.drawing.models import Models
from adm_cli.sampling.drawing.paint import (
    FilterPainter,
    ImageTask,
    NetworkPainter,
    Painted,
    Painter,
    paint,
    paint_enlarged,
)
from adm_cli.sampling.drawing.writer import DrawnImage
from adm_cli.sampling.events import Ended, Event, ImageDone, Started
from adm_cli.sampling.folder import BASE, HIDDEN_BASE, RunFolder, Shard
from adm_cli.sampling.run import Filter, Run

Events = Generator[Event, None, None]


class Easel:
    """The stages of a run, ready to paint: all at once, or the second from a folder.

    Where both do not fit into memory, or the small pictures are to be kept, these are a run of
    their own in a folder within, so that nothing is lost when it is stopped.
    """

    def __init__(
        self,
        run: Run,
        folder: RunFolder,
        models: Models,
        shard: Shard,
        draw_base: Callable[..., Events],
        *,
        overwrite: bool = False,
    ) -> None:
        """``draw_base`` is `draw.draw`, for the small pictures."""
        self.run, self.folder, self.models, self.shard = run, folder, models, shard
        self._draw_base, self._overwrite = draw_base, overwrite
        self._painters: list[Painter] = []
        self._base: RunFolder | None = None

    @property
    def what(self) -> str:
        """What is done with the images, in a word."""
        later = self.models.apart and len(self.run.stages) > 1
        return "enlarging" if later or self.run.first.upsampler else "drawing"

    @property
    def steps(self) -> int:
        """That a batch takes."""
        if not self.models.apart:
            return self.run.num_steps
        return max(1, self.run.last.num_steps)

    def begin(self, chunks: Iterator[list[ImageTask]]) -> Events:
        """Draws the small pictures of these images, where they come first."""
        run = self.run
        if not self.models.apart:
            self._painters = [self.painter(i) for i in range(len(run.stages))]
            return
        self._painters.clear()
        self.models.drop(1)
        self._base = base = self.folder.inner(BASE if self.models.keep_base else HIDDEN_BASE)
        only = {
            task.image.file: {"batch_size": task.batch_sizes["base_batch_size"]}
            if "base_batch_size" in task.batch_sizes
            else {}
            for tasks in chunks
            for task in tasks
        }
        # Those in passing carry their recipes: lines of the large ones take batch sizes from them.
        small = replace(run.base(), metadata=run.metadata or not self.models.keep_base)
        drawing = self._draw_base(
            small, base, self.models.first(), shard=self.shard, only=only,
            overwrite=self._overwrite,
        )  # fmt: skip
        with suppress(NotFiniteError):  # the others are enlarged first
            yield from _of_base(drawing, self.folder)
        self.models.drop(0)
        self._painters = [self.painter(1)]

    def painter(self, i: int) -> Painter:
        """Stage ``i``, its weights loaded."""
        stage = self.run.stages[i]
        if isinstance(stage, Filter):
            return FilterPainter(self.run, stage, self.models.photos, alone=self.models.apart)
        return NetworkPainter(self.run, stage, self.models.load(i), self.models.photos)

    def paint(self, tasks: Sequence[ImageTask]) -> Iterator[Painted]:
        """All of these images, batch by batch; those without a small picture have no pixels."""
        if self._base is None and not self.run.first.upsampler:
            yield from paint(self._painters, self.run, tasks)
            return
        there = [task for task in tasks if self._has_picture(task.image.file)]
        (painter,) = self._painters
        if there:
            resize = self.models.resize
            yield from paint_enlarged(painter, self.run, there, self._picture, resize)
        if len(there) < len(tasks):
            names = {task.image.file for task in there}
            yield [DrawnImage(t.image, None, None) for t in tasks if t.image.file not in names]

    def _has_picture(self, file: str) -> bool:
        return file in self.models.pictures if self._base is None else self._base.has(file)

    def _picture(self, file: str) -> InputPicture:
        return self.models.pictures[file] if self._base is None else run_picture(self._base, file)


def _of_base(events: Events, folder: RunFolder) -> Events:
    """What happens in a folder within ``folder``: its images are nobody's result."""
    for event in events:
        if isinstance(event, Ended):
            yield replace(event, within=folder.path)
        elif isinstance(event, Started):
            yield replace(event, what="small pictures")
        elif not isinstance(event, ImageDone):
            yield event
