"""Pictures that are none, because a network overflowed: named, not written, tried again."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

import adm_cli.sampling.drawing.pipeline as pipeline_module
from adm_cli.diffusion.steps import SampleStep
from adm_cli.pictures.images import open_picture
from adm_cli.pictures.sheets import class_sheet
from tests.conftest import TOY_CLASSIFIER, TOY_UNET, TOY_UPSAMPLER, Result, Toys, pictures
from tests.overflow import overflowing

Adm = Callable[..., Result]
CHEAP = ("--device", "cpu", "--class", "0,3,1", "--seeds", 5, "--steps", 1, "--out", "o")
GOOD = ["0000_circle_seed000005.png", "0001_square_seed000005.png"]
LOST = "0003_star_seed000005.png"


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    """A model whose pictures of class 3 overflow."""
    return overflowing(tmp_path / "bad.safetensors", TOY_UNET)


@pytest.fixture
def bad_upsampler(tmp_path: Path) -> Path:
    return overflowing(tmp_path / "bad_upsampler.safetensors", TOY_UPSAMPLER)


def nan_for(patch: pytest.MonkeyPatch, seed: int) -> None:
    """From here on the picture of a seed is not finite."""
    real = pipeline_module._sample_batch

    def sample(*arguments: Any) -> Generator[SampleStep, None, Tensor]:
        x = yield from real(*arguments)
        x[[own == seed for own in arguments[4]]] = float("nan")
        return x

    patch.setattr(pipeline_module, "_sample_batch", sample)


def lost(done: Result, name: str = LOST) -> None:
    """One picture is named, also as what ends the command."""
    assert done.code == 1, done
    assert f"adm: o/{name} (class 3, seed 5) is not finite and is not written" in done.err
    last = done.err.splitlines()[-1]
    assert last.startswith(f"adm: error: o/{name} (class 3, seed 5) is not finite: the model")


def test_sample_keeps_the_others_and_tries_again(adm: Adm, bad: Path) -> None:
    command = ("sample", "--model", bad, "--scale", 0, *CHEAP, "--grid", "--animate", "film.webp")
    done = adm(*command)
    lost(done)
    assert [Path(line).name for line in done.out.splitlines()] == [*GOOD, "grid.png"]
    assert pictures("o") == [*GOOD, "grid.png"]
    two = [open_picture(Path("o", name))[0] for name in GOOD]
    shown = class_sheet(two, ["circle", "square"], ["5", "5"])
    assert np.array_equal(open_picture(Path("o/grid.png"))[0], shown)
    assert not Path("film.webp").exists()  # its batch is not whole
    before = {path: path.read_bytes() for path in Path("o").glob("*.png")}
    lost(adm(*command, "-b", 3))
    assert {path: path.read_bytes() for path in Path("o").glob("*.png")} == before
    quiet = adm(*command, "--quiet")
    assert (quiet.code, len(quiet.err.splitlines())) == (1, 1)


def test_a_run_of_nothing_else_leaves_no_folder(adm: Adm, bad: Path) -> None:
    done = adm("sample", "--model", bad, "--scale", 0, "--class", 3, "--num", 2, "--steps", 1)
    assert done.code == 1
    assert "and 1 more are not finite: " in done.err
    assert not list(Path("out").iterdir())


@pytest.mark.parametrize("apart", [(), ("--keep-base",)], ids=["together", "apart"])
def test_a_small_picture_that_is_none_is_not_enlarged(
    adm: Adm, bad: Path, toys: Toys, apart: tuple[str, ...]
) -> None:
    stack = ("--model", bad, "--scale", 0, "--upsampler", toys.upsampler, "--upsample-steps", 1)
    for _ in range(2):
        done = adm("sample", *stack, *CHEAP, *apart)
        lost(done)
        assert [name for name in pictures("o") if name != "base"] == GOOD
        if apart:
            assert pictures("o/base") == GOOD


@pytest.mark.parametrize("apart", [(), ("--keep-base",)], ids=["together", "apart"])
def test_a_stack_whose_upsampler_overflows(
    adm: Adm, toys: Toys, bad_upsampler: Path, apart: tuple[str, ...]
) -> None:
    stack = ("--model", toys.model, "--scale", 0, "--upsampler", bad_upsampler)
    lost(adm("sample", *stack, "--upsample-steps", 1, *CHEAP, *apart))
    assert [name for name in pictures("o") if name != "base"] == GOOD
    if apart:
        assert pictures("o/base") == sorted([*GOOD, LOST])


def test_upsample(adm: Adm, toys: Toys, bad_upsampler: Path) -> None:
    sampled = ("sample", "--model", toys.model, "--scale", 0, *CHEAP[:-1], "small")
    assert adm(*sampled).code == 0
    cheap = ("--device", "cpu", "--steps", 1, "--out", "o")
    lost(adm("upsample", "small", "--model", bad_upsampler, *cheap))
    assert pictures("o") == GOOD


def test_a_sweep_draws_its_other_cells(adm: Adm, toys: Toys) -> None:
    models = ("--model", toys.model, "--classifier", toys.classifier)
    cheap = ("--device", "cpu", "--class", "0,3,1", "--seeds", 5, "--steps", 2, "--out", "o")
    done = adm("sweep", *models, *cheap, "--sampler", "ddim", "--scale", "1e38,0")
    assert (done.code, done.err.count("is not finite and is not written")) == (1, 3)
    assert "and 2 more are not finite: " in done.err.splitlines()[-1]
    rows = json.loads(Path("o/sweep.json").read_text())["cells"]
    assert {row["scale"]: row["drawn"] for row in rows} == {1e38: 0, 0.0: 3}


def test_evaluate_refuses_at_once(adm: Adm, bad: Path, toys: Toys) -> None:
    models = ("--model", bad, "--scale", 0, "--class", 3, "--num", 6, "--steps", 1)
    assert adm("sample", "--model", toys.model, "--scale", 0, *CHEAP, "--seeds", "5,6").code == 0
    done = adm("evaluate", *models, "--ref", "o", "--features", toys.classifier, "--metrics", "is")
    assert (done.code, done.out) == (1, "")
    assert "6 of 6 images are not finite (class 3, seed 0; " in done.err


@pytest.mark.parametrize("tensor", ["input_blocks.0.0.weight", "out.2.c_proj.weight"])
def test_a_network_that_overflows_measures_nothing(adm: Adm, toys: Toys, tensor: str) -> None:
    """Whatever it is asked for: it is named, and nothing is written."""
    bad = overflowing(Path("c.safetensors"), TOY_CLASSIFIER, tensor, slice(None))
    assert adm("sample", "--model", toys.model, "--scale", 0, *CHEAP, "--seeds", "0-1").code == 0
    quick = ("--device", "cpu")
    for command in (
        ("reference", "o", "-o", "r.safetensors", "--features", bad, *quick),
        ("evaluate", "o", "--ref", "o", "--features", bad, "--metrics", "pr,kid,is,fid", *quick),
        ("evaluate", "o", "--ref", "o", "--features", bad, "-o", "scores.json", *quick),
        ("evaluate", "o", "--judge", bad, "--json", *quick),
        ("evaluate", "o", "--copies-of", "o", "--features", bad, "--json", *quick),
    ):
        done = adm(*command)
        assert (done.code, done.out) == (1, ""), (command, done)
        assert "the features of image 0 are NaN, infinite or above 1e+06" in done.err
        assert "the weights of classifier c (" in done.err
    assert not any(Path(name).exists() for name in ("r.safetensors", "scores.json"))


def test_repro(adm: Adm, bad: Path, toys: Toys) -> None:
    assert adm("sample", "--model", toys.model, "--scale", 0, *CHEAP).code == 0
    done = adm("repro", f"o/{LOST}", "--model", bad, "--output", "again.png")
    assert (done.code, done.out, Path("again.png").exists()) == (1, "", False)
    assert "the image is not finite (class 3, seed 5)" in done.err


def test_repair_restores_the_others(adm: Adm, toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = ("sample", "--model", toys.model, "--scale", 0, *CHEAP, "--seeds", "5,6", "--grid")
    assert adm(*drawn).code == 0
    files = sorted(Path("o").glob("*.png"))
    before = {path: path.read_bytes() for path in files}
    for path in files:
        path.write_bytes(b"")
    nan_for(monkeypatch, 6)
    done = adm("verify", "o", "--repair", "--model", toys.model)
    assert done.code == 1
    assert done.err.count("(class 3, seed 6) is not finite and is not written") == 1
    after = {path: path.read_bytes() for path in Path("o").glob("*.png")}
    assert after.keys() == {path for path in before if "seed000006" not in path.name}
    assert all(after[path] == before[path] for path in after if path.name != "grid.png")
