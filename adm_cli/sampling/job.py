"""A run that is asked for, from its settings to its folder: what is common to all that draw."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from adm_cli.devices import own_threads
from adm_cli.errors import UsageError
from adm_cli.events import Hint, Note, OnEvent
from adm_cli.files.disk import check_writable, refuse_existing
from adm_cli.files.fresh import make_fresh_folder
from adm_cli.files.links import check_inside
from adm_cli.files.manifests import Record
from adm_cli.sampling.beside import GRID, add_grid, check_beside
from adm_cli.sampling.drawing.draw import draw
from adm_cli.sampling.drawing.film import may_write_film
from adm_cli.sampling.drawing.memory import AUTO_BATCH
from adm_cli.sampling.drawing.models import Models
from adm_cli.sampling.drawing.workers import draw_shared
from adm_cli.sampling.events import Event, FileMade, follow
from adm_cli.sampling.folder import RunFolder, Shard
from adm_cli.sampling.outputs import FRESH, PAGE, Outputs
from adm_cli.sampling.run import Run
from adm_cli.sampling.verifying.costs import drawing_costs
from adm_cli.training.distributed import find_world


@dataclass(frozen=True)
class RunResult:
    """A run's folder after drawing, or what was asked for of a dry run."""

    run: Run
    folder: Path
    settings: Mapping[str, Any]  # as --dry-run shows them; empty where images were drawn
    files: Sequence[Path] = ()  # made beside the images
    part: bool = False  # one of several processes' share was drawn

    def records(self) -> Iterator[Record]:
        """The manifest's line of each image that is there, in the order asked for."""
        yield from RunFolder(self.folder).kept(self.run.images)

    def add_grid(self) -> FileMade | None:
        """`beside.add_grid` of the run; None where other processes draw parts of it."""
        return None if self.part else add_grid(RunFolder(self.folder), self.run)

    def paths(self) -> list[Path]:
        """The images that are there, in the order asked for."""
        return [self.folder / record["file"] for record in self.records()]


@dataclass(frozen=True)
class RunPart:
    """This process's part of a run, by ``--shard`` and by torchrun."""

    shard: Shard
    device: str


def find_part(shard: str | None, device: str, out: Path | None) -> RunPart:
    """Which shard to draw, and where; torchrun's processes divide ``--shard`` further.

    Raises UsageError.
    """
    world = find_world()
    if not 0 <= world.rank < world.size:
        raise UsageError(
            f"RANK={world.rank}: expected from 0 to {world.size - 1}, as WORLD_SIZE={world.size}"
        )
    outer = Shard() if shard is None else Shard.parse(shard)
    part = Shard(world.rank + 1, world.size).within(outer)
    if part.count > 1 and out is None:
        raise UsageError("several processes share one run: name its folder with --out")
    if world.size > 1 and device in ("auto", "cuda") and torch.cuda.is_available():
        device = f"cuda:{world.local_rank % torch.cuda.device_count()}"
    return RunPart(part, device)


def check_workers(workers: int, device: torch.device) -> None:
    """Raises UsageError for a number of processes that cannot share a run on a device."""
    if workers < 1:
        raise UsageError(f"--workers {workers}: expected at least 1")
    if workers > 1 and device.type != "cpu":
        raise UsageError(
            f"--workers share a CPU, and this is {device}: pass --device cpu, or share the run "
            f"out over GPUs by torchrun"
        )


@dataclass(frozen=True)
class SamplingJob:
    """A run that is asked for."""

    run: Run
    models: Models
    outputs: Outputs
    settings: Mapping[str, Any]  # for a person
    notes: Sequence[str] = ()
    keep_base: bool = False
    workers: int = 1
    hints: Sequence[str] = ()  # at a terminal

    def preview(self) -> RunResult:
        """What would be drawn; raises as drawing would, and writes nothing."""
        outputs = self.outputs
        folder = outputs.folder
        run = _as_begun(outputs, folder, self.run)
        folder.check(run, overwrite=outputs.overwrite)
        wanted = folder.survey(run.images, outputs.shard, overwrite=outputs.overwrite)
        missing = len(wanted.missing)
        facts = {
            **self.settings,
            "batch_size": run.batch_size,
            "batch_size_by": AUTO_BATCH if "batch_size" in self.run.chosen else "asked for",
            "device": run.device,
            "dtype": run.first.dtype,
            "out": str(folder.path),
            "format": outputs.format,
            **({} if run.metadata else {"metadata": False}),
            "shard": str(outputs.shard),
            **({"workers": self.workers} if self.workers > 1 else {}),
            "to_draw": missing,
            **drawing_costs(folder, run, self.models.sources, missing),
        }
        return RunResult(run, folder.path, facts)

    @own_threads()
    def carry_out(self, on_event: OnEvent | None) -> RunResult:
        """Draws what is missing."""
        files: list[Path] = []

        def watch(event: Event) -> None:
            if isinstance(event, FileMade):
                files.append(event.path)
            if on_event is not None:
                on_event(event)

        return replace(follow(self._events(), watch), files=files)

    def _events(self) -> Generator[Event, None, RunResult]:
        outputs = self.outputs
        yield from map(Hint, self.hints)
        yield from map(Note, self.notes)
        folder, run = _prepared(outputs, self.run)
        try:
            # a process that is alone draws by itself
            how = draw if self.workers == 1 else partial(draw_shared, workers=self.workers)
            yield from how(
                run, folder, self.models, shard=outputs.shard, beside=outputs.beside,
                keep_base=self.keep_base, overwrite=outputs.overwrite,
            )  # fmt: skip
        finally:
            if outputs.out is None and not folder.bases():
                folder.discard_if_empty()
        return RunResult(run, folder.path, {}, part=outputs.shard.count > 1)


def _as_begun(outputs: Outputs, folder: RunFolder, run: Run) -> Run:
    return run if outputs.overwrite else folder.as_begun(run)


def _prepared(outputs: Outputs, run: Run) -> tuple[RunFolder, Run]:
    """The run's folder, and the run with the names it has there.

    Raises whatever could go wrong with the output, before any work.
    """
    folder, film = outputs.folder, outputs.beside.film
    if film is not None:
        check_inside(film.parent)  # before a folder is made
    if outputs.out is not None:
        check_writable(outputs.out)
        run = _as_begun(outputs, folder, run)
        folder.check(run, overwrite=outputs.overwrite)
    if film is not None:
        check_writable(film.parent)
    check_beside(folder, run, outputs.beside)
    files = []
    if not folder.exists():
        files += [folder.path / GRID] if outputs.beside.grid else []
        files += [folder.path / PAGE] if outputs.beside.gallery else []
        files += sorted(folder.path.glob("samples_*.npz")) if outputs.beside.npz else []
    if film is not None and not may_write_film(folder, run, film):
        files.append(film)
    if not outputs.overwrite:
        refuse_existing(files)
    return (folder if outputs.out is not None else RunFolder(make_fresh_folder(FRESH))), run
