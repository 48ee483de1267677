"""`adm_cli.sweep`: the same seeds over a grid of settings, drawn, measured and shown."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adm_cli.checkpoints.sources import Sources, find_sources
from adm_cli.checkpoints.supplying import supplied
from adm_cli.config import DEFAULT_ROWS
from adm_cli.devices import choose_device, own_threads
from adm_cli.diffusion.modifiers import NEUTRAL, Swept, modified, read_modifier
from adm_cli.errors import NotFiniteError, RunError, UsageError, how_many
from adm_cli.events import AnyPath, Note, OnEvent, as_words, ignore
from adm_cli.files.differences import differences
from adm_cli.files.fresh import fresh_folder, make_fresh_folder
from adm_cli.files.strict import type_checked
from adm_cli.sampling.arguments import (
    Classes,
    Numbers,
    Seeds,
    Words,
    comma_list,
    path_or_none,
    spelled_out,
)
from adm_cli.sampling.asked import choose_weak, read_interval
from adm_cli.sampling.choosing.images import Images
from adm_cli.sampling.choosing.select import select_images
from adm_cli.sampling.drawing.models import Models
from adm_cli.sampling.drawing.pipeline import load_stage
from adm_cli.sampling.events import CellDone, Event, SweepEnded, follow
from adm_cli.sampling.folder import RunFolder
from adm_cli.sampling.outputs import FRESH, remove_if_empty
from adm_cli.sampling.settings import Interval, Machine, StageOptions
from adm_cli.sampling.sweeps.cells import (
    Axes,
    CellRun,
    Measuring,
    Yardstick,
    draw_cell,
    erase_cell,
    measure_cell,
    open_yardstick,
    prepare_cells,
)
from adm_cli.sampling.sweeps.folder import SweepFolder, TableRow, shown
from adm_cli.sampling.sweeps.grid import axes_of, varied_axes
from adm_cli.sampling.sweeps.results import draw_curves, draw_sheet, write_rows
from adm_cli.sampling.verifying.costs import evaluations, passes

if TYPE_CHECKING:
    from typing_extensions import Unpack

_ONCE = {"cfg": [1.0], "eta": [None], "interval": [None]}  # of axes that a sweep may not have
DEFAULT_SCALES = (0.0, 1.0, 2.0, 4.0, 8.0)  # where nothing is asked for to sweep over
ONE_POINT = Axes([None], [None], [None], [None], [None], [None])


@dataclass(frozen=True)
class SweepResult:
    """A sweep's folder and table; of a dry run, a row a cell with what it would cost."""

    folder: Path
    rows: Sequence[TableRow]


