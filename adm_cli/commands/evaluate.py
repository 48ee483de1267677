"""``adm evaluate``: distances and scores, whether a judge names the classes, and copies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from adm_cli.commands import modifier_options, options
from adm_cli.commands.evaluate_results import show_findings
from adm_cli.commands.numbers import show_costs
from adm_cli.commands.progress import Progress


@modifier_options.each_once
def evaluate(
    samples: Annotated[
        Optional[Path],
        typer.Argument(
            help="A folder, zip, uncompressed tar or npz of images, or a run's folder.",
            show_default=False,
        ),
    ] = None,
    ref: Annotated[
        Optional[Path],
        typer.Option(
            "--ref",
            "-r",
            help="What to compare with: a file of adm reference, images, or a reference batch "
            "(VIRTUAL_*.npz).",
        ),
    ] = None,
    metrics: Annotated[
        Optional[str],
        typer.Option(
            "--metrics",
            autocompletion=options.complete_metrics,
            help=f"Of {options.METRICS} (precision and recall, density and coverage). "
            "Default: all that the features allow.",
        ),
    ] = None,
    features: Annotated[
        Optional[str],
        typer.Option(
            "--features",
            help="Whose features to compare: inception, classifier (the embedded noisy classifier; "
            "needs no download, and is not FID), or a classifier's name or file. Default: the "
            "--judge's, else inception.",
            show_default=False,
        ),
    ] = None,
    judge: Annotated[
        Optional[str],
        typer.Option(
            "--judge",
            help="A classifier of clean pictures (train-classifier --no-noise): how often it "
            "names the class asked for.",
        ),
    ] = None,
    real: Annotated[
        Optional[Path],
        typer.Option(
            "--real",
            help="With --judge: held-out pictures with classes, judged beside the samples. "
            "Default: those of --ref.",
        ),
    ] = None,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="With --judge: also the counts of every class.")
    ] = False,
    copies_of: Annotated[
        Optional[Path],
        typer.Option(
            "--copies-of",
            help="Training pictures: which samples are far nearer to one than to any other.",
        ),
    ] = None,
    copies_in: Annotated[
        Optional[str],
        typer.Option(
            "--copies-in", help="With --copies-of: features, or pixels. Default: features."
        ),
    ] = None,
    copy_ratio: Annotated[
        Optional[float],
        typer.Option(
            "--copy-ratio",
            help="With --copies-of: nearer by this factor is a copy. Default: 1/3.",
        ),
    ] = None,
    inception: options.InceptionFile = None,
    half: Annotated[
        bool,
        typer.Option(
            "--half",
            help="Precision and recall from float16 distances, as in the published values.",
        ),
    ] = False,
    resize: options.Resize = None,
    value_range: options.ValueRange = None,
    model: Annotated[
        Optional[str],
        typer.Option(
            "--model",
            "-m",
            autocompletion=options.complete_model,
            help="Draw the samples with this model instead (adm models).",
        ),
    ] = None,
    classifier: Annotated[
        Optional[str],
        typer.Option("--classifier", help="With --model: what guides it, as in adm sample."),
    ] = None,
    class_: Annotated[
        Optional[list[str]],
        typer.Option("--class", "-c", help="With --model: as in adm sample."),
    ] = None,
    num: Annotated[
        Optional[int],
        typer.Option("--num", "-n", help="With --model: as in adm sample. Default: 1000."),
    ] = None,
    scale: Annotated[
        Optional[float], typer.Option("--scale", "-s", help="With --model: as in adm sample.")
    ] = None,
    cfg: Annotated[
        Optional[float], typer.Option("--cfg", help="With --model: as in adm sample.")
    ] = None,
    sampler: Annotated[
        Optional[str], typer.Option("--sampler", help="With --model: as in adm sample.")
    ] = None,
    steps: Annotated[
        Optional[str], typer.Option("--steps", help="With --model: as in adm sample.")
    ] = None,
    seed: Annotated[
        Optional[int], typer.Option("--seed", help="With --model: of the first image. Default: 0.")
    ] = None,
    eta: options.Eta = None,
    guide_interval: options.GuideInterval = None,
    cfg_interval: options.CfgInterval = None,
    entropy_scaling: options.EntropyScaling = False,
    weak_model: options.WeakModel = None,
    batch_size: options.FeatureBatch = None,
    device: options.Device = "auto",
    out: Annotated[
        Optional[Path],
        typer.Option("--out", "-o", help="Also write the table to this .csv or .json."),
    ] = None,
    overwrite: options.Replace = False,
    fetch: options.Fetch = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would cost, and measure nothing.")
    ] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    **changes: Any,
) -> None:
    """Measure samples: each number with its standard error.

    adm evaluate samples --ref imagenet256.safetensors

    adm evaluate samples --judge judge.safetensors --real held-out --copies-of photos
    """
    asked = options.asked(locals())
    from adm_cli.reports.evaluation import evaluate as measure

    progress = Progress(quiet=quiet)
    with progress:
        found = measure(**asked, on_event=progress)
    if dry_run:
        show_costs(found.facts, json=json)
        return
    show_findings(found, json=json, quiet=quiet)
