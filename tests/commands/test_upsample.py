"""`adm upsample`: every kind of input, in order, gone on with, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

import adm_cli.sampling.drawing.pipeline as pipeline_module
from adm_cli.commands import console
from adm_cli.pictures.images import open_picture, save_image
from adm_cli.pictures.sheets import class_sheet
from adm_cli.sampling.choosing.inputs import pixels_sha256
from tests.conftest import (
    TOY_CLASSES,
    TOY_CLASSIFIER,
    TOY_UPSAMPLER,
    Result,
    Toys,
    pictures,
    save_toy,
)

Run = Callable[..., Result]


@pytest.fixture
def enlarge(adm: Run, toys: Toys) -> Run:
    """`adm upsample` with the toy upsampler in 2 steps; an option given again wins."""

    def call(*arguments: object) -> Result:
        options = ("--model", toys.upsampler, "--steps", 2, "--device", "cpu")
        return adm("upsample", *options, *arguments)

    return call


def some(count: int, side: int = 8) -> Any:
    shape = (count, side, side, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def rows(result: Result) -> list[dict[str, Any]]:
    assert result.code == 0, result.err
    return [json.loads(line) for line in result.out.splitlines()]


def recipe(path: Path | str) -> dict[str, Any]:
    found = open_picture(Path(path))[1]
    assert found is not None
    return found


def pixels(result: Result) -> list[Any]:
    assert result.code == 0, result.err
    return [open_picture(Path(line))[0] for line in result.out.splitlines()]


def test_a_grid_on_a_terminal(draw: Run, enlarge: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    draw("--class", "3,0", "--seeds", "7", "--out", "base")
    monkeypatch.setattr(console, "on_terminal", lambda: True)
    done = enlarge("base", "--out", "big")
    *large, grid = pixels(done)
    assert np.array_equal(grid, class_sheet(large, ["star", "circle"], ["7", "7"]))
    assert done.err.splitlines()[-1] == "adm: what they were made with: adm info big"


def test_a_run_brings_classes_and_seeds_along(draw: Run, enlarge: Run) -> None:
    """In the order in which they were asked for, not in that of the names."""
    draw("--class", "3,0", "--seeds", "7,2", "--out", "base", "--grid")
    done = rows(enlarge("base", "--out", "big", "--json"))
    names = [
        f"{c:04d}_{TOY_CLASSES[c]}_seed{s:06d}.png" for c, s in [(3, 7), (3, 2), (0, 7), (0, 2)]
    ]
    assert [Path(row["path"]).name for row in done] == names
    assert [(row["class"], row["seed"]) for row in done] == [(3, 7), (3, 2), (0, 7), (0, 2)]
    assert [row["input"] for row in done] == [f"base/{name}" for name in names]
    for row in done:
        small, base = open_picture(Path(row["input"]))
        large, made = open_picture(Path(row["path"]))
        assert made is not None
        assert large.shape == (16, 16, 3)
        assert made["base"] == base
        assert made["small_sha256"] == row["small_sha256"] == pixels_sha256(small)
        assert (made["model"], made["scale"], made["size"]) == ("toy_upsampler", 0.0, [16, 16])
        assert (made["class_name"], made["resized"]) == (base and base["class_name"], False)


def test_an_unfinished_run_gives_what_it_has(draw: Run, enlarge: Run) -> None:
    draw("--class", "0", "--num", 3, "--out", "base")
    Path("base/0000_circle_seed000001.png").unlink()
    assert len(enlarge("base", "--quiet").out.splitlines()) == 2


def test_pictures_of_ours_folders_and_npz(draw: Run, enlarge: Run) -> None:
    """The same pictures give the same results, however they come."""
    draw("--class", "0,3", "--num", 2, "--out", "run", "--format", "npz")
    Path("plain").mkdir()
    for name in pictures("run"):
        if name.endswith(".png"):
            Path("plain", name).write_bytes(Path("run", name).read_bytes())
    by_run = pixels(enlarge("run"))
    assert len(by_run) == 4
    single = sorted(map(str, Path("plain").iterdir()))
    for inputs in (["plain"], single, ["run/samples_4x8x8x3.npz"]):
        assert np.array_equal(pixels(enlarge(*inputs)), by_run)
    made = recipe(enlarge("run/samples_4x8x8x3.npz").out.splitlines()[2])
    assert (made["class"], made["seed"], made["base"]["model"]) == (3, 2, "toy")


def test_npz_of_the_original(enlarge: Run) -> None:
    np.savez("theirs.npz", some(3), np.array([3, 0, 3]))
    done = rows(enlarge("theirs.npz", "--out", "o", "--json"))
    assert [(row["path"], row["class"]) for row in done] == [
        ("o/000000.png", 3), ("o/000001.png", 0), ("o/000002.png", 3),
    ]  # fmt: skip
    assert recipe("o/000000.png")["base"] is None
    again = enlarge("theirs.npz", "--out", "n", "--format", "npz")
    assert again.out == "n/samples_3x16x16x3.npz\n"
    with np.load("n/samples_3x16x16x3.npz") as arrays:  # the original loses the labels
        assert arrays["arr_1"].tolist() == [3, 0, 3]
        assert np.array_equal(arrays["arr_0"][1], open_picture(Path("o/000001.png"))[0])


def test_a_seed_of_a_picture_is_its_own(enlarge: Run) -> None:
    """Not its place's: without a recipe, a picture's result depends on the picture alone."""
    np.savez("x.npz", arr_0=some(3), arr_1=np.zeros(3, int), seeds=np.array([5, 5, 6]))
    for i, image in enumerate(some(3)):
        save_image(Path(f"p/{'cab'[i]}.png"), image)
    options = ("--class", "0", "--batch-size", 2)
    seeds = {Path(r["path"]).stem: r["seed"] for r in rows(enlarge("p", *options, "--json"))}
    assert len(set(seeds.values())) == 3
    alone = rows(enlarge("p/b.png", *options, "--json"))
    assert alone[0]["seed"] == seeds["b"]
    assert [r["seed"] for r in rows(enlarge("x.npz", "--json"))] == [5, 5, 6]
    given = rows(enlarge("p", *options, "--seed", 8, "--json"))
    assert [(Path(r["path"]).stem, r["seed"]) for r in given] == [("a", 8), ("b", 9), ("c", 10)]


def test_every_seed_for_every_picture(enlarge: Run) -> None:
    save_image(Path("p/a.png"), some(1)[0])
    save_image(Path("p/b.png"), some(1)[0])
    done = enlarge("p", "--class", "star", "--seeds", "1,0", "--out", "o")
    names = ["a_seed000001", "a_seed000000", "b_seed000001", "b_seed000000"]
    assert done.out.splitlines() == [f"o/{name}.png" for name in names]
    a1, a0, b1, _ = pixels(done)
    assert np.array_equal(a1, b1)
    assert not np.array_equal(a1, a0)


def test_ddim_is_honoured(enlarge: Run) -> None:
    """Deterministic but for its first noise; the original's flag has no effect here."""
    save_image(Path("a.png"), some(1)[0])
    kinds: list[list[object]] = [
        ["--sampler", "ddpm"],
        ["--sampler", "ddim"],
        ["--sampler", "ddim", "--eta", 1],
    ]
    found = [pixels(enlarge("a.png", "--class", 0, *kind))[0] for kind in kinds]
    assert not any(np.array_equal(found[i], found[j]) for i in range(3) for j in range(i))
    made = recipe(enlarge("a.png", "--class", 0, *kinds[2], "--steps", "ddim3").out.strip())
    assert (made["sampler"], made["eta"], made["steps"], made["num_steps"]) == (
        "ddim", 1.0, "ddim3", 3,
    )  # fmt: skip


