"""What changes sampling beyond the original, from option to picture, recipe and back; in pairs."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import adm_cli
from adm_cli.config import SamplingConfig
from adm_cli.diffusion.modifiers import (
    NEUTRAL,
    UNASKED,
    Changes,
    Swept,
)
from adm_cli.errors import ConfigError, RunError, UsageError
from adm_cli.pictures.images import open_picture
from tests.conftest import TOY_DIFFUSION, TOY_UNET, Toys, save_toy

# A value of each modifier that changes the toy's pictures, and what it needs beside it.
CHANGES: dict[str, dict[str, Any]] = {
    "guide_by": {"guide_by": "js"},
    "divergence_weight": {"divergence_weight": 3.0, "guide_by": "fkl"},
    "guide_every": {"guide_every": 2},
    "guide_adam": {"guide_adam": "0.5/0.7", "scale": 0.01},
    "classifier_on": {"classifier_on": "x0"},
    "scale_schedule": {"scale_schedule": "linear"},
    "negative_class": {"negative_class": 3},
    "weak_scale": {"weak_scale": 3.0},
    "sag_scale": {"sag_scale": 3.0},
    "pag_scale": {"pag_scale": 3.0},
    "spacing": {"spacing": "quadratic"},
    "eps_scale": {"eps_scale": 1.1},
    "threshold": {"threshold": 0.6},
    "churn": {"churn": 1.0, "sampler": "heun"},
    "churn_noise": {"churn_noise": 1.5, "churn": 1.0, "sampler": "heun"},
    "churn_min": {"churn_min": 4.0, "churn": 1.0, "sampler": "heun"},
    "churn_max": {"churn_max": 2.0, "churn": 1.0, "sampler": "heun"},
    "temperature": {"temperature": 0.5},
}
# The other ways to guide, which all of them meet.
OTHERS: dict[str, dict[str, Any]] = {
    "scale": {"scale": 0.0},
    "cfg": {"cfg": 3.0},
    "entropy_scaling": {"entropy_scaling": True},
    "guide_interval": {"guide_interval": (0.5, 1.0)},
    "mixture": {"mixtures": ("0+1*0.4",)},
    "cfg_interval": {"cfg": 3.0, "cfg_interval": (0.0, 0.5)},
    "eta": {"eta": 0.7},
}


@pytest.fixture(scope="module")
def null_toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy that can also draw without a class."""
    path = tmp_path_factory.mktemp("null") / "null.safetensors"
    return save_toy(path, replace(TOY_UNET, null_class=True))


@pytest.fixture(scope="module")
def weak_toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weak") / "weak.safetensors"
    return save_toy(path, replace(TOY_UNET, null_class=True), seed=5)


