"""Noise on what an upsampler enlarges: trained with it, sampled with it, told in recipes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adm_cli.checkpoints.header import read_model_file
from adm_cli.diffusion.noise import noisy_low_res
from adm_cli.sampling.folder import RunFolder
from adm_cli.sampling.run import settings
from adm_cli.training.degradation import KERNELS
from tests.commands.test_stacks import contents, recipe
from tests.conftest import TOY_UPSAMPLER, Result, Toys, save_toy
from tests.training.conftest import draw_pictures

Run = Callable[..., Result]
NAME = "0003_star_seed000001.png"


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    """An upsampler that was trained with noise up to 0.5."""
    config = replace(TOY_UPSAMPLER, low_res_noise=0.5)
    return save_toy(tmp_path / "noisy.safetensors", config, seed=2)


@pytest.fixture
def stack(draw: Run, noisy: Path) -> Run:
    """`adm sample` through both models; an option given again wins."""

    def call(*arguments: object) -> Result:
        upsampling = ("--upsampler", noisy, "--upsample-steps", 2)
        return draw("--class", "0,3", "--num", 1, "-b", 2, *upsampling, "--out", "o", *arguments)

    return call


def test_noise_is_a_function_of_the_seed() -> None:
    small = torch.zeros(3, 3, 8, 8)
    made = noisy_low_res(small, 0.3, [5, 6, 2**64 - 1])
    assert torch.equal(noisy_low_res(small[:1], 0.3, [6])[0], made[1])
    assert len({float(image.sum()) for image in made}) == 3
    assert 0.25 < float(made.std()) < 0.35
    assert torch.equal(noisy_low_res(small, 0.0, [5, 6, 7]), small)


def test_a_tenth_by_default_or_as_asked(stack: Run) -> None:
    found = {}
    for level in (None, 0, 0.05, 0.5):
        options = () if level is None else ("--upsample-noise", level)
        done = stack(*options, "--out", f"o{level}")
        assert done.code == 0, done.err
        found[level] = contents(f"o{level}")
        assert recipe(f"o{level}/{NAME}")["low_res_noise"] == (0.05 if level is None else level)
        assert "low_res_noise" not in recipe(f"o{level}/{NAME}")["base"]
    assert found[None] == found[0.05]
    assert found[0.05] != found[0] != found[0.5]


def test_a_run_keeps_its_level(stack: Run, adm: Run, toys: Toys, noisy: Path) -> None:
    """Repaired and made again also where that is 0, which is not the default."""
    models = ("--model", toys.model, "--classifier", toys.classifier, "--upsampler", noisy)
    assert stack("--upsample-noise", 0).code == 0
    assert settings(RunFolder(Path("o")).read())["upsampler_low_res_noise"] == 0
    done = stack()
    assert (done.code, "upsampler_low_res_noise 0 -> 0.05" in done.err) == (1, True)
    before = contents("o")
    Path("o", NAME).unlink()
    assert adm("verify", "o", "--repair", *models).code == 0
    assert contents("o") == before
    assert adm("repro", f"o/{NAME}", *models).out == "identical\n"
    shown = json.loads(stack("--upsample-noise", 0, "--dry-run", "--json").out)
    assert shown["upsampler_low_res_noise"] == 0


def test_one_command_is_two(stack: Run, adm: Run, noisy: Path) -> None:
    assert stack("--keep-base", "--upsample-noise", 0.2).code == 0
    options = ("--model", noisy, "--steps", 2, "--device", "cpu", "-b", 2, "--noise", 0.2)
    assert adm("upsample", "o/base", *options, "--out", "two").code == 0
    assert contents("two") == contents("o")
    shown = json.loads(adm("upsample", "o/base", *options, "--dry-run", "--json").out)
    assert shown["low_res_noise"] == 0.2


def test_levels_it_was_not_trained_for(stack: Run, toys: Toys) -> None:
    done = stack("--upsample-noise", 0.6)
    assert (done.code, "expected 0 to 0.5, which " in done.err) == (2, True)
    for level in (0, 0.1):
        done = stack("--upsampler", toys.upsampler, "--upsample-noise", level)
        assert (done.code, "trained without noise on the small" in done.err) == (2, True)
    done = stack("--upsampler", "bicubic", "--upsample-noise", 0.1)
    assert done.code == 2
    assert not Path("o").exists()


def test_trained_with_noise_filters_and_squares(adm: Run, tmp_path: Path) -> None:
    """From pictures to enlarged ones; and from weights that knew no noise."""
    shapes = draw_pictures(tmp_path / "shapes", count=6)
    model = ("--size", 8, "--set", "num_res_blocks=1", "--set", "channel_mult=[1,1]")
    common = ("train-upsampler", shapes, "--unconditional", "--batch-size", 4, "-q")
    new = ("--noise-augment", 0.3, "--vary-kernel", "--crop", 4)
    conv = ("--set", "middle_attention=false", "--set", "attention_factors=[]")
    assert adm(*common, *model, *new, *conv, "--steps", 2, "--out", "a").code == 0
    info = read_model_file(Path("a/model.safetensors")).info
    assert info.config.low_res_noise == 0.3  # type: ignore[union-attr]
    assert info.config.image_size == (8, 8)
    assert (info.training["settings"]["crop"], info.training["settings"]["vary_kernel"]) == (
        4,
        True,
    )
    done = adm("train-upsampler", "--resume", "--out", "a", "--steps", 3, "-q")
    assert done.code == 0, done.err
    done = adm("train-upsampler", "--resume", "--out", "a", "--steps", 4, "--crop", 8)
    assert (done.code, "crop 4 -> 8" in done.err) == (2, True)
    made = adm("upsample", shapes / "circle", "--model", "a/model.safetensors", "--steps", 2,
               "--resize", "--device", "cpu")  # fmt: skip
    assert made.code == 0, made.err
    assert recipe(made.out.splitlines()[0])["low_res_noise"] == pytest.approx(0.03)

    assert adm(*common, *model, "--steps", 1, "--out", "plain").code == 0
    done = adm(*common[:-1], "--init", "plain/model.safetensors", "--noise-augment", 0.3, "--lr", 0,
               "--steps", 1, "--out", "tuned")  # fmt: skip
    assert (done.code, "a channel for the noise" in done.err) == (0, True)
    first = "input_blocks.0.0.weight"
    old, tuned = (load_file(f"{run}/model.safetensors")[first] for run in ("plain", "tuned"))
    assert torch.equal(tuned[:, :6], old)
    assert not tuned[:, 6].any()


def test_a_run_begun_before_these_settings_goes_on(adm: Run, tmp_path: Path) -> None:
    shapes = draw_pictures(tmp_path / "shapes", count=6)
    model = ("--size", 8, "--set", "num_res_blocks=1", "--set", "channel_mult=[1,1]")
    command = ("train-upsampler", shapes, *model, "--batch-size", 4, "-q", "--out", "run")
    assert adm(*command, "--steps", 1).code == 0
    path = Path("run/settings.json")
    settings = json.loads(path.read_text())
    for part, names in (
        ("config", ("low_res_noise", "middle_attention")),
        ("training", ("crop", "vary_kernel")),
    ):
        for name in names:
            del settings[part][name]
    path.write_text(json.dumps(settings))
    done = adm("train-upsampler", "--resume", "--out", "run", "--steps", 2, "-q")
    assert done.code == 0, done.err
    done = adm("train-upsampler", "--resume", "--out", "run", "--steps", 3, "--vary-kernel")
    assert (done.code, "vary_kernel False -> True" in done.err) == (2, True)


def test_four_filters() -> None:
    assert list(KERNELS) == ["area", "bilinear", "bicubic", "lanczos"]  # the order is of a seed's
