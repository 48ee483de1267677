"""The pictures that a model is judged on, a batch at a time, and the noise each one gets."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from adm_cli.classes.imagenet import select_classes
from adm_cli.config import ClassifierConfig, UNetConfig
from adm_cli.devices import free_bytes, out_of_memory, send
from adm_cli.errors import AdmError, DeviceError, RunError, UsageError
from adm_cli.events import Count, OnEvent
from adm_cli.models.cost import activation_bytes
from adm_cli.pictures.datasets import ImageSet, keep_classes, match_classes, open_images
from adm_cli.pictures.decode import center_crop
from adm_cli.pictures.images import Pixels
from adm_cli.pictures.pixels import PicturePixels, PixelSet, open_pixels
from adm_cli.pictures.ranges import with_value_range
from adm_cli.pictures.unreadable import refuse_unreadable
from adm_cli.sampling.drawing.memory import MAX_AUTO_BATCH
from adm_cli.sampling.run import read_run
from adm_cli.training.randomness import generator
from adm_cli.training.setup import parse_size

_MOST_SIDE = 8192
_MOST_NAMED = 4  # runs

Result = TypeVar("Result")
Row = dict[str, Any]
OnNote = Callable[[str], None]


def labelled_pictures(
    paths: Sequence[Path],
    known: Mapping[int, str],
    *,
    labels: str = "auto",
    classes: Sequence[str] | None = None,
    values: str | None = None,
) -> tuple[ImageSet, int]:
    """The pictures of classes that a model knows, under its ids, and how many others there are.

    ``known`` are the model's classes; ``classes`` narrows them, as ``--class`` does, ``values``
    is ``--value-range``. Raises UsageError where there is nothing to read, no label, or no class
    in common.
    """
    images = with_value_range(open_images(paths, labels=labels), values)
    matched = match_classes(images, known)
    dropped = len(images) - len(matched)
    if classes:
        chosen = {i for spec in classes for i in select_classes(spec, known)}
        matched = keep_classes(matched, sorted(chosen))
        if not len(matched):
            raise UsageError(f"no pictures of the class {', '.join(classes)}")
    return matched, dropped


def open_measured(
    path: Path, resize: tuple[int, int] | None, values: str | None
) -> tuple[PixelSet, list[str]]:
    """As `open_pixels`, with what a person should know of its runs: mixed, unfinished.

    Raises as `open_pixels`.
    """
    pixels = open_pixels(path, resize, values)
    doubts = _doubtful_runs(path, pixels.images) if isinstance(pixels, PicturePixels) else []
    return pixels, [*pixels.notes, *doubts]


def _doubtful_runs(path: Path, images: ImageSet) -> list[str]:
    counts = Counter(picture.name.rpartition("/")[0] for picture in images.pictures)
    runs = [folder for folder in sorted(counts) if os.path.isfile(path / folder / "run.json")]
    notes = []
    if len(runs) > 1:
        more = ", ..." if len(runs) > _MOST_NAMED else ""
        notes.append(
            f"{path} holds {len(runs)} runs, measured together as one set: "
            f"{', '.join(runs[:_MOST_NAMED])}{more}"
        )
    for folder in runs:
        with suppress(RunError):  # damaged: its pictures are there all the same
            asked = len(read_run(path / folder / "run.json").images)
            if counts[folder] < asked:
                notes.append(
                    f"{path / folder} is not finished: {counts[folder]:,} of {asked:,} images are "
                    f"there; the command that began it goes on"
                )
    return notes


def read_size(text: str | int | None) -> tuple[int, int] | None:
    """``--resize`` as (height, width): 64 or "48x64"; raises UsageError."""
    if text is None:
        return None
    size = parse_size(str(text))
    if not 1 <= min(size) <= max(size) <= _MOST_SIDE:
        raise UsageError(f"--resize {text}: expected sides of 1 to {_MOST_SIDE}")
    return size


def some_pictures(images: ImageSet, num: int | None, seed: int) -> ImageSet:
    """``num`` pictures spread over the set, all if None; fewer are always among more."""
    if num is not None and num < 1:
        raise UsageError(f"--num must be at least 1, got {num}")
    if num is None or num >= len(images):
        return images
    order = torch.randperm(len(images), generator=generator(seed, "pictures")).tolist()
    return images.part(sorted(order[:num]))


def check_pictures(images: ImageSet, on_event: OnEvent, *, skip_bad: bool) -> None:
    """Raises AdmError for pictures that cannot be read, before hours go into the others.

    Not where they are to be passed over when it is their turn.
    """
    if skip_bad:
        return

    def on_checked(done: int, total: int) -> None:
        on_event(Count("pictures read", done, total))

    refuse_unreadable(images, skippable=True, on_checked=on_checked)


def noise_generators(images: ImageSet, seed: int, *purpose: object) -> list[torch.Generator]:
    """A generator a picture, by its name: the noise depends on nothing beside the picture."""
    return [generator(seed, *purpose, p.source, p.name) for p in images.pictures]


def drawn_noise(generators: list[torch.Generator], like: Tensor) -> Tensor:
    """Standard normal noise, a picture a generator, in the type and place of ``like`` [B, ...]."""
    shape = like.shape[1:]
    rows = [torch.randn(shape, generator=g, dtype=torch.float32) for g in generators]
    return send(torch.stack(rows), like.device, like.dtype)


def choose_batch_size(
    device: torch.device, config: UNetConfig | ClassifierConfig, asked: int | None
) -> int:
    """As asked for, or as many pictures as fit, at most 16; raises UsageError below 1."""
    if asked is not None:
        if asked < 1:
            raise UsageError(f"--batch-size must be at least 1, got {asked}")
        return asked
    fitting = int(free_bytes(device) * 0.6 / activation_bytes(config))
    return max(1, min(MAX_AUTO_BATCH, fitting))


def each_batch(
    images: ImageSet,
    size: tuple[int, int],
    batch_size: int,
    compute: Callable[[ImageSet, Tensor], Result],
    *,
    skip_bad: bool = False,
    on_note: OnNote | None = None,
) -> Iterator[tuple[ImageSet, Result]]:
    """Some pictures and what ``compute`` makes of their centre crops, uint8 [B, H, W, 3].

    Out of memory, the batch is halved. Raises AdmError for an unreadable picture, unless it is to
    be passed over, and DeviceError where not even one picture fits into memory.
    """
    done = 0
    with ThreadPoolExecutor(max(1, os.cpu_count() or 1)) as pool:

        def crop(i: int) -> Pixels | AdmError:
            try:
                return center_crop(images.decode(i), size)
            except AdmError as error:
                return error

        while done < len(images):
            places = range(done, min(done + batch_size, len(images)))
            crops = list(pool.map(crop, places))
            bad = [str(c) for c in crops if isinstance(c, AdmError)]
            if bad and not skip_bad:
                raise AdmError(f"{bad[0]}: remove the picture, or pass --skip-bad")
            part = images.part(
                [i for i, c in zip(places, crops, strict=True) if not isinstance(c, AdmError)]
            )
            good = [c for c in crops if not isinstance(c, AdmError)]
            try:
                results = [compute(part, torch.from_numpy(np.stack(good)))] if good else []
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                batch_size = _halved(len(part), on_note)
                continue
            for text in bad:
                _say(on_note, f"passed over {text}")
            yield from ((part, result) for result in results)
            done = places.stop


def _halved(size: int, on_note: OnNote | None) -> int:
    if size == 1:
        raise DeviceError(
            "not enough memory for a single picture: "
            "try --dtype bfloat16, a smaller model or another --device"
        ) from None
    _say(on_note, f"out of memory: going on with batches of {size // 2}")
    return size // 2


def _say(on_note: OnNote | None, text: str) -> None:
    if on_note is not None:
        on_note(text)
