"""The cells of ``adm sweep``: which there are, drawing one, measuring one."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adm_cli.commands import options
from adm_cli.commands.drawing import Telling, draw_into, sampled
from adm_cli.commands.jobs import take_threads
from adm_cli.commands.sample import sampling_settings
from adm_cli.commands.sample_outputs import automatic
from adm_cli.commands.selection import Wanted
from adm_cli.errors import UsageError

if TYPE_CHECKING:
    import torch

    from adm_cli.config import ClassifierConfig, SamplingConfig, UNetConfig
    from adm_cli.evaluating import Extractor
    from adm_cli.pipeline import Pipeline
    from adm_cli.reports.sweeps import Cell
    from adm_cli.sources import Sources
    from adm_cli.storage.images import Pixels
    from adm_cli.storage.plans import Plan
    from adm_cli.storage.references import Reference
    from adm_cli.storage.runs import RunFolder

Row = dict[str, Any]


@dataclass(frozen=True)
class Grid:
    """What is swept over, and what is not; None stands for the preset's."""

    samplers: Sequence[str | None]
    steps: Sequence[str | None]
    scales: Sequence[float | None]
    cfgs: Sequence[float | None]
    eta: float | None
    batch_size: int | None
    clip: bool
    guide_interval: tuple[float, float] | None
    entropy_scaling: bool
    cfg_interval: tuple[float, float] | None


@dataclass(frozen=True)
class Prepared:
    """A cell that may be drawn: its settings are possible, its folder is free or its own."""

    cell: Cell
    sources: Sources
    config: SamplingConfig
    plan: Plan
    run: RunFolder

    @property
    def missing(self) -> int:
        return len(self.plan.items) - len(self.run.kept(self.plan.items))

    @property
    def automatic(self) -> list[str]:
        """Settings left to the program: a run that is there keeps its own."""
        return automatic(self.plan)

    def gflop_a_step(self) -> float:
        """Of one image where all guidance acts: the model, twice for cfg, and the classifier there
        and back.
        """
        sources = self.sources
        guide = sources.classifier if self.config.guided else None
        there_and_back = 0.0 if guide is None else 2 * _gflop(guide.info.config)
        evaluations = 2 if self.config.classifier_free else 1
        return evaluations * _gflop(sources.model.info.config) + there_and_back


@cache
def _gflop(config: UNetConfig | ClassifierConfig) -> float:
    import torch

    from adm_cli.loading import build_model
    from adm_cli.models.cost import forward_gflops

    with torch.device("meta"):
        return forward_gflops(build_model(config))


@dataclass(frozen=True)
class Judge:
    """How the images of a cell are measured."""

    extractor: Extractor
    reference: Reference
    metrics: tuple[str, ...]

    def facts(self) -> Row:
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


def open_judge(
    ref: Path,
    metrics: str | None,
    features: str,
    inception: Path | None,
    cells: Sequence[Prepared],
    device: str,
    *,
    quiet: bool,
) -> Judge:
    """The reference, measured if it is of images; raises UsageError where sizes do not fit."""
    from adm_cli.commands import console
    from adm_cli.commands.evaluate import find_reference
    from adm_cli.commands.measurable import metrics_by
    from adm_cli.evaluating import check_count, choose_metrics, load_extractor

    check_count(len(cells[0].plan.items))
    size = cells[0].sources.model.info.config.image_size
    extractor = load_extractor(features, inception=inception, device=device)
    able = choose_metrics(metrics, extractor)
    wanted, left_out = metrics_by(ref, able, metrics, extractor.name)
    for text in () if quiet else left_out:
        console.note(text)
    return Judge(extractor, find_reference(ref, size, extractor, wanted, size, quiet=quiet), wanted)


