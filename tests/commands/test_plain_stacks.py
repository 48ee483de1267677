"""Stacks whose second stage is a plain enlargement, without weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

import adm_cli.sampling.drawing.pipeline as pipeline_module
from adm_cli.checkpoints.presets import ENLARGEMENTS
from adm_cli.pictures.enlarging import enlarge_picture
from adm_cli.pictures.images import open_picture, save_image
from adm_cli.pictures.sheets import class_sheet
from adm_cli.sampling import beside
from adm_cli.sampling.choosing.inputs import pixels_sha256
from adm_cli.sampling.folder import RunFolder
from adm_cli.sampling.run import Filter
from tests.commands.conftest import plain_grid
from tests.commands.test_stacks import contents, fail_at, recipe
from tests.conftest import Result, Toys, pictures

Run = Callable[..., Result]
NAME = "0003_star_seed000001.png"


@pytest.fixture
def plain(draw: Run) -> Run:
    """`adm sample`, 2 steps, enlarged bicubically; an option given again wins."""

    def call(*arguments: object) -> Result:
        wanted = ("--class", "0,3", "--num", 1, "--batch-size", 1, "--upsampler", "bicubic")
        return draw(*wanted, "--out", "o", *arguments)

    return call


@pytest.fixture
def mend(adm: Run, toys: Toys) -> Run:
    models = ("--model", toys.model, "--classifier", toys.classifier)
    return lambda *options: adm("verify", "o", "--repair", *models, *options)


def test_a_grid_names_the_seeds_of_what_was_enlarged(
    plain: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def sheet(images: list[Any], classes: list[str], seeds: list[str]) -> Any:
        seen.append(seeds)
        return class_sheet(images, classes, seeds)

    monkeypatch.setattr(beside, "class_sheet", sheet)
    assert plain("--seed", 4, "--num", 2, "--grid").code == 0
    assert seen == [["4", "5", "6", "7"]]


@pytest.mark.parametrize("method", ENLARGEMENTS)
def test_large_pictures_are_the_small_ones_enlarged(plain: Run, draw: Run, method: str) -> None:
    done = plain("--upsampler", method)
    assert (done.code, len(done.out.splitlines())) == (0, 2), done.err
    draw("--class", "0,3", "--num", 1, "--batch-size", 1, "--no-upsample", "--out", "small")
    for path in map(Path, done.out.splitlines()):
        small = open_picture(Path("small", path.name))[0]
        assert np.array_equal(open_picture(path)[0], enlarge_picture(small, method))
        made, base = recipe(path), recipe(Path("small", path.name))
        assert made["base"] == base
        assert (made["model"], made["size"]) == (method, [16, 16])
        assert made["small_sha256"] == pixels_sha256(small)
        assert not {"model_sha256", "steps", "sampler", "seed", "scale"} & set(made)


def test_a_run_knows_its_enlargement(plain: Run, adm: Run, toys: Toys) -> None:
    assert plain().code == 0
    run = RunFolder(Path("o")).read()
    assert (run.stages[1:], run.size) == ((Filter(model="bicubic", size=(16, 16)),), (16, 16))
    done = plain("--upsampler", "lanczos")
    assert (done.code, "upsampler bicubic -> lanczos" in done.err) == (1, True)
    done = plain("--upsampler", toys.upsampler, "--upsample-steps", 2)
    assert (done.code, "settings: upsampler bicubic -> toy_upsampler; choose" in done.err) == (
        1,
        True,
    )
    lines = [line.split() for line in adm("info", f"o/{NAME}").out.splitlines()]
    assert ["upsampler", "model", "bicubic"] in lines
    assert ["seed", "1"] in lines
    with Image.open(f"o/{NAME}") as image:
        text = image.info["parameters"]
    assert "Seed: 1, Size: 16x16" in text
    assert text.endswith("Hires upscaler: bicubic")


def test_base_pictures_are_kept(plain: Run) -> None:
    assert plain("--out", "plain").code == 0
    done = plain("--keep-base")
    assert (done.code, len(done.out.splitlines())) == (0, 2), done.err
    assert contents("o") == contents("plain")
    assert pictures("o") == sorted(["base", *pictures("plain")])
    for name in contents("o"):
        assert recipe(f"o/{name}")["base"] == recipe(f"o/base/{name}")


@pytest.mark.parametrize("options", [(), ("--keep-base",)])
@pytest.mark.parametrize("call", [1, 2])
def test_interrupted_and_gone_on_with(
    plain: Run, monkeypatch: pytest.MonkeyPatch, call: int, options: tuple[str, ...]
) -> None:
    with monkeypatch.context() as patch:
        fail_at(call, patch)
        assert plain(*options).code == 130
    done = plain(*options, "--json")
    assert done.code == 0, done.err
    assert [json.loads(line)["seed"] for line in done.out.splitlines()] == [0, 1]
    plain("--out", "whole")
    assert contents("o") == contents("whole")


def test_shards(plain: Run) -> None:
    assert plain("--num", 3, "--out", "whole").code == 0
    for i in (2, 1):
        assert plain("--num", 3, "--shard", f"{i}/2").code == 0
    assert contents("o") == contents("whole")


@pytest.mark.parametrize("options", [(), ("--keep-base",)])
def test_repaired(plain: Run, mend: Run, options: tuple[str, ...]) -> None:
    """Pictures, the contact sheet and the film; weights of an upsampler are not asked for."""
    beside = ("--grid", "--animate", "o/x.gif", "--batch-size", 2)
    assert plain(*options, *beside).code == 0
    before = {p: p.read_bytes() for p in Path("o").rglob("*") if p.suffix in (".png", ".gif")}
    assert len(before) == (6 if options else 4)
    for path in before:
        path.write_bytes(path.read_bytes()[:-9])
    done = mend()
    assert done.code == 0, done.err
    assert {path: path.read_bytes() for path in before} == before


def test_batches_halved_for_memory(plain: Run, mend: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch size of the small picture is in the line, and drawn again with."""
    real = pipeline_module._sample_batch

    def small_only(*arguments: Any) -> Any:
        if len(arguments[4]) > 1:
            raise MemoryError
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline_module, "_sample_batch", small_only)
        assert plain("--batch-size", 2).code == 0
    assert {r["base_batch_size"] for r in RunFolder(Path("o")).records().values()} == {1}
    before = contents("o")
    Path("o", NAME).unlink()
    assert mend().code == 0
    assert contents("o") == before


