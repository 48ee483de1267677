"""``adm evaluate-classifier``: accuracy and calibration of a noisy classifier, by noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from adm_cli.commands import completing, console, options
from adm_cli.errors import AdmError, UsageError

if TYPE_CHECKING:
    from adm_cli.reports.classifier import ClassifierReport
    from adm_cli.storage.checkpoints import ModelFile

DEFAULT_TIMESTEPS = 20
FILES = (
    "report.json", "timesteps.csv", "classes.csv", "confusion.csv", "reliability.csv", "report.png",
)  # fmt: skip
_SHOWN = 5  # of the worst classes and the most frequent confusions


def evaluate_classifier(
    data: options.Pictures,
    classifier: Annotated[
        str,
        typer.Option(
            "--classifier",
            autocompletion=completing.complete_classifier,
            help="Classifier or preset with one, or a weights file.",
        ),
    ] = "tiny",
    num: options.SomePictures = None,
    timesteps: Annotated[
        Optional[int],
        typer.Option(
            "--timesteps",
            help=f"This many, spread evenly over the noise. Default: {DEFAULT_TIMESTEPS}.",
        ),
    ] = None,
    at: Annotated[
        Optional[str], typer.Option("--at", help="Or at these timesteps, such as 0,250,500.")
    ] = None,
    labels: options.Labels = "auto",
    value_range: options.ValueRange = None,
    class_: Annotated[
        Optional[list[str]],
        typer.Option("--class", "-c", help="Only pictures of these classes. Repeatable."),
    ] = None,
    seed: options.NoiseSeed = 0,
    batch_size: options.Batch = None,
    skip_bad: options.SkipBad = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    out: Annotated[
        Optional[Path],
        typer.Option("--out", "-o", help="Folder for tables (CSV, JSON) and a plot."),
    ] = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Accuracy, calibration and confusions of a classifier of noisy pictures, by noise level.

    adm evaluate-classifier photos --classifier runs/classifier/best.safetensors -o report
    """
    from adm_cli.devices import choose_device, choose_dtype
    from adm_cli.loading import load_model
    from adm_cli.models.classifier import NoisyClassifier
    from adm_cli.reports.classifier import ClassifierReport, guesses
    from adm_cli.reports.pictures import choose_batch_size, labelled_pictures, some_pictures

    file = _find(classifier)
    if seed < 0:
        raise UsageError(f"--seed must be at least 0, got {seed}")
    steps = _timesteps(timesteps, at, file.info.diffusion.num_timesteps)
    where = choose_device(device)
    compute = choose_dtype(dtype, where, use_fp16=False)
    batch = choose_batch_size(where, file.info.config, batch_size)
    say = console.note if not quiet else (lambda _text: None)
    images, dropped = labelled_pictures(
        data, file.info.classes, labels=labels, classes=class_, values=value_range
    )
    for text in images.notes:
        say(text)
    if dropped:
        say(f"{dropped} pictures of classes that {file.name} does not know are left out")
    images = some_pictures(images, num, seed)
    _prepare(out, overwrite=overwrite)
    model = load_model(file, device=where, dtype=compute)
    assert isinstance(model, NoisyClassifier)
    report = ClassifierReport(steps, file.info.diffusion.num_timesteps, file.info.classes)
    progress = console.SamplingProgress(len(images), len(steps), quiet=quiet)
    complete = False
    try:
        with progress.show():
            for part, found in guesses(
                model, file.info.diffusion, images, steps,
                batch_size=batch, seed=seed, device=where, dtype=compute,
                skip_bad=skip_bad, on_step=progress.advance, on_note=say,
            ):  # fmt: skip
                report.add(found)
                progress.finish_batch(len(part))
        complete = True
    finally:  # also when interrupted: what was computed is shown, and called a part
        if report.images:
            summary = {
                "classifier": file.name,
                "classifier_sha256": file.content_sha256,
                "seed": seed,
                "complete": complete,
                **_summary(report),
            }
            _show(report, summary, json=json)
            _write(report, summary, out, say)
            told = f"{report.images} pictures" if report.images > 1 else "1 picture"
            rest = "" if complete else f"only a part, of {len(images)}: "
            say(f"{rest}{told} in {progress.elapsed():.1f} s")
    if not report.images:
        raise AdmError(f"none of the {len(images)} pictures can be read")


def _find(name: str) -> ModelFile:
    """The classifier of that name or file, or the one that guides the preset of that name."""
    from adm_cli.loading import find_weights
    from adm_cli.presets import PRESETS

    preset = next((row for row in PRESETS if row.name == name and row.classifier), None)
    file = find_weights(preset.classifier if preset and preset.classifier else name)
    if file.info.kind != "classifier":
        raise UsageError(f"{name} holds a {file.info.kind} model, expected a classifier")
    return file


def _timesteps(count: int | None, at: str | None, num_timesteps: int) -> list[int]:
    from adm_cli.reports.classifier import even_timesteps

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
    from adm_cli.storage.files import check_writable, refuse_existing

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


def _show(report: ClassifierReport, summary: dict[str, Any], *, json: bool) -> None:
    if json:
        for row in report.timestep_rows():
            console.print_json(row)
        console.print_json(summary)
        return
    print(f"{'timestep':12} {'top-1':>7} {'top-5':>7} {'loss':>8} {'sure':>7} {'ECE':>7}")
    for row in report.timestep_rows():
        print(_line(str(row["timestep"]), row))
    for row in summary["quarters"]:
        print(_line(f"quarter {row['quarter']}", row))
    print(_line("all", summary["mean"]))
    print("\nworst classes, top-1 by quarter of the noise")
    for row in summary["worst_classes"]:
        by = " ".join(f"{row[f'acc1_q{q}']:7.1%}" for q in report.by_quarter)
        print(f"{row['acc1']:7.1%}  {by}  {row['class']} {console.one_line(row['name'])}")
    if summary["most_confused"]:
        print(f"\nmost confused in quarter {summary['confused_quarter']}")
    for row in summary["most_confused"]:
        pair = f"{row['name']} taken for {row['taken_for_name']}"
        print(f"{row['share']:7.1%}  {console.one_line(pair)}")


def _line(name: str, row: dict[str, Any]) -> str:
    return (
        f"{name:12} {row['acc1']:7.1%} {row['acc5']:7.1%} {row['loss']:8.4f} "
        f"{row['confidence']:7.1%} {row['ece']:7.4f}"
    )


def _write(
    report: ClassifierReport,
    summary: dict[str, Any],
    out: Path | None,
    say: Callable[[str], None],
) -> None:
    from adm_cli.storage.tables import Panel, draw_panels, write_csv, write_json

    if out is None:
        return
    rows, reliability = report.timestep_rows(), report.reliability_rows()
    write_json(out / "report.json", summary)
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
        say(console.NO_PLOT)
    say(f"the report is in {out}")
