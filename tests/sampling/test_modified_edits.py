"""What changes sampling, where pictures are edited or enlarged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import adm_cli
from adm_cli.config import SamplingConfig
from adm_cli.diffusion.modifiers import NEUTRAL, OF_TRAJECTORY
from adm_cli.errors import ConfigError, UsageError
from adm_cli.pictures.images import open_picture, save_image
from adm_cli.sampling.drawing.pipeline import enlarge, load_pipeline
from tests.conftest import Toys
from tests.sampling.test_modifiers import CHANGES, changes, null_toy, options, weak_toy, weights

__all__ = ["changes", "null_toy", "options", "weak_toy"]  # fixtures


@pytest.fixture
def photo(options: dict[str, Any]) -> Path:
    """A picture of the toy's size, in the empty folder that ``options`` made."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    save_image(Path("photo.png"), pixels)
    return Path("photo.png")


def made(path: Path) -> tuple[bytes, dict[str, Any]]:
    pixels, recipe = open_picture(path)
    assert recipe is not None
    return pixels.tobytes(), dict(recipe)


@pytest.mark.parametrize("name", [*CHANGES, "entropy_scaling"])
def test_an_edit_takes_every_modifier(
    name: str, photo: Path, options: dict[str, Any], changes: dict[str, dict[str, Any]]
) -> None:
    """It changes the picture, its recipe tells, and it is made again from that."""
    change = {**changes, "entropy_scaling": {"entropy_scaling": True}}[name]
    asked = {**options, **change, "strength": 0.75}
    (plain,) = adm_cli.edit(photo, **{**options, "strength": 0.75}, out="plain").paths()
    (changed,) = adm_cli.edit(photo, **asked, out="changed").paths()
    assert made(plain)[0] != made(changed)[0]
    told = made(changed)[1]
    assert told[name] == change[name]
    assert adm_cli.repro(changed, small=photo, **weights(asked)).identical


def test_neutral_values_change_no_byte_of_an_edit(photo: Path, options: dict[str, Any]) -> None:
    (plain,) = adm_cli.edit(photo, **options, out="plain").paths()
    (neutral,) = adm_cli.edit(photo, **options, **NEUTRAL, out="neutral").paths()
    assert plain.read_bytes() == neutral.read_bytes()


@pytest.mark.parametrize("how", [{"invert": True}, {"mask": "mask.png", "resample": 2}], ids=str)
def test_all_at_once_with_an_inversion_or_a_mask(
    how: dict[str, Any], photo: Path, options: dict[str, Any], weak_toy: Path
) -> None:
    """What is kept by a mask is kept, whatever changes the rest; mixtures too."""
    white = np.zeros((8, 8, 3), np.uint8)
    white[:, 4:] = 255
    save_image(Path("mask.png"), white)
    changes: dict[str, Any] = {
        "guide_adam": "0.5/0.7", "scale": 0.1, "classifier_on": "x0", "guide_by": "js",
        "scale_schedule": "linear", "negative_class": "star", "weak_model": weak_toy,
        "weak_scale": 1.5, "sag_scale": 1.5, "pag_scale": 1.5, "eps_scale": 1.01,
        "threshold": 0.9, "spacing": "quadratic", "cfg": 2.0, "class_": "0+1",
    }  # fmt: skip
    (path,) = adm_cli.edit(photo, **{**options, **changes, **how}, out="o").paths()
    pixels, recipe = open_picture(path)
    assert recipe is not None
    assert recipe["mixture"] == "0+1"
    if "mask" in how:
        assert np.array_equal(pixels[:, :4], open_picture(photo)[0][:, :4])
        assert not np.array_equal(pixels[:, 4:], open_picture(photo)[0][:, 4:])


def test_guided_steps_of_an_edit_are_counted_from_its_own_first(
    photo: Path, options: dict[str, Any]
) -> None:
    """As one step in a thousand is the first alone: the edit is guided there, and so differs."""
    asked = {**options, "strength": 0.5, "guide_every": 1000}
    (guided,) = adm_cli.edit(photo, **asked, out="guided").paths()
    (plain,) = adm_cli.edit(photo, **{**asked, "guide_every": 1, "scale": 0}, out="plain").paths()
    assert made(guided)[0] != made(plain)[0]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"guide_by": "js", "scale": 0}, "--guide-by has no meaning without a classifier's"),
    ({"negative_class": 3, "scale": 0}, "--negative-class has no meaning without guidance"),
    ({"weak_scale": 2.0}, "--weak-scale 2 needs a --weak-model"),
    ({"guide_adam": "0.9/0.995", "scale": None}, "pass a --scale, such as 0.1"),
    ({"eps_scale": 0}, "eps_scale must be from 0.5 to 2"),
]


@pytest.mark.parametrize(("wrong", "words"), WRONG, ids=lambda v: str(v)[:40])
def test_an_edit_refuses_what_sampling_does(
    wrong: dict[str, Any], words: str, photo: Path, options: dict[str, Any]
) -> None:
    with pytest.raises((UsageError, ConfigError), match=words):
        adm_cli.edit(photo, **{**options, **wrong}, out="o")
    assert not Path("o").exists()


@pytest.mark.parametrize("name", OF_TRAJECTORY)
def test_upsampling_takes_what_is_not_about_guidance(
    name: str, photo: Path, toys: Toys
) -> None:  # fmt: skip
    asked: dict[str, Any] = {"model": toys.upsampler, "class_": 1, "seed": 3, "steps": 4}
    change = CHANGES[name]
    sampler = {key: value for key, value in change.items() if key == "sampler"}
    (plain,) = adm_cli.upsample(photo, **asked, **sampler, out="plain").paths()
    (changed,) = adm_cli.upsample(photo, **asked, **change, out="changed").paths()
    assert made(plain)[0] != made(changed)[0]
    assert made(changed)[1][name] == CHANGES[name][name]
    assert name not in made(plain)[1] or name == "temperature"
    neutral = {key: NEUTRAL[key] for key in OF_TRAJECTORY}
    (same,) = adm_cli.upsample(photo, **asked, **sampler, **neutral, out="neutral").paths()
    assert same.read_bytes() == plain.read_bytes()
    assert adm_cli.repro(changed, upsampler=toys.upsampler, small=photo).identical


def test_an_upsampler_is_not_guided(adm: Any, toys: Toys, photo: Path) -> None:
    pipeline = load_pipeline(adm_cli.find_upsampler(toys.upsampler), device="cpu")
    small = [open_picture(photo)[0]]
    config = SamplingConfig(
        seeds=(3,), classes=(1,), scale=0.0, cfg=1.0, pag_scale=2.0, negative_class=3
    )
    with pytest.raises(ConfigError, match="and no negative_class, and no pag_scale"):
        list(enlarge(pipeline, small, config))
    done = adm("upsample", "photo.png", "--guide-by", "js")
    assert done.code == 2
    assert "no option --guide-by in adm upsample: an upsampler is not guided" in done.err
