"""A noisy classifier judged on labelled pictures, from the names of files to tables.

found = evaluate_classifier("photos", classifier="tiny", num=100)
found.summary["mean"]["acc1"]
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adm_cli.checkpoints.finding import find_weights
from adm_cli.checkpoints.header import ModelFile
from adm_cli.checkpoints.loading import hasten_on_cpu, load_model
from adm_cli.checkpoints.presets import PRESETS
from adm_cli.checkpoints.supplying import supplied
from adm_cli.devices import choose_device, choose_dtype, made_on_cpu
from adm_cli.errors import AdmError, UsageError, an, how_many
from adm_cli.events import (
    AnyPath,
    Count,
    Note,
    OnEvent,
    SoFar,
    as_paths,
    as_words,
    ignore,
)
from adm_cli.files.disk import check_writable, refuse_existing
from adm_cli.files.strict import type_checked
from adm_cli.files.tables import NO_PLOT, Panel, draw_panels, write_csv, write_json
from adm_cli.models.classifier import NoisyClassifier
from adm_cli.reports.classifier import ClassifierReport, even_timesteps, guesses
from adm_cli.reports.pictures import (
    Row,
    check_pictures,
    choose_batch_size,
    labelled_pictures,
    some_pictures,
)

DEFAULT_TIMESTEPS = 20
FILES = (
    "report.json", "timesteps.csv", "classes.csv", "confusion.csv", "reliability.csv", "report.png",
)  # fmt: skip
_SHOWN = 5  # of the worst classes and the most frequent confusions


@dataclass(frozen=True)
class ClassifierFindings:
    """How well a classifier tells classes at each noise level."""

    summary: Row  # all but the long tables; ``complete`` says whether all pictures were seen
    report: ClassifierReport
    pictures: int  # of those that were to be shown to it
    seconds: float

    @property
    def timesteps(self) -> list[Row]:
        """A row for each timestep."""
        return self.report.timestep_rows()


@type_checked
@made_on_cpu()
@supplied
def evaluate_classifier(
    data: AnyPath | Sequence[AnyPath],
    *,
    classifier: str = "tiny",
    num: int | None = None,
    timesteps: int | None = None,
    at: str | None = None,
    labels: str = "auto",
    value_range: str | None = None,
    class_: str | int | Sequence[str | int] | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    skip_bad: bool = False,
    device: str = "auto",
    dtype: str = "auto",
    plain: bool = False,
    out: AnyPath | None = None,
    overwrite: bool = False,
    fetch: bool = False,
    on_event: OnEvent = ignore,
) -> ClassifierFindings:
    """Accuracy, calibration and confusions of a classifier of noisy pictures, by noise level.

    ``data`` are folders, zips or uncompressed tars of labelled pictures. ``timesteps`` many, 20 by
    default, are spread evenly over the noise; or ``at`` names them ("0,250,500"). ``out`` is a
    folder for tables and a plot, also of what was seen before Ctrl-C. ``on_event`` takes `Note`,
    `Count` and, after every batch, a `SoFar` of the pictures seen.

    Raises UsageError for options that make no sense, AdmError for pictures that cannot be read.
    """
    file = find_classifier(classifier)
    if seed < 0:
        raise UsageError(f"--seed must be at least 0, got {seed}")
    steps = choose_timesteps(timesteps, at, file.info.diffusion.num_timesteps)
    where = choose_device(device)
    compute = choose_dtype(dtype, where, use_fp16=False)
    batch = choose_batch_size(where, file.info.config, batch_size)
    images, dropped = labelled_pictures(
        as_paths(data), file.info.classes, labels=labels, classes=as_words(class_),
        values=value_range,
    )  # fmt: skip
    for text in images.notes:
        on_event(Note(text))
    if dropped:
        on_event(Note(f"left out: {how_many(dropped, 'picture')} of classes new to {file.called}"))
    images = some_pictures(images, num, seed)
    folder = None if out is None else Path(out)
    _prepare(folder, overwrite=overwrite)
    check_pictures(images, on_event, skip_bad=skip_bad)
    model = load_model(file, device=where, dtype=compute)
    assert isinstance(model, NoisyClassifier)
    if not plain:
        hasten_on_cpu(model, where, gradient=False)
    report = ClassifierReport(steps, file.info.diffusion.num_timesteps, file.info.classes)
    total, done, started = len(images), 0, time.monotonic()

    def result(*, complete: bool) -> ClassifierFindings:
        facts = {"classifier": file.name, "classifier_sha256": file.content_sha256, "seed": seed}
        summary = {**facts, "complete": complete, **_summary(report)}
        return ClassifierFindings(summary, report, total, time.monotonic() - started)

    def on_step(batch: int, left: int) -> None:
        on_event(Count("pictures", done + batch * (1 - left / len(steps)), total))

    complete = False
    try:
        for part, found in guesses(
            model, file.info.diffusion, images, steps,
            batch_size=batch, seed=seed, device=where, dtype=compute, skip_bad=skip_bad,
            on_step=on_step, on_note=lambda text: on_event(Note(text)),
        ):  # fmt: skip
            report.add(found)
            done += len(part)
            on_event(SoFar(result(complete=False)))
        complete = True
    finally:
        if report.images and folder is not None:
            _write(result(complete=complete), folder, on_event)
    if not report.images:
        raise AdmError(f"none of {how_many(total, 'picture')} can be read")
    return result(complete=True)


def find_classifier(name: str) -> ModelFile:
    """The classifier of that name or file, or the one that guides the preset of that name."""
    preset = next((row for row in PRESETS if row.name == name and row.classifier), None)
    file = find_weights(preset.classifier if preset and preset.classifier else name)
    if file.info.kind != "classifier":
        raise UsageError(f"{name} holds {an(file.info.kind)} model, expected a classifier")
    return file


def choose_timesteps(count: int | None, at: str | None, num_timesteps: int) -> list[int]:
    """As many as asked for, spread evenly, or those that are named; raises UsageError."""
    if at is None:
        return even_timesteps(DEFAULT_TIMESTEPS if count is None else count, num_timesteps)
    if count is not None:
        raise UsageError("--timesteps and --at both choose the timesteps: give one")
    words = [word.strip() for word in at.split(",")]
    if not all(word.isdecimal() and len(word) < 20 for word in words):
        raise UsageError(f"--at {at!r}: expected timesteps such as 0,250,500")
    chosen = sorted({int(word) for word in words})
    if chosen[-1] >= num_timesteps:
        raise UsageError(f"--at {chosen[-1]}: the last timestep is {num_timesteps - 1}")
    return chosen


def _prepare(out: Path | None, *, overwrite: bool) -> None:
    """Everything that could go wrong with the output, before any work."""
    if out is None:
        return
    check_writable(out)
    if not overwrite:
        refuse_existing([out / name for name in FILES])


def _summary(report: ClassifierReport) -> dict[str, Any]:
    """All of the report but its long tables."""
    quietest = min(report.by_quarter)
    return {
        "images": report.images,
        "timesteps": list(report.timesteps),
        "mean": report.whole.row(),
        "quarters": report.quarter_rows(),
        "worst_classes": report.class_rows()[:_SHOWN],
        "confused_quarter": quietest,
        "most_confused": report.confused_rows(quietest)[:_SHOWN],
    }


def _write(found: ClassifierFindings, out: Path, on_event: OnEvent) -> None:
    report = found.report
    rows, reliability = report.timestep_rows(), report.reliability_rows()
    write_json(out / "report.json", found.summary)
    write_csv(out / "timesteps.csv", rows)
    write_csv(out / "classes.csv", report.class_rows())
    confused = [{"quarter": q, **r} for q in report.by_quarter for r in report.confused_rows(q)]
    write_csv(out / "confusion.csv", confused)
    write_csv(out / "reliability.csv", reliability)
    t = [row["timestep"] for row in rows]
    accuracy = {f"top-{k}": (t, [row[f"acc{k}"] for row in rows]) for k in (1, 5)}
    error = {"calibration error": (t, [row["ece"] for row in rows])}
    curves = {
        f"quarter {q}": (
            [r["confidence"] for r in reliability if r["quarter"] == q],
            [r["accuracy"] for r in reliability if r["quarter"] == q],
        )
        for q in report.by_quarter
    }
    panels = [
        Panel("timestep", "accuracy", accuracy),
        Panel("timestep", "calibration error", error),
        Panel("confidence", "accuracy", curves, diagonal=True),
    ]
    if not draw_panels(out / "report.png", panels):
        on_event(Note(NO_PLOT))
    on_event(Note(f"the report is in {out}"))
