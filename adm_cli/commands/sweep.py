"""``adm sweep``: the same seeds over a grid of scales, steps, samplers and models."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from adm_cli.commands import console, options
from adm_cli.commands.drawing import Telling
from adm_cli.commands.sample import FRESH
from adm_cli.commands.selection import DEFAULT_NUM, select_images
from adm_cli.errors import RunError, UsageError

if TYPE_CHECKING:
    from adm_cli.commands.sweep_cells import Judge, Prepared
    from adm_cli.pipeline import Pipeline, Sources
    from adm_cli.storage.sweeps import SweepFolder

Row = dict[str, Any]
DEFAULT_ROWS = 10


def sweep(
    model: options.Model = "tiny",
    classifier: options.Classifier = None,
    scale: Annotated[
        Optional[str], typer.Option("--scale", "-s", help="Guidance scales, such as 0,1,2.5,4.")
    ] = None,
    steps: Annotated[
        Optional[str], typer.Option("--steps", help="Respacings, such as 25,250,ddim25.")
    ] = None,
    sampler: Annotated[
        Optional[str], typer.Option("--sampler", help="Samplers, such as ddpm,ddim.")
    ] = None,
    class_: Annotated[
        Optional[list[str]], typer.Option("--class", "-c", help="As in adm sample.")
    ] = None,
    num: Annotated[
        Optional[int],
        typer.Option("--num", "-n", help=f"Images of each class in a cell. Default: {DEFAULT_NUM}."),
    ] = None,
    seed: Annotated[
        Optional[int], typer.Option("--seed", help="Of the first image in each cell. Default: 0.")
    ] = None,
    seeds: Annotated[
        Optional[str], typer.Option("--seeds", help="Exact seeds of every class, such as 0-63.")
    ] = None,
    eta: Annotated[
        Optional[float], typer.Option("--eta", help="Noise of the DDIM cells, 0 to 1. Default: 0.")
    ] = None,
    ref: Annotated[
        Optional[Path],
        typer.Option(
            "--ref",
            "-r",
            help="Measure each cell against this: a file of adm reference, or images.",
        ),
    ] = None,
    metrics: Annotated[
        Optional[str],
        typer.Option("--metrics", help="Of fid,sfid,is,kid,pr,dc. Default: all there are."),
    ] = None,
    features: Annotated[
        Optional[str],
        typer.Option(
            "--features", help="inception, classifier, or a classifier. Default: inception."
        ),
    ] = None,
    rows: Annotated[
        int, typer.Option("--rows", help="Images of each cell on the contact sheet, at most.")
    ] = DEFAULT_ROWS,
    batch_size: Annotated[
        Optional[int],
        typer.Option("--batch-size", "-b", help="Images computed at once, as in adm sample."),
    ] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    clip: Annotated[
        bool, typer.Option("--clip/--no-clip", help="Clamp each predicted x_0 to [-1, 1].")
    ] = True,
    out: Annotated[
        Optional[Path],
        typer.Option(
            "--out", "-o", help="Folder of the sweep: begun, or gone on with. Default: under ./out."
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the cells and their cost, and draw nothing.")
    ] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw the same seeds over a grid of settings: contact sheet, table, curves.

    adm sweep --class 207 --scale 0,1,2,4,8 --steps 25,100 --out sweep

    adm sweep --class all --num 20 --scale 0,2,4 --ref photos --features classifier --out sweep
    """
    from adm_cli.commands.sweep_cells import Grid
    from adm_cli.devices import choose_device
    from adm_cli.storage.outputs import fresh_folder, make_fresh_folder, remove_if_empty

    if rows < 1:
        raise UsageError(f"--rows must be at least 1, got {rows}")
    if ref is None and (metrics is not None or features is not None):
        raise UsageError("metrics compare with a reference: pass --ref")
    samplers, respacings = _words("sampler", sampler), _words("steps", steps)
    grid = Grid(samplers, respacings, _scales(scale), eta, batch_size, clip)
    guided = any(value is None or value != 0 for value in grid.scales)
    models = _find_models(model, classifier, guided=guided)
    images = select_images(models[0][1], class_, seed=seed, seeds=seeds, num=num)
    _check_same_classes(models, images)
    if out is not None:
        folder = out
    else:
        folder = fresh_folder(FRESH) if dry_run else make_fresh_folder(FRESH)
    cells: list[Prepared] = []
    try:
        cells = prepare_cells(
            models, grid, images, folder, choose_device(device), dtype, overwrite=overwrite
        )
        plan = Sweep(SweepFolder(folder), cells, rows, Telling(json, quiet, images=False))
        plan.begin(overwrite=overwrite)
        if dry_run:
            show_plan(cells, json=json, overwrite=overwrite)
            return
        judge = None if ref is None else open_judge(ref, metrics, features, cells, device)
        plan.run(judge, device, dtype, overwrite=overwrite)
    finally:
        if out is None and not dry_run:
            for cell in cells:
                cell.run.discard_if_empty()
            remove_if_empty(folder)


