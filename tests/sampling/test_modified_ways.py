"""What changes sampling, on the way between seeds or classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import adm_cli
from adm_cli.diffusion.modifiers import NEUTRAL
from adm_cli.errors import ConfigError, RunError, UsageError
from tests.sampling.test_modified_edits import made
from tests.sampling.test_modifiers import CHANGES, changes, null_toy, options, weak_toy, weights

__all__ = ["changes", "null_toy", "options", "weak_toy"]  # fixtures


@pytest.fixture
def way(options: dict[str, Any]) -> dict[str, Any]:
    """Keywords of `adm_cli.interpolate`: three frames, the middle one between two seeds."""
    return {**options, "seeds": [3, 7], "frames": 3, "batch_size": 3}


def middle(way: dict[str, Any], out: str) -> Path:
    return adm_cli.interpolate(**way, out=out).paths()[1]


@pytest.mark.parametrize("name", [*CHANGES, "entropy_scaling"])
def test_a_way_takes_every_modifier(
    name: str, way: dict[str, Any], changes: dict[str, dict[str, Any]]
) -> None:
    """It changes the frame, whose recipe tells, and from which it is made again."""
    asked = {**way, **{**changes, "entropy_scaling": {"entropy_scaling": True}}[name]}
    changed = middle(asked, "changed")
    pixels, told = made(changed)
    assert pixels != made(middle(way, "plain"))[0]
    assert (told[name], told["to_seed"], told["fraction"]) == (asked[name], 7, 0.5)
    assert adm_cli.repro(changed, **weights(asked)).identical
    with pytest.raises(RunError, match=name):
        adm_cli.interpolate(**way, out="changed")


def test_neutral_values_change_no_byte_of_a_way(way: dict[str, Any]) -> None:
    plain = adm_cli.interpolate(**way, out="plain")
    neutral = adm_cli.interpolate(**way, **NEUTRAL, out="neutral")
    files = [path.name for path in plain.paths()] + ["interpolation.webp", "run.json"]
    assert len(files) == 5
    for file in files:
        assert (plain.folder / file).read_bytes() == (neutral.folder / file).read_bytes()


def test_all_at_once_between_classes_and_by_two_processes(
    way: dict[str, Any], weak_toy: Path
) -> None:
    """The ends are what `sample` draws; two workers draw the frames of one, and the film."""
    together: dict[str, Any] = {
        "guide_adam": "0.5/0.7", "scale": 0.1, "classifier_on": "x0", "guide_by": "js",
        "scale_schedule": "linear", "negative_class": "star", "weak_model": weak_toy,
        "weak_scale": 1.5, "sag_scale": 1.5, "pag_scale": 1.5, "eps_scale": 1.01,
        "threshold": 0.9, "spacing": "quadratic", "cfg": 2.0, "temperature": 0.9,
        "entropy_scaling": True, "batch_size": 1,
    }  # fmt: skip
    asked = {**way, **together, "class_": "0,1", "seeds": [3]}
    frames = adm_cli.interpolate(**asked, out="one")
    ends = adm_cli.sample(**{n: v for n, v in asked.items() if n != "frames"}, out="ends")
    found = [made(path)[0] for path in frames.paths()]
    assert [found[0], found[2]] == [made(path)[0] for path in ends.paths()]
    assert made(frames.paths()[1])[1]["mixture"] == "0+1"
    adm_cli.interpolate(**asked, out="two", workers=2)
    for file in [*(path.name for path in frames.paths()), "interpolation.webp"]:
        assert Path("two", file).read_bytes() == Path("one", file).read_bytes()


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"guide_by": "js", "scale": 0}, "--guide-by has no meaning without a classifier's"),
    ({"negative_class": 1}, "class 1 is both asked for and led away from"),
    ({"weak_scale": 2.0}, "--weak-scale 2 needs a --weak-model"),
    ({"guide_adam": "0.9/0.995", "scale": None}, "pass a --scale, such as 0.1"),
    ({"temperature": -1.0}, "temperature must be from 0 to 2"),
    ({"workers": 0}, "--workers 0: expected at least 1"),
]


@pytest.mark.parametrize(("wrong", "words"), WRONG, ids=lambda v: str(v)[:40])
def test_a_way_refuses_what_sampling_does(
    wrong: dict[str, Any], words: str, way: dict[str, Any]
) -> None:
    with pytest.raises((UsageError, ConfigError), match=words):
        adm_cli.interpolate(**{**way, **wrong}, out="o")
    assert not Path("o").exists()


def test_the_command_takes_them_too(adm: Any, way: dict[str, Any]) -> None:
    models = ("--model", way["model"], "--classifier", way["classifier"], "--device", "cpu")
    how = ("--class", 1, "--scale", 30, "--steps", 2, "--frames", 2, "--out", "o")
    done = adm("interpolate", *models, *how, "--guide-every", 2, "--entropy-scaling", "--json")
    assert done.code == 0, done.err
    told = made(next(Path("o").glob("*.png")))[1]
    assert (told["guide_every"], told["entropy_scaling"]) == (2, True)
    refused = adm("interpolate", *models, *how[:-1], "n", "--shard", "1/2")
    assert (refused.code, refused.out) == (2, "")
    assert "--workers" in refused.err
