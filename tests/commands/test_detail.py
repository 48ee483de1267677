"""An upsampler of detail alone: trained, drawn with, told in its file, refused where it cannot."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adm_cli.checkpoints.format import save_model
from adm_cli.checkpoints.header import read_model_file
from adm_cli.checkpoints.loading import load_model
from adm_cli.config import DiffusionConfig
from adm_cli.errors import CheckpointError
from adm_cli.training.initial import DETAILED
from tests.commands.test_stacks import contents
from tests.conftest import Result, Toys
from tests.training.conftest import draw_pictures

Run = Callable[..., Result]
OPTIONS = (
    "--unconditional", "--size", 16, "--low-size", 8, "--set", "num_res_blocks=1",
    "--set", "channel_mult=[1,1]", "--set", "attention_factors=[]",
    "--set", "middle_attention=false", "--set", "patch=2", "--set", "detail_scale=0.3",
    "--set", "prediction=v", "--set", "noise_schedule=cosine",
)  # fmt: skip


@pytest.fixture
def trained(adm: Run, tmp_path: Path) -> Path:
    shapes = draw_pictures(tmp_path / "shapes", count=6)
    common = ("train-upsampler", shapes, "--batch-size", 4, "-q")
    done = adm(*common, *OPTIONS, "--crop", 8, "--steps", 2, "--out", "run")
    assert done.code == 0, done.err
    return Path("run/model.safetensors").absolute()


def halved(path: Path) -> np.ndarray:
    pixels = np.asarray(Image.open(path)).astype(float)
    averages: np.ndarray = pixels.reshape(8, 2, 8, 2, 3).mean((1, 3))
    return averages


@pytest.mark.parametrize(
    "sampler", [("ddpm", 5), ("ddim", 4), ("dpm++2m", 4), ("unipc", 4), ("heun", 3)]
)
def test_what_it_enlarges_is_what_it_was_given(
    adm: Run, trained: Path, sampler: tuple[str, int]
) -> None:
    """To the rounding of pixels, with noise and without, in however few steps."""
    rows, columns = np.mgrid[90:160:8j, 100:150:8j]
    small = np.stack([rows, columns, (rows + columns) / 2], 2).astype(np.uint8)
    Image.fromarray(small).save("small.png")
    command = ("upsample", "small.png", "--model", trained, "--device", "cpu", "-q", "--out", "o")
    done = adm(*command, "--sampler", sampler[0], "--steps", sampler[1], "--seeds", "1,2")
    assert done.code == 0, done.err
    made = sorted(Path("o").glob("*.png"))
    assert [np.abs(halved(path) - small).max() <= 1 for path in made] == [True, True]
    assert made[0].read_bytes() != made[1].read_bytes()


def test_a_stack_of_it_is_made_again(draw: Run, adm: Run, toys: Toys, trained: Path) -> None:
    info = read_model_file(trained).info
    assert (info.config.detail_scale, info.training["settings"]["crop"]) == (0.3, 8)  # type: ignore[union-attr]
    models = ("--model", toys.model, "--classifier", toys.classifier, "--upsampler", trained)
    upsampling = ("--upsampler", trained, "--upsample-sampler", "unipc", "--upsample-steps", 4)
    done = draw("--class", 3, "--seeds", "1,2", *upsampling, "--out", "o")
    assert done.code == 0, done.err
    before = contents("o")
    first = sorted(Path("o").glob("*.png"))[0]
    assert adm("repro", first, *models).out == "identical\n"
    first.unlink()
    assert adm("verify", "o", "--repair", *models).code == 0
    assert contents("o") == before


def test_it_goes_on_and_is_told(adm: Run, trained: Path) -> None:
    done = adm("train-upsampler", "--resume", "--out", trained.parent, "--steps", 3, "-q")
    assert done.code == 0, done.err
    info = read_model_file(trained).info
    assert info.recommended == DETAILED
    shown = ("upsample", trained.parent.parent / "shapes/circle", "--model", trained, "--resize")
    plan = json.loads(adm(*shown, "--dry-run", "--json").out)
    assert (plan["sampler"], plan["num_steps"], plan["temperature"]) == ("dpm++2m", 8, 0.9)
    assert json.loads(adm("info", trained, "--json").out)["detail_scale"] == 0.3
    shapes = trained.parent.parent / "shapes"
    plain = ("--set", "detail_scale=null", "--steps", 1, "--batch-size", 4, "-q", "--out", "p")
    assert adm("train-upsampler", shapes, "--init", trained, *plain).code == 0
    assert "detail_scale" not in json.loads(Path("p/settings.json").read_text())["config"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("--set", "prediction=eps"), "detail_scale needs prediction v and a cosine"),
        (("--set", "noise_schedule=linear"), "of 1000 timesteps, got v, linear, 1000"),
        (("--set", "num_timesteps=500"), "got v, cosine, 500"),
        (("--vary-kernel",), "leave --vary-kernel out"),
        (("--noise-augment", 0.2), "low_res_noise null"),
        (("--low-size", 6), "image_size must be a multiple of low_res_size"),
        (("--set", "detail_scale=-1"), "must be in [0, 10]"),
        (("--set", "detail_scale=big"), "detail_scale"),
    ],
)
def test_what_it_cannot_be_trained_with(
    adm: Run, tmp_path: Path, changes: tuple[object, ...], message: str
) -> None:
    shapes = draw_pictures(tmp_path / "shapes", count=2)
    done = adm("train-upsampler", shapes, *OPTIONS, *changes, "--steps", 1, "--out", "no")
    assert (done.code, message in done.err) == (2, True), done.err
    assert not Path("no").exists()


def test_a_file_of_another_process_is_refused(trained: Path, tmp_path: Path) -> None:
    model, info = load_model(trained), read_model_file(trained).info
    wrong = replace(info, diffusion=DiffusionConfig(noise_schedule="linear", prediction="v"))
    save_model(tmp_path / "wrong.safetensors", model.state_dict(), wrong)
    with pytest.raises(CheckpointError, match="detail_scale needs prediction v"):
        read_model_file(tmp_path / "wrong.safetensors")
