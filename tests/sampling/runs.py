"""Runs for tests: their images, their settings, and images as if they had been drawn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from adm_cli.files.manifests import Record
from adm_cli.sampling.choosing.images import Image, Images, drawn_row
from adm_cli.sampling.drawing.writer import ImageWriter
from adm_cli.sampling.folder import RunFolder, Shard
from adm_cli.sampling.run import Run, Stage

STAGE = Stage(
    model="toy", model_sha256="a" * 64, classifier="guide", classifier_sha256="b" * 64, scale=4.0,
    sampler="ddpm", steps="2", num_steps=2, eta=None, clip_denoised=True, size=(4, 4),
    dtype="float32",
)  # fmt: skip


def image(class_id: int | None, seed: int, suffix: str = ".png", **own: Any) -> Image:
    """An image of a run."""
    return drawn_row(class_id, range(seed, seed + 1), suffix, **own).first


def run_of(drawn: Iterable[Image], *, stage: Stage = STAGE, **changes: Any) -> Run:
    """A run of one stage."""
    found = changes.pop("images", None) or Images.of(drawn)
    run = Run(
        stages=(stage,), images=found, device="cpu", threads=1, batch_size=2, format="png",
        versions={"adm": "1", "torch": "2"},
    )  # fmt: skip
    return replace(run, **changes)


@contextmanager
def writing(folder: RunFolder, shard: Shard | None = None) -> Iterator[ImageWriter]:
    """An open writer; what went wrong in writing is raised at the end."""
    writer = ImageWriter(folder, shard or Shard())
    writer.open()
    try:
        yield writer
    finally:
        writer.close()
    writer.check()


def names(records: Iterable[Record]) -> list[str]:
    """Of files."""
    return [record["file"] for record in records]
