"""Samples measured: distances and scores, whether a judge names the classes, and copies.

found = evaluate("samples", ref="photos.safetensors", features="classifier")
found.numbers["fd_adm"]["value"]
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from adm_cli.checkpoints.supplying import supplied
from adm_cli.devices import choose_device, made_on_cpu
from adm_cli.diffusion.modifiers import UNASKED, Changes
from adm_cli.errors import UsageError
from adm_cli.events import AnyPath, Count, OnEvent, ignore
from adm_cli.files.strict import type_checked
from adm_cli.pictures.labelled import guides_of
from adm_cli.pictures.pixels import PixelSet, holds_statistics
from adm_cli.pictures.references import Reference
from adm_cli.reports.checks import Checks, as_counts, open_judging
from adm_cli.reports.costs import evaluation_costs
from adm_cli.reports.drawn import DrawingOptions, asked_drawing, open_drawn
from adm_cli.reports.findings import Evaluation, check_table, score_facts, write_findings
from adm_cli.reports.measure import Extractor, ImageFeatures, check_count, load_extractor, measure
from adm_cli.reports.pictures import open_measured, read_size
from adm_cli.reports.references import find_reference, metrics_by
from adm_cli.reports.scores import choose_metrics, compute_scores, features_needed, notes
from adm_cli.sampling.arguments import path_or_none, spelled_out
from adm_cli.sampling.settings import Interval

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Samples(Protocol):
    """What is measured: stored, or drawn on the way."""

    @property
    def name(self) -> str: ...

    @property
    def remarks(self) -> list[str]: ...

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def count(self) -> int: ...

    @property
    def guides(self) -> Collection[str | None]: ...  # SHA-256 of classifiers

    def measure(
        self, extractor: Extractor, metrics: tuple[str, ...], on_event: OnEvent
    ) -> ImageFeatures: ...


@dataclass(frozen=True)
class StoredSamples:
    """Samples that are there."""

    name: str
    images: PixelSet
    remarks: list[str]

    @property
    def size(self) -> tuple[int, int]:
        return self.images.size

    @property
    def count(self) -> int:
        return len(self.images)

    @property
    def guides(self) -> Collection[str]:
        return guides_of(self.images)

    def measure(
        self, extractor: Extractor, metrics: tuple[str, ...], on_event: OnEvent
    ) -> ImageFeatures:
        """Their statistics, and the features that the metrics need."""
        return measure(
            self.images.batches(extractor.batch_size),
            extractor,
            count=self.count,
            keep=features_needed(metrics),
            on_images=lambda done: on_event(Count("images", done, self.count)),
        )


def _stored(path: Path, resize: tuple[int, int] | None, values: str | None) -> StoredSamples:
    remarks = []
    if holds_statistics(path):
        remarks.append(
            f"{path.name} holds statistics, which count for --ref only: its images are measured"
        )
    images, notes = open_measured(path, resize, values)
    return StoredSamples(str(path), images, [*remarks, *notes])


@type_checked
@made_on_cpu()
@supplied
@spelled_out(Changes, UNASKED)
def evaluate(
    samples: AnyPath | None = None,
    *,
    ref: AnyPath | None = None,
    metrics: str | None = None,
    features: str | None = None,
    judge: str | None = None,
    real: AnyPath | None = None,
    per_class: bool = False,
    copies_of: AnyPath | None = None,
    copies_in: str | None = None,
    copy_ratio: float | None = None,
    inception: AnyPath | None = None,
    half: bool = False,
    resize: str | int | None = None,
    value_range: str | None = None,
    model: str | None = None,
    classifier: str | None = None,
    class_: str | int | Sequence[str | int] | None = None,
    num: int | None = None,
    scale: float | None = None,
    cfg: float | None = None,
    sampler: str | None = None,
    steps: str | int | None = None,
    seed: int | None = None,
    eta: float | None = None,
    guide_interval: str | Interval | None = None,
    cfg_interval: str | Interval | None = None,
    entropy_scaling: bool = False,
    weak_model: AnyPath | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    out: AnyPath | None = None,
    overwrite: bool = False,
    fetch: bool = False,
    dry_run: bool = False,
    on_event: OnEvent = ignore,
    **changes: Unpack[Changes],
) -> Evaluation:
    """Measures samples: every number with its standard error.

    ``samples`` are a folder, zip, uncompressed tar or npz of images, or a run's folder; without
    them ``model`` draws some, as `adm sample` would, and none is kept. ``ref`` is what they are
    compared with: a file of `reference`, images, or one of the original's batches. ``judge`` is a
    classifier of clean pictures that names their classes, ``real`` held-out pictures to judge
    beside them; ``copies_of`` are training pictures of which samples may be copies. ``out`` is a
    .csv or .json. With ``dry_run`` nothing is measured: what is found are the costs of it.
    ``on_event`` takes `Note` and `Count`.

    Raises UsageError for what does not belong together, AdmError for too few images or features
    that are not finite, and OutputError.
    """
    drawing = asked_drawing({**locals(), **changes})
    table, against = path_or_none(out), path_or_none(ref)
    held_out = path_or_none(real)
    checks = Checks(judge, held_out, per_class, path_or_none(copies_of), copies_in, copy_ratio)
    _check_samples(samples, drawing, asked=checks.asked)
    checks.validate()
    _check_measures(against, checks, metrics=metrics, half=half, features=features or inception)
    check_table(table, overwrite=overwrite, writes=not dry_run)
    size = read_size(resize)
    referee = checks.load_judge(device, batch_size)
    extractor = None
    if referee is not None and features is None and inception is None:
        extractor = referee.extractor
    elif against is not None or checks.compares_features:
        name, weights = features or "inception", path_or_none(inception)
        extractor = load_extractor(name, inception=weights, device=device, batch_size=batch_size)
    wanted: tuple[str, ...] = ()
    left_out: list[str] = []
    if against is not None and extractor is not None:
        able = choose_metrics(metrics, extractor)
        wanted, left_out = metrics_by(against, able, metrics, extractor.name)
    source: Samples
    if samples is None:
        source = open_drawn(drawing, device)
    else:
        source = _stored(Path(samples), size, value_range)
    check_count(source.count)
    if dry_run:
        return Evaluation(evaluation_costs(source, extractor, against, choose_device(device)), [])
    judging = None
    if referee is not None and isinstance(source, StoredSamples):
        judging = open_judging(referee, Path(source.name), size, held_out, against)
    reference = None
    facts = {"samples": source.name, "images": source.count}
    found = Evaluation(facts, [*source.remarks, *left_out])
    if against is not None and extractor is not None:
        reference = find_reference(
            against, size, extractor, wanted, source.size, values=value_range, on_event=on_event
        )
        found += _score(source, extractor, reference, wanted, half=half, on_event=on_event)
    if judging is not None:
        found += judging.run(reference, per_class=per_class, on_event=on_event)
    if isinstance(source, StoredSamples):
        found += checks.find_copies(source.images, extractor, on_event=on_event)
    if table is not None:
        write_findings(table, found)
    return found


def _check_samples(samples: object, drawing: DrawingOptions, *, asked: bool) -> None:
    if (samples is None) == (drawing.model is None):
        raise UsageError("give either SAMPLES, or --model to draw them")
    if samples is not None and not os.path.exists(str(samples)):  # before weights are missed
        raise UsageError(f"no such folder or file of pictures: {samples}")
    if drawing.model is None and drawing.asked:
        raise UsageError(
            "--class, --num, --scale, --sampler, --steps, --seed, --classifier and all else about "
            "guidance and sampler are for drawing: they need --model in place of SAMPLES "
            "(a classifier that measures them is --features)"
        )
    if drawing.model is not None and asked:
        raise UsageError(
            "--judge and --copies-of are for SAMPLES that are stored: draw them with adm sample"
        )


def _check_measures(
    ref: Path | None, checks: Checks, *, metrics: str | None, half: bool, features: object
) -> None:
    if ref is None and not checks.asked:
        raise UsageError(
            "--ref is missing: a file of adm reference, or a folder or npz of images "
            "(or pass --judge or --copies-of)"
        )
    if ref is None and (metrics is not None or half):
        raise UsageError("--metrics and --half are for measuring against --ref, which is missing")
    if ref is None and not checks.compares_features and features is not None:
        raise UsageError("--features and --inception need --ref, or --copies-of in features")


def _score(
    source: Samples, extractor: Extractor, reference: Reference, metrics: tuple[str, ...], *,
    half: bool, on_event: OnEvent,
) -> Evaluation:  # fmt: skip
    """The metrics of samples against a reference."""
    measured = source.measure(extractor, metrics, on_event)
    on_step = as_counts(on_event)
    scores = compute_scores(measured, reference, metrics, half=half, on_step=on_step)
    facts = score_facts(measured, reference, scores, half=half)
    return Evaluation(facts, notes(measured, reference, source.guides))
