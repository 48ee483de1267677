"""Mixtures and negative classes from option to picture, recipe, list and back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import adm_cli
from adm_cli.checkpoints.format import save_model
from adm_cli.checkpoints.header import ModelInfo
from adm_cli.checkpoints.loading import build_model
from adm_cli.checkpoints.sources import find_sources
from adm_cli.config import SamplingConfig
from adm_cli.errors import AdmError, ConfigError, UsageError
from adm_cli.pictures.images import open_picture
from adm_cli.sampling.choosing.images import Images, drawn_row, row_from_json, row_to_json
from adm_cli.sampling.choosing.select import negative_class
from adm_cli.sampling.drawing.pipeline import generate, load_pipeline
from adm_cli.sampling.recipes.recipe import check_recipe
from tests.conftest import (
    TOY_CLASSES,
    TOY_CLASSIFIER,
    TOY_DIFFUSION,
    TOY_UNET,
    Result,
    Toys,
    randomise,
    save_toy,
)


@pytest.fixture(scope="module")
def null_toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("null") / "null.safetensors"
    return save_toy(path, replace(TOY_UNET, null_class=True))


@pytest.fixture
def options(
    null_toy: Path, toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    return {
        "model": null_toy, "classifier": toys.classifier, "steps": 2, "sampler": "ddim",
        "scale": 9.0, "cfg": 2.0, "device": "cpu", "seeds": [3], "batch_size": 2,
    }  # fmt: skip


def recipe_of(path: Path) -> dict[str, Any]:
    return dict(open_picture(path)[1] or {})


def test_a_mixture_is_drawn_named_and_made_again(options: dict[str, Any]) -> None:
    done = adm_cli.sample(**options, class_="circle*0.3+square*0.7,star", out="o")
    mixed, single = done.paths()
    assert mixed.name == "0000x0.3+0001x0.7_circle-square_seed000003.png"
    assert single.name == "0003_star_seed000003.png"
    recipe = recipe_of(mixed)
    told = {name: recipe[name] for name in ("class", "mixture", "class_name")}
    assert told == {"class": 1, "mixture": "0*0.3+1*0.7", "class_name": "circle + square"}
    assert "mixture" not in recipe_of(single)
    where = {name: options[name] for name in ("model", "classifier")}
    assert adm_cli.repro(mixed, **where).identical
    lines = map(json.loads, Path("o/manifest.jsonl").read_text().splitlines())
    (row,) = (line for line in lines if line["file"] == mixed.name)
    assert (row["class"], row["mixture"]) == (1, "0*0.3+1*0.7")
    again = adm_cli.sample(**options, class_=["circle*0.3+square*0.7", 3], out="o")
    assert again.paths() == [mixed, single]
    before = mixed.read_bytes()
    mixed.unlink()
    now: dict[str, Any] = {name: str(path) for name, path in where.items()}
    assert adm_cli.verify("o", repair=True, **now) == []
    assert mixed.read_bytes() == before
    like = adm_cli.sample(like=mixed, **where, out="l")
    assert [path.read_bytes() for path in like.paths()] == [before]


def test_the_command_line(adm: Callable[..., Result], options: dict[str, Any]) -> None:
    words = ["sample", "--model", options["model"], "--classifier", options["classifier"]]
    words += ["--class", "circle*0.3 + 1*0.7", "--cfg", "2", "--steps", "2", "--dry-run"]
    told = adm(*words, "--negative-class", "star", "--pag-scale", "1.5")
    assert (told.code, told.err) == (0, "")
    for line in (r"mixtures +0\*0.3\+1\*0.7", "negative_class +3", "pag_scale +1.5"):
        assert re.search(f"^{line}$", told.out, re.M)
    assert adm(*words, "--json").code == 0  # as its schema says
    wrong = adm(*words, "--negative-class", "circle")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert "class 0 is both asked for and led away from" in wrong.err


def test_a_mixture_lies_between_and_does_not_depend_on_its_batch(options: dict[str, Any]) -> None:
    """Its batches hold images of as many classes alone: others keep their bytes beside it."""
    alone = {
        spec: adm_cli.sample(**options, class_=spec, out=f"alone-{i}").paths()[0].read_bytes()
        for i, spec in enumerate(("0+1", "0*3+1*1", "0", "1", "0+1+3"))
    }
    assert len(set(alone.values())) == len(alone)
    together = adm_cli.sample(**options, class_="0,0+1,1,0*3+1,0+1+3", out="all")
    written = {recipe_of(path).get("mixture", str(recipe_of(path)["class"])): path.read_bytes()
               for path in together.paths()}  # fmt: skip
    assert written == alone


def test_a_list_may_have_mixtures(options: dict[str, Any]) -> None:
    Path("list.txt").write_text('circle+star 4\n"square * 2 + star" 5 2.5\n1 6\n')
    options = {name: value for name, value in options.items() if name != "seeds"}
    done = adm_cli.sample(**options, classes_file="list.txt", out="o")
    recipes = [recipe_of(path) for path in done.paths()]
    assert [recipe.get("mixture") for recipe in recipes] == ["0+3", "1*2+3*1", None]
    assert [recipe["scale"] for recipe in recipes] == [9.0, 2.5, 9.0]
    Path("list.txt").write_text("0+3 4\n3+0 4\n")
    with pytest.raises(UsageError, match="asked for already"):
        adm_cli.sample(**options, classes_file="list.txt", out="p")


def test_a_class_is_led_away_from(options: dict[str, Any]) -> None:
    """By the classifier and by the model; the model need not know how to draw without a class."""
    changes: dict[str, dict[str, Any]] = {
        "plain": {},
        "both": {"negative_class": "star"},
        "classifier": {"negative_class": 3, "cfg": 1.0},
        "model": {"negative_class": "3", "scale": 0.0},
        "unguided": {"scale": 0.0, "cfg": 1.0},
    }
    pictures = {
        name: adm_cli.sample(**{**options, **change}, class_=1, out=name).paths()[0].read_bytes()
        for name, change in changes.items()
    }
    assert len(set(pictures.values())) == len(pictures)
    assert recipe_of(next(Path("both").glob("*.png")))["negative_class"] == 3


def test_an_id_is_an_id_in_python(tmp_path: Path) -> None:
    """In words a number may be a name."""
    path = save_toy(tmp_path / "numbers.safetensors", TOY_UNET, {0: "3", 3: "zero"})
    sources = find_sources(path, guided=False)
    assert negative_class(3, sources) == 3
    assert negative_class("3", sources) == 0
    assert negative_class("zero", sources) == 3


def test_a_row_of_a_run_is_of_the_class_with_most() -> None:
    row = drawn_row("1*2+3*1", range(5, 8), ".png", class_name="square + star")
    told = row_to_json(row)
    assert (told["class"], told["mixture"], told["seeds"]) == (1, "1*2+3*1", "5-7")
    assert row_from_json(told) == row
    assert Images([row])[2].file == "0001x2+0003x1_square-star_seed000007.png"
    for wrong in ({"class": 3}, {"mixture": "1"}, {"mixture": 4}):
        with pytest.raises((ValueError, TypeError, ConfigError)):
            row_from_json({**told, **wrong})


def test_a_model_without_the_null_class(options: dict[str, Any], toys: Toys) -> None:
    options |= {"model": toys.model, "class_": 1}
    with pytest.raises(UsageError, match="name a class to lead away from"):
        adm_cli.sample(**options, out="o")
    path = adm_cli.sample(**options, negative_class=0, out="o").paths()[0]
    where = {name: options[name] for name in ("model", "classifier")}
    assert adm_cli.repro(path, **where).identical


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"class_": "0+2"}, "class 2 is not among the 3 classes"),
    ({"class_": "0*x+1"}, "expected a weight after"),
    ({"class_": "0+"}, "a class is missing in a mixture: write 207"),
    ({"class_": "*0.5+1"}, "a class is missing in a mixture: write 207"),
    ({"class_": "1", "negative_class": "nothing"}, "unknown class 'nothing'"),
    ({"class_": "1", "negative_class": "0,3"}, "--negative-class '0,3': expected one class"),
    ({"class_": "0+1", "negative_class": "1"}, "class 1 is both asked for and led away from"),
    ({"class_": "1", "negative_class": "0", "scale": 0, "cfg": 1}, "no meaning without guidance"),
    ({"class_": "1", "scale_schedule": "linear", "scale": 0, "cfg": 1}, "without guidance"),
    ({"class_": "1", "scale_schedule": "square"}, "must be constant, linear, cosine or sine"),
    ({"class_": "1", "classifier_on": "x1"}, "classifier_on must be xt or x0"),
    ({"class_": "1", "guide_adam": "0.9"}, "two betas below 1, such as 0.9/0.995"),
    ({"class_": "1", "guide_adam": "0.9/1.5"}, "two betas below 1, such as 0.9/0.995"),
    ({"class_": "1", "guide_adam": "0.9/0.99", "scale": None}, "pass a --scale, such as 0.1"),
    ({"class_": "1", "guide_adam": "0.9/0.99", "scale": 0}, "--guide-adam has no meaning"),
    ({"class_": "1", "sag_scale": float("nan")}, "sag_scale must be from -1,000 to 1,000"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "words"), WRONG, ids=lambda v: str(v)[:50])
def test_what_cannot_be(wrong: dict[str, Any], words: str, options: dict[str, Any]) -> None:
    with pytest.raises((UsageError, ConfigError), match=words):
        adm_cli.sample(**{**options, **wrong}, out="o")
    assert not Path("o").exists()


@pytest.mark.parametrize("name", ["sag_scale", "pag_scale"])
def test_a_model_without_attention_in_the_middle(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "flat.safetensors"
    save_toy(path, replace(TOY_UNET, null_class=True, middle_attention=False))
    with pytest.raises(UsageError, match="flat has none: leave it out"):
        adm_cli.sample(**{**options, "model": path, name: 1.5}, class_=1, out="o")
    changes: dict[str, Any] = {name: 1.5}
    config = SamplingConfig(seeds=(0,), classes=(1,), scale=0, cfg=1, **changes)
    with pytest.raises(UsageError, match="needs attention in the middle"):
        list(generate(load_pipeline(path, guided=False, device="cpu"), config))


def test_damaged_mixtures_are_refused(options: dict[str, Any]) -> None:
    (path,) = adm_cli.sample(**options, class_="0+1", out="o").paths()
    recipe = recipe_of(path)
    check_recipe(recipe)
    for wrong in ({"mixture": "0"}, {"mixture": "0+5*"}, {"mixture": 3}, {"class": 3}):
        with pytest.raises(AdmError, match="recipe is damaged"):
            check_recipe({**recipe, **wrong})
    with pytest.raises(ConfigError, match=r"2 mixtures for 1 image$"):
        SamplingConfig(seeds=(0,), classes=(0,), mixtures=("0+1", None))
    config = SamplingConfig(
        seeds=(0,), classes=(0,), mixtures=("0+2",), scale=0, cfg=1, steps="2", batch_size=1
    )
    with pytest.raises(UsageError, match="was not trained on class 2"):
        list(generate(load_pipeline(options["model"], guided=False, device="cpu"), config))


def test_a_classifier_of_clean_pictures(options: dict[str, Any], tmp_path: Path) -> None:
    """It need not know the model's noise to see predictions of x_0."""
    path = tmp_path / "clean.safetensors"
    model = randomise(build_model(TOY_CLASSIFIER), seed=4)
    info = ModelInfo(
        config=TOY_CLASSIFIER,
        diffusion=replace(TOY_DIFFUSION, noise_schedule="cosine"),
        classes=TOY_CLASSES,
        training={"settings": {"noised": False}},
        source={},
    )
    save_model(path, model.state_dict(), info)
    options |= {"classifier": path, "class_": 1}
    with pytest.raises(UsageError, match=r"or --classifier-on x0$"):
        adm_cli.sample(**options, out="o")
    save_model(path, model.state_dict(), replace(info, source={"file": "clean.pt", "sha256": ""}))
    with pytest.raises(UsageError, match=r"x0; if clean learned .* again with --noise_schedule"):
        adm_cli.sample(**options, out="o")
    save_model(path, model.state_dict(), info)
    (picture,) = adm_cli.sample(**options, classifier_on="x0", out="o").paths()
    assert adm_cli.repro(picture, model=options["model"], classifier=path).identical
    like = adm_cli.sample(like=picture, model=options["model"], classifier=path, out="l")
    assert [one.read_bytes() for one in like.paths()] == [picture.read_bytes()]
    save_model(path, model.state_dict(), replace(info, diffusion=TOY_DIFFUSION))
    notes: list[object] = []
    for seen in ("xt", "x0"):
        adm_cli.sample(**options, classifier_on=seen, out=seen, on_event=notes.append)
    told = [event for event in notes if "trained without noise" in str(event)]
    assert len(told) == 1


@pytest.mark.parametrize("axis", ["negative_class", "classifier_on", "guide_adam", "pag_scale"])
def test_axes_of_sweeps(axis: str, options: dict[str, Any]) -> None:
    """In the words of the command line."""
    values, wanted = {
        "negative_class": ("none,star", [None, 3]),
        "classifier_on": ("xt,x0", ["xt", "x0"]),
        "guide_adam": ("0.5/0.7,0.9/0.99", ["0.5/0.7", "0.9/0.99"]),
        "pag_scale": ("1,2", [1.0, 2.0]),
    }[axis]
    changed = {**options, "class_": "0+1", axis: values, "num": 1}
    del changed["seeds"]
    done = adm_cli.sweep(**changed, out="s")
    neutral = {"negative_class": None, "classifier_on": "xt", "pag_scale": 1.0}.get(axis)
    assert [row.get(axis, neutral) for row in done.rows] == wanted
    assert len({row["cell"] for row in done.rows}) == 2
    assert adm_cli.verify("s") == []
