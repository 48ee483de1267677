"""Pictures that are not square, so that height and width exchanged anywhere show."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adm_cli.errors import size_words
from adm_cli.pictures.images import open_picture
from adm_cli.pictures.sheets import class_sheet
from adm_cli.training.setup import parse_size
from tests.conftest import TOY_CLASSIFIER, TOY_UNET, TOY_UPSAMPLER, Result, Toys, save_toy

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Toys:
    """Models of pictures twice as wide as high: 16x8, and 32x16 out of them."""
    folder, size = tmp_path_factory.mktemp("wide"), (8, 16)  # height, width
    large = replace(TOY_UPSAMPLER, image_size=(16, 32), low_res_size=size)
    plain = replace(large, num_classes=None)
    return Toys(
        save_toy(folder / "model.safetensors", replace(TOY_UNET, image_size=size)),
        save_toy(folder / "guide.safetensors", replace(TOY_CLASSIFIER, image_size=size), seed=1),
        save_toy(folder / "upsampler.safetensors", large, seed=2),
        save_toy(folder / "plain.safetensors", plain, {}, seed=3),
    )


def pixels(path: str | Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size  # width, height


@pytest.fixture
def draw(adm: Run, wide: Toys) -> Run:
    pair = ("--model", wide.model, "--classifier", wide.classifier, "--device", "cpu")
    return lambda *arguments: adm("sample", *pair, "--steps", 2, *arguments)


def test_drawn_kept_and_made_again(adm: Run, draw: Run, wide: Toys) -> None:
    done = draw("--class", "0,3", "--num", 2, "--grid", "--animate", "f.gif", "--out", "o")
    assert done.code == 0, done.err
    made = sorted(Path("o").glob("[0-9]*.png"))
    assert [pixels(path) for path in made] == [(16, 8)] * 4
    images = [open_picture(path)[0] for path in made]
    sheet = class_sheet(images, ["circle", "circle", "star", "star"], list("0123"))
    assert np.array_equal(open_picture(Path("o/grid.png"))[0], sheet)
    assert pixels("f.gif") == (2 * (16 + 2) + 2, 2 * (8 + 2) + 2)
    assert adm("verify", "o").code == 0
    again = adm("repro", made[0], "--model", wide.model, "--classifier", wide.classifier)
    assert (again.code, again.out) == (0, "identical\n"), again.err
    facts = json.loads(adm("info", made[0], "--json").out)
    assert facts["size"] == [8, 16]  # height, width, as in the model's configuration


def test_gathered_and_enlarged(adm: Run, draw: Run, wide: Toys) -> None:
    assert draw("--class", 1, "--num", 2, "--out", "o").code == 0
    assert adm("merge", "o", "--output", "all.npz").code == 0
    with np.load("all.npz") as held:
        assert held["arr_0"].shape == (2, 8, 16, 3)
    large = adm("upsample", "o", "--model", wide.upsampler, "--steps", 2, "--out", "large")
    assert large.code == 0, large.err
    assert {pixels(path) for path in Path("large").glob("*.png")} == {(32, 16)}
    stack = draw(
        "--class", 1, "--num", 1, "--upsampler", wide.upsampler, "--upsample-steps", 2,
        "--keep-base", "--out", "stack",
    )  # fmt: skip
    assert stack.code == 0, stack.err
    assert pixels(next(Path("stack").glob("[0-9]*.png"))) == (32, 16)
    assert pixels(next(Path("stack/base").glob("[0-9]*.png"))) == (16, 8)
    plain = draw("--class", 1, "--num", 1, "--upsampler", "bicubic", "--out", "plain")
    assert plain.code == 0, plain.err
    assert pixels(next(Path("plain").glob("[0-9]*.png"))) == (32, 16)


def test_a_square_picture_is_not_taken_for_one(adm: Run, wide: Toys) -> None:
    Image.new("RGB", (8, 16)).save("tall.png")
    done = adm("upsample", "tall.png", "--model", wide.plain_upsampler, "--steps", 2)
    assert done.code == 2
    assert "not 16x8" in done.err  # width x height, as the picture is spoken of
    assert "tall.png (8x16)" in done.err


def test_sizes_are_said_and_asked_for_in_one_order(adm: Run) -> None:
    assert size_words((8, 16)) == "16x8"
    assert parse_size("16x8") == (8, 16)
    for i, size in enumerate([(16, 8)] + 5 * [(8, 8)]):
        Path("mixed").mkdir(exist_ok=True)
        Image.new("RGB", size).save(f"mixed/{i}.png")
    done = adm("reference", "mixed", "--output", "r.safetensors", "--features", "tiny_classifier")
    assert done.code != 0
    assert "8x8" in done.err
    assert "16x8" in done.err


def test_swept(adm: Run, wide: Toys) -> None:
    done = adm(
        "sweep", "--model", wide.model, "--classifier", wide.classifier, "--class", 3,
        "--seeds", "0-1", "--scale", "0,1", "--steps", 2, "--device", "cpu", "--out", "s",
    )  # fmt: skip
    assert done.code == 0, done.err
    cells = list(Path("s").glob("*/[0-9]*.png"))
    assert len(cells) == 4
    assert {pixels(path) for path in cells} == {(16, 8)}
