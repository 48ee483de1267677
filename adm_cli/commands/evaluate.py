"""``adm evaluate``: FID, sFID, Inception Score, KID, precision, recall, density, coverage."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from adm_cli.commands import console, options
from adm_cli.commands.selection import Wanted, select_images
from adm_cli.errors import OutputError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from adm_cli.config import SamplingConfig
    from adm_cli.evaluating import Extractor, Measured, OnStep, Score
    from adm_cli.pipeline import Pipeline
    from adm_cli.storage.pixels import PixelSet
    from adm_cli.storage.references import Reference

DEFAULT_NUM = 1000  # images drawn with --model

_ROUNDING = 1e-12  # shown as 0


@dataclass(frozen=True)
class Drawing:
    """What to draw where there are no samples yet; None: the preset's."""

    model: str | None
    guide: str | None
    classes: list[str] | None
    num: int | None
    scale: float | None
    cfg: float | None
    sampler: str | None
    steps: str | None
    seed: int | None


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
    features: options.Features = "inception",
    inception: options.InceptionFile = None,
    half: Annotated[
        bool,
        typer.Option(
            "--half",
            help="Precision and recall from float16 distances, as in the published values.",
        ),
    ] = False,
    resize: options.Resize = None,
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
    """Measure samples against a reference: each number with its standard error.

    adm evaluate samples --ref imagenet256.safetensors

    adm evaluate samples --ref photos --features classifier --resize 32 --metrics fid,pr
    """
    from adm_cli.evaluating import check_count, choose_metrics, load_extractor, notes
    from adm_cli.evaluating import evaluate as compute
    from adm_cli.storage.files import check_writable

    drawing = Drawing(model, classifier, class_, num, scale, cfg, sampler, steps, seed)
    _check_choices(samples, ref, drawing, out, overwrite=overwrite)
    assert ref is not None
    if out is not None:
        check_writable(out.parent)
    size = options.parse_resize(resize)
    extractor = load_extractor(features, inception=inception, device=device, batch_size=batch_size)
    wanted = choose_metrics(metrics, extractor)
    source = _drawn(drawing, device) if samples is None else _stored(samples, size)
    check_count(source.count)
    reference = find_reference(ref, size, extractor, wanted, source.size, quiet=quiet)
    if isinstance(source, Stored):
        measured = _measure(source.images, extractor, wanted, quiet=quiet)
    else:
        measured = _draw(source, extractor, wanted, quiet=quiet)
    with _working(quiet=quiet) as on_step:
        scores = compute(measured, reference, wanted, half=half, on_step=on_step)
    remarks = [*source.remarks, *notes(measured, reference)]
    facts = _facts(source.name, measured, reference, scores, remarks, half=half)
    if out is not None:
        _write(out, facts)
    _show(facts, json=json, quiet=quiet)


def _check_choices(
    samples: Path | None, ref: Path | None, drawing: Drawing, out: Path | None, *, overwrite: bool
) -> None:
    if (samples is None) == (drawing.model is None):
        raise UsageError("give either SAMPLES, or --model to draw them")
    if ref is None:
        raise UsageError("--ref is missing: a file of adm reference, or a folder or npz of images")
    if drawing.model is None and any(value is not None for value in vars(drawing).values()):
        raise UsageError(
            "--class, --num, --scale, --cfg, --sampler, --steps, --seed and --classifier are for "
            "drawing: they need --model in place of SAMPLES"
        )
    if out is not None and out.suffix not in (".csv", ".json"):
        raise UsageError(f"--out {out}: expected a name that ends in .csv or .json")
    if out is not None and out.exists() and not overwrite:
        raise OutputError(f"{out} exists already: pass --overwrite, or another --out")