@pytest.fixture
def options(
    null_toy: Path, toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    return {
        "model": null_toy, "classifier": toys.classifier, "class_": 1, "seeds": [3], "steps": 4,
        "sampler": "ddim", "scale": 30.0, "device": "cpu",
    }  # fmt: skip


@pytest.fixture
def changes(weak_toy: Path) -> dict[str, dict[str, Any]]:
    """`CHANGES` as keywords of `adm_cli.sample`."""
    weak = {"weak_model": weak_toy}
    return {name: {**change, **(weak if name == "weak_scale" else {})}
            for name, change in CHANGES.items()}  # fmt: skip


def drawn(options: dict[str, Any], out: str) -> tuple[bytes, dict[str, Any]]:
    """The one picture's values and its recipe."""
    (path,) = adm_cli.sample(**options, out=out).paths()
    pixels, recipe = open_picture(path)
    assert recipe is not None
    return pixels.tobytes(), dict(recipe)


def weights(options: dict[str, Any]) -> dict[str, Any]:
    return {
        name: options[name] for name in ("model", "classifier", "weak_model") if name in options
    }


def test_every_modifier_is_tested() -> None:
    assert set(CHANGES) == set(NEUTRAL)


def test_neutral_values_change_no_byte(options: dict[str, Any]) -> None:
    """Neither a picture's, its recipe's, nor the run's."""
    adm_cli.sample(**options, out="a")
    adm_cli.sample(**options, **NEUTRAL, out="b")
    files = [sorted(p for p in Path(out).iterdir() if "lock" not in p.name) for out in "ab"]
    for mine, other in zip(*files, strict=True):
        assert mine.read_bytes() == other.read_bytes(), mine.name


@pytest.mark.parametrize("name", CHANGES)
def test_a_modifier_reaches_picture_and_recipe(
    name: str, options: dict[str, Any], changes: dict[str, dict[str, Any]]
) -> None:
    """It changes the picture, which is made again; the run goes on only with the same value."""
    change = changes[name]
    plain, recipe = drawn(options, "plain")
    changed, told = drawn({**options, **change}, "changed")
    assert plain != changed
    added = {key: told[key] for key in told if told[key] != recipe.get(key)}
    wanted = {key: value for key, value in change.items() if key in NEUTRAL}
    assert added.items() >= wanted.items()
    assert name in added
    (path,) = Path("changed").glob("*.png")
    asked = weights({**options, **change})
    assert adm_cli.repro(path, **asked).identical
    again = adm_cli.sample(**{**options, **change}, out="changed")
    assert again.paths() == [path]
    with pytest.raises(RunError, match=name):
        adm_cli.sample(**options, out="changed")
    stage = json.loads(Path("changed/run.json").read_text())["stages"][0]
    assert stage[name] == told[name]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"guide_by": "kl"}, "guide_by must be log-p, rkl, fkl or js, got 'kl'"),
    ({"divergence_weight": 2.0}, "--divergence-weight has no meaning without --guide-by: pass"),
    ({"divergence_weight": -1.0, "guide_by": "js"}, "from 0 to 1,000, got -1"),
    ({"divergence_weight": float("nan"), "guide_by": "js"}, "from 0 to 1,000, got nan"),
    ({"guide_every": 0}, "guide_every must be from 1 to 1,000,000"),
    ({"guide_every": 1.5}, "guide_every must be a whole number, got 1.5"),
    ({"guide_every": 2, "scale": 0}, "--guide-every has no meaning without a classifier's"),
    ({"spacing": "cubic"}, "spacing must be uniform, trailing, quadratic, log-snr, rho or lsun"),
    ({"spacing": "trailing", "steps": "ddim4"}, "trailing spacing chooses .* got 'ddim4'"),
    ({"spacing": "log-snr", "steps": 101}, "steps 101: expected from 1 to 100"),
    ({"spacing": "lsun", "steps": 24}, "lsun spacing shares at least 25 steps, got 24"),
    ({"churn": 40}, "--churn has no meaning for the ddim sampler, only for heun"),
    ({"churn": -1, "sampler": "heun"}, "churn must be from 0 to"),
    ({"churn": 9, "sampler": "heun", "guide_every": 2}, "guide_every counts the timesteps"),
    ({"churn_noise": 1.003}, "--churn-noise has no meaning without --churn: pass that, too"),
    ({"churn_max": 9, "sampler": "heun"}, "--churn-max has no meaning without --churn"),
    ({"churn_noise": 3, "churn": 9, "sampler": "heun"}, "churn_noise must be from 0 to 2, got 3"),
    ({"churn_min": 60, "churn": 9, "sampler": "heun"}, "churn_min 60 is above churn_max 50"),
    ({"eps_scale": 0}, "eps_scale must be from 0.5 to 2, got 0"),
    ({"threshold": 1.5}, "threshold must be from 0.5 to 1, got 1.5"),
    ({"weak_scale": 2.0}, "--weak-scale 2 needs a --weak-model"),
    ({"weak_model": "tiny"}, "--weak-model tiny needs a --weak-scale"),
    ({"weak_model": "tiny", "weak_scale": 2.0}, "makes 32x32 images, the model null 8x8"),
    ({"weak_model": "tiny_classifier", "weak_scale": 2.0}, "holds a classifier model"),
]


@pytest.mark.parametrize(("wrong", "words"), WRONG, ids=lambda v: str(v)[:40])
def test_values_that_cannot_be(wrong: dict[str, Any], words: str, options: dict[str, Any]) -> None:
    with pytest.raises((UsageError, ConfigError), match=words):
        adm_cli.sample(**{**options, **wrong}, out="o")
    assert not Path("o").exists()


