"""What a run's results are called, and what is made beside them: contact sheet and animation."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from torch import Tensor

from adm_cli.errors import OutputError
from adm_cli.storage.files import explain_os_error, make_folder, sync_folder
from adm_cli.storage.images import (
    Pixels,
    make_grid,
    open_picture,
    save_animation,
    save_image,
    to_uint8,
)
from adm_cli.storage.plans import Item


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
        sync_folder(parent)
        return folder


def remove_if_empty(folder: Path) -> None:
    """Takes back a folder in which a failed run left nothing."""
    with suppress(OSError):
        folder.rmdir()


def image_name(class_id: int | None, seed: int, suffix: str, scale: float | None = None) -> str:
    """``class0207_seed000000.png``; ``class0207_scale2.5_seed000000.png`` with its own scale."""
    label = "" if class_id is None else f"class{class_id:04d}_"
    own = "" if scale is None else f"scale{repr(float(scale)).removesuffix('.0')}_"
    return f"{label}{own}seed{seed:06d}{suffix}"


def image_item(class_id: int | None, seed: int, suffix: str, scale: float | None = None) -> Item:
    """An image of a run; ``scale`` only where it has its own."""
    own = {} if scale is None else {"scale": scale}
    return Item(image_name(class_id, seed, suffix, scale), {"class": class_id, **own, "seed": seed})


MOST_IN_GRID = 1024


def write_grid(path: Path, pictures: Sequence[Path]) -> int:
    """A contact sheet of the first pictures, read from their files; returns how many it shows."""
    shown = pictures[:MOST_IN_GRID]
    if shown:
        save_image(path, make_grid(np.stack([open_picture(picture)[0] for picture in shown])))
    return len(shown)


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

    def close(self) -> int:
        """Writes the film if it is whole; returns the number of frames."""
        if self.left or not self.frames:  # interrupted
            return 0
        save_animation(self.path, self.frames)
        return len(self.frames)
