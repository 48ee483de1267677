"""A run from its settings to its folder: what `adm sample` and `adm upsample` have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adm_cli.commands.drawing import (
    Draw,
    OnStep,
    Telling,
    draw_into,
    nothing,
    write_grid_of,
    write_npz,
)
from adm_cli.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from adm_cli.storage.outputs import Film
    from adm_cli.storage.plans import Item, Plan
    from adm_cli.storage.runs import RunFolder, Shard
    from adm_cli.storage.writing import Finished

FORMATS = ("png", "webp", "npz")
FRESH = Path("out")  # holds the folders of runs without --out
BASE, HIDDEN_BASE = "base", ".base"  # in a run's folder: small pictures, kept or in passing


@dataclass(frozen=True)
class Outputs:
    """Where the results of one run go, and in which form."""

    out: Path | None  # None: a fresh folder
    format: str
    grid: bool
    animation: Path | None
    overwrite: bool
    shard: Shard

    @property
    def suffix(self) -> str:
        """Of the images: an npz is made of PNGs."""
        return ".webp" if self.format == "webp" else ".png"

    @property
    def folder(self) -> Path:
        from adm_cli.storage.outputs import fresh_folder

        return fresh_folder(FRESH) if self.out is None else self.out


@dataclass(frozen=True)
class Loaded:
    """Weights in memory, and what is to be done with them."""

    batch_size: int
    draw: Callable[[RunFolder, Plan], Draw]
    steps: int | None = None  # that `draw` makes for a batch; None: all that the plan has


@dataclass(frozen=True)
class Job:
    """A run that is asked for; ``load`` is called only where images are missing."""

    plan: Plan
    outputs: Outputs
    tell: Telling
    load: Callable[[], Loaded]
    finish: Callable[[RunFolder, Plan], None] = lambda _run, _plan: None


def find_outputs(
    out: Path | None, format: str, grid: bool, animation: Path | None, overwrite: bool, shard: Shard
) -> Outputs:
    """Raises UsageError for what cannot be asked for together."""
    if format not in FORMATS:
        hint = did_you_mean(format, FORMATS)
        raise UsageError(f"unknown --format {format!r}{hint} (there are {', '.join(FORMATS)})")
    if animation is not None and animation.suffix.lower() not in (".gif", ".webp"):
        raise UsageError(f"--animate {animation}: expected a name that ends in .gif or .webp")
    if shard.count > 1 and (overwrite or grid or animation is not None or format == "npz"):
        raise UsageError(
            f"shard {shard} sees a part of the run: draw every shard without --grid, --animate, "
            f"--format npz and --overwrite, then run the same command without --shard, or adm merge"
        )
    return Outputs(out, format, grid, animation, overwrite, shard)


def run_job(job: Job) -> None:
    """Begins or goes on with a run: all that could go wrong first, then weights, then images."""
    from adm_cli.storage.runs import RunFolder

    fresh, outputs, plan = job.outputs.out is None, _prepare(job.outputs, job.plan), job.plan
    run = RunFolder(outputs.folder)
    try:
        loaded, automatic = None, _automatic(plan)
        mine = outputs.shard.share(plan.items)
        if outputs.overwrite or len(run.kept(mine)) < len(mine):  # else there is nothing to load
            loaded = job.load()
            plan = replace(plan, settings={**plan.settings, "batch_size": loaded.batch_size})
        plan, changes = run.begin(plan, automatic=automatic, overwrite=outputs.overwrite)
        if changes:
            job.tell.note(f"since {run.path} was begun, this has changed: {', '.join(changes)}")
        draw = nothing if loaded is None else loaded.draw(run, plan)
        steps = plan.settings["num_steps"]
        if loaded is not None and loaded.steps is not None:
            steps = loaded.steps
        _draw_images(draw, steps, run, plan, outputs, job.tell)
        job.finish(run, plan)
    finally:
        if fresh and not any((run.path / name).exists() for name in (BASE, HIDDEN_BASE)):
            run.discard_if_empty()


def _prepare(outputs: Outputs, plan: Plan) -> Outputs:
    """Everything that could go wrong with the output, before any work."""
    from adm_cli.storage.files import check_writable, refuse_existing
    from adm_cli.storage.outputs import make_fresh_folder
    from adm_cli.storage.runs import RunFolder

    if outputs.out is None:
        outputs = replace(outputs, out=make_fresh_folder(FRESH))
    check_writable(outputs.folder)
    if outputs.animation is not None:
        check_writable(outputs.animation.parent)
    run = RunFolder(outputs.folder)
    run.check(plan, automatic=_automatic(plan), overwrite=outputs.overwrite)
    if outputs.overwrite:
        return outputs
    files = []
    if not run.exists():
        files += [outputs.folder / "grid.png"] if outputs.grid else []
        files += sorted(outputs.folder.glob("samples_*.npz")) if outputs.format == "npz" else []
    if outputs.animation is not None and not run.kept(plan.items[:1]):
        files.append(outputs.animation)
    refuse_existing(files)
    return outputs


def _automatic(plan: Plan) -> list[str]:
    """Settings that were left to the program: a run that is there keeps its own."""
    return ["batch_size"] if plan.settings["batch_size"] is None else []


def _draw_images(
    draw: Draw, steps: int, run: RunFolder, plan: Plan, outputs: Outputs, tell: Telling
) -> None:
    from adm_cli.storage.outputs import Film

    items = plan.items
    closing = []
    if outputs.format == "npz":
        closing.append(lambda: write_npz(run, outputs.shard, tell))
    if outputs.grid:
        closing.append(lambda: write_grid_of(run, items, outputs.shard, tell))
    if outputs.animation is not None:
        if run.kept(items[:1]):
            if not outputs.animation.exists():
                tell.note(f"no {outputs.animation}: the first image was drawn before")
        else:
            film = Film(outputs.animation, steps, len(items))
            draw = _filmed(draw, film)
            closing.append(lambda: _write_film(run, film, outputs.shard, tell))
    height, width = plan.settings["size"]
    draw_into(
        run,
        outputs.shard,
        items,
        draw,
        steps=steps,
        tell=tell,
        image_bytes=height * width * 3 // 2,  # a PNG seldom has less
        closing=closing,
    )


def _filmed(draw: Draw, film: Film) -> Draw:
    """``draw``, its first batch shown to ``film``."""

    def filmed(missing: Sequence[Item], on_step: OnStep) -> Iterator[Sequence[Finished]]:
        first = True

        def on_filmed_step(step: Any) -> None:
            if first:
                film.add(step.i, step.x)
            on_step(step)

        for batch in draw(missing, on_filmed_step):
            first = False
            yield batch

    return filmed


def _write_film(run: RunFolder, film: Film, shard: Shard, tell: Telling) -> None:
    from adm_cli.storage.writing import record_file

    frames = film.close()
    if frames:
        if film.path.parent.resolve() == run.path.resolve():
            record_file(run, shard, film.path.name, {"frames": frames})
        tell.result({"path": str(film.path), "frames": frames})