def _words(name: str, text: str | None) -> list[str | None]:
    """Values separated by commas; one None where nothing was said."""
    if text is None:
        return [None]
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise UsageError(f"--{name} {text!r}: expected values separated by commas")
    return list(dict.fromkeys(words))


def _scales(text: str | None) -> list[float | None]:
    try:
        scales = [None if word is None else float(word) for word in _words("scale", text)]
    except ValueError:
        raise UsageError(f"--scale {text!r}: expected numbers such as 0,1,2.5,4") from None
    return list(dict.fromkeys(scales))


def _find_models(
    text: str, classifier: str | None, *, guided: bool
) -> list[tuple[str, Sources]]:
    """Labels, each its own, and weights; ``text`` is one name or several with commas between."""
    from adm_cli.pipeline import find_sources

    names = [text] if os.path.isfile(text) else [name.strip() for name in text.split(",")]
    found = [find_sources(name, classifier, guided=guided) for name in dict.fromkeys(names)]
    labels = [sources.model_name for sources in found]
    if len(set(labels)) < len(labels):  # runs/a/model.safetensors, runs/b/model.safetensors
        paths = [sources.model.path.absolute() for sources in found]
        labels = [f"{path.parent.name}-{path.stem}" for path in paths]
    if len(set(labels)) < len(labels):
        raise UsageError(f"--model {text}: two of the models have the same name, {labels[0]}")
    return list(zip(labels, found, strict=True))


def _check_same_classes(
    models: list[tuple[str, Sources]], images: list[tuple[int | None, int]]
) -> None:
    """Raises UsageError unless all models draw pictures of one size of the same classes."""
    (first, one), *others = models
    for label, other in others:
        if one.model.info.config.image_size != other.model.info.config.image_size:
            raise UsageError(f"{first} and {label} draw pictures of different sizes")
        for class_id in dict.fromkeys(class_id for class_id, _ in images):
            if class_id is not None and one.classes.get(class_id) != other.classes.get(class_id):
                raise UsageError(f"class {class_id} is not the same to {first} and {label}")


