"""Where the images of `adm sample` go, and what is made beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from adm_cli.commands.drawing import Draw, Telling, write_grid_of, write_npz
from adm_cli.commands.films import filmed, may_write_film, write_film
from adm_cli.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from adm_cli.storage.plans import Plan
    from adm_cli.storage.runs import RunFolder, Shard

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
    from adm_cli.storage.links import check_inside
    from adm_cli.storage.outputs import make_fresh_folder
    from adm_cli.storage.runs import RunFolder

    run = RunFolder(outputs.folder)
    if outputs.animation is not None:
        check_inside(outputs.animation.parent)  # before a folder is made
    if outputs.out is not None:
        check_writable(outputs.out)
        run.check(plan, automatic=automatic(plan), overwrite=outputs.overwrite)
    if outputs.animation is not None:
        check_writable(outputs.animation.parent)
    files = []
    if not run.exists():
        files += [run.path / "grid.png"] if outputs.grid else []
        files += sorted(run.path.glob("samples_*.npz")) if outputs.format == "npz" else []
    if outputs.animation is not None and not may_write_film(run, plan, outputs.animation):
        files.append(outputs.animation)
    if not outputs.overwrite:
        refuse_existing(files)
    return outputs if outputs.out is not None else replace(outputs, out=make_fresh_folder(FRESH))


def automatic(plan: Plan) -> list[str]:
    """Settings that were left to the program: a run that is there keeps its own."""
    return ["threads"] + (["batch_size"] if plan.settings["batch_size"] is None else [])


def extras(
    outputs: Outputs, run: RunFolder, plan: Plan, draw: Draw, steps: int, tell: Telling
) -> tuple[Draw, list[Callable[[], None]]]:
    """What is to be made of the images once they are safe; a film looks on as they are drawn.

    ``steps`` are those that ``draw`` makes for a batch.
    """
    from adm_cli.storage.outputs import Film

    closing: list[Callable[[], None]] = []
    if outputs.format == "npz":
        closing.append(lambda: write_npz(run, outputs.shard, tell))
    if outputs.grid:
        closing.append(lambda: write_grid_of(run, plan.items, outputs.shard, tell))
    if outputs.animation is None:
        return draw, closing
    if run.drawn_any(plan.items):
        return draw, closing  # it is a `films.late_film`, if it is not there
    every = Film.spacing(plan.settings["num_steps"])
    film = Film(outputs.animation, every, steps, len(plan.items))

    def finish() -> None:
        if run.drawn_any(plan.items):  # else it is drawn and filmed again, and must find no film
            write_film(run, film, outputs.shard, tell)

    closing.append(finish)
    return filmed(draw, film, plan.kind), closing
