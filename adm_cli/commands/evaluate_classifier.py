"""``adm evaluate-classifier``: accuracy and calibration of a noisy classifier, by noise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from adm_cli.commands import completing, console, options
from adm_cli.commands.progress import Progress
from adm_cli.errors import how_many

if TYPE_CHECKING:
    from adm_cli.reports.classifier import ClassifierReport


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
            help="This many, spread evenly over the noise. Default: 20.",
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
    plain: options.Plain = False,
    out: Annotated[
        Optional[Path],
        typer.Option("--out", "-o", help="Folder for tables (CSV, JSON) and a plot."),
    ] = None,
    overwrite: options.Replace = False,
    fetch: options.Fetch = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Accuracy, calibration and confusions of a classifier of noisy pictures, by noise level.

    adm evaluate-classifier photos --classifier runs/classifier/best.safetensors -o report
    """
    asked = options.asked(locals())
    from adm_cli.reports.judging import evaluate_classifier as judge

    progress = Progress(quiet=quiet)
    found = None
    try:
        with progress:
            found = judge(**asked, on_event=progress)
    finally:  # also when interrupted: what was computed is shown, and called a part
        found = found or progress.so_far
        if found is not None:
            _show(found.report, found.summary, json=json)
            if not quiet:
                count = found.summary["images"]
                pictures = how_many(count, "picture")
                part = "" if found.summary["complete"] else f", only a part of {found.pictures}"
                console.note(f"{pictures} in {found.seconds:.1f} s{part}")


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