def test_types_that_cannot_be() -> None:
    for wrong in ({"divergence_weight": "1"}, {"divergence_weight": True}, {"guide_by": 1}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            SamplingConfig(seeds=(0,), classes=(None,), **wrong)


def test_churn_stays_with_its_sampler(options: dict[str, Any]) -> None:
    (path,) = adm_cli.sample(**{**options, "sampler": "heun"}, churn=2.0, out="a").paths()
    known = weights(options)
    again = adm_cli.sample(like=path, **known, out="b").paths()
    assert again[0].read_bytes() == path.read_bytes()
    other = adm_cli.sample(like=path, **known, sampler="ddim", dry_run=True)
    assert "churn" not in other.settings


def test_a_picture_that_is_not_guided_does_not_tell_of_guidance(options: dict[str, Any]) -> None:
    Path("list.txt").write_text("0 1 0\n0 2 3\n")
    options = {name: value for name, value in options.items() if name not in ("class_", "seeds")}
    done = adm_cli.sample(
        **{**options, "scale": 0.0}, guide_by="js", classes_file="list.txt", out="o"
    )
    recipes = [open_picture(path)[1] or {} for path in done.paths()]
    assert [recipe.get("guide_by") for recipe in recipes] == [None, "js"]


@pytest.mark.parametrize(
    ("axis", "values"),
    [("guide_by", "log-p,js"), ("weak_scale", [1.0, 3.0]), ("guide_every", [1, 2])],
)
def test_a_modifier_is_an_axis_of_a_sweep(
    axis: str, values: Any, options: dict[str, Any], changes: dict[str, dict[str, Any]]
) -> None:
    sweep = {**options, **changes[axis], axis: values, "class_": 1, "num": 1}
    del sweep["seeds"]
    done = adm_cli.sweep(**sweep, out="s")
    assert [row.get(axis, NEUTRAL[axis]) for row in done.rows] == [
        NEUTRAL[axis], CHANGES[axis][axis],
    ]  # fmt: skip
    assert axis.replace("_", "-") in done.rows[1]["cell"]
    assert axis in json.loads(Path("s/sweep.json").read_text())["axes"]
    assert adm_cli.verify("s") == []
    Path("s/sheet.png").unlink()
    now: dict[str, Any] = {name: str(path) for name, path in weights(options).items()}
    assert adm_cli.verify("s", repair=True, **now) == []


def test_a_weak_model_of_another_kind(options: dict[str, Any], tmp_path: Path) -> None:
    """Told before anything is drawn, in words."""
    others: dict[str, dict[str, Any]] = {
        "different classes": {"config": replace(TOY_UNET, num_classes=6)},
        "different classes ": {"config": TOY_UNET, "classes": {1: "moon"}},
        r"differ in prediction \(v, ": {
            "config": TOY_UNET,
            "diffusion": replace(TOY_DIFFUSION, prediction="v"),
        },
        r"differ in num timesteps \(50, ": {
            "config": TOY_UNET,
            "diffusion": replace(TOY_DIFFUSION, num_timesteps=50),
        },
    }
    for words, kind in others.items():
        path = save_toy(tmp_path / "other.safetensors", **kind)
        with pytest.raises(UsageError, match=words.strip()):
            adm_cli.sample(**options, weak_model=path, weak_scale=2.0, out="o")
    path = save_toy(tmp_path / "other.safetensors", TOY_UNET)
    with pytest.raises(UsageError, match="weak model was not trained to draw without a class"):
        adm_cli.sample(**options, weak_model=path, weak_scale=2.0, cfg=2.0, out="o")
    free = save_toy(tmp_path / "free.safetensors", replace(TOY_UNET, num_classes=None), {})
    assert adm_cli.sample(**options, weak_model=free, weak_scale=2.0, cfg=2.0, out="o").paths()


def test_the_weak_model_is_needed_again(options: dict[str, Any], weak_toy: Path) -> None:
    asked = {**options, "weak_model": weak_toy, "weak_scale": 2.0}
    (path,) = adm_cli.sample(**asked, out="o").paths()
    with pytest.raises(UsageError, match="pass their file with --weak-model"):
        adm_cli.repro(path, **weights(options))
    before = path.read_bytes()
    path.unlink()
    now: dict[str, Any] = {name: str(file) for name, file in weights(asked).items()}
    with pytest.raises(RunError, match="drawn with another weak model"):
        adm_cli.verify("o", repair=True, **{**now, "weak_model": now["model"]})
    assert adm_cli.verify("o", repair=True, **now) == []
    assert path.read_bytes() == before


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++2m"])
def test_without_noise_every_seed_draws_the_same(options: dict[str, Any], sampler: str) -> None:
    """Temperature 0 leaves nothing that a seed could change; 1 is as if it were not there."""
    options |= {"sampler": sampler, "seeds": [3, 4]}
    pictures = {}
    for temperature in (None, 0.0, 1.0):
        run = adm_cli.sample(**options, temperature=temperature, out=f"{sampler}-{temperature}")
        pictures[temperature] = [path.read_bytes() for path in run.paths()]
    one, other = (open_picture(path)[0] for path in Path(f"{sampler}-0.0").glob("*.png"))
    assert (one == other).all()
    assert pictures[1.0] == pictures[None]
    assert len(set(pictures[1.0])) == 2


def test_python_and_the_command_line_take_every_modifier() -> None:
    assert set(Changes.__annotations__) == set(Swept.__annotations__) == set(NEUTRAL)
    for function in (adm_cli.sample, adm_cli.edit, adm_cli.interpolate, adm_cli.sweep):
        shown = inspect.signature(function).parameters
        assert {name: shown[name].default for name in NEUTRAL} == UNASKED
        with pytest.raises(TypeError, match="no keyword 'eps_scales'"):
            function(eps_scales=1.1)  # type: ignore[call-arg]
