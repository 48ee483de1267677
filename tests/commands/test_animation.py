"""`adm sample --animate` where the first batch does not run through as planned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from adm_cli.models.unet import UNet
from adm_cli.storage.images import make_grid, open_picture
from tests.conftest import Result, pictures

Run = Callable[..., Result]
FILM = ("--animate", "film.webp", "--steps", 3, "--seeds", "0-3", "--class", 3, "--out", "o")


def fail_at(monkeypatch: pytest.MonkeyPatch, error: BaseException, *calls: int) -> None:
    """The diffusion model raises at these evaluations, counted from 1."""
    forward, count = UNet.forward, iter(range(1, 1000))

    def failing(self: UNet, *args: Any, **options: Any) -> torch.Tensor:
        if next(count) in calls:
            raise error
        return forward(self, *args, **options)

    monkeypatch.setattr(UNet, "forward", failing)


def last_frame(frames: int) -> Any:
    with Image.open("film.webp") as film:
        assert getattr(film, "n_frames", 1) == frames
        film.seek(frames - 1)
        return np.asarray(film.convert("RGB"))


def sheet(*seeds: int) -> Any:
    paths = [Path(f"o/class0003_seed{seed:06d}.png") for seed in seeds]
    return make_grid(np.stack([open_picture(path)[0] for path in paths]))


def test_a_batch_that_ran_out_of_memory_is_shown_once(
    draw: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(monkeypatch, torch.OutOfMemoryError("out of memory"), 3)  # 4 images, third step
    done = draw(*FILM, "--batch-size", 4)
    assert done.code == 0
    assert "out of memory: going on with batches of 2" in done.err
    assert np.array_equal(last_frame(3), sheet(0, 1))


def test_padding_is_not_shown(draw: Run) -> None:
    assert draw(*FILM, "--batch-size", 7).code == 0
    assert np.array_equal(last_frame(3), sheet(0, 1, 2, 3))


@pytest.mark.parametrize(("call", "written"), [(3, False), (4, True)])
def test_interrupted(draw: Run, monkeypatch: pytest.MonkeyPatch, call: int, written: bool) -> None:
    """A film that rests on no image is not written, a whole one is."""
    fail_at(monkeypatch, KeyboardInterrupt(), call)
    done = draw(*FILM, "--batch-size", 2)
    assert done.code == 130
    assert Path("film.webp").exists() == written
    assert len(pictures("o")) == (2 if written else 0)
    if written:
        assert np.array_equal(last_frame(3), sheet(0, 1))
        assert done.out.splitlines()[-1] == "film.webp"


def test_long_processes_make_short_films(draw: Run) -> None:
    assert draw(*FILM, "--steps", 100, "--seeds", "0", "--scale", 0).code == 0
    assert np.array_equal(last_frame(50), sheet(0))
