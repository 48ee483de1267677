"""`adm repro`: the same picture again, or what differs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adm_cli.commands.repro import _report
from adm_cli.pictures.images import open_picture, save_image
from adm_cli.sampling.choosing.inputs import pixels_sha256
from adm_cli.sampling.recipes.repro import Reproduction
from tests.conftest import TOY_CLASSIFIER, TOY_UNET, Result, Toys, save_toy

Run = Callable[..., Result]


@pytest.fixture
def again(adm: Run, toys: Toys) -> Run:
    """`adm repro` with the toy models; an option given again wins."""

    def call(picture: object, *arguments: object) -> Result:
        models = ("--model", toys.model, "--classifier", toys.classifier)
        return adm("repro", picture, *models, *arguments)

    return call


def edit(path: Path, **changes: Any) -> None:
    """The same pixels with another recipe."""
    pixels, recipe = open_picture(path)
    assert recipe is not None
    recipe |= changes
    save_image(path, pixels, {k: v for k, v in recipe.items() if v != "remove"})


@pytest.mark.parametrize(
    "options",
    [
        ("--scale", 3),
        ("--scale", 0),
        ("--scale", -1, "--quiet"),
        ("--sampler", "ddim", "--eta", 0.5, "--format", "webp"),
        ("--no-clip", "--dtype", "bfloat16"),
        ("--num", 3, "--batch-size", 3),
        ("--plain",),
    ],
)
def test_identical(draw: Run, again: Run, options: tuple[object, ...]) -> None:
    picture = draw("--class", 3, "--num", 1, "--seed", 5, *options).out.split()[-1]
    done = again(picture, "--output", "sub/again.png")
    assert (done.code, done.out) == (0, "identical\n")
    *notes, verified = done.err.splitlines()
    assert notes in ([], ["adm: scale -1 is negative: images are repelled from their class"])
    assert verified.startswith("adm: SHA-256 as recorded: the model's weights ")
    assert "; the picture's values " in verified
    (old, recipe), (new, new_recipe) = (
        open_picture(Path(picture)),
        open_picture(Path("sub/again.png")),
    )
    assert (old == new).all()
    assert recipe == new_recipe
    assert recipe is not None
    assert recipe.get("plain", False) == ("--plain" in options)


def test_a_preset_is_found_by_its_name(adm: Run) -> None:
    asked = ("--class", 1, "--num", 1, "--steps", 2, "--device", "cpu")
    made = adm("sample", "--model", "tiny-stack", *asked)
    done = adm("repro", made.out.strip(), "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    verified = found.pop("verified")
    assert found == {
        "identical": True,
        "values_that_differ": 0,
        "largest_difference": 0,
        "inputs_that_differ": [],
    }
    pixels, recipe = open_picture(Path(made.out.strip()))
    assert recipe is not None
    small = recipe["base"]
    assert verified == {
        "the model's weights": recipe["model_sha256"],
        "the small picture": recipe["small_sha256"],
        "of the small picture, the model's weights": small["model_sha256"],
        "of the small picture, the classifier's weights": small["classifier_sha256"],
        "the picture's values": pixels_sha256(pixels),
    }


def test_other_weights_are_named(draw: Run, again: Run) -> None:
    picture = draw("--class", 3, "--num", 1).out.strip()
    model = save_toy(Path("other.safetensors"), TOY_UNET, seed=7)
    guide = save_toy(Path("guide.safetensors"), TOY_CLASSIFIER, seed=7)
    done = again(picture, "--model", model)
    assert done.code == 1
    assert done.out.startswith("different: ")
    assert done.out.endswith(" of 255\n")
    assert "inputs that differ: the model's weights (" in done.err
    recorded, differing = done.err.splitlines()
    assert "classifier" not in differing
    assert recorded.startswith("adm: SHA-256 as recorded: the classifier's weights ")
    assert "values" not in recorded
    done = again(picture, "--classifier", guide, "--json")
    assert done.code == 1
    told = json.loads(done.out)
    assert not told["identical"]
    assert told["values_that_differ"] > 0
    assert [text.split(" (")[0] for text in told["inputs_that_differ"]] == [
        "the classifier's weights"
    ]


def test_an_edited_picture(draw: Run, again: Run) -> None:
    picture = Path(draw("--class", 3, "--num", 1).out.strip())
    pixels, recipe = open_picture(picture)
    edited = pixels.copy()
    edited[0, 0, 0] ^= 2
    save_image(picture, edited, recipe)
    done = again(picture)
    assert (done.code, done.out) == (1, "different: 1 of 192 values, by at most 2 of 255\n")
    assert "every recorded input is the same" in done.err
    assert "the picture was edited" in done.err


def test_identical_although_inputs_differ(draw: Run, again: Run) -> None:
    picture = Path(draw("--class", 3, "--num", 1).out.strip())
    edit(picture, torch="1.0", adm="0.0.1")
    done = again(picture)
    assert (done.code, done.out) == (0, "identical\n")
    assert "although these differ: " in done.err
    assert f"the version of torch (1.0, now {torch.__version__})" in done.err


def one_line(done: Result, code: int, *words: str) -> None:
    assert (done.code, done.out) == (code, "")
    assert len(done.err.splitlines()) == 1, done.err
    assert done.err.startswith("adm: error: ")
    assert all(word in done.err for word in words), done.err


def test_weights_without_a_preset(draw: Run, adm: Run, toys: Toys) -> None:
    picture = draw("--class", 3, "--num", 1).out.strip()
    one_line(adm("repro", picture), 2, "weights 'toy'", "pass their file with --model")
    done = adm("repro", picture, "--model", toys.model)
    one_line(done, 2, "weights 'toy_classifier'", "pass their file with --classifier")


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": "5"},
        {"seed": 1.5},
        {"seed": True},
        {"seed": -1},
        {"seed": "remove"},
        {"class": "3"},
        {"scale": "4"},
        {"scale": float("nan")},
        {"sampler": ["ddpm"]},
        {"steps": 5},
        {"batch_size": 0},
        {"batch_size": "remove"},
        {"eta": 7},
        {"clip_denoised": None},
        {"classifier": 3},
        {"model_sha256": None},
        {"device": 0},
    ],
)
def test_damaged_recipes(draw: Run, again: Run, changes: dict[str, Any]) -> None:
    picture = Path(draw("--class", 3, "--num", 1, "-f", "webp").out.strip())
    edit(picture, **changes)
    one_line(again(picture), 1, "recipe is damaged", next(iter(changes)).split("_")[0])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sampler": "dpm"}, "unknown sampler 'dpm'"),
        ({"steps": "101"}, "101"),
        ({"class": 2}, "was not trained on class 2"),
        ({"class": None}, "class"),
        ({"dtype": "int8"}, "dtype has an unexpected value 'int8'"),
        ({"device": "abacus"}, "unknown device 'abacus'"),
    ],
)
def test_recipes_that_cannot_be(draw: Run, again: Run, changes: dict[str, Any], words: str) -> None:
    picture = Path(draw("--class", 3, "--num", 1, "-f", "webp").out.strip())
    edit(picture, **changes)
    done = again(picture)
    one_line(done, done.code, words)
    assert done.code in (1, 2)


def test_pictures_without_a_recipe(draw: Run, again: Run) -> None:
    picture = Path(draw("--num", 1).out.strip())
    save_image(Path("bare.png"), open_picture(picture)[0])
    one_line(again("bare.png"), 1, "bare.png carries no recipe")
    one_line(again("none.png"), 1, "cannot read none.png")


def test_a_picture_of_another_size(draw: Run, again: Run) -> None:
    picture = Path(draw("--num", 1).out.strip())
    pixels, recipe = open_picture(picture)
    save_image(picture, pixels[:4], recipe)
    one_line(again(picture), 1, "is 8x4 pixels, the model makes 8x8")


def test_output_replaces_nothing(draw: Run, again: Run) -> None:
    picture = Path(draw("--num", 1).out.strip())
    before = picture.read_bytes()
    one_line(again(picture, "-o", picture), 2, "exists already, choose another name")
    assert picture.read_bytes() == before
    one_line(again(picture, "-o", "x.jpg"), 2, "ends in .png or .webp")
    one_line(again(picture, "-o", picture / "x.png"), 1, "is a file, expected a folder")
    shutil.copy(picture, "copy.png")
    assert again("copy.png", "-o", "new.WEBP").code == 0
    assert open_picture(Path("new.WEBP"))[1] == open_picture(picture)[1]


def test_what_is_no_picture(adm: Run) -> None:
    Path("README.md").write_text("hello")
    done = adm("repro", "README.md")
    assert (done.code, done.err) == (
        1, "adm: error: cannot read README.md as PNG or WebP: it is neither, or damaged\n",
    )  # fmt: skip


def test_a_folder_that_is_no_run(adm: Run) -> None:
    Path("run").mkdir()
    one_line(adm("repro", "run"), 1, "run is no run: it has no run.json")


def test_few_of_many_verified_hashes_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    verified = {f"input {i}": f"{i}" * 64 for i in range(9)}
    pixels = np.zeros((1, 1, 3), np.uint8)
    _report(Reproduction(0, 0, [], 3, True, pixels, {}, verified), json=False)
    shown = "; ".join(f"input {i} {str(i) * 12}" for i in range(4))
    expected = f"adm: SHA-256 as recorded: {shown}; and 5 more (--json names all)"
    assert " ".join(capsys.readouterr().err.split()) == expected