def prepare_cells(
    models: Sequence[tuple[str, Sources]],
    grid: Grid,
    images: list[Wanted],
    folder: Path,
    device: torch.device,
    dtype: str,
    *,
    overwrite: bool,
) -> list[Prepared]:
    """Every combination, checked before any work; ``models`` are labels and weights.

    Raises UsageError or ConfigError for impossible settings, RunError where a cell's folder holds
    other images, OutputError where one is a link.
    """
    from adm_cli.devices import choose_dtype
    from adm_cli.diffusion.samplers import SAMPLERS_WITH_ETA
    from adm_cli.pipeline import choose_sampler
    from adm_cli.recipes import run_plan
    from adm_cli.reports.sweeps import Cell
    from adm_cli.sources import check_classes
    from adm_cli.storage.outputs import image_item
    from adm_cli.storage.sweeps import SweepFolder

    items = [image_item(image.class_id, image.seed, ".png") for image in images]
    found: dict[str, Prepared] = {}
    sweep = SweepFolder(folder)
    for label, sources, sampler, steps, scale, cfg in (
        (label, sources, sampler, steps, scale, cfg)
        for label, sources in models
        for sampler in grid.samplers
        for steps in grid.steps
        for scale in grid.scales
        for cfg in grid.cfgs
    ):
        config = sampling_settings(
            sources, images, scale, sampler, steps, None, grid.batch_size, grid.clip,
            guide_interval=grid.guide_interval, entropy_scaling=grid.entropy_scaling,
            cfg=cfg, cfg_interval=grid.cfg_interval,
        )  # fmt: skip
        if grid.eta is not None and config.sampler in SAMPLERS_WITH_ETA:
            config = replace(config, eta=grid.eta)
        choose_sampler(config)
        check_classes(sources, config.classes)
        compute = choose_dtype(dtype, device, use_fp16=sources.model.info.config.use_fp16)
        plan = run_plan(sources, config, items, device, compute, kind="sample", format="png")
        made = plan.settings
        cell = Cell(label, made["sampler"], made["steps"], made["scale"], made.get("cfg", 1.0))
        found[cell.name] = Prepared(cell, sources, config, plan, sweep.cell(cell.name))
    cells = list(found.values())
    if grid.eta is not None and all(cell.config.eta is None for cell in cells):
        able = " and ".join(SAMPLERS_WITH_ETA)
        raise UsageError(f"--eta {grid.eta:g} has a meaning for {able} only")
    if not any(cell.config.guided for cell in cells):
        options.check_modifiers(grid.guide_interval, grid.entropy_scaling)
    if not any(cell.config.classifier_free for cell in cells):
        options.check_cfg_interval(grid.cfg_interval)
    for one in cells:
        one.run.check(one.plan, automatic=one.automatic, overwrite=overwrite)
    return cells


def erase_cell(prepared: Prepared) -> None:
    """Removes the images of an earlier run, so that none of them is taken for a new one."""
    if prepared.run.exists():
        prepared.run.begin(prepared.plan, overwrite=True)
        prepared.run.discard_if_empty()


def draw_cell(
    prepared: Prepared, pipeline: Pipeline, row: Row, tell: Telling, *, overwrite: bool
) -> None:
    """Draws what is missing; ``row`` counts the images and the time, also when interrupted."""
    from adm_cli.pipeline import choose_batch_size
    from adm_cli.storage.runs import Shard

    run, plan = prepared.run, prepared.plan
    size = choose_batch_size(pipeline, prepared.config)
    plan = replace(plan, settings={**plan.settings, "batch_size": size})
    plan, changes = run.begin(plan, automatic=prepared.automatic, overwrite=overwrite)
    if changes:
        tell.note(f"since {run.path} was begun, this has changed: {', '.join(changes)}")
    take_threads(run, plan, tell)
    config = replace(prepared.config, batch_size=plan.settings["batch_size"])
    _forget_scores(row)  # they were of fewer images
    before, started = len(run.kept(plan.items)), time.monotonic()
    height, width = plan.settings["size"]
    try:
        draw_into(
            run,
            Shard(),
            plan.items,
            sampled(pipeline, config, tell),
            steps=plan.settings["num_steps"],
            tell=tell,
            image_bytes=height * width * 3 // 2,  # a PNG seldom has less
            goes_on="the sweep goes on with them",
        )
    finally:
        row["drawn"] += len(run.kept(plan.items)) - before
        row["seconds"] = round(row["seconds"] + time.monotonic() - started, 3)
        if row["drawn"] and row["seconds"]:
            row["images_per_second"] = round(row["drawn"] / row["seconds"], 4)


def measure_cell(prepared: Prepared, judge: Judge, row: Row) -> list[str]:
    """Puts the scores of a finished cell into ``row``, unless they are there; returns remarks."""
    from adm_cli.evaluating import evaluate, features_needed, measure, notes

    records = prepared.run.kept(prepared.plan.items)
    digests = "".join(record["sha256"] for record in records.values())
    key = judge.key(hashlib.sha256(digests.encode()).hexdigest())
    if row.get("scores_of") == key:
        return []
    samples = measure(
        _batches([prepared.run.path / name for name in records], judge.extractor.batch_size),
        judge.extractor,
        count=len(records),
        keep=features_needed(judge.metrics),
    )
    _forget_scores(row)
    scores = evaluate(samples, judge.reference, judge.metrics)
    for score in scores:
        row[score.name] = _known(score.value)
        row[f"{score.name}_error"] = _known(score.error)
    row["metrics"] = [score.name for score in scores]
    row |= {**judge.facts(), "scores_of": key}
    return notes(samples, judge.reference)


def _forget_scores(row: Row) -> None:
    names = [f"{name}{end}" for name in row.pop("metrics", ()) for end in ("", "_error")]
    for name in (*names, "reference", "reference_images", "features", "scores_of"):
        row.pop(name, None)


def _batches(paths: Sequence[Path], size: int) -> Iterator[Pixels]:
    """The pictures in the order of the run's plan, so that sums are the same each time."""
    import numpy as np

    from adm_cli.storage.images import open_picture

    for start in range(0, len(paths), size):
        yield np.stack([open_picture(path)[0] for path in paths[start : start + size]])


def _known(value: float) -> float | None:
    """A number, or None for one that JSON lacks."""
    return value if math.isfinite(value) else None
