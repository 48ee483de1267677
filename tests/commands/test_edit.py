"""`adm edit`: what it leaves as it was, and that its runs are like all others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adm_cli.pictures.decode import fit_picture
from adm_cli.pictures.images import open_picture, save_image
from adm_cli.sampling.choosing.inputs import pixels_sha256
from adm_cli.sampling.folder import RunFolder
from tests.conftest import Result, Toys, pictures

Run = Callable[..., Result]


@pytest.fixture
def edit(adm: Run, toys: Toys) -> Run:
    """`adm edit` with the toy models in 4 steps; an option given again wins."""

    def call(*arguments: object) -> Result:
        models = ("--model", toys.model, "--classifier", toys.classifier)
        return adm("edit", *models, "--steps", 4, "--device", "cpu", *arguments)

    return call


def photo(name: str = "cat.png", side: int = 8, seed: int = 0) -> Any:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    save_image(Path(name), pixels)
    return pixels


def mask(name: str = "mask.png", side: int = 8) -> Any:
    """White in its right half."""
    white = np.zeros((side, side), np.uint8)
    white[:, side // 2 :] = 255
    Image.fromarray(white).save(name)
    return white > 0


def made(result: Result) -> list[Any]:
    assert result.code == 0, result.err
    return [open_picture(Path(line))[0] for line in result.out.splitlines()]


def recipe(path: Path | str) -> dict[str, Any]:
    found = open_picture(Path(path))[1]
    assert found is not None
    return found


def test_no_strength_gives_the_picture_back(edit: Run) -> None:
    small, large = photo(), photo("dog.png", 37)
    done = made(edit("cat.png", "dog.png", "--class", 0, "--strength", 0))
    assert np.array_equal(done[0], small)
    assert np.array_equal(done[1], fit_picture(large, (8, 8)))


@pytest.mark.parametrize("sampler", ["ddpm", "dpm++2m"])
def test_full_strength_is_sampling(edit: Run, draw: Run, sampler: str) -> None:
    photo()
    how = ("--class", "star", "--sampler", sampler, "--steps", 4)
    drawn = made(draw(*how, "--seeds", "3,7", "--batch-size", 2))
    edited = made(edit("cat.png", *how, "--seeds", "3,7", "--batch-size", 2, "--strength", 1))
    assert all(map(np.array_equal, edited, drawn))


def test_the_stronger_the_farther(edit: Run) -> None:
    """Of an untrained network, too: its noise is what is left of the picture."""
    pixels, gaps = photo(), []
    for strength in (0, 0.25, 0.75):
        (found,) = made(edit("cat.png", "--class", 0, "--strength", strength, "--scale", 0))
        gaps.append(np.abs(found.astype(int) - pixels).mean())
    assert gaps == sorted(set(gaps))


def test_every_picture_as_every_class_with_every_seed(edit: Run) -> None:
    pixels = photo()
    photo("dog.png", seed=1)
    options = ("--class", "star,0", "--seed", 4, "--num", 2, "--out", "o")
    done = edit("cat.png", "dog.png", *options, "--json")
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [Path(row["path"]).name for row in rows] == [
        f"{stem}_{label}_seed{seed:06d}.png"
        for stem in ("cat", "dog")
        for label in ("0003_star", "0000_circle")
        for seed in (4, 5)
    ]
    assert (rows[0]["input"], rows[0]["photo_sha256"]) == ("cat.png", pixels_sha256(pixels))
    found = recipe(rows[0]["path"])
    names = ("strength", "class", "seed", "photo_sha256", "num_steps", "steps")
    wanted = [0.6, 3, 4, rows[0]["photo_sha256"], 2, "4"]
    assert [found[name] for name in names] == wanted
    assert "invert" not in found
    assert "mask_sha256" not in found


def test_an_image_knows_nothing_of_its_neighbours(edit: Run) -> None:
    for i in range(3):
        photo(f"{i}.png", seed=i)
    mask()
    options = ("--class", 0, "--batch-size", 3, "--mask", "mask.png", "--strength", 0.8)
    together = made(edit("0.png", "1.png", "2.png", *options))
    assert np.array_equal(made(edit("1.png", *options))[0], together[1])


@pytest.mark.parametrize("second", ["none", "network", "bicubic"])
@pytest.mark.parametrize("apart", [False, True])
def test_what_a_mask_keeps_is_the_picture(
    edit: Run, toys: Toys, second: str, apart: bool
) -> None:  # fmt: skip
    """At every size of a stack, whether its small pictures come first or not."""
    if apart and second == "none":
        return
    pixels = photo(side=32)
    mask(side=32)
    upsampler = {"none": (), "network": (toys.upsampler,), "bicubic": ("bicubic",)}[second]
    later = ("--upsampler", *upsampler) if upsampler else ()
    keep = ("--keep-base",) if apart else ()
    done = made(edit("cat.png", "--class", 0, "--mask", "mask.png", "--out", "o", *later, *keep))
    side = 8 if second == "none" else 16
    wanted = fit_picture(pixels, (side, side))
    assert np.array_equal(done[0][:, : side // 2], wanted[:, : side // 2])
    assert not (done[0][:, side // 2 :] == wanted[:, side // 2 :]).all(axis=-1).any(axis=0).all()
    if apart:
        small = open_picture(Path("o/base/cat_0000_circle_seed000000.png"))[0]
        assert np.array_equal(small[:, :4], fit_picture(pixels, (8, 8))[:, :4])


def test_masks_of_their_own(edit: Run) -> None:
    for i in range(2):
        photo(f"p/{i}.png", seed=i)
    Path("m").mkdir()
    halves = mask("m/0.png"), ~mask("m/1.png")
    Image.fromarray(halves[1].astype(np.uint8) * 255).save("m/1.png")
    done = made(edit("p", "--class", 0, "--mask", "m"))
    for i in range(2):
        same = (done[i] == photo(f"p/{i}.png", seed=i)).all(axis=-1)
        assert same[~halves[i]].all()
        assert not same[halves[i]].all()


@pytest.mark.parametrize("around", ["white", "transparent"])
def test_a_mask_that_keeps_nothing_is_told(edit: Run, around: str) -> None:
    """White strokes on a transparent layer are what editors make."""
    photo()
    whole = mask()
    layer = np.full((*whole.shape, 4), 255, np.uint8)
    layer[..., 3] = np.where(whole, 255, 255 if around == "white" else 0)
    Image.fromarray(layer).save("layer.png")
    options = ("cat.png", "--class", 0, "--dry-run", "--mask")
    assert (
        "layer.png is white all over (what is transparent is white, too)"
        in edit(*options, "layer.png").err
    )
    assert "white all over" not in edit(*options, "mask.png").err


@pytest.mark.parametrize("how", [(), ("--mask", "mask.png"), ("--invert", "--from-class", "1")])
@pytest.mark.parametrize("second", [False, True])
def test_repro(
    edit: Run, adm: Run, toys: Toys, how: tuple[str, ...], second: bool
) -> None:  # fmt: skip
    photo(side=16)
    mask(side=16)
    later = ("--upsampler", toys.upsampler) if second else ()
    path = edit("cat.png", "--class", 3, *how, *later, "--out", "o").out.strip()
    models = ("--model", toys.model, "--classifier", toys.classifier, *later)
    again = adm("repro", path, *models)
    assert (again.code, again.out) == (0, "identical\n"), again.err
    verified = json.loads(adm("repro", path, *models, "--json").out)["verified"]
    assert any("the picture that was edited" in what for what in verified)
    Path("away").mkdir()
    for name in ("cat.png", "mask.png"):
        Path(name).rename(f"away/{name}")
    lost = adm("repro", path, *models)
    assert lost.code == 2
    assert "edited from cat.png" in lost.err
    given = ("--input", "away/cat.png", "--input", "away/mask.png")
    found = adm("repro", path, *models, *given)
    assert (found.code, found.out) == (0, "identical\n"), found.err


def test_gone_on_with_and_repaired(edit: Run, adm: Run, toys: Toys) -> None:
    photo()
    options = ("--class", "0", "--num", 3, "--batch-size", 2, "--out", "o")
    edit("cat.png", *options)
    before = {name: Path("o", name).read_bytes() for name in pictures("o")}
    name = "cat_0000_circle_seed000001.png"
    Path("o", name).unlink()
    assert "(2 were there)" in edit("cat.png", *options).err
    assert Path("o", name).read_bytes() == before[name]
    Path("o", name).write_bytes(b"damaged")
    repair = ("verify", "o", "--repair", "--model", toys.model, "--classifier", toys.classifier)
    assert adm(*repair).code == 0
    assert Path("o", name).read_bytes() == before[name]
    Path("o", name).unlink()
    Path("cat.png").rename("elsewhere.png")
    lost = adm(*repair)
    assert lost.code == 1
    assert f"{name} cannot be made again: cat.png, which was edited, is gone" in lost.err
    assert adm(*repair, "--input", "elsewhere.png").code == 0
    assert Path("o", name).read_bytes() == before[name]
    photo("cat.png", seed=9)
    other = edit("cat.png", *options)
    assert other.code == 1
    assert "was made from another picture than cat.png now gives" in other.err


def test_a_run_is_read_as_it_was_written(edit: Run) -> None:
    photo()
    mask()
    how = ("--mask", "mask.png", "--resample", 3, "--jump", 1, "--strength", "0.5")
    planned = edit("cat.png", "--class", 0, *how, "--dry-run", "--json", "--out", "o")
    facts = json.loads(planned.out)
    assert (facts["strength"], facts["resample"], facts["jump"]) == (0.5, 3, 1)
    assert (facts["num_steps"], facts["evaluations"]) == (4, 4)  # 2 of 4; the last thrice
    edit("cat.png", "--class", 0, *how, "--out", "o")
    run = RunFolder(Path("o")).read()
    assert run.command == "edit"
    assert (run.first.strength, run.first.resample, run.images[0].mask) == (0.5, 3, "mask.png")
    assert edit("cat.png", "--class", 0, *how, "--out", "o").err.count("nothing to do") == 1
    changed = edit("cat.png", "--class", 0, *how, "--resample", 2, "--out", "o")
    assert "resample 3 -> 2" in changed.err


def test_an_inversion_depends_on_what_is_on_the_picture(edit: Run) -> None:
    photo()
    how = ("--class", 0, "--invert", "--sampler", "ddim", "--scale", 0)
    first, other = (made(edit("cat.png", *how, "--from-class", i))[0] for i in (1, 3))
    assert not np.array_equal(first, other)
    same = made(edit("cat.png", *how, "--from-class", 0))[0]
    own = made(edit("cat.png", *how, "--seed", 5))[0]  # the class that is drawn; no noise
    assert np.array_equal(same, own)


def test_the_class_that_comes_with_a_picture(edit: Run, draw: Run) -> None:
    draw("--class", "star", "--num", 1, "--out", "run")
    done = edit("run", "--out", "o")
    assert Path(done.out.strip()).name == "0003_star_seed000000_0003_star_seed000000.png"


def test_a_film_and_a_sheet(edit: Run) -> None:
    photo()
    mask()
    options = ("--mask", "mask.png", "--animate", "o/film.gif", "--grid", "--out", "o")
    done = edit("cat.png", "--class", 0, *options)
    assert done.out.split() == ["o/cat_0000_circle_seed000000.png", "o/grid.png", "o/film.gif"]
    with Image.open("o/film.gif") as film:
        assert film.n_frames == 4 + 4 * 2  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--strength", "2", "--class", 0), "strength must be from 0 to 1, got 2"),
        (("--resample", 2, "--class", 0), "pass one"),
        (("--from-class", 1, "--class", 0), "--invert"),
        (("--mask", "wide.png", "--class", 0), "the mask wide.png is 16x16, and cat.png 8x8"),
        (("--mask", "cat.png", "--mask", "black.png", "--class", 0), "has no white"),
        ((), "cat.png says no class: pass --class"),
        (("--class", "random"), "--class random"),
        (("--mask", "mask.png", "--jump", 0, "--class", 0), "jump must be from 1 to 1000, got 0"),
    ],
)
def test_what_is_refused(edit: Run, arguments: tuple[object, ...], message: str) -> None:
    photo()
    mask()
    mask("wide.png", 16)
    save_image(Path("black.png"), np.zeros((8, 8, 3), np.uint8))
    done = edit("cat.png", *arguments)
    assert done.code == 2
    assert message in done.err
    assert not Path("out").exists()


def test_its_pictures_are_no_model_for_sampling(edit: Run, adm: Run, toys: Toys) -> None:
    photo()
    for later in ((), ("--upsampler", toys.upsampler)):
        path = edit("cat.png", "--class", 0, *later).out.strip()
        refused = adm("sample", "--like", path)
        assert refused.code == 2
        assert "was edited" in refused.err
        assert "photo_sha256" in adm("info", path).out