def find_reference(
    path: Path,
    resize: tuple[int, int] | None,
    extractor: Extractor,
    metrics: tuple[str, ...],
    size: tuple[int, int],
    *,
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
    from adm_cli.storage.pixels import open_pixels

    if path.suffix == ".safetensors":
        reference = open_reference(path, extractor)
        check_sizes(size, reference.source, reference.size)
        return reference
    images = open_pixels(path, resize)
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


@dataclass(frozen=True)
class Drawn:
    """Samples that are to be drawn."""

    name: str
    pipeline: Pipeline
    config: SamplingConfig
    remarks: list[str]

    @property
    def size(self) -> tuple[int, int]:
        return self.pipeline.model.config.image_size

    @property
    def count(self) -> int:
        return len(self.config.seeds)


def _stored(path: Path, resize: tuple[int, int] | None) -> Stored:
    from adm_cli.storage.pixels import holds_statistics, open_pixels

    remarks = []
    if holds_statistics(path):
        remarks.append(f"{path.name} holds statistics, which count for --ref only: its images do")
    return Stored(str(path), open_pixels(path, resize), remarks)


def _drawn(drawing: Drawing, device: str) -> Drawn:
    from adm_cli.commands.sample import sampling_settings
    from adm_cli.pipeline import load_pipeline
    from adm_cli.sources import find_sources

    assert drawing.model is not None
    sources = find_sources(drawing.model, drawing.guide, guided=drawing.scale != 0)
    num = DEFAULT_NUM if drawing.num is None else drawing.num
    pairs = select_images(sources, drawing.classes, seed=drawing.seed, num=num)
    images = [Wanted(class_id, own_seed) for class_id, own_seed in pairs]
    config = sampling_settings(
        sources, images, drawing.scale, drawing.sampler, drawing.steps, None, None, True,
        cfg=drawing.cfg,
    )  # fmt: skip
    pipeline = load_pipeline(sources, guided=config.scale != 0, device=device)
    return Drawn(sources.model_name, pipeline, config, [])


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


def _draw(drawn: Drawn, extractor: Extractor, metrics: tuple[str, ...], *, quiet: bool) -> Measured:
    """Draws and measures batch by batch: no image is kept."""
    from adm_cli.defaults import choose_schedule
    from adm_cli.evaluating import features_needed, measure
    from adm_cli.pipeline import generate

    pipeline, config = drawn.pipeline, drawn.config
    steps = len(choose_schedule(pipeline.diffusion, config.steps))
    progress = console.SamplingProgress(len(config.seeds), steps, quiet=quiet)

    def batches() -> Iterator[Tensor]:
        for batch in generate(
            pipeline,
            config,
            on_step=lambda step: progress.advance(step.x.shape[0], step.i),
            on_note=None if quiet else console.note,
        ):
            yield batch.images
            progress.finish_batch(len(batch.seeds))

    with progress.show():
        return measure(batches(), extractor, count=len(config.seeds), keep=features_needed(metrics))


@contextmanager
def _working(*, quiet: bool) -> Iterator[OnStep]:
    """What is being computed, for a person who waits."""
    counter = console.Counter("", 1, quiet=quiet)

    def on_step(name: str, done: int, total: int) -> None:
        if (name, total) != (counter.what, counter.total):
            counter.restart(name, total)
        counter.update(done)

    with counter.show():
        yield on_step


def _facts(
    name: str,
    measured: Measured,
    reference: Reference,
    scores: list[Score],
    remarks: list[str],
    *,
    half: bool,
) -> dict[str, Any]:
    return {
        "samples": name,
        "images": measured.count,
        "pixels_sha256": measured.pixels_sha256,
        "reference": reference.source,
        "reference_images": reference.images,
        "reference_features": len(reference.kept),
        "reference_pixels_sha256": reference.pixels_sha256 or None,
        "features": measured.extractor.name,
        "features_weights": measured.extractor.weights,
        "features_sha256": measured.extractor.sha256,
        "half": half,
        "metrics": {
            score.name: {
                "value": score.value,
                "error": None if math.isnan(score.error) else score.error,
            }
            for score in scores
        },
        "notes": remarks,
    }


def _write(out: Path, facts: dict[str, Any]) -> None:
    from adm_cli.storage.tables import write_csv, write_json

    if out.suffix == ".json":
        write_json(out, facts)
        return
    shared = {k: v for k, v in facts.items() if k not in ("metrics", "notes")}
    rows = [{"metric": name, **found, **shared} for name, found in facts["metrics"].items()]
    write_csv(out, rows)


def _show(facts: dict[str, Any], *, json: bool, quiet: bool) -> None:
    if not quiet:
        for remark in facts["notes"]:
            console.note(remark)
    if json:
        console.print_json(facts)
        return
    from rich.table import Table
    from rich.text import Text

    behind = facts["reference_images"]
    source = console.one_line(facts["reference"])
    against = source if behind is None else f"{source} ({behind:,} images)"
    title = (
        f"{console.one_line(facts['samples'])} ({facts['images']:,} images) against {against}\n"
        f"features: {facts['features']} {console.one_line(facts['features_weights'])} "
        f"({facts['features_sha256'][:8]})"
    )
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
    for column in ("metric", "value", "error"):
        table.add_column(column, no_wrap=True, justify="left" if column == "metric" else "right")
    for name, found in facts["metrics"].items():
        error = "-" if found["error"] is None else f"{found['error']:.2g}"
        value = 0.0 if abs(found["value"]) < _ROUNDING else found["value"]
        table.add_row(name, f"{value:.6g}", error)
    console.out.print(table)