@dataclass
class Sweep:
    """A sweep under way: its folder, its cells, and a row of the table for each."""

    folder: SweepFolder
    cells: list[Prepared]
    sheet_rows: int
    tell: Telling
    rows: dict[str, Row] = field(default_factory=dict)
    facts: Row = field(default_factory=dict)

    def begin(self, *, overwrite: bool) -> None:
        """The rows, with what is known of a sweep that is gone on with.

        Raises RunError where that one has cells which are not asked for now.
        """
        axes, old = ({}, {}) if overwrite else self.folder.read()
        now = axes_of([prepared.cell for prepared in self.cells])
        names = {prepared.cell.name for prepared in self.cells}
        if not set(old) <= names:
            changed = ", ".join(differences(axes, now))
            raise RunError(
                f"{self.folder.path} holds a sweep with cells that are not asked for now "
                f"({changed}): ask for them too, choose another --out, or pass --overwrite"
            )
        for prepared in self.cells:
            known = old.get(prepared.cell.name, {"drawn": 0, "seconds": 0.0})
            self.rows[prepared.cell.name] = {**_settings_row(prepared), **known}

    def run(self, judge: Judge | None, device: str, dtype: str, *, overwrite: bool) -> None:
        """Draws and measures what is missing; tables and sheet are written in any case."""
        from adm_cli.pipeline import load_pipeline

        pipeline: Pipeline | None = None
        said: set[str] = set()
        self.facts = {"adm": __version__, "reference": None if judge is None else judge.facts()}
        try:
            for i, prepared in enumerate(self.cells):
                row = self.rows[prepared.cell.name]
                missing = len(prepared.plan.items) if overwrite else prepared.missing
                if missing:
                    name = prepared.cell.name
                    self.tell.note(f"cell {i + 1} of {len(self.cells)}: {missing} images of {name}")
                    if pipeline is None or pipeline.sources is not prepared.sources:
                        mine = [c for c in self.cells if c.sources is prepared.sources]
                        guided = any(c.config.guided for c in mine)
                        pipeline = load_pipeline(
                            prepared.sources, guided=guided, device=device, dtype=dtype
                        )
                    draw_cell(prepared, pipeline, row, self.tell, overwrite=overwrite)
                if judge is not None:
                    remarks = measure_cell(prepared, judge, row)
                    for text in (remark for remark in remarks if remark not in said):
                        said.add(text)
                        self.tell.note(text)
                self._save()
                if self.tell.json:
                    console.print_json(shown(row))
        finally:
            self._finish()

    def _save(self) -> None:
        axes = axes_of([prepared.cell for prepared in self.cells])
        self.folder.write(axes, list(self.rows.values()), self.facts)

    def _finish(self) -> None:
        """Tables, sheet and curves of what there is."""
        missing = {p.cell.name: p.missing for p in self.cells}
        if all(missing[p.cell.name] == len(p.plan.items) for p in self.cells):
            return
        self._save()
        self._draw_sheet()
        rows = [row for name, row in self.rows.items() if not missing[name]]
        metrics = list(dict.fromkeys(name for row in rows for name in row.get("metrics", ())))
        panels = curves(rows, metrics) if rows else []
        if panels and not self.folder.draw(panels):
            self.tell.note(console.NO_PLOT)
        if not self.tell.json:
            print_table(rows, metrics)
        total = sum(missing.values())
        where = self.folder.path
        self.tell.note(
            f"{total} images are missing in {where}: the same command with --out {where} goes on"
            if total
            else f"{len(rows)} cells in {where}: {', '.join(self.folder.results())}"
        )

    def _draw_sheet(self) -> None:
        from adm_cli.storage.images import open_picture, save_image
        from adm_cli.storage.sheets import contact_sheet

        first = self.cells[0]
        items = first.plan.items
        picked = [items[i] for i in spread(len(items), self.sheet_rows)]
        varied = varied_axes([prepared.cell for prepared in self.cells])
        labels = []
        for item in picked:
            name = first.sources.classes.get(item.facts["class"], "")
            labels.append(f"{name[:24]}\nseed {item.facts['seed']}".strip())
        there = [prepared.run.kept(picked) for prepared in self.cells]
        pictures = [
            [
                open_picture(prepared.run.path / item.file)[0] if item.file in kept else None
                for prepared, kept in zip(self.cells, there, strict=True)
            ]
            for item in picked
        ]
        if any(picture is not None for row in pictures for picture in row):
            columns = [prepared.cell.label(varied) for prepared in self.cells]
            save_image(self.folder.sheet, contact_sheet(pictures, labels, columns).pixels)


def _settings_row(prepared: Prepared) -> Row:
    """What a row says of a cell before anything is drawn."""
    cell, plan = prepared.cell, prepared.plan
    return {
        "cell": cell.name,
        "model": cell.model,
        "sampler": cell.sampler,
        "steps": cell.steps,
        "scale": cell.scale,
        "eta": prepared.config.eta,
        "num_steps": plan.settings["num_steps"],
        "images": len(plan.items),
    }