def test_the_film_ends_with_the_pictures(plain: Run) -> None:
    assert plain("--grid", "--animate", "f.webp", "--batch-size", 2).code == 0
    grid = plain_grid("o")
    assert grid.shape == (2 + 16 + 2, 2 + 2 * 18, 3)
    assert Path("o/grid.png").is_file()
    with Image.open("f.webp") as film:
        assert getattr(film, "n_frames", 1) == 2
        film.seek(1)
        assert np.array_equal(np.asarray(film.convert("RGB")), grid)


def test_made_again(plain: Run, adm: Run, toys: Toys) -> None:
    assert plain().code == 0
    models = ("--model", toys.model, "--classifier", toys.classifier)
    done = adm("repro", f"o/{NAME}", *models, "--output", "again.png")
    assert (done.code, done.out) == (0, "identical\n"), done.err
    assert recipe("again.png") == recipe(f"o/{NAME}")
    again, more = (
        line for line in adm("info", f"o/{NAME}").out.splitlines() if line[:5] in ("again", "more ")
    )
    assert "--upsampler" not in again
    assert more.endswith(f"--upsampler {recipe(f'o/{NAME}')['model']}")
    done = adm("repro", f"o/{NAME}", *models, "--upsampler", toys.upsampler)
    assert (done.code, "leave out --upsampler" in done.err) == (2, True)
    pixels, made = open_picture(Path("o", NAME))
    save_image(Path("edited.png"), 255 - pixels, made)
    assert adm("repro", "edited.png", *models).code == 1
    for wrong in ({"base": 7}, {"resized": True}, {"class": "x"}):
        text = PngImagePlugin.PngInfo()
        text.add_itxt("adm", json.dumps({**recipe("again.png"), **wrong}))
        Image.fromarray(pixels).save("wrong.png", pnginfo=text)
        done = adm("repro", "wrong.png", *models)
        assert (done.code, "recipe is damaged" in done.err) == (1, True), wrong


def test_enlarged_further_it_keeps_its_seed(plain: Run, adm: Run, toys: Toys) -> None:
    """Of the picture that was sampled: the enlargement has none."""
    assert plain("--seed", 5).code == 0
    Path("o/0003_star_seed000006.png").rename("loose.png")
    options = ("--model", toys.upsampler, "--steps", 1, "--device", "cpu", "--resize")
    made = recipe(adm("upsample", "loose.png", *options).out.strip())
    assert (made["class"], made["seed"], made["base"]["model"]) == (3, 6, "bicubic")
    assert made["base"]["base"]["seed"] == 6


def test_dry_run(plain: Run) -> None:
    shown = json.loads(plain("--dry-run", "--json").out)
    assert (shown["upsampler"], shown["size"], shown["num_steps"]) == ("bicubic", [16, 16], 2)
    assert not [name for name in shown if name.startswith("upsampler_")]
    assert ["upsampler", "bicubic"] in [x.split() for x in plain("--dry-run").out.splitlines()]


def test_what_it_does_not_take(plain: Run, draw: Run) -> None:
    for wrong in (("--upsample-steps", 2), ("--upsample-sampler", "ddim")):
        done = plain(*wrong)
        assert (done.code, "bicubic enlarges without sampling" in done.err) == (2, True)
    done = draw("--no-upsample", "--upsampler", "bicubic")
    assert (done.code, "--no-upsample stands alone" in done.err) == (2, True)
    assert not Path("o").exists()


def test_the_embedded_preset(adm: Run) -> None:
    """Enlarged by a filter; by its upsampler, in a few steps, for whoever asks."""
    asked = ((), ("--model", "tiny-stack"), ("--upsampler", "tiny_upsampler"))
    shown = [json.loads(adm("sample", *options, "--dry-run", "--json").out) for options in asked]
    assert (shown[0]["upsampler"], shown[0]["size"]) == ("back-projection", [64, 64])
    for row in shown[1:]:
        assert (row["upsampler"], row["size"]) == ("tiny_upsampler", [64, 64])
        assert (row["upsampler_sampler"], row["upsampler_num_steps"]) == ("dpm++2m", 8)
        assert row["upsampler_temperature"] == 0.9
    done = adm("upsample", "x.png", "--model", "bicubic")
    assert (done.code, "no upsampler but a filter" in done.err) == (2, True)
    done = adm("upsample", "x.png", "--model", "tiny_classifier")
    assert (done.code, "expected an upsampler" in done.err) == (2, True)
    rows = {row["name"]: row for row in map(json.loads, adm("models", "--json").out.splitlines())}
    assert (rows["tiny"]["size"], rows["tiny"]["upsampler"]) == ("64x64", "back-projection")
    assert rows["tiny-stack"]["upsampler"] == "tiny_upsampler"
    assert rows["tiny-stack"]["upsampler_temperature"] == 0.9