@type_checked
@supplied
@spelled_out(Swept, dict.fromkeys(NEUTRAL))
def sweep(
    model: AnyPath | Sequence[AnyPath] = "tiny",
    classifier: AnyPath | None = None,
    scale: Numbers | None = None,
    cfg: Numbers | None = None,
    steps: Words | None = None,
    sampler: str | Sequence[str] | None = None,
    class_: Classes | None = None,
    num: int | None = None,
    total: int | None = None,
    seed: int | None = None,
    seeds: Seeds | None = None,
    eta: Numbers | None = None,
    guide_interval: str | Interval | Sequence[str | Interval] | None = None,
    entropy_scaling: bool = False,
    cfg_interval: str | Interval | None = None,
    weak_model: AnyPath | None = None,
    ref: AnyPath | None = None,
    metrics: str | None = None,
    features: str = "inception",
    inception: AnyPath | None = None,
    rows: int = DEFAULT_ROWS,
    batch_size: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
    plain: bool = False,
    clip: bool = True,
    out: AnyPath | None = None,
    overwrite: bool = False,
    fetch: bool = False,
    dry_run: bool = False,
    *,
    on_event: OnEvent | None = None,
    **changes: Unpack[Swept],
) -> SweepResult:
    """Draws the same seeds over a grid of settings: contact sheet, table, curves.

    As ``adm sweep``, whose options these are; what is swept over, ``model`` too, also takes lists.
    ``on_event`` sees every `events.Event`. Raises AdmError where the command would print an error:
    UsageError for arguments that cannot be, before any work.
    """
    if rows < 1:
        raise UsageError(f"--rows must be at least 1, got {rows}")
    if ref is None and not (metrics is None and inception is None and features == "inception"):
        raise UsageError("--metrics, --features and --inception are for measuring: pass --ref")
    axes = Axes(
        _words("sampler", comma_list(sampler)), _words("steps", comma_list(steps)),
        _numbers("scale", comma_list(scale)), _numbers("cfg", comma_list(cfg)),
        _numbers("eta", comma_list(eta)), _intervals(guide_interval),
        _modifiers({name: value for name, value in changes.items() if value is not None}),
    )  # fmt: skip
    common = StageOptions(
        clip=clip, entropy_scaling=entropy_scaling,
        cfg_interval=read_interval(cfg_interval, "--cfg-interval"),
    )  # fmt: skip
    guided = any(value is None or value != 0 for value in axes.scales)
    weak = choose_weak(weak_model, axes.modifiers.get("weak_scale", [None]))
    noisy = "xt" in axes.modifiers.get("classifier_on", ["xt"])
    models = _find_models(model, classifier, guided=guided, weak=weak, noisy=noisy)
    axes = axes.with_ids(models[0][1])
    if axes == ONE_POINT and all(sources.classifier is not None for _, sources in models):
        axes = replace(axes, scales=DEFAULT_SCALES)
    images = select_images(
        models[0][1], as_words(class_), ".png",
        seed=seed, seeds=comma_list(seeds), num=num, total=total,
    )  # fmt: skip
    _check_same_classes(models, images)
    folder = fresh_folder(FRESH) if out is None else Path(out)
    where = Machine(choose_device(device), dtype, batch_size, plain)
    cells = prepare_cells(models, axes, common, images, folder, where, overwrite=overwrite)
    whole = _Sweep(SweepFolder(folder), cells, rows, where)
    whole.begin(overwrite=overwrite)
    if dry_run:
        return SweepResult(folder, [_cost(cell, overwrite=overwrite) for cell in cells])
    yardstick = None
    if ref is not None:
        asked = Measuring(Path(ref), metrics, features, path_or_none(inception))
        yardstick = open_yardstick(asked, cells, device, on_event or ignore)
    return _carry_out(whole, yardstick, on_event, fresh=out is None, overwrite=overwrite)


def _carry_out(
    whole: _Sweep,
    yardstick: Yardstick | None,
    on_event: OnEvent | None,
    *,
    fresh: bool,
    overwrite: bool,
) -> SweepResult:
    if fresh:
        whole.move(make_fresh_folder(FRESH))
    try:
        with whole.folder.watched(), own_threads():
            follow(whole.run(yardstick, overwrite=overwrite), on_event)
    finally:
        if fresh:
            whole.discard_if_empty()
    return SweepResult(whole.folder.path, [shown(row) for row in whole.rows.values()])


def _words(name: str, text: str | None) -> list[str | None]:
    """Values separated by commas; one None where nothing was said."""
    if text is None:
        return [None]
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise UsageError(f"--{name} {text!r}: expected values separated by commas")
    return list(dict.fromkeys(words))


def _numbers(name: str, text: str | None) -> list[float | None]:
    try:
        values = [None if word is None else float(word) for word in _words(name, text)]
    except ValueError:
        raise UsageError(f"--{name} {text!r}: expected numbers such as 0,1,2.5,4") from None
    return list(dict.fromkeys(values))


