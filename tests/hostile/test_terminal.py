"""Escape sequences, lines and markup in what files say of themselves reach no terminal as such.

Names of files are checked in errors; texts of files wherever a command shows them. Markup that rich
would obey must be there as it is written, so that no link or colour is made of it.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adm_cli.checkpoints.header import ModelInfo
from adm_cli.files.manifests import render_line
from tests.conftest import TOY_CLASSIFIER, TOY_DIFFUSION, TOY_UNET, Toys, save_toy
from tests.hostile.files import weights
from tests.hostile.sandbox import Arguments, harmless, refused
from tests.hostile.test_arrays import WHOLE
from tests.hostile.test_pictures import GOOD_ZIP, RECIPE, TRAIN, labelled, with_recipe
from tests.hostile.test_runs import RUNS
from tests.hostile.test_weights import FLAGS, toy_state

MARKUP = "[red]x[/red][link=file:///etc/passwd]y[/link][/]"
CLASSES = {0: MARKUP, 1: "[/nothing]", 3: ":skull: [bold"}
ESCAPES = [
    "\x1b[2J", "\x1b]0;title\x07", "\x1b]8;;http://x\x1b\\y", "\x9b2J", "\x90q\x9c", "a\nb", "a\rb",
    "\x08\x08", "\x7f", "\u202ex", "\u2066x", "\u2028x", "\x85x", "\ufeffx", "\udcffx", MARKUP,
]  # fmt: skip


@pytest.mark.parametrize("part", range(4))
def test_names_in_errors(folder: Path, toys: Toys, part: int) -> None:
    """Of files that are not there, and of files that are no good."""
    escape = "".join(ESCAPES[part::4])
    stem = os.fsencode(escape.replace("/", "|")).decode("utf-8", "surrogateescape")
    ends = (".png", ".npz", ".zip", ".safetensors", ".pt", "")
    for end in ends:
        (folder / f"{stem}{end}").write_bytes(b"x")
    (folder / "good.npz").write_bytes(WHOLE)
    (folder / "good.zip").write_bytes(GOOD_ZIP)
    judge: Arguments = ["--features", toys.classifier, "--device", "cpu", "--quiet"]
    commands: list[Arguments] = []
    for name in (stem, f"{stem}gone"):
        commands += [
            ["info", "--", f"{name}.png"], ["repro", "--", f"{name}.png"],
            ["info", "--", f"{name}.safetensors"],
            ["convert", "--flags", FLAGS, "-o", "new.safetensors", "--", f"{name}.pt"],
            ["upsample", "--model", toys.upsampler, "--dry-run", "--", f"{name}.npz"],
            ["evaluate", "--ref", "good.npz", *judge, "--", f"{name}.zip"],
            ["evaluate", f"--ref={name}.safetensors", *judge, "good.npz"],
            ["evaluate", "--ref", "good.npz", f"--inception={name}.pt", "good.npz"],
            ["reference", "-o", "new.safetensors", *judge, "--", f"{name}.npz"],
            ["nll", "--model", toys.model, "--", f"{name}.zip"],
            ["evaluate-classifier", "--classifier", toys.classifier, "--", f"{name}.zip"],
            ["train-classifier", *TRAIN[2:], "--", f"{name}.zip"],
            ["train-classifier", "good.zip", *TRAIN[2:], f"--labels={name}x", "--dry-run"],
            ["sample", "--model", toys.model, f"--classes-file={name}x", "--scale", 0],
            ["merge", "--output", "new.zip", "--", f"{name}x"],
            ["fetch", "imagenet64", f"--from={name}x"], ["fetch", "--", f"{name}x"],
            ["classes", "--", f"{name}x"], [f"{name}x"], ["sample", f"--{name}x"],
        ]  # fmt: skip
    refused(folder, *commands)


@pytest.fixture
def model(folder: Path) -> Path:
    """A model and a classifier whose classes have names of markup."""
    save_toy(folder / "classifier.safetensors", TOY_CLASSIFIER, CLASSES)
    return save_toy(folder / "model.safetensors", TOY_UNET, CLASSES)


def test_names_of_classes(folder: Path, model: Path) -> None:
    for i, name in enumerate(("0", "1", "3")):
        (folder / "set" / name).mkdir(parents=True)
        for k in range(2):
            pixels = np.full((8, 8, 3), 40 * i + k, np.uint8)
            Image.fromarray(pixels).save(folder / "set" / name / f"{k}.png")
    sample: Arguments = ["sample", "--model", model, "--scale", 0, "--device", "cpu", "--steps", 1]
    shown: list[Arguments] = [
        ["classes", "--model", model],
        [*sample, "--dry-run", "--class", "0"],
        [*sample, "--class", "2"],
        ["info", model],
        ["evaluate-classifier", "set", "--classifier", "classifier.safetensors", "--timesteps", 1],
    ]
    found = harmless(folder, *shown)
    for command, done in zip(shown, found, strict=True):
        assert MARKUP in done.out + done.err, (command, done)
    labelled(folder / "other")
    shutil.move(folder / "other" / "cat", folder / "other" / MARKUP.replace("/", "|"))
    train: Arguments = [TRAIN[0], "other", *TRAIN[2:], "--dry-run"]
    (done,) = harmless(folder, train, codes=(0,))
    assert MARKUP.replace("/", "|") in done.out


def test_recipes(folder: Path, model: Path) -> None:
    """Every text of a recipe, by all that read one."""
    commands: list[Arguments] = []
    for i, escape in enumerate(ESCAPES):
        said = json.dumps({**RECIPE, "class_name": escape, "model": escape, escape: [escape]})
        for suffix in (".png", ".webp"):
            path = with_recipe(folder / f"{i}{suffix}", said)
            commands += [["info", path], ["repro", path]]
    found = harmless(folder, *commands)
    for command, done in zip(commands, found, strict=True):
        if command[0] == "info":
            # the name of its class, and two commands: to make it, or more of its like
            assert len(done.out.splitlines()) == len(RECIPE) + 3, (command, done)
    assert sum(MARKUP in done.out for done in found) == 2


def test_weights(folder: Path) -> None:
    said = json.dumps({escape: {"x": [escape, {escape: escape}]} for escape in ESCAPES})
    info = ModelInfo(TOY_UNET, TOY_DIFFUSION, CLASSES)
    path = weights(folder / "x.safetensors", info, toy_state(), training=said, source=said)
    (done,) = harmless(folder, ["info", path], codes=(0,))
    (plain,) = harmless(folder, ["info", save_toy(folder / "y.safetensors", TOY_UNET)], codes=(0,))
    assert len(done.out.splitlines()) == len(plain.out.splitlines())
    assert done.out.count(MARKUP) == 1 + 2 * 4  # the class's, and those of training and source


def test_runs(folder: Path, toys: Toys) -> None:
    """A run that someone else made: what it says of its settings, and strangers in its folder."""
    sample: Arguments = [
        "sample", "--model", toys.model, "--scale", 0, "--num", 1, "--class", "1", "--steps", 1,
        "--device", "cpu", "--quiet", "--out",
    ]  # fmt: skip
    harmless(folder, [*sample, "run"], codes=(0,))
    for escape in ESCAPES:
        name = escape.replace("/", "|")
        (folder / "run" / f"{name}.png").write_bytes(b"x")
        (folder / "run" / f".adm-{name}.tmp").write_bytes(b"x")
    line = render_line({"file": "x.png", "bytes": 1, "sha256": "\x1b[2J", "class": "\x1b[2J"})
    with (folder / "run" / "manifest.jsonl").open("ab") as file:
        file.write(line + b"\x1b[2J\n")
    (folder / "hidden").mkdir()
    (folder / "hidden" / "run.json").write_bytes(RUNS["control"])
    harmless(
        folder,
        ["verify", "run"],
        ["verify", "run", "--json"],
        ["merge", "run", "--output", "new.zip"],
        ["verify", "hidden"],
        [*sample, "run", "--scale", 2],
        [*sample, "run"],
    )
