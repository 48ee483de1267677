"""Where the images of a run go: pictures, one npz, a contact sheet, an animation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from adm_cli.errors import OutputError
from adm_cli.storage.files import explain_os_error, make_folder
from adm_cli.storage.images import (
    Pixels,
    Recipe,
    make_grid,
    save_animation,
    save_image,
    save_npz,
    to_uint8,
)

Record = dict[str, Any]


def fresh_folder(parent: Path) -> Path:
    """The first of parent/0001, parent/0002, ... above all that are there."""
    taken = [int(p.name) for p in parent.glob("[0-9]*") if p.name.isdecimal()]
    return parent / f"{max(taken, default=0) + 1:04d}"


def make_fresh_folder(parent: Path) -> Path:
    """Makes the `fresh_folder`, which no other run that starts now is given too."""
    make_folder(parent)
    while True:
        folder = fresh_folder(parent)
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise OutputError(
                explain_os_error(f"cannot make the folder {folder}", error)
            ) from error
        return folder


def remove_if_empty(folder: Path) -> None:
    """Takes back a folder in which a failed run left nothing."""
    with suppress(OSError):
        folder.rmdir()


def image_name(class_id: int | None, seed: int, suffix: str) -> str:
    """``class0207_seed000000.png``, or ``seed000000.png`` without a class."""
    label = "" if class_id is None else f"class{class_id:04d}_"
    return f"{label}seed{seed:06d}{suffix}"


def refuse_existing(paths: Sequence[Path]) -> None:
    """Raises OutputError if any of the files is there already."""
    there = [path for path in paths if path.exists()]
    if there:
        raise OutputError(
            f"{len(there)} of the files to write exist already, e.g. {there[0]}: "
            f"choose another --out, or pass --overwrite"
        )


class Output(Protocol):
    """Takes images as they are made; gives a record of each file as soon as it is on disk."""

    written: int  # images that are safely on disk

    def add(
        self, images: Pixels, classes: Sequence[int | None], seeds: Sequence[int],
        recipes: Sequence[Recipe],
    ) -> Iterable[Record]: ...  # fmt: skip

    def close(self) -> list[Record]: ...


class ImageFolder:
    """One picture a file, written as soon as it is there."""

    def __init__(self, folder: Path, suffix: str) -> None:
        self.folder, self.suffix = folder, suffix
        self.written = 0

    def add(
        self, images: Pixels, classes: Sequence[int | None], seeds: Sequence[int],
        recipes: Sequence[Recipe],
    ) -> Iterator[Record]:  # fmt: skip
        for pixels, class_id, seed, recipe in zip(images, classes, seeds, recipes, strict=True):
            path = self.folder / image_name(class_id, seed, self.suffix)
            data = save_image(path, pixels, recipe)
            self.written += 1
            digest = hashlib.sha256(data).hexdigest()
            yield {"path": str(path), "class": class_id, "seed": seed, "sha256": digest}

    def close(self) -> list[Record]:
        return []


class NpzFile:
    """The original's npz, written at the end: the format cannot grow."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder, self.recipe = folder, recipe
        self.written = 0
        self.images: list[Pixels] = []
        self.classes: list[int | None] = []
        self.seeds: list[int] = []

    def add(
        self, images: Pixels, classes: Sequence[int | None], seeds: Sequence[int],
        recipes: Sequence[Recipe],
    ) -> list[Record]:  # fmt: skip
        self.images += list(images)
        self.classes += classes
        self.seeds += seeds
        return []

    def close(self) -> list[Record]:
        if not self.images:
            return []
        stack = np.stack(self.images)
        path = self.folder / f"samples_{'x'.join(map(str, stack.shape))}.npz"
        save_npz(path, stack, self.classes, self.seeds, self.recipe)
        self.written = len(stack)
        return [{"path": str(path), "images": len(stack)}]


class Grid:
    """A contact sheet of the first images of a run."""

    MOST = 1024

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images: list[Pixels] = []

    def add(self, images: Pixels) -> None:
        self.images += list(images[: self.MOST - len(self.images)])

    def close(self) -> list[Record]:
        if not self.images:
            return []
        save_image(self.path, make_grid(np.stack(self.images)))
        return [{"path": str(self.path), "images": len(self.images)}]


class Film:
    """Frames of the first batch's denoising, at most 60."""

    MOST_FRAMES, MOST_IMAGES = 60, 64

    def __init__(self, path: Path, steps: int, images: int) -> None:
        self.path, self.every = path, max(1, -(-steps // self.MOST_FRAMES))
        self.images = min(images, self.MOST_IMAGES)  # a batch may be padded
        self.frames: list[Pixels] = []
        self.left = 0

    def add(self, i: int, x: Tensor) -> None:
        """``x`` [N, C, H, W] in [-1, 1] after step ``i``, which counts down to 0."""
        if i >= self.left:  # the batch starts, or starts over smaller, out of memory
            self.frames.clear()
        self.left = i
        if i % self.every == 0:
            self.frames.append(make_grid(to_uint8(x[: self.images]).cpu().numpy()))

    def close(self) -> list[Record]:
        if self.left or not self.frames:  # interrupted
            return []
        save_animation(self.path, self.frames)
        return [{"path": str(self.path), "frames": len(self.frames)}]
