"""`--like PICTURE` beside options: what is asked for wins, also where it is a neutral value."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import adm_cli
from adm_cli.checkpoints.header import read_model_file
from adm_cli.diffusion.modifiers import NEUTRAL, OFF
from adm_cli.pictures.images import open_picture, save_image
from adm_cli.sampling.recipes.like import read_likeness
from tests.conftest import Result
from tests.sampling.test_modifiers import CHANGES, null_toy, options, weak_toy, weights

__all__ = ["null_toy", "options", "weak_toy"]  # fixtures

KEYWORDS = {
    name: parameter.default
    for name, parameter in inspect.signature(adm_cli.sample).parameters.items()
}
# What of a picture is no modifier, as its recipe has it, and as somebody turns it off.
OTHERS: dict[str, tuple[dict[str, Any], Any]] = {
    "entropy_scaling": ({"entropy_scaling": True}, False),
    "plain": ({"plain": True}, False),
    "cfg": ({"cfg": 3.0}, 1.0),
    "cfg_interval": ({"cfg": 3.0, "cfg_interval": [0.0, 0.5]}, (0.0, 1.0)),
    "guide_interval": ({"guide_interval": [0.0, 0.5]}, (0.0, 1.0)),
    "scale": ({}, 0.0),
    "eta": ({"eta": 0.5}, 0.0),
    "clip": ({"clip_denoised": False}, True),
    "dtype": ({"dtype": "float64"}, "auto"),
    "device": ({}, "auto"),
}
ALL = [*CHANGES, *OTHERS]


@pytest.fixture
def picture(options: dict[str, Any], weak_toy: Path) -> Callable[[str], Path]:
    """A picture whose recipe has the option."""
    (path,) = adm_cli.sample(**{**options, "steps": 1}, out="o").paths()
    pixels, recipe = open_picture(path)
    assert recipe is not None

    def make(name: str) -> Path:
        change = CHANGES[name] if name in CHANGES else OTHERS[name][0]
        if name == "weak_scale":
            digest = read_model_file(weak_toy).content_sha256
            change = {**change, "weak_model": weak_toy.stem, "weak_model_sha256": digest}
        save_image(Path("p.png"), pixels, {**recipe, **change})
        return Path("p.png")

    return make


def off(name: str) -> Any:
    if name in OTHERS:
        return OTHERS[name][1]
    return OFF if NEUTRAL[name] is None else NEUTRAL[name]


def typed(name: str) -> list[str]:
    """The option as somebody types it."""
    option, value = "--" + name.replace("_", "-"), off(name)
    if type(value) is bool:
        return [option if value else option.replace("--", "--no-", 1)]
    return [option, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]


def test_nobody_asks_for_what_a_picture_may_say(
    picture: Callable[[str], Path], options: dict[str, Any], weak_toy: Path
) -> None:
    """Every keyword that is filled is None until somebody does, so any value can be told."""
    asked = {**KEYWORDS, **weights({**options, "weak_model": weak_toy})}
    filled: set[str] = set()
    for name in ALL:
        found = read_likeness(picture(name)).fill(asked)
        changed = {key for key in found if found[key] != asked.get(key)}
        assert name in changed or name in ("scale", "clip", "device")
        filled |= changed
        kept = read_likeness(picture(name)).fill({**asked, name: off(name)})
        assert kept[name] == off(name)
    assert filled >= set(NEUTRAL)
    assert {key: KEYWORDS[key] for key in filled if KEYWORDS[key] is not None} == {
        "no_upsample": False  # of a picture that was not enlarged, and --upsampler undoes it
    }


@pytest.mark.parametrize("name", ALL)
def test_a_neutral_value_turns_off_what_the_picture_has(
    name: str, picture: Callable[[str], Path], adm: Callable[..., Result],
    options: dict[str, Any], weak_toy: Path,
) -> None:  # fmt: skip
    path = picture(name)
    own = [f"--{key.replace('_', '-')}={value}" for key, value in weights(options).items()]
    own += [f"--weak-model={weak_toy}"] if name == "weak_scale" else []
    command = ("sample", "--like", path, *own, "--dry-run", "--json")
    same = adm(*command)
    assert same.code == 0, same.err
    assert json.loads(same.out)["differs"] == []
    done = adm(*command, *typed(name))
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    if name in NEUTRAL:
        assert facts.get(name, NEUTRAL[name]) == NEUTRAL[name]
    changed = {"clip": "clip_denoised", "dtype": "the precision"}.get(name, name)
    assert any(text.startswith(changed) for text in facts["differs"]) == (name != "device")
