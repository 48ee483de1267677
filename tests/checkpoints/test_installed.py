"""A file in the place of a published checkpoint that is another one, put there by hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adm_cli.checkpoints import cache, converting, fetching, finding
from adm_cli.checkpoints.finding import check_is, find_weights
from adm_cli.checkpoints.header import ModelInfo, read_model_file
from adm_cli.checkpoints.loading import build_model, load_model
from adm_cli.checkpoints.presets import CHECKPOINTS, Checkpoint, Preset
from adm_cli.doctor import examine
from adm_cli.errors import CheckpointError, UsageError
from tests.conftest import (
    TOY_CLASSIFIER,
    TOY_DIFFUSION,
    TOY_UNET,
    Result,
    Toys,
    randomise,
    save_toy,
)

Adm = Callable[..., Result]
ROW = Checkpoint(name="famous", config=TOY_UNET, diffusion=TOY_DIFFUSION, parameters=355_462)
GUIDE = Checkpoint(
    name="famous_guide", config=TOY_CLASSIFIER, diffusion=TOY_DIFFUSION, parameters=1
)
PRESET = Preset(name="famous8", model="famous", classifier="famous_guide", scale=1.0)
DRAW = ("--class", 1, "--steps", 1, "--num", 1, "--device", "cpu")


@pytest.fixture
def place(adm: Adm, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the weights of two published checkpoints are looked for."""
    rows = (CHECKPOINTS[0], ROW, GUIDE)
    for module in (cache, converting, fetching, finding, examine):
        monkeypatch.setattr(module, "CHECKPOINTS", rows)
    for module in (converting, fetching, finding):
        monkeypatch.setattr(module, "find_checkpoint", {row.name: row for row in rows}.__getitem__)
    monkeypatch.setattr(finding, "PRESETS", (PRESET,))
    folder = Path("home/models").absolute()
    folder.mkdir(parents=True)
    return folder


def other_settings(place: Path, _toys: Toys) -> None:
    save_toy(place / "famous.safetensors", replace(TOY_UNET, model_channels=64))


def a_classifier(place: Path, toys: Toys) -> None:
    shutil.copy(toys.classifier, place / "famous.safetensors")


def of_nobody(place: Path, toys: Toys) -> None:
    shutil.copy(toys.model, place / "famous.safetensors")


def a_fine_tune(place: Path, toys: Toys) -> None:
    torch.save(load_model(toys.model).state_dict(), "dogs.pt")
    made = converting.convert("dogs.pt")
    assert made.path == Path("dogs.safetensors")
    shutil.move(made.path, place / "famous.safetensors")