def test_batches_and_shards_make_the_same_pictures(draw: Run, enlarge: Run) -> None:
    draw("--class", "0,3", "--num", 3, "--out", "base")
    options = ("--batch-size", 4)
    whole = enlarge("base", "--out", "whole", *options)
    for i in (2, 1):
        assert enlarge("base", "--out", "parts", "--shard", f"{i}/2", *options).code == 0
    for line in whole.out.splitlines():
        assert Path(line).read_bytes() == Path("parts", Path(line).name).read_bytes()


def test_going_on(draw: Run, enlarge: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there is kept; what is lost is made again, the same."""
    draw("--class", "0", "--num", 4, "--out", "base")
    options = ("base", "--out", "o", "--batch-size", 2)
    first = {p.name: p.read_bytes() for p in map(Path, enlarge(*options).out.splitlines())}
    Path("o/0000_circle_seed000002.png").unlink()
    again = rows(enlarge(*options, "--json"))
    assert [row["new"] for row in again].count(True) == 1
    assert {name: Path("o", name).read_bytes() for name in pictures("o")} == first
    monkeypatch.setattr(pipeline_module, "load_model", None)  # nothing is loaded
    done = enlarge(*options)
    assert (done.code, len(done.out.splitlines())) == (0, 4)
    assert "nothing to do" in done.err


def test_ctrl_c_keeps_what_is_done(
    draw: Run, enlarge: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw("--class", "0", "--num", 4, "--out", "base")
    real, calls = pipeline_module._sample_batch, []

    def interrupted(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    options = ("base", "--out", "o", "--batch-size", 1)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline_module, "_sample_batch", interrupted)
        done = enlarge(*options)
    assert done.code == 130
    assert "2 of 4 images are in o; --out o goes on" in done.err
    assert [row["new"] for row in rows(enlarge(*options, "--json"))] == [False, False, True, True]


def test_other_inputs_are_not_taken_for_the_same(enlarge: Run) -> None:
    save_image(Path("a.png"), some(2)[0])
    options = ("a.png", "--class", 0, "--out", "o")
    assert enlarge(*options).code == 0
    save_image(Path("a.png"), some(2)[1])
    for change, what in (([], "another picture"), (["--class", 3], "another picture")):
        done = enlarge(*options, *change)
        assert done.code == 1
        assert f"o/a.png was made from {what} than a.png now gives" in done.err
    save_image(Path("a.png"), some(2)[0])
    assert "another class" in enlarge(*options, "--class", 3).err
    assert "steps 2 -> 3" in enlarge(*options, "--steps", 3).err
    assert enlarge(*options, "--class", 3, "--overwrite").code == 0


def test_resizing_is_asked_for(enlarge: Run) -> None:
    save_image(Path("p/a.png"), some(1, 16)[0])
    save_image(Path("p/b.png"), some(1, 8)[0])
    refused = enlarge("p", "--class", 0)
    assert (refused.code, refused.out) == (2, "")
    assert "1 of 2 pictures is not 8x8" in refused.err
    assert "e.g. p/a.png (16x16): pass --resize" in refused.err
    done = enlarge("p", "--class", 0, "--resize")
    assert [recipe(line)["resized"] for line in done.out.splitlines()] == [True, False]


def test_labels_that_are_missing_or_mean_something_else(
    draw: Run, enlarge: Run, adm: Run, toys: Toys
) -> None:
    save_image(Path("a.png"), some(1)[0])
    refused = enlarge("a.png")
    assert refused.code == 2
    assert "a.png says no class, and toy_upsampler needs one" in refused.err
    assert "pass --class" in refused.err
    picture = draw("--class", "star", "--num", 1).out.strip()
    other = save_toy(Path("other.safetensors"), TOY_UPSAMPLER, {0: "a", 3: "sun"})
    refused = adm("upsample", picture, "--model", other)
    assert refused.code == 2
    assert "is of class 3, star, which is sun to other: pass --class" in refused.err
    assert recipe(enlarge(picture, "--class", 0).out.strip())["class"] == 0
    plain = ("--model", toys.plain_upsampler)
    refused = enlarge("a.png", *plain, "--class", 0)
    assert "plain_upsampler is unconditional: --class would change nothing" in refused.err
    kept = recipe(enlarge(picture, *plain).out.strip())  # only carried along
    assert (kept["class"], kept["class_name"]) == (3, "star")
    assert recipe(enlarge("a.png", *plain).out.strip())["class"] is None


def test_a_model_that_also_enlarges_without_a_class(enlarge: Run) -> None:
    free = save_toy(Path("free.safetensors"), replace(TOY_UPSAMPLER, null_class=True))
    save_image(Path("a.png"), some(1)[0])
    assert "--class none" in enlarge("a.png", "--model", free).err
    assert enlarge("a.png", "--model", free, "--class", "none").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.png"], "no such picture, folder or npz: gone.png"),
        (["a.png", "--class", "0-1"], "expected one class"),
        (["a.png", "--class", "moon"], "unknown class 'moon'"),
        (["a.png", "--class", "2"], "class 2"),
        (["a.png", "--seed", "1", "--seeds", "2"], "leave out --seed"),
        (["a.png", "--class", "0", "--sampler", "dpm"], "unknown sampler 'dpm'"),
        (["a.png", "--class", "0", "--eta", "0.5"], "no meaning for the ddpm"),
        (["a.png", "--class", "0", "--steps", "101"], "cannot take 101 steps"),
        (["a.png", "--model", "imagenet256"], "not on this machine"),
        (
            ["a.png", "--model", "tiny_classifier"],
            "holds a classifier model, expected",
        ),
        (["a.png", "--format", "gif"], "unknown --format"),
        (["a.png", "a.png", "--class", "0"], "would both become a.png"),
    ],
)
def test_wrong_use_leaves_nothing(enlarge: Run, arguments: list[str], message: str) -> None:
    save_image(Path("a.png"), some(1)[0])
    done = enlarge(*arguments)
    assert done.code in (1, 2)
    assert message in done.err
    assert len(done.err.splitlines()) == 1
    assert not Path("out").exists()


def test_damaged_inputs_are_found_before_any_work(draw: Run, enlarge: Run) -> None:
    draw("--class", "0", "--num", 3, "--out", "base")
    last = Path("base/0000_circle_seed000002.png")
    data = bytearray(last.read_bytes())
    data[len(data) // 2] ^= 1
    last.write_bytes(data)
    done = enlarge("base")
    assert (done.code, done.out) == (1, "")
    assert "0000_circle_seed000002.png is damaged" in done.err
    assert not Path("out").exists()


def test_the_upsampler_is_found_by_size(adm: Run) -> None:
    save_image(Path("a.png"), some(1, 64)[0])
    done = adm("upsample", "a.png", "--class", 207)
    assert "the weights of 64_256_upsampler are not on this machine" in done.err
    save_image(Path("a.png"), some(1, 50)[0])
    done = adm("upsample", "a.png")
    assert done.code == 2
    assert "no known upsampler enlarges these: pass --model" in done.err
    assert "64_256_upsampler (64x64)" in done.err
    assert "needs --model" in adm("upsample", "a.png", "--resize").err


def test_dry_run_writes_nothing(enlarge: Run) -> None:
    np.savez("x.npz", some(3), np.array([3, 0, 3]))
    (shown,) = rows(enlarge("x.npz", "--dry-run", "--json"))
    assert (shown["pictures"], shown["images"], shown["classes"]) == (3, 3, [3, 0])
    assert (shown["num_steps"], shown["size"], shown["to_draw"]) == (2, [16, 16], 3)
    text = enlarge("x.npz", "--dry-run", "--seeds", "0-1")
    lines = dict(line.split(maxsplit=1) for line in text.out.splitlines())
    assert (lines["pictures"], lines["images"], lines["size"]) == ("3", "6", "16x16")
    assert [p.name for p in Path().iterdir()] == ["x.npz"]


def test_names_that_a_run_cannot_have(enlarge: Run) -> None:
    save_image(Path("p") / ('a:b?"c' + "é" * 100 + ".png"), some(1)[0])
    (path,) = enlarge("p", "--class", 0).out.splitlines()
    assert Path(path).name.startswith("a_b__c")
    assert Path(path).is_file()


def test_making_an_enlarged_picture_again(draw: Run, enlarge: Run, adm: Run, toys: Toys) -> None:
    small = draw("--class", 3, "--num", 1, "--seed", 11).out.strip()
    large = enlarge(small).out.strip()
    models = ("--model", toys.model, "--classifier", toys.classifier)
    upsampler = ("--upsampler", toys.upsampler)
    done = adm("repro", large, *models, *upsampler, "--output", "again.png")
    assert (done.code, done.out) == (0, "identical\n")
    assert done.err.startswith("adm: SHA-256 as recorded: the model's weights")
    assert done.err.count("\n") == 1
    assert recipe("again.png") == recipe(large)
    assert adm("repro", large, *upsampler, "--input", small).out == "identical\n"
    assert "pass their file with --upsampler" in adm("repro", large, *models).err
    other = save_toy(Path("other.safetensors"), TOY_UPSAMPLER, seed=9)
    done = adm("repro", large, *models, "--upsampler", other)
    assert done.code == 1
    assert "inputs that differ: the model's weights (" in done.err
    done = adm("repro", large, "--model", toys.model, "--classifier", toys.classifier, *upsampler)
    assert done.code == 0
    guide = save_toy(Path("guide.safetensors"), TOY_CLASSIFIER, seed=9)
    done = adm("repro", large, "--model", toys.model, "--classifier", guide, *upsampler)
    assert done.code == 1
    assert "the small picture (" in done.err
    assert "of the small picture, the classifier's weights (" in done.err


def test_what_cannot_be_made_again(enlarge: Run, adm: Run, toys: Toys) -> None:
    save_image(Path("a.png"), some(1, 16)[0])
    large = enlarge("a.png", "--class", 0, "--resize", "--seed", 4).out.strip()
    upsampler = ("--upsampler", toys.upsampler)
    done = adm("repro", large, *upsampler)
    assert done.code == 2
    assert "carried no recipe" in done.err
    assert "pass that picture with --input" in done.err
    assert adm("repro", large, *upsampler, "--input", "a.png").out == "identical\n"
    save_image(Path("b.png"), some(1, 16)[0, ::-1])
    done = adm("repro", large, *upsampler, "--input", "b.png")
    assert done.code == 1
    assert "inputs that differ: the small picture (" in done.err


def test_a_cascade_of_upsamplers(draw: Run, enlarge: Run, adm: Run, toys: Toys) -> None:
    """Enlarged twice: the recipes nest, and the picture can still be made again."""
    second = replace(TOY_UPSAMPLER, image_size=(32, 32), low_res_size=(16, 16))
    model = save_toy(Path("second.safetensors"), second, seed=4)
    small = draw("--class", 3, "--num", 1).out.strip()
    middle = enlarge(small).out.strip()
    large = enlarge(middle, "--model", model).out.strip()
    made = recipe(large)
    assert made["base"]["base"] == recipe(small)
    assert (made["seed"], made["class"]) == (0, 3)
    assert adm("repro", large, "--upsampler", model, "--input", middle).out == "identical\n"


@pytest.mark.parametrize("base", [7, {"seed": 1}, {"base": {}}])
def test_a_recipe_that_was_tampered_with(enlarge: Run, adm: Run, toys: Toys, base: Any) -> None:
    save_image(Path("a.png"), some(1)[0])
    large = Path(enlarge("a.png", "--class", 0).out.strip())
    text = PngImagePlugin.PngInfo()
    text.add_itxt("adm", json.dumps({**recipe(large), "base": base}))
    with Image.open(large) as image:
        image.save("b.png", pnginfo=text)
    done = adm("repro", "b.png", "--upsampler", toys.upsampler)
    assert done.code == 1
    assert "recipe is damaged" in done.err
    assert len(done.err.splitlines()) == 1
    assert recipe(enlarge("b.png", "--resize", "--class", 0).out.strip())["base"] is None


def test_info_shows_both_stages(draw: Run, enlarge: Run, adm: Run) -> None:
    small = draw("--class", 3, "--num", 1, "--scale", 2.5).out.strip()
    large = enlarge(small).out.strip()
    lines = [line.split(maxsplit=2) for line in adm("info", large).out.splitlines()]
    assert ["upsampler", "model", "toy_upsampler"] in lines
    assert ["model", "toy"] in lines
    assert ["scale", "2.5"] in lines
    with Image.open(large) as image:
        text = image.info["parameters"]
    assert text.startswith("star (class 3)\nSteps: 2, Sampler: ddpm, CFG scale: 2.5, Seed: 0, ")
    assert "Size: 16x16" in text
    assert text.endswith("Hires upscaler: toy_upsampler, Hires steps: 2")
