"""References: sets of images measured once, for evaluating others against them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adm_cli.checkpoints.supplying import supplied
from adm_cli.devices import made_on_cpu
from adm_cli.errors import OutputError, UsageError, size_words
from adm_cli.events import AnyPath, Count, Note, OnEvent, ignore
from adm_cli.files.disk import check_writable
from adm_cli.files.strict import type_checked
from adm_cli.pictures.pixels import PixelSet, StatisticsOnly, holds_statistics, statistics_only
from adm_cli.pictures.references import Reference, describe_reference, save_reference
from adm_cli.reports.costs import reference_costs
from adm_cli.reports.measure import (
    Extractor,
    check_size,
    load_extractor,
    open_reference,
    published_reference,
    reference_from_images,
)
from adm_cli.reports.pictures import open_measured, read_size
from adm_cli.reports.scores import check_sizes, features_needed
from adm_cli.sampling.arguments import path_or_none


@dataclass(frozen=True)
class ReferenceFile:
    """A reference as it was written."""

    path: Path
    reference: Reference
    content_sha256: str

    def to_json(self) -> dict[str, Any]:
        """Its path, what it says of itself, and its hash."""
        facts = describe_reference(self.reference)
        return {"path": str(self.path), **facts, "content_sha256": self.content_sha256}


@type_checked
@made_on_cpu()
@supplied
def reference(
    data: AnyPath,
    *,
    out: AnyPath,
    features: str = "inception",
    inception: AnyPath | None = None,
    resize: str | int | None = None,
    value_range: str | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    overwrite: bool = False,
    fetch: bool = False,
    on_event: OnEvent = ignore,
) -> ReferenceFile:
    """Measures a set of images once and writes ``out``, a .safetensors.

    ``data`` is a folder, zip, uncompressed tar or npz (the original's layout); the statistics that
    one of the original's batches holds are kept, not those of its images. ``features`` is
    "inception", "classifier" or a classifier's name or file, ``resize`` 64 or "64x48" (width and
    height). ``on_event`` takes `Note` and `Count`. Raises UsageError, OutputError, and what
    `load_extractor` and `measure` raise.
    """
    path = _output(out, overwrite=overwrite)
    extractor = _extractor(features, inception, device, batch_size)
    images = _opened(data, resize, value_range, on_event)

    def on_images(done: int) -> None:
        on_event(Count("images", done, len(images)))

    found = published_reference(images, extractor, on_images=on_images)
    published = found is not None
    found = found or reference_from_images(images, extractor, on_images=on_images)
    digest = save_reference(path, found)
    if published:
        text = f"the statistics that {images.path.name} holds were kept, not those of its images"
        on_event(Note(text))
    return ReferenceFile(path, found, digest)


@supplied
def plan_reference(
    data: AnyPath,
    *,
    out: AnyPath,
    features: str = "inception",
    inception: AnyPath | None = None,
    resize: str | int | None = None,
    value_range: str | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    overwrite: bool = False,
    fetch: bool = False,
    on_event: OnEvent = ignore,
) -> dict[str, Any]:
    """What `reference` would take, by one batch; checks what it does and writes nothing."""
    path = _output(out, overwrite=overwrite)
    extractor = _extractor(features, inception, device, batch_size)
    images = _opened(data, resize, value_range, on_event)
    return {"out": str(path), **reference_costs(images, extractor)}


def _output(out: AnyPath, *, overwrite: bool) -> Path:
    path = Path(out)
    if path.suffix != ".safetensors":
        raise UsageError(f"--out {path}: expected a name that ends in .safetensors")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already: pass --overwrite, or another --out")
    check_writable(path.parent)
    return path


def _extractor(
    features: str, inception: AnyPath | None, device: str, batch_size: int | None
) -> Extractor:
    weights = path_or_none(inception)
    return load_extractor(features, inception=weights, device=device, batch_size=batch_size)


def _opened(
    data: AnyPath, resize: str | int | None, value_range: str | None, on_event: OnEvent
) -> PixelSet:
    images, notes = open_measured(Path(data), read_size(resize), value_range)
    for text in notes:
        on_event(Note(text))
    return images


def find_reference(
    path: Path,
    resize: tuple[int, int] | None,
    extractor: Extractor,
    metrics: tuple[str, ...],
    size: tuple[int, int],
    *,
    values: str | None = None,
    on_event: OnEvent = ignore,
) -> Reference:
    """Read, or measured; refused before that work if it is of another size than the samples.

    ``size`` is the samples'; what the network takes is looked at first, so that what an error
    advises is enough.
    """
    check_size(extractor, size)
    if path.suffix == ".safetensors":
        reference = open_reference(path, extractor)
        again = f"make another with adm reference --resize {size_words(size)}"
        check_sizes(
            size, reference.source, reference.size, smaller=again if reference.images else ""
        )
        return reference
    images: PixelSet
    notes: list[str] = []
    if statistics_only(path):
        images = StatisticsOnly(path, size)
    else:
        images, notes = open_measured(path, resize, values)
    for text in notes:
        on_event(Note(text))
    reduced = "" if holds_statistics(path) else f"pass --resize {size_words(size)}"
    check_sizes(size, images.path.name, images.size, smaller=reduced)

    def on_images(done: int) -> None:
        on_event(Count("reference images", done, len(images)))

    needed = features_needed(metrics) is None
    found = published_reference(images, extractor, features=needed, on_images=on_images)
    return found or reference_from_images(images, extractor, on_images=on_images)


def metrics_by(
    ref: Path, able: tuple[str, ...], asked: str | None, features: str
) -> tuple[tuple[str, ...], list[str]]:
    """The metrics that a reference allows, and what to say of those it does not.

    Raises UsageError where one of these was asked for, before any work.
    """
    held = statistics_only(ref)
    if not held:
        return able, []
    if features != "inception":
        raise UsageError(f"{ref.name} holds Inception's statistics only: leave out --features")
    possible = ("fid", "sfid", "is") if "mu_s" in held else ("fid", "is")
    missing = [metric for metric in able if metric not in possible]
    text = f"{ref.name} holds statistics only, no images: {', '.join(missing)}"
    if asked is not None and missing:
        raise UsageError(f"{text} cannot be measured; --metrics {','.join(possible)} can")
    chosen = tuple(metric for metric in able if metric in possible)
    return chosen, [f"{text} left out"] if missing else []
