"""What the training and judging commands make of people's sets of pictures, and say of it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adm_cli.checkpoints.class_names import read_classes as read_class_names
from adm_cli.sampling.choosing.select import read_class_list
from tests.conftest import Result, Toys
from tests.pictures.test_depth import png16, ramp
from tests.training.conftest import draw_pictures

Adm = Callable[..., Result]
UNMEASURED = ("--batch-size", 100_000, "--dry-run", "--json")  # more memory than there is


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Splits of a set with two classes: 8 to train, 4 to validate, 2 to test."""
    folder = tmp_path_factory.mktemp("parts")
    for split, count in (("Train", 4), ("val", 2), ("test", 1)):
        draw_pictures(folder / split, count=count)
    return folder


def dry(adm: Adm, *arguments: object) -> tuple[dict[str, Any], list[str]]:
    done = adm("train-diffusion", *arguments, *UNMEASURED)
    assert done.code == 0, done.err
    return json.loads(done.out), done.err.splitlines()


def test_splits_are_used_and_said_once(adm: Adm, parts: Path) -> None:
    facts, lines = dry(adm, parts)
    assert (facts["pictures"], facts["validation_pictures"]) == (8, 4)
    assert facts["classes"] == "0 circle (4), 1 square (4)"
    assert "adm: splits: Train (8) to train, val (4) to validate, test (2) left out" in lines
    assert len(lines) == len(set(lines))
    assert not adm("train-diffusion", parts, *UNMEASURED, "-q").err


def test_another_validation_set_than_the_split(adm: Adm, parts: Path) -> None:
    facts, lines = dry(adm, parts, "--val", parts / "test")
    assert (facts["pictures"], facts["validation_pictures"]) == (8, 2)
    left_out = "val (4) left out, test (2) left out (--val FOLDER uses it)"
    assert any(line.endswith(left_out) for line in lines)
    facts, lines = dry(adm, parts, "--val-split", 0.25)
    assert (facts["pictures"], facts["validation_pictures"]) == (6, 2)
    facts, _ = dry(adm, parts / "Train", "--val", parts)
    assert (facts["pictures"], facts["validation_pictures"]) == (8, 4)


def test_a_split_that_cannot_be_used(adm: Adm, parts: Path, tmp_path: Path) -> None:
    shutil.copytree(parts, "p")
    shutil.rmtree("p/val/square")
    Path("p/val/circle").rename("p/val/hexagon")
    facts, lines = dry(adm, "p")
    assert facts["validation_pictures"] == 0
    assert any("not used to validate: the validation pictures have 1 class" in x for x in lines)
    assert any(x.endswith("val (2) left out, test (2) left out") for x in lines)  # no --val helps
    shutil.rmtree("p/Train")
    refused = adm("train-diffusion", "p")
    assert refused.code == 2
    assert "p has val (2), test (2) and no train: name one folder to train on" in refused.err


def test_numbers_mean_the_same_alone_and_in_lists(adm: Adm, parts: Path) -> None:
    for name in ("0", "1", "2", "10", "unknown"):
        shutil.copytree(parts / "test" / "circle", Path("p") / name)
    for spec, classes in (
        ("2", "2 2 (1)"),
        ("2,0", "0 0 (1), 2 2 (1)"),
        ("10,0", "0 0 (1), 10 10 (1)"),
        ("unknown,10", "10 10 (1), 11 unknown (1)"),
    ):
        assert dry(adm, "p", "--class", spec)[0]["classes"] == classes


def test_twelve_bits(adm: Adm) -> None:
    Path("p").mkdir()
    for i in range(3):
        Path(f"p/{i}.png").write_bytes(png16(ramp(4095, 8, 8)))
    said = "adm: 16-bit files with values up to 4095: 4095 is white (or --value-range)"
    assert said in dry(adm, "p")[1]
    assert said not in dry(adm, "p", "--value-range", 65535)[1]
    short = ("--size", 8, "--set", "num_res_blocks=1", "--set", "channel_mult=1,1", "--steps", 1)
    assert adm("train-diffusion", "p", *short, "--batch-size", 2, "--out", "run", "-q").code == 0
    settings = json.loads(Path("run/settings.json").read_text())
    assert settings["data"]["value_range"] == [0, 4095]
    other = adm("train-diffusion", "--resume", "--out", "run", "--value-range", 65535)
    assert other.code == 2
    assert "value_range 0,4095 -> 0,65535" in other.err


def test_home(adm: Adm, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    shutil.copytree(parts / "Train", tmp_path / "home" / "photos")
    (tmp_path / "home" / "labels.csv").write_text(
        "".join(f"{kind}/{i},x{i}\n" for kind in ("circle", "square") for i in range(4))
    )
    facts, _ = dry(adm, "~/photos", "--val=~/photos", "--labels=~/labels.csv")
    assert facts["classes"].startswith("0 x0 (2), 1 x1 (2)")
    refused = adm("reference", "~/photos", "--out=~/x.txt")
    assert str(tmp_path / "home" / "x.txt") in refused.err
    assert not os.path.exists("~")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [" ", "\t", ";", " ; "])
def test_lists_of_classes_are_read_alike(
    tmp_path: Path, encoding: str, end: str, separator: str
) -> None:
    rows = (["# a list"], ["3", "5-6", "2"], ["'great white shark'", "7"], ["circle"])
    text = end.join(separator.join(row) for row in rows)
    (tmp_path / "list").write_bytes(text.encode(encoding))
    lines = [line[1:] for line in read_class_list(tmp_path / "list")]
    assert lines == [
        ("3", [range(5, 7)], 2.0, None),
        ("great white shark", [range(7, 8)], None, None),
        ("circle", None, None, None),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [" ", "\t", ";", ", "])
def test_lists_of_class_names_are_read_alike(tmp_path: Path, encoding: str, separator: str) -> None:
    text = f"4{separator}star fish\r\n\r\n0{separator}circle\r\n"
    (tmp_path / "names").write_bytes(text.encode(encoding))
    assert read_class_names(f"@{tmp_path}/names") == {4: "star fish", 0: "circle"}


def test_a_judge_says_what_it_guesses(adm: Adm, toys: Toys, parts: Path) -> None:
    done = adm("nll", parts, "--model", toys.model, "--class", "square", "--steps", 1, "--num", 1)
    assert done.code == 0, done.err
    assert done.err.count("splits, used together: Train (8), val (4), test (2)") == 1


def test_statistics_without_images(adm: Adm, parts: Path, toys: Toys) -> None:
    np.savez("stats.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    refused = adm("evaluate", parts / "test", "--ref", "stats.npz", "--features", toys.classifier)
    assert refused.code == 2
    assert "stats.npz holds Inception's statistics only: leave out --features" in refused.err
    refused = adm("reference", "stats.npz", "-o", "x.safetensors", "--features", toys.classifier)
    assert refused.code == 2
    assert "holds statistics and no images: adm evaluate --ref takes it" in refused.err