def _modifiers(asked: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Values along the axes that were asked for; of classes their words, until `Axes.with_ids`."""
    found: dict[str, list[Any]] = {}
    for name, value in asked.items():
        words = _words(name.replace("_", "-"), comma_list(value))
        whole = name == "negative_class"
        found[name] = [word if whole else read_modifier(name, word or "") for word in words]
    return found


def _intervals(
    given: str | Interval | Sequence[str | Interval] | None,
) -> list[Interval | None]:
    """One interval or several; one None where nothing was said."""
    if given is None:
        return [None]
    several = not isinstance(given, str) and not any(isinstance(x, (int, float)) for x in given)
    found = [read_interval(one) for one in (given if several else [given])]  # type: ignore[arg-type]
    return list(dict.fromkeys(found)) or [None]


def _find_models(
    model: AnyPath | Sequence[AnyPath], classifier: AnyPath | None, *, guided: bool,
    weak: AnyPath | None, noisy: bool,
) -> list[tuple[str, Sources]]:  # fmt: skip
    """Labels, each its own, and weights; ``model`` is a list, or a text with commas between."""
    if isinstance(model, (str, Path)):
        model = [model] if os.path.exists(model) else str(model).split(",")
    names = [str(name).strip() for name in model] or [""]
    found = [
        find_sources(name, classifier, guided=guided, weak=weak, noisy=noisy)
        for name in dict.fromkeys(names)
    ]
    labels = [sources.model_name for sources in found]
    if len(set(labels)) < len(labels):  # runs/a/model.safetensors, runs/b/model.safetensors
        paths = [sources.model.path.absolute() for sources in found]
        labels = [f"{path.parent.name}-{path.stem}" for path in paths]
    if len(set(labels)) < len(labels):
        raise UsageError(f"--model: two of the models have the same name, {labels[0]}: rename one")
    return list(zip(labels, found, strict=True))


def _check_same_classes(models: list[tuple[str, Sources]], images: Images) -> None:
    """Raises UsageError unless all models draw pictures of one size of the same classes."""
    (first, one), *others = models
    for label, other in others:
        if one.model.info.config.image_size != other.model.info.config.image_size:
            raise UsageError(
                f"{first} and {label} draw pictures of different sizes: sweep them apart"
            )
        for class_id in dict.fromkeys(i for row in images.rows for i in row.first.class_ids):
            if class_id is not None and one.classes.get(class_id) != other.classes.get(class_id):
                raise UsageError(
                    f"class {class_id} is not the same to {first} and {label}: sweep them apart"
                )


def _cost(cell: CellRun, *, overwrite: bool) -> TableRow:
    """What is there of a cell, and what the rest costs."""
    images, steps = len(cell.run.images), cell.run.num_steps
    missing = images if overwrite else cell.missing
    return {
        "cell": cell.cell.name,
        "images": images,
        "to_draw": missing,
        "num_steps": steps,
        "evaluations": missing * evaluations(cell.run),
        "gflop": round(missing * passes(cell.run.first) * cell.gflop_a_step(), 1),
    }


@dataclass
class _Sweep:
    """A sweep under way: its folder, its cells, and a row of the table for each."""

    folder: SweepFolder
    cells: list[CellRun]
    sheet_rows: int
    where: Machine
    rows: dict[str, TableRow] = field(default_factory=dict)

    def begin(self, *, overwrite: bool) -> None:
        """The rows, with what is known of a sweep that is gone on with.

        Raises RunError where that one has images of cells which are not asked for now, OutputError
        where files of others would be replaced.
        """
        self.folder.check_own()
        if not overwrite:
            self.folder.check_new()
        known_axes, old = ({}, {}) if overwrite else self.folder.read()[:2]
        now = axes_of([cell.cell for cell in self.cells])
        names = {cell.cell.name for cell in self.cells}
        others = set(old) - names
        if any(old[name].get("drawn") != 0 or self.folder.cell(name).exists() for name in others):
            changed = ", ".join(differences({**_ONCE, **known_axes}, {**_ONCE, **now}))
            raise RunError(
                f"{self.folder.path} holds a sweep with cells that are not asked for now "
                f"({changed}): ask for them too, choose another --out, or pass --overwrite"
            )
        for cell in self.cells:
            asked, known = _settings_row(cell), old.get(cell.cell.name, {})
            self.rows[cell.cell.name] = {**asked, "drawn": 0, "seconds": 0.0, **known, **asked}

    def move(self, path: Path) -> None:
        """Another folder, before anything is drawn."""
        self.folder = SweepFolder(path)
        self.cells = [replace(c, folder=RunFolder(path / c.cell.name)) for c in self.cells]

    def discard_if_empty(self) -> None:
        """Takes back a folder in which the sweep left no image."""
        for cell in self.cells:
            cell.folder.discard_if_empty()
        remove_if_empty(self.folder.path)

    def run(self, yardstick: Yardstick | None, *, overwrite: bool) -> Generator[Event, None, None]:
        """Draws and measures what is missing; tables and sheet are written in any case."""
        if overwrite:
            for cell in self.cells:
                erase_cell(cell)
        try:
            yield from self._each_cell(yardstick, overwrite=overwrite)
        except GeneratorExit:
            raise
        except BaseException:
            yield from self._finish()
            raise
        yield from self._finish()

    def _each_cell(
        self, yardstick: Yardstick | None, *, overwrite: bool
    ) -> Generator[Event, None, None]:
        said: set[str] = set()
        overflowed: list[NotFiniteError] = []
        models: Models | None = None
        for i, cell in enumerate(self.cells):
            row, whole = self.rows[cell.cell.name], True
            if missing := cell.missing:
                name = cell.cell.name
                yield Note(
                    f"cell {i + 1} of {len(self.cells)}: {how_many(missing, 'image')} of {name}"
                )
                if models is None or models.sources[0] is not cell.sources:
                    models = self._load(cell.sources)
                try:
                    yield from draw_cell(cell, models, row, overwrite=overwrite)
                except NotFiniteError as error:  # the other cells may be fine
                    overflowed.append(error)
                    whole = False
            if yardstick is not None and whole:
                remarks = measure_cell(cell, yardstick, row)
                for text in (remark for remark in remarks if remark not in said):
                    said.add(text)
                    yield Note(text)
            self._save()
            yield CellDone(shown(row))
        if overflowed:
            raise overflowed[0]

    def _load(self, sources: Sources) -> Models:
        """Weights for all cells of a model, with its classifier if any of them is guided."""
        guided = any(cell.guided for cell in self.cells if cell.sources is sources)
        compute = self.where.precision(sources)
        pipeline = load_stage(
            sources, self.where.device, compute, guided=guided, plain=self.where.plain
        )
        return Models([sources], self.where.device, pipelines={0: pipeline})

    def _save(self) -> None:
        cells = [cell.cell for cell in self.cells]
        write_rows(self.folder, cells, list(self.rows.values()), self.sheet_rows)

    def _finish(self) -> Generator[Event, None, None]:
        """Tables, sheet and curves of what there is."""
        missing = {cell.cell.name: cell.missing for cell in self.cells}
        if all(missing[cell.cell.name] == len(cell.run.images) for cell in self.cells):
            return  # nothing was drawn, now or before
        self._save()  # what cost much, before the pictures
        cells = [cell.cell for cell in self.cells]
        draw_sheet(self.folder, cells, [cell.folder for cell in self.cells], self.sheet_rows)
        rows = [row for name, row in self.rows.items() if not missing[name]]
        metrics = yield from draw_curves(self.folder, rows)
        self._save()
        yield SweepEnded(varied_axes(cells) or ["scale"], rows, metrics)
        total, where = sum(missing.values()), self.folder.path
        yield Note(
            f"{how_many(total, 'image')} missing in {where}: the same command with --out "
            f"{where} goes on"
            if total
            else f"{how_many(len(rows), 'cell')} in {where}: {', '.join(self.folder.results())}"
        )


def _settings_row(cell: CellRun) -> TableRow:
    """What a row says of a cell before anything is drawn."""
    stage = cell.run.first
    return {
        "cell": cell.cell.name,
        "model": cell.cell.model,
        "sampler": stage.sampler,
        "steps": stage.steps,
        "scale": stage.scale,
        "cfg": stage.cfg,
        "eta": stage.eta,
        **modified(stage),
        "num_steps": stage.num_steps,
        "images": len(cell.run.images),
        **({} if cell.cell.interval is None else {"interval": list(cell.cell.interval)}),
    }