OTHERS: dict[str, tuple[Callable[[Path, Toys], None], str]] = {
    "other settings": (other_settings, "its settings are another model's"),
    "a classifier": (a_classifier, "it holds a classifier model"),
    "of nobody": (of_nobody, "it does not say what it was made of"),
    "a fine-tune": (a_fine_tune, "it was converted from 'dogs.pt' as another model"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_model_is_not_taken(adm: Adm, toys: Toys, place: Path, other: str) -> None:
    """All of these were drawn with, by the name, the defaults and the terms of the published."""
    put, why = OTHERS[other]
    put(place, toys)
    path = place / "famous.safetensors"
    before = path.read_bytes()
    for command in (
        ("sample", "--model", "famous", "--scale", 0, *DRAW),
        ("sample", "--model", "famous8", "--scale", 0, *DRAW),
        ("info", "famous"),
        ("fetch", "famous", "--offline"),
        ("export", "famous", "x.pt", "--to", "original"),
    ):
        done = adm(*command)
        assert (done.code, done.out) == (1, ""), command
        assert f"{path} is not the published famous: {why}; move it elsewhere" in done.err
    told = adm("cache", "verify", "famous")
    assert (told.code, "BROKEN: " in told.out, why in told.out) == (1, True, True)
    assert path.read_bytes() == before


def test_its_own_path_is_taken(adm: Adm, toys: Toys, place: Path) -> None:
    of_nobody(place, toys)
    moved = shutil.move(place / "famous.safetensors", "mine.safetensors")
    assert adm("sample", "--model", moved, "--scale", 0, *DRAW).code == 0


def test_relatives(adm: Adm, toys: Toys, place: Path) -> None:
    """The classifier, the weak model, what measures: whoever asks by a name."""
    shutil.copy(toys.classifier, place / "famous_guide.safetensors")
    of_nobody(place, toys)
    for command, name in (
        (("sample", "--model", toys.model, "--classifier", "famous_guide", *DRAW), "_guide"),
        (
            (
                "sample",
                "--model",
                toys.model,
                "--scale",
                0,
                "--weak-model",
                "famous",
                "--weak-scale",
                2,
                *DRAW,
            ),
            "",
        ),
        (("evaluate-classifier", ".", "--classifier", "famous_guide"), "_guide"),
        (("upsample", ".", "--model", "famous"), ""),
        (("nll", ".", "--model", "famous"), ""),
        (("bench", "--model", "famous"), ""),
    ):
        done = adm(*command)
        assert (done.code, done.out) == (1, ""), (command, done)
        assert f"is not the published famous{name}: it does not say" in done.err, command


def test_what_was_taken_for_it_is(adm: Adm, toys: Toys, place: Path) -> None:
    """As `adm fetch` takes it, and `adm convert --preset`, which says so."""
    torch.save(load_model(toys.model).state_dict(), "any.pt")
    made = converting.convert("any.pt", preset="famous")
    assert made.path == place / "famous.safetensors"
    assert made.info.source["checkpoint"] == "famous"
    assert find_weights("famous8").content_sha256 == made.content_sha256
    assert adm("sample", "--model", "famous", "--scale", 0, *DRAW).code == 0
    assert "whole" in adm("cache", "verify", "famous").out


def test_known_by_the_hash_of_the_original(toys: Toys) -> None:
    file = read_model_file(toys.model)
    known = replace(ROW, sha256="ab" * 32)
    check_is(replace(file, info=replace(file.info, source={"sha256": "ab" * 32})), known)
    for source in ({"sha256": "cd" * 32}, {}, {"sha256": "ab" * 32, "file": "x"}):
        info: ModelInfo = replace(file.info, source=source)
        row = ROW if "file" in source else known  # whose hash nobody knows
        with pytest.raises(CheckpointError, match="is not the published famous"):
            check_is(replace(file, info=info), row)


def test_one_that_adm_trained(toys: Toys) -> None:
    file = read_model_file(toys.model)
    with pytest.raises(CheckpointError, match="not the published famous: adm trained it"):
        check_is(replace(file, info=replace(file.info, training={"step": 9})), ROW)


def test_doctor(adm: Adm, toys: Toys, place: Path) -> None:
    of_nobody(place, toys)
    shutil.copy(toys.model, place / "mine.safetensors")
    found = json.loads(adm("doctor", "--json").out)
    (problem,) = found["problems"]
    assert "is not the published famous" in problem["text"]
    assert problem["mend"] == "adm fetch famous --overwrite"
    assert {Path(w["path"]).stem: w["ok"] for w in found["weights"]}["mine"] is True


def test_a_file_here_that_is_called_like_a_preset(adm: Adm, toys: Toys, place: Path) -> None:
    """It was drawn with, by the defaults of the preset."""
    for name in ("famous", "famous8"):
        shutil.copy(toys.model, name)
        assert "are not on this machine" in adm("sample", "--model", name, *DRAW).err
        assert find_weights(f"./{name}").path == Path(name)
    shutil.copy(toys.model, "mine")
    assert find_weights("mine").path == Path("mine")
    with pytest.raises(UsageError, match="neither a preset nor a file"):
        find_weights("nothing")


def test_a_null_class_makes_another_model_of_it(adm: Adm, place: Path) -> None:
    state = dict(randomise(build_model(TOY_UNET)).state_dict())
    torch.save(state, "any.pt")
    made = converting.convert("any.pt", preset="famous", null_class=True)
    assert made.path == Path("any.safetensors")
    assert "checkpoint" not in made.info.source
