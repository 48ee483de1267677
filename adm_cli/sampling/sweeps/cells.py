"""The cells of a sweep: which there are, drawing one, measuring one."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from adm_cli.checkpoints.sources import Sources
from adm_cli.diffusion.modifiers import NEUTRAL, OF_CHURN, OFF, modified
from adm_cli.diffusion.samplers import SAMPLERS_WITH_ETA
from adm_cli.errors import UsageError
from adm_cli.events import Note, OnEvent, ignore
from adm_cli.pictures.images import Pixels, open_picture
from adm_cli.pictures.references import Reference
from adm_cli.reports.bench import evaluation_gflop
from adm_cli.reports.measure import Extractor, check_count, load_extractor, measure
from adm_cli.reports.references import find_reference, metrics_by
from adm_cli.reports.scores import choose_metrics, compute_scores, features_needed, notes
from adm_cli.sampling.choosing.images import Images
from adm_cli.sampling.choosing.select import negative_class
from adm_cli.sampling.defaults import EVERYWHERE
from adm_cli.sampling.drawing.draw import draw
from adm_cli.sampling.drawing.models import Models
from adm_cli.sampling.events import Event
from adm_cli.sampling.folder import RunFolder
from adm_cli.sampling.run import Run, Stage
from adm_cli.sampling.settings import (
    Interval,
    Machine,
    StageOptions,
    check_modifiers,
    distinct_kinds,
    make_run,
    make_stage,
    most_parts,
    sampling_config,
    uses_cfg,
)
from adm_cli.sampling.sweeps.folder import SweepFolder, TableRow
from adm_cli.sampling.sweeps.grid import Cell


@dataclass(frozen=True)
class Axes:
    """What is swept over; None stands for the preset's."""

    samplers: Sequence[str | None]
    steps: Sequence[str | None]
    scales: Sequence[float | None]
    cfgs: Sequence[float | None]
    etas: Sequence[float | None] = (None,)
    intervals: Sequence[Interval | None] = (None,)
    modifiers: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def points(self, common: StageOptions) -> Iterator[StageOptions]:
        """Every combination."""
        names = ("sampler", "steps", "scale", "cfg", "eta", "guide_interval", *self.modifiers)
        axes = (
            self.samplers, self.steps, self.scales, self.cfgs, self.etas, self.intervals,
            *self.modifiers.values(),
        )  # fmt: skip
        for values in product(*axes):
            yield replace(common, **dict(zip(names, values, strict=True)))

    def with_ids(self, sources: Sources) -> Axes:
        """With the negative classes by their ids, where words were asked for; "none" is none.

        Raises UsageError.
        """
        words = self.modifiers.get("negative_class")
        if words is None:
            return self
        ids = [None if w == OFF else negative_class(w, sources) for w in words]
        return replace(self, modifiers={**self.modifiers, "negative_class": ids})

    def most(self, common: StageOptions) -> StageOptions:
        """With a value along each axis that changes something, if there is one."""
        found = {name: next((v for v in values if v != NEUTRAL[name]), NEUTRAL[name])
                 for name, values in self.modifiers.items()}  # fmt: skip
        return replace(common, guide_interval=self.intervals[0], **found)


@dataclass(frozen=True)
class CellRun:
    """A cell that may be drawn: its settings are possible, its folder is free or its own."""

    cell: Cell
    sources: Sources
    run: Run
    folder: RunFolder

    @property
    def missing(self) -> int:
        """Images that are not drawn."""
        return len(self.folder.survey(self.run.images).missing)

    @property
    def guided(self) -> bool:
        """Whether any image needs the classifier."""
        return self.run.first.classifier is not None

    def gflop_a_step(self) -> float:
        """Of one image where all guidance acts: the model, twice for cfg, and the classifier there
        and back.
        """
        guide = self.sources.classifier if self.guided else None
        there_and_back = 0.0 if guide is None else 2 * evaluation_gflop(guide.info.config)
        evaluations = most_parts(self.run.images) + uses_cfg(self.run.first, self.run.images)
        weak = self.sources.weak if self.run.first.weak_scale != 1 else None
        forward = evaluation_gflop(self.sources.model.info.config)
        stage = self.run.first
        forward *= 1 + (stage.sag_scale != 1) + (stage.pag_scale != 1)
        forward += 0.0 if weak is None else evaluation_gflop(weak.info.config)
        return evaluations * forward + there_and_back


@dataclass(frozen=True)
class Yardstick:
    """How the images of a cell are measured."""

    extractor: Extractor
    reference: Reference
    metrics: tuple[str, ...]

    def facts(self) -> TableRow:
        """What a row must say beside its scores."""
        return {
            "reference": self.reference.source,
            "reference_images": self.reference.images,
            "features": self.extractor.label,
        }

    def key(self, images_sha256: str) -> str:
        """Two measurements with the same key give the same numbers."""
        reference = (self.reference.pixels_sha256, self.reference.images, self.reference.source)
        parts = (images_sha256, self.extractor.sha256, *reference, *self.metrics)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Measuring:
    """How the cells are to be measured."""

    ref: Path
    metrics: str | None
    features: str
    inception: Path | None


