"""Where the images of `adm sample` go, and what is made beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adm_cli.commands.drawing import Draw, OnStep, Telling, write_grid_of, write_npz
from adm_cli.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from adm_cli.storage.outputs import Film
    from adm_cli.storage.plans import Item, Plan
    from adm_cli.storage.runs import RunFolder, Shard
    from adm_cli.storage.writing import Finished

FORMATS = ("png", "webp", "npz")
FRESH = Path("out")  # holds the folders of runs without --out


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


def choose_outputs(
    out: Path | None, format: str, grid: bool, animation: Path | None, overwrite: bool, shard: Shard
) -> Outputs:
    """The options, checked; raises UsageError."""
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


def prepare(outputs: Outputs, plan: Plan) -> Outputs:
    """Everything that could go wrong with the output, before any work; makes a fresh folder."""
    from adm_cli.storage.files import check_writable, refuse_existing
    from adm_cli.storage.outputs import make_fresh_folder
    from adm_cli.storage.runs import RunFolder

    run = RunFolder(outputs.folder)
    if outputs.out is not None:
        check_writable(outputs.out)
        run.check(plan, automatic=automatic(plan), overwrite=outputs.overwrite)
    if outputs.animation is not None:
        check_writable(outputs.animation.parent)
    files = []
    if not run.exists():
        files += [run.path / "grid.png"] if outputs.grid else []
        files += sorted(run.path.glob("samples_*.npz")) if outputs.format == "npz" else []
    if outputs.animation is not None and not run.kept(plan.items[:1]):
        files.append(outputs.animation)
    if not outputs.overwrite:
        refuse_existing(files)
    return outputs if outputs.out is not None else replace(outputs, out=make_fresh_folder(FRESH))


def automatic(plan: Plan) -> list[str]:
    """Settings that were left to the program: a run that is there keeps its own."""
    return ["threads"] + (["batch_size"] if plan.settings["batch_size"] is None else [])


def extras(
    outputs: Outputs, run: RunFolder, plan: Plan, draw: Draw, tell: Telling
) -> tuple[Draw, list[Callable[[], None]]]:
    """What is to be made of the images once they are safe; a film looks on as they are drawn."""
    from adm_cli.storage.outputs import Film

    closing: list[Callable[[], None]] = []
    if outputs.format == "npz":
        closing.append(lambda: write_npz(run, outputs.shard, tell))
    if outputs.grid:
        closing.append(lambda: write_grid_of(run, plan.items, outputs.shard, tell))
    if outputs.animation is None:
        return draw, closing
    if run.kept(plan.items[:1]):
        if not outputs.animation.exists():
            tell.note(f"no {outputs.animation}: the first image was drawn before")
        return draw, closing
    film = Film(outputs.animation, plan.settings["num_steps"], len(plan.items))
    closing.append(lambda: _write_film(run, plan, film, outputs.shard, tell))
    return _filmed(draw, film), closing


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


def _write_film(run: RunFolder, plan: Plan, film: Film, shard: Shard, tell: Telling) -> None:
    from adm_cli.storage.writing import record_file

    if not run.kept(plan.items[:1]):
        return  # to be drawn again, and filmed then: the film must not stand in the way
    frames = film.close()
    if frames:
        if film.path.parent.resolve() == run.path.resolve():
            record_file(run, shard, film.path.name, {"frames": frames})
        tell.result({"path": str(film.path), "frames": frames})
