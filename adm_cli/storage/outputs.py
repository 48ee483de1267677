"""What a run's results are called, and what is made beside them: contact sheet and animation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from adm_cli.errors import OutputError
from adm_cli.storage.files import explain_os_error, make_folder, sync_folder
from adm_cli.storage.images import (
    Pixels,
    make_grid,
    open_picture,
    read_description,
    save_animation,
    save_image,
    to_uint8,
)
from adm_cli.storage.links import remove, remove_folder
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
        remove_folder(folder)


def image_name(class_id: int | None, seed: int, suffix: str, **own: float) -> str:
    """``class0207_seed000000.png``; ``class0207_scale2.5_seed000000.png`` with its own scale."""
    label = "" if class_id is None else f"class{class_id:04d}_"
    parts = "".join(f"{name}{repr(float(v)).removesuffix('.0')}_" for name, v in own.items())
    return f"{label}{parts}seed{seed:06d}{suffix}"


def image_item(
    class_id: int | None,
    seed: int,
    suffix: str,
    scale: float | None = None,
    cfg: float | None = None,
) -> Item:
    """An image of a run; ``scale`` and ``cfg`` only where it has its own."""
    own = {name: v for name, v in (("scale", scale), ("cfg", cfg)) if v is not None}
    facts = {"class": class_id, **own, "seed": seed}
    return Item(image_name(class_id, seed, suffix, **own), facts)


def remove_film(path: Path) -> None:
    """Removes a film, if there is one, for good; raises OutputError."""
    try:
        remove(path)
    except OSError as error:
        raise OutputError(explain_os_error(f"cannot remove {path}", error)) from error
    sync_folder(path.parent)


MOST_IN_GRID = 1024


def write_grid(path: Path, pictures: Sequence[Path]) -> int:
    """A contact sheet of the first pictures, read from their files; returns how many it shows."""
    shown = pictures[:MOST_IN_GRID]
    if shown:
        save_image(path, make_grid(np.stack([open_picture(picture)[0] for picture in shown])))
    return len(shown)


class Film:
    """Frames of the first batch's denoising, at most 60; the file says what it is of."""

    MOST_FRAMES, MOST_IMAGES = 60, 64

    def __init__(self, path: Path, every: int, steps: int, shown: int) -> None:
        """Every ``every``-th of the last ``steps`` steps, of at most ``shown`` images."""
        self.path, self.every, self.steps = path, every, steps
        self.shown = min(shown, self.MOST_IMAGES)  # a batch may be padded
        self.images: list[str] = []  # files of the batch, once it is done
        self.sizes: Mapping[str, int] = {}  # of batches, as in a plan's settings
        self.frames: list[Pixels] = []
        self.left = 0

    @classmethod
    def spacing(cls, steps: int) -> int:
        """Of the frames of a process of so many steps."""
        return max(1, -(-steps // cls.MOST_FRAMES))

    @classmethod
    def again(cls, path: Path, facts: Mapping[str, Any]) -> Film:
        """One that is to become what its `facts` say."""
        return cls(path, facts["every"], facts["steps"], facts["shown"])

    def facts(self) -> dict[str, Any]:
        """What decides the film, beside the run's settings."""
        return {
            "frames": len(self.frames),
            "every": self.every,
            "steps": self.steps,
            "shown": self.shown,
            **self.sizes,
            "images": self.images,
        }

    def add(self, i: int, x: Tensor) -> None:
        """``x`` [N, C, H, W] in [-1, 1] after step ``i``, which counts down to 0."""
        if i >= self.left:  # the batch starts, or starts over smaller, out of memory
            self.frames.clear()
        self.left = i
        if i < self.steps and i % self.every == 0:
            self.frames.append(make_grid(to_uint8(x[: self.shown]).cpu().numpy()))

    def close(self) -> int:
        """Writes the film if it is whole; returns the number of frames."""
        if self.left or not self.frames:  # interrupted
            return 0
        save_animation(self.path, self.frames, {"film": self.facts()})
        return len(self.frames)


def film_facts(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """`Film.facts` of a manifest's line or a film's description; None where they are no such."""
    names = ("frames", "every", "steps", "shown", "batch_size", "base_batch_size")
    facts = {name: found[name] for name in (*names, "images") if name in found} if found else {}
    images = facts.get("images")
    if not isinstance(images, list) or not images:
        return None
    if not all(isinstance(name, str) for name in images):
        return None
    numbers = [facts.get(name, 1) for name in names[4:]] + [facts.get(name) for name in names[:4]]
    return facts if all(type(n) is int and n > 0 for n in numbers) else None


def film_in(path: Path) -> dict[str, Any] | None:
    """The `Film.facts` that a file carries; None for one that is no film of ours."""
    found = (read_description(path) or {}).get("film")
    return film_facts(found) if isinstance(found, dict) else None