def open_yardstick(
    asked: Measuring, cells: Sequence[CellRun], device: str, on_event: OnEvent = ignore
) -> Yardstick:
    """The reference, measured if it is of images; raises UsageError where sizes do not fit."""
    check_count(len(cells[0].run.images))
    size = cells[0].run.size
    extractor = load_extractor(asked.features, inception=asked.inception, device=device)
    able = choose_metrics(asked.metrics, extractor)
    wanted, left_out = metrics_by(asked.ref, able, asked.metrics, extractor.name)
    for text in left_out:
        on_event(Note(text))
    reference = find_reference(asked.ref, size, extractor, wanted, size, on_event=on_event)
    return Yardstick(extractor, reference, wanted)


def prepare_cells(
    models: Sequence[tuple[str, Sources]],
    axes: Axes,
    common: StageOptions,
    images: Images,
    folder: Path,
    where: Machine,
    *,
    overwrite: bool,
) -> list[CellRun]:
    """Every combination, checked before any work; ``models`` are labels and weights.

    Raises UsageError or ConfigError for impossible settings, RunError where a cell's folder holds
    other images, OutputError where one is a link.
    """
    found: dict[str, CellRun] = {}
    configs = []
    sweep, kinds = SweepFolder(folder), distinct_kinds(images)
    for label, sources in models:
        for options in axes.points(common):
            if options.sampler not in (None, "heun") and "heun" in axes.samplers:
                options = replace(options, **{name: NEUTRAL[name] for name in OF_CHURN})
            config = sampling_config(sources, kinds, replace(options, eta=None))
            if options.eta is not None and config.sampler in SAMPLERS_WITH_ETA:
                config = replace(config, eta=options.eta)
            stage = make_stage(sources, config, where)
            run = make_run([stage], [sources], images, where, "png")
            cell = Cell(
                label, stage.sampler, stage.steps, stage.scale, stage.cfg,
                stage.eta if len(axes.etas) > 1 else None,
                (config.guide_interval or EVERYWHERE)
                if len(axes.intervals) > 1 and config.guided
                else None,
                tuple(modified(stage).items()),
            )  # fmt: skip
            if (same := found.get(cell.name)) and (same.cell, same.sources) != (cell, sources):
                raise UsageError(
                    f"two cells of the sweep would have one folder, {cell.name}: draw them by "
                    f"sweeps of their own"
                )
            there = sweep.cell(cell.name)
            run = run if overwrite else there.as_begun(run)
            found[cell.name] = CellRun(cell, sources, run, there)
            configs.append(config)
    cells = list(found.values())
    asked = [eta for eta in axes.etas if eta is not None]
    if asked and all(cell.run.first.eta is None for cell in cells):
        able = " and ".join(SAMPLERS_WITH_ETA)
        raise UsageError(f"--eta {asked[0]:g} has a meaning for {able} only")
    check_modifiers(axes.most(common), configs)
    for one in cells:
        one.folder.check(one.run, overwrite=overwrite)
    return cells


def erase_cell(cell: CellRun) -> None:
    """Removes the images of an earlier run, so that none of them is taken for a new one."""
    if cell.folder.exists():
        cell.folder.begin(cell.run, overwrite=True)
        cell.folder.discard_if_empty()


def draw_cell(
    cell: CellRun, models: Models, row: TableRow, *, overwrite: bool
) -> Generator[Event, None, None]:
    """Draws what is missing; ``row`` counts the images and the time, also when interrupted."""
    _forget_scores(row)  # they were of fewer images
    before, started = cell.missing, time.monotonic()
    try:
        yield from draw(cell.run, cell.folder, models, overwrite=overwrite)
    finally:
        row["drawn"] += before - cell.missing
        row["seconds"] = round(row["seconds"] + time.monotonic() - started, 3)
        if row["drawn"] and row["seconds"]:
            row["images_per_second"] = round(row["drawn"] / row["seconds"], 4)


def measure_cell(cell: CellRun, yardstick: Yardstick, row: TableRow) -> list[str]:
    """Puts the scores of a finished cell into ``row``, unless they are there; returns remarks."""
    records = list(cell.folder.kept(cell.run.images))
    digests = "".join(record["sha256"] for record in records)
    key = yardstick.key(hashlib.sha256(digests.encode()).hexdigest())
    if row.get("scores_of") == key:
        return []
    paths = [cell.folder.path / record["file"] for record in records]
    samples = measure(
        _batches(paths, yardstick.extractor.batch_size),
        yardstick.extractor,
        count=len(records),
        keep=features_needed(yardstick.metrics),
    )
    _forget_scores(row)
    scores = compute_scores(samples, yardstick.reference, yardstick.metrics)
    for score in scores:
        row[score.name] = _known(score.value)
        row[f"{score.name}_error"] = _known(score.error)
    row["metrics"] = [score.name for score in scores]
    row |= {**yardstick.facts(), "scores_of": key}
    guides = {stage.classifier_sha256 for stage in cell.run.stages if isinstance(stage, Stage)}
    return notes(samples, yardstick.reference, guides)


def _forget_scores(row: TableRow) -> None:
    names = [f"{name}{end}" for name in row.pop("metrics", ()) for end in ("", "_error")]
    for name in (*names, "reference", "reference_images", "features", "scores_of"):
        row.pop(name, None)


def _batches(paths: Sequence[Path], size: int) -> Iterator[Pixels]:
    """The pictures in the order of the run's plan, so that sums are the same each time."""
    for start in range(0, len(paths), size):
        yield np.stack([open_picture(path)[0] for path in paths[start : start + size]])


def _known(value: float) -> float | None:
    """A number, or None for one that JSON lacks."""
    return value if math.isfinite(value) else None
