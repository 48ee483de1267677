"""``adm evaluate``: distances and scores, whether a judge names the classes, and copies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from adm_cli.commands import console, options
from adm_cli.commands.evaluate_checks import Checks, open_judging
from adm_cli.commands.evaluate_drawn import DEFAULT_NUM, Drawing, Drawn, measure_drawn, open_drawn
from adm_cli.commands.evaluate_results import (
    Findings,
    check_out,
    score_facts,
    show_findings,
    working,
    write_findings,
)
from adm_cli.commands.measurable import metrics_by
from adm_cli.errors import UsageError

if TYPE_CHECKING:
    from adm_cli.evaluating import Extractor, Measured
    from adm_cli.storage.pixels import PixelSet
    from adm_cli.storage.references import Reference


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
            help="Of fid,sfid,is,kid,pr,dc (precision and recall, density and coverage). "
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
        bool, typer.Option("--per-class", help="With --judge: also counts for every class.")
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
        typer.Option(
            "--num", "-n", help=f"With --model: as in adm sample. Default: {DEFAULT_NUM}."
        ),
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
    batch_size: options.FeatureBatch = None,
    device: options.Device = "auto",
    out: Annotated[
        Optional[Path],
        typer.Option("--out", "-o", help="Also write the table to this .csv or .json."),
    ] = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure samples: each number with its standard error.

    adm evaluate samples --ref imagenet256.safetensors

    adm evaluate samples --judge judge.safetensors --real held-out --copies-of photos
    """
    from adm_cli.evaluating import check_count, choose_metrics, load_extractor
    from adm_cli.storage.files import check_writable

    drawing = Drawing(model, classifier, class_, num, scale, cfg, sampler, steps, seed)
    checks = Checks(judge, real, per_class, copies_of, copies_in, copy_ratio)
    _check_samples(samples, drawing, checks)
    _check_measures(ref, checks, metrics=metrics, half=half, features=features or inception)
    check_out(out, overwrite=overwrite)
    if out is not None:
        check_writable(out.parent)
    size = options.parse_resize(resize)
    referee = checks.load_judge(device, batch_size)
    extractor = None
    if referee is not None and features is None and inception is None:
        extractor = referee.extractor
    elif ref is not None or checks.compares_features:
        extractor = load_extractor(
            features or "inception", inception=inception, device=device, batch_size=batch_size
        )
    wanted: tuple[str, ...] = ()
    left_out: list[str] = []
    if ref is not None and extractor is not None:
        able = choose_metrics(metrics, extractor)
        wanted, left_out = metrics_by(ref, able, metrics, extractor.name)
    source = open_drawn(drawing, device) if samples is None else _stored(samples, size, value_range)
    check_count(source.count)
    judging = None
    if referee is not None and samples is not None:
        judging = open_judging(referee, samples, size, real, ref)
    reference = None
    remarks = [*source.remarks, *left_out]
    found = Findings({"samples": source.name, "images": source.count}, remarks)
    if ref is not None and extractor is not None:
        reference = find_reference(
            ref, size, extractor, wanted, source.size, values=value_range, quiet=quiet
        )
        found += _score(source, extractor, reference, wanted, half=half, quiet=quiet)
    if judging is not None:
        found += judging.run(reference, per_class=per_class, quiet=quiet)
    if isinstance(source, Stored):
        found += checks.find_copies(source.images, extractor, quiet=quiet)
    if out is not None:
        write_findings(out, found)
    show_findings(found, json=json, quiet=quiet)


def _check_samples(samples: Path | None, drawing: Drawing, checks: Checks) -> None:
    if (samples is None) == (drawing.model is None):
        raise UsageError("give either SAMPLES, or --model to draw them")
    if drawing.model is None and any(value is not None for value in vars(drawing).values()):
        raise UsageError(
            "--class, --num, --scale, --cfg, --sampler, --steps, --seed and --classifier are for "
            "drawing: they need --model in place of SAMPLES"
        )
    checks.validate()
    if drawing.model is not None and checks.asked:
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


def find_reference(
    path: Path,
    resize: tuple[int, int] | None,
    extractor: Extractor,
    metrics: tuple[str, ...],
    size: tuple[int, int],
    *,
    values: str | None = None,
    quiet: bool,
) -> Reference:
    """Read, or measured; refused before that work if it is of another size than the samples."""
    from adm_cli.evaluating import (
        check_sizes,
        features_needed,
        open_reference,
        published_reference,
        reference_from_images,
    )
    from adm_cli.storage.pixels import StatisticsOnly, open_pixels, statistics_only

    if path.suffix == ".safetensors":
        reference = open_reference(path, extractor)
        check_sizes(size, reference.source, reference.size)
        return reference
    images: PixelSet
    if statistics_only(path):
        images = StatisticsOnly(path, size)
    else:
        images = open_pixels(path, resize, values)
    for text in () if quiet else images.notes:
        console.note(text)
    check_sizes(size, images.path.name, images.size)
    needed = features_needed(metrics) is None
    progress = console.Counter("reference images", len(images), quiet=quiet)
    with progress.show():
        found = published_reference(images, extractor, features=needed, on_images=progress.update)
        return found or reference_from_images(images, extractor, on_images=progress.update)


@dataclass(frozen=True)
class Stored:
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


def _stored(path: Path, resize: tuple[int, int] | None, values: str | None) -> Stored:
    from adm_cli.storage.pixels import holds_statistics, open_pixels

    remarks = []
    if holds_statistics(path):
        remarks.append(f"{path.name} holds statistics, which count for --ref only: its images do")
    images = open_pixels(path, resize, values)
    return Stored(str(path), images, [*remarks, *images.notes])


def _measure(
    images: PixelSet, extractor: Extractor, metrics: tuple[str, ...], *, quiet: bool
) -> Measured:
    from adm_cli.evaluating import features_needed, measure

    progress = console.Counter("images", len(images), quiet=quiet)
    with progress.show():
        return measure(
            images.batches(extractor.batch_size),
            extractor,
            count=len(images),
            keep=features_needed(metrics),
            on_images=progress.update,
        )


def _score(
    source: Stored | Drawn,
    extractor: Extractor,
    reference: Reference,
    metrics: tuple[str, ...],
    *,
    half: bool,
    quiet: bool,
) -> Findings:
    """The metrics of samples against a reference."""
    from adm_cli.evaluating import evaluate as compute
    from adm_cli.evaluating import notes

    if isinstance(source, Stored):
        measured = _measure(source.images, extractor, metrics, quiet=quiet)
    else:
        measured = measure_drawn(source, extractor, metrics, quiet=quiet)
    with working(quiet=quiet) as on_step:
        scores = compute(measured, reference, metrics, half=half, on_step=on_step)
    facts = score_facts(measured, reference, scores, half=half)
    return Findings(facts, notes(measured, reference))
