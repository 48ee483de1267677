"""`--no-metadata`: pictures without their recipes, and a run's folder that still knows all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adm_cli.files.own import is_own
from adm_cli.pictures.images import open_picture
from adm_cli.sampling.choosing.image_names import class_word
from tests.conftest import Result, Toys

Run = Callable[..., Result]


@pytest.mark.parametrize("format", ["png", "webp"])
def test_the_same_values_and_no_recipe(draw: Run, adm: Run, format: str) -> None:
    asked = ("--class", 3, "--num", 2, "--format", format)
    bare = [Path(file) for file in draw(*asked, "--no-metadata", "--out", "bare").out.split()]
    told = [Path(file) for file in draw(*asked, "--out", "told").out.split()]
    for without, within in zip(bare, told, strict=True):
        assert without.name == within.name
        pixels, recipe = open_picture(without)
        assert recipe is None
        assert np.array_equal(pixels, open_picture(within)[0])
        assert is_own(without)
        data = without.read_bytes()
        assert not any(word in data for word in (b"seed", b"toy", b"star", b"sampler"))
    assert json.loads(Path("bare/run.json").read_text())["metadata"] is False
    assert "metadata" not in json.loads(Path("told/run.json").read_text())
    assert adm("verify", "bare").code == 0


def test_going_on(draw: Run) -> None:
    """As the run was begun, unless something else is asked for."""
    asked = ("--class", 3, "--out", "run")
    draw(*asked, "--num", 1, "--no-metadata")
    later = Path(draw(*asked, "--num", 2).out.split()[1])
    assert open_picture(later)[1] is None
    draw("--class", 3, "--num", 1, "--out", "told")
    done = draw("--class", 3, "--num", 2, "--out", "told", "--no-metadata")
    assert done.code == 1
    assert "told holds a run with other settings: metadata none -> False" in done.err


def test_a_lost_image_is_drawn_again_without(draw: Run, adm: Run, toys: Toys) -> None:
    """Also where its line is lost: it is known to be adm's."""
    file = Path(draw("--class", 3, "--num", 1, "--no-metadata", "--out", "run").out.strip())
    before = file.read_bytes()
    models = ("--model", toys.model, "--classifier", toys.classifier)
    file.unlink()
    assert adm("verify", "run", "--repair", *models).code == 0
    assert file.read_bytes() == before
    Path("run/manifest.jsonl").unlink()
    assert draw("--class", 3, "--num", 1, "--out", "run").code == 0
    assert file.read_bytes() == before


def test_the_folder_is_where_to_look(draw: Run, adm: Run) -> None:
    file = draw("--class", 3, "--num", 1, "--no-metadata", "--out", "run").out.strip()
    facts = json.loads(adm("info", file, "--json").out)
    assert facts["kind"] == "image without a recipe, of a run of adm sample"
    assert (facts["class"], facts["seed"], facts["scale"]) == (3, 0, 1.0)
    shown = adm("info", file).out.splitlines()
    assert shown[:2] == [f"{'file':22} {file}", f"{'kind':22} {facts['kind']}"]
    done = adm("repro", file)
    assert (done.code, len(done.err.splitlines())) == (1, 1)
    assert f"{file} carries no recipe, its run's folder has it: adm info run shows it" in done.err
    Path(file).rename("published.png")
    done = adm("info", "published.png")
    assert done.code == 1
    assert "was drawn with --no-metadata, and the folder" in done.err
    Image.new("RGB", (8, 8)).save("photo.png")
    assert "was not made by adm, or was re-saved" in adm("info", "photo.png").err


def test_sheets_and_pages_know_classes_and_seeds(draw: Run, adm: Run) -> None:
    """From the names of files, and from the manifest."""
    asked = ("--class", "1,3", "--seeds", "4-5", "--grid")
    draw(*asked, "--no-metadata", "--out", "bare")
    draw(*asked, "--out", "told")
    bare, told = (open_picture(Path(f"{run}/grid.png"))[0] for run in ("bare", "told"))
    assert np.array_equal(bare, told)
    done = adm("gallery", "bare", "--output", "page.html", "--json")
    assert json.loads(done.out)["pictures"] == 4
    page = Path("page.html").read_text()
    assert '"seed"' in page


def test_of_a_stack_the_kept_small_pictures_too(draw: Run, toys: Toys, adm: Run) -> None:
    stack = ("--upsampler", toys.upsampler, "--upsample-steps", 2, "--keep-base")
    file = draw("--class", 3, "--num", 1, *stack, "--no-metadata", "--out", "run").out.strip()
    small = Path("run/base", Path(file).name)
    assert open_picture(Path(file))[1] is None
    assert open_picture(small)[1] is None
    done = adm("upsample", "run/base", "--model", toys.upsampler, "--steps", 2, "--device", "cpu",
               "--no-metadata", "--out", "large")  # fmt: skip
    assert open_picture(Path(done.out.strip()))[1] is None
    dry = adm("upsample", "run/base", "--model", toys.upsampler, "--no-metadata", "--dry-run",
              "--json")  # fmt: skip
    assert json.loads(dry.out)["metadata"] is False


@pytest.mark.parametrize(
    ("file", "word"),
    [
        ("0207_golden-retriever_seed000000.png", "golden retriever"),
        ("0207_golden-retriever_scale2.5_cfg3_seed000000.png", "golden retriever"),
        ("class0207_seed000001.webp", ""),
        ("seed000001.png", ""),
        ("grid.png", ""),
    ],
)
def test_class_word(file: str, word: str) -> None:
    assert class_word(file) == word
