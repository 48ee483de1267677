"""`adm sample --animate` where the first batch does not run through as planned."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import adm_cli.sampling.drawing.memory as memory_module
from adm_cli.models.unet import UNet
from adm_cli.pictures.images import make_grid, open_picture
from adm_cli.sampling.drawing.writer import ImageWriter
from adm_cli.sampling.folder import RunFolder
from tests.conftest import Result, Toys, pictures

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
    paths = [Path(f"o/0003_star_seed{seed:06d}.png") for seed in seeds]
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


# A film that was lost


def killed(draw: Run, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    """A run that ends when the first batch is safe, without a word: as after kill -9."""
    real = ImageWriter.add

    def add(self: ImageWriter, images: Any) -> None:
        real(self, images)
        self._todo.put(None)
        self._thread.join()  # type: ignore[union-attr]
        os._exit(137)

    with monkeypatch.context() as patch:
        patch.setattr(ImageWriter, "add", add)
        child = os.fork()
        if child == 0:
            try:
                draw(*arguments)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 137


needs_fork = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
LISTED = "3 0 0\n0 5 2\n3 1 0\n1 2 2\n0 1 2\n"  # unguided ones first in the list, not in the film


@needs_fork
@pytest.mark.parametrize(
    "arguments",
    [
        ("--class", 3, "--seeds", "0-3", "-b", 2),
        ("--class", 3, "--seeds", "0-3", "-b", 4),  # nothing is missing but the film
        ("--classes-file", "list", "-b", 2),
    ],
)
def test_killed_before_the_film_is_written(
    draw: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[object, ...]
) -> None:
    """Gone on with, it is drawn again: byte for byte that of a run that nobody stopped."""
    Path("list").write_text(LISTED)
    wanted = ("--steps", 3, *arguments)
    killed(draw, monkeypatch, *wanted, "--animate", "o/film.gif", "--out", "o")
    assert not Path("o/film.gif").exists()
    assert Path("o/manifest.jsonl").read_bytes().count(b"\n") == arguments[-1]
    done = draw(*wanted, "--animate", "o/film.gif", "--out", "o")
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == "o/film.gif"
    assert draw(*wanted, "--animate", "p/film.gif", "--out", "p").code == 0
    assert Path("o/film.gif").read_bytes() == Path("p/film.gif").read_bytes()
    assert set(RunFolder(Path("o")).records()) == set(RunFolder(Path("p")).records())


@needs_fork
def test_killed_after_memory_ran_out(draw: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The film shows the largest batch that was computed, which is the one after going on."""
    wanted = ("--class", 3, "--seeds", "0-3", "--steps", 3, "-b", 4)
    with monkeypatch.context() as patch:
        fail_at(patch, torch.OutOfMemoryError("out of memory"), 3)
        killed(draw, monkeypatch, *wanted, "--animate", "film.webp", "--out", "o")
    assert draw(*wanted, "--animate", "film.webp", "--out", "o").code == 0
    assert np.array_equal(last_frame(3), sheet(2, 3))


def test_a_damaged_film_is_drawn_again(draw: Run) -> None:
    """And one that is no film of the run is not replaced unasked."""
    wanted = ("--class", 3, "--num", 2, "--animate", "o/film.gif", "--out", "o")
    assert draw(*wanted).code == 0
    whole = Path("o/film.gif").read_bytes()
    Path("o/film.gif").write_bytes(whole[:-9])
    assert draw(*wanted).code == 0
    assert Path("o/film.gif").read_bytes() == whole
    Image.new("RGB", (4, 4)).save("mine.gif")
    mine = Path("mine.gif").read_bytes()
    done = draw(*wanted, "--animate", "mine.gif")
    assert (done.code, Path("mine.gif").read_bytes()) == (1, mine)
    assert "mine.gif exists already: choose another place, or pass --overwrite" in done.err


@pytest.mark.parametrize("keep", [(), ("--keep-base",)])
def test_a_late_film_of_a_stack(
    draw: Run, toys: Toys, monkeypatch: pytest.MonkeyPatch, keep: tuple[str, ...]
) -> None:
    """Of both stages, or of the second one where they come one after the other."""

    def stack(out: str, *more: object) -> Result:
        upsampling = ("--upsampler", toys.upsampler, "--upsample-steps", 2)
        return draw("--class", "0,3", "--num", 1, "-b", 1, *upsampling, *keep, "--out", out, *more)

    for memory in (10**12, 10**6):
        out = f"o{memory}"
        with monkeypatch.context() as patch:
            patch.setattr(memory_module, "free_bytes", lambda _device, memory=memory: memory)
            assert stack(out).code == stack(f"{out}-whole", "--animate", "whole.gif").code == 0
            Path("late.gif").unlink(missing_ok=True)
            done = stack(out, "--animate", "late.gif")
            assert done.code == 0, done.err
            assert Path("late.gif").read_bytes() == Path("whole.gif").read_bytes()
            assert (Path(out) / "base").exists() == bool(keep)
            assert not (Path(out) / ".base").exists()
        Path("whole.gif").unlink()


def test_a_late_film_for_which_memory_is_too_short_now(
    draw: Run, toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of both stages, in a run that was begun with both in memory: all images, and exit code 1."""
    upsampling = ("--upsampler", toys.upsampler, "--upsample-steps", 2, "-b", 2)
    wanted = ("--class", 0, "--num", 4, *upsampling, "--out", "o", "--animate", "film.gif")
    with monkeypatch.context() as patch:
        fail_at(patch, KeyboardInterrupt(), 5)  # two steps of both stages, then the second batch
        assert draw(*wanted).code == 130
    Path("film.gif").unlink()  # as if it had not been written
    monkeypatch.setattr(memory_module, "free_bytes", lambda _device: 10**6)
    done = draw(*wanted)
    assert done.code == 1
    assert "film.gif cannot be drawn as it would have been, for lack of memory" in done.err
    assert len(pictures("o")) == 4
    assert not Path("film.gif").exists()
