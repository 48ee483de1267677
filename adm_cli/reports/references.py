"""References: sets of images measured once, for evaluating others against them."""

from __future__ import annotations

from pathlib import Path

from adm_cli.errors import UsageError
from adm_cli.evaluating import (
    Extractor,
    check_sizes,
    features_needed,
    open_reference,
    published_reference,
    reference_from_images,
)
from adm_cli.events import Count, Note, OnEvent, ignore
from adm_cli.storage.pixels import PixelSet, StatisticsOnly, open_pixels, statistics_only
from adm_cli.storage.references import Reference


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
    """Read, or measured; refused before that work if it is of another size than the samples."""
    if path.suffix == ".safetensors":
        reference = open_reference(path, extractor)
        check_sizes(size, reference.source, reference.size)
        return reference
    images: PixelSet
    if statistics_only(path):
        images = StatisticsOnly(path, size)
    else:
        images = open_pixels(path, resize, values)
    for text in images.notes:
        on_event(Note(text))
    check_sizes(size, images.path.name, images.size)

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
