"""`adm repro FOLDER`: all images of a run again, or what differs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import adm_cli
from adm_cli.files.sealed import seal
from adm_cli.pictures.images import open_picture, save_image
from adm_cli.sampling.recipes.repro import Reproduction
from tests.conftest import Result, Toys, pictures

Run = Callable[..., Result]


@pytest.fixture
def again(adm: Run, toys: Toys) -> Run:
    """`adm repro run` with the toy models."""

    def call(*arguments: object) -> Result:
        models = ("--model", toys.model, "--classifier", toys.classifier)
        return adm("repro", "run", *models, *arguments)

    return call


def brighten(path: Path, by: int, recipe: bool = True) -> None:
    """One value of a picture, in its middle range."""
    pixels, found = open_picture(path)
    changed = pixels.copy()
    place = np.unravel_index(np.abs(changed.astype(int) - 128).argmin(), changed.shape)
    changed[place] += by
    save_image(path, changed, found if recipe else None)


def test_identical(draw: Run, again: Run) -> None:
    """Whatever the batches were, with recipes or without; nothing is written."""
    draw("--class", "1,3", "--seeds", "0-2", "--out", "run", "--batch-size", 4, "--no-metadata")
    before = pictures("run")
    done = again()
    assert (done.code, done.out) == (
        0, "6 of 6 identical, 0 within rounding (1 of 255), 0 different\n",
    )  # fmt: skip
    assert pictures("run") == before
    few = json.loads(again("--num", 2, "--json").out)
    assert (few["identical"], few["images"], few["images_identical"]) == (True, 2, 2)


def test_what_differs(draw: Run, again: Run) -> None:
    files = draw("--class", 3, "--seeds", "0-2", "--out", "run").out.split()
    brighten(Path(files[0]), 1)
    rounded = again()
    assert (rounded.code, rounded.out) == (
        0,
        "2 of 3 identical, 1 within rounding (1 of 255), 0 different, by at most 1 of 255\n",
    )
    brighten(Path(files[2]), 5)
    Path(files[1]).write_bytes(b"no picture" + Path(files[1]).read_bytes()[10:])
    done = again("--json")
    assert done.code == 1
    found = json.loads(done.out)
    assert found == {
        "identical": False, "images": 3, "images_identical": 0, "images_rounded": 1,
        "images_different": 2, "largest_difference": 5,
        "first_different": Path(files[1]).name, "inputs_that_differ": [],
    }  # fmt: skip
    assert f"the first that is different: {Path(files[1]).name}" in again().err


def test_versions_that_changed_are_told_where_something_differs(draw: Run, again: Run) -> None:
    files = draw("--class", 3, "--num", 2, "--out", "run").out.split()
    book = json.loads(Path("run/run.json").read_text())
    del book["sha256"]
    book["versions"]["torch"] = "1.0"
    body = json.dumps(book, indent=2)[:-2] + ",\n"
    for name in ("run.json", ".run.json.copy"):
        Path("run", name).write_bytes(seal(body.encode()))
    assert again().err == ""
    brighten(Path(files[0]), 1)
    assert "since the run was begun, this has changed: torch 1.0 -> " in again().err


def test_a_stack(adm: Run, toys: Toys) -> None:
    models = ("--model", toys.model, "--classifier", toys.classifier, "--upsampler")
    how = ("--steps", 2, "--upsample-steps", 2, "--device", "cpu", "--class", 3, "--num", 2)
    for upsampler, again in (("bicubic", ()), (toys.upsampler, ("--upsampler", toys.upsampler))):
        out = f"of-{Path(upsampler).stem}"
        steps = how if again else how[:2] + how[4:]
        assert adm("sample", *models, upsampler, *steps, "--out", out).code == 0
        done = adm("repro", out, *models[:4], *again)
        assert done.out.startswith("2 of 2 identical"), (done.out, done.err)


def test_small_pictures_that_come_first_are_kept_nowhere(
    adm: Run, toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = ("--model", toys.model, "--classifier", toys.classifier, "--upsampler", toys.upsampler)
    how = ("--steps", 2, "--upsample-steps", 2, "--device", "cpu", "--class", 3, "--num", 2)
    assert adm("sample", *models, *how, "--out", "run").code == 0
    before = sorted(path.name for path in Path("run").iterdir())
    monkeypatch.setattr("adm_cli.sampling.drawing.models.fit_together", lambda *_args: False)
    done = adm("repro", "run", *models)
    assert "both stages do not fit into memory at once" in done.err
    assert done.out.startswith("2 of 2 identical")
    assert sorted(path.name for path in Path("run").iterdir()) == before


def test_edits_need_their_pictures(draw: Run, again: Run, adm: Run, toys: Toys) -> None:
    photo = draw("--class", 3, "--num", 1, "--out", "photos").out.strip()
    models = ("--model", toys.model, "--classifier", toys.classifier)
    how = ("--steps", 2, "--device", "cpu", "--class", 1, "--out", "run", "--no-upsample")
    assert adm("edit", photo, *models, *how).code == 0
    assert again().code == 0
    Path(photo).rename("elsewhere.png")
    gone = again()
    assert gone.code == 2
    assert "is gone or has changed: pass what holds that picture with --input" in gone.err
    assert again("--input", "elsewhere.png").code == 0


def test_wrong_usage(draw: Run, again: Run, adm: Run) -> None:
    file = draw("--class", 3, "--num", 2, "--out", "run").out.split()[0]
    for options, words in (
        (("--num", 3), "--num 3: expected 1 to 2, the images of run"),
        (("--num", 0), "--num 0: expected 1 to 2"),
        (("--output", "x.png"), "--output is of one picture, and run is a folder"),
    ):
        done = again(*options)
        assert (done.code, len(done.err.splitlines())) == (2, 1)
        assert words in done.err
    assert "--num is of a run's folder" in adm("repro", file, "--num", 1).err
    assert "pass their file with --model" in adm("repro", "run").err


def test_from_python(draw: Run, toys: Toys) -> None:
    files = draw("--class", 3, "--num", 2, "--out", "run").out.split()
    assert adm_cli.repro("run", toys.model, toys.classifier).identical
    found = adm_cli.repro(files[0], toys.model, toys.classifier)
    assert isinstance(found, Reproduction)
    assert found.identical
