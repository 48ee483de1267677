"""Weights that others put in the place of those in use, in each way that a file is replaced."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import adm_cli.sampling.drawing.pipeline as pipeline_module
from adm_cli.checkpoints.finding import find_weights
from adm_cli.checkpoints.loading import load_model
from adm_cli.config import ClassifierConfig, UNetConfig
from adm_cli.errors import CheckpointError
from adm_cli.reports import measure
from tests.conftest import (
    TOY_CLASSIFIER,
    TOY_UNET,
    TOY_UPSAMPLER,
    Result,
    Toys,
    save_toy,
)

Adm = Callable[..., Result]


def copied_over(path: Path, other: Path) -> None:
    """As `cp`: cut to nothing, then written."""
    shutil.copyfile(other, path)


def in_place(path: Path, other: Path) -> None:
    """As `rsync --inplace`."""
    with path.open("r+b") as file:
        file.write(other.read_bytes())


def renamed_over(path: Path, other: Path) -> None:
    """As `mv`, `rsync` and `adm convert --overwrite`."""
    os.replace(shutil.copy(other, f"{other}.new"), path)


def cut(path: Path, other: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


DRAW = ("--num", 2, "--batch-size", 1, "--steps", 1, "--device", "cpu", "--out", "run")
# What is in use, and a command that uses it; {} is its file.
USES: dict[str, tuple[str, ...]] = {
    "the model": ("sample", "--model", "{}", "--class", "star", "--scale", "0"),
    "the classifier": ("sample", "--model", "MODEL", "--class", "star", "--classifier", "{}"),
    "the weak model": (
        "sample", "--model", "MODEL", "--class", "star", "--scale", "0", "--weak-model", "{}",
        "--weak-scale", "2",
    ),
    "the upsampler": ("upsample", "photos", "--model", "{}", "--class", "star", "--seeds", "0,1"),
    "the edited model": (
        "edit", "photos/0001_square_seed000000.png", "--model", "{}", "--class", "star",
    ),
}  # fmt: skip
CONFIGS: dict[str, UNetConfig | ClassifierConfig] = {
    "the classifier": TOY_CLASSIFIER,
    "the upsampler": TOY_UPSAMPLER,
}


@pytest.mark.parametrize("change", [copied_over, in_place, renamed_over, cut])
@pytest.mark.parametrize("what", USES)
def test_pictures(
    adm: Adm, toys: Toys, monkeypatch: pytest.MonkeyPatch, what: str, change: Callable[..., None]
) -> None:
    """After the first picture: the second is of the first weights, and recorded as such."""
    paths = {"the classifier": toys.classifier, "the upsampler": toys.upsampler}
    mine = Path(shutil.copy(paths.get(what, toys.model), "w.safetensors"))
    other = save_toy(Path("other.safetensors"), CONFIGS.get(what, TOY_UNET), seed=9)
    words = [w.replace("{}", str(mine)).replace("MODEL", str(toys.model)) for w in USES[what]]
    photos = ("sample", "--model", toys.model, "--scale", 0, "--class", "square", "--num", 1)
    assert adm(*photos, "--steps", 1, "--device", "cpu", "--out", "photos").code == 0
    draw = DRAW[2:] if what == "the upsampler" else DRAW
    assert adm(*words, *draw).code == 0
    Path("run").rename("expected")
    real, calls = pipeline_module._sample_batch, []

    def changing(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            change(mine, other)
        return real(*arguments)

    monkeypatch.setattr(pipeline_module, "_sample_batch", changing)
    assert adm(*words, *draw).code == 0
    assert len(calls) == 2
    assert files("run") == files("expected")
    again = adm(*words, *draw[:-1], "run")
    assert again.code == 1, again  # it is not gone on with by others
    assert files("run") == files("expected")


@pytest.mark.parametrize("change", [copied_over, in_place, renamed_over, cut])
def test_between_header_and_tensors(
    toys: Toys, tmp_path: Path, change: Callable[..., None]
) -> None:
    """As where a training saves its model while a picture is asked of it: no damage is told of."""
    path = Path(shutil.copy(toys.model, tmp_path))
    other = save_toy(tmp_path / "other.safetensors", TOY_UNET, seed=9)
    file = find_weights(path)
    change(path, other)
    advice = "convert or download it again" if change is cut else "run the same command again"
    told = "is damaged" if change is cut else "holds other weights than when its header was read"
    with pytest.raises(CheckpointError, match=f"{told}.*while it was read: {advice}"):
        load_model(file)


def files(folder: str) -> dict[str, bytes]:
    names = [p for p in Path(folder).iterdir() if p.suffix in (".png", ".jsonl")]
    return {path.name: path.read_bytes() for path in names}


@pytest.mark.parametrize("change", [copied_over, in_place, renamed_over, cut])
def test_a_judge(
    adm: Adm, toys: Toys, monkeypatch: pytest.MonkeyPatch, change: Callable[..., None]
) -> None:
    mine = Path(shutil.copy(toys.classifier, "judge.safetensors"))
    other = save_toy(Path("other.safetensors"), TOY_CLASSIFIER, seed=9)
    draw = ("sample", "--model", toys.model, "--scale", 0, "--class", "0,1,3", "--num", 2)
    assert adm(*draw, "--steps", 1, "--device", "cpu", "--out", "photos").code == 0
    judge = ("evaluate", "photos", "--judge", mine, "-b", 2, "--device", "cpu", "--json")
    expected = adm(*judge)
    assert expected.code == 0, expected
    real, calls = measure.run_network, []

    def changing(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            change(mine, other)
        return real(*arguments)

    monkeypatch.setattr("adm_cli.reports.agreement.run_network", changing)
    done = adm(*judge)
    assert (done.code, len(calls) > 1) == (0, True)
    assert without_time(done.out) == without_time(expected.out)


def without_time(text: str) -> dict[str, Any]:
    found = json.loads(text)
    return {name: value for name, value in found.items() if "second" not in name}
