"""`--dry-run` of commands that make one file: what it would be, and nothing is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Result, Toys
from tests.training.conftest import draw_pictures

Run = Callable[..., Result]


def near(found: int, wanted: int) -> bool:
    return abs(found - wanted) < 0.1 * wanted + 2000


def test_reference(adm: Run, toys: Toys) -> None:
    photos = draw_pictures(Path("photos"), count=5)
    asked = (
        "reference",
        photos,
        "--features",
        toys.classifier,
        "--out",
        "x.safetensors",
        "--resize",
        8,
    )
    dry = adm(*asked, "--dry-run", "--json")
    assert (dry.code, dry.err) == (0, "")
    assert not Path("x.safetensors").exists()
    facts = json.loads(dry.out)
    made = json.loads(adm(*asked, "--json").out)
    assert (facts["images"], facts["out"]) == (made["images"], made["path"])
    assert near(facts["output_bytes"], Path("x.safetensors").stat().st_size)
    assert facts["seconds"] >= 0
    refused = adm(*asked, "--dry-run")
    assert (refused.code, refused.out) == (1, "")
    assert "exists already" in refused.err
    shown = adm(*asked, "--dry-run", "--overwrite").out
    assert [line.split()[0] for line in shown.splitlines()] == [
        "out", "images", "feature_passes", "time", "memory", "output", "device",
    ]  # fmt: skip


@pytest.mark.parametrize(("to", "name"), [("original", "x.pt"), ("diffusers", "folder")])
def test_export(adm: Run, toys: Toys, to: str, name: str) -> None:
    dry = adm("export", toys.model, name, "--to", to, "--dry-run", "--json")
    assert dry.code == 0, dry.err
    assert not Path(name).exists()
    made = adm("export", toys.model, name, "--to", to, "--json")
    assert json.loads(dry.out) == json.loads(made.out)
    files = [Path(name)] if Path(name).is_file() else list(Path(name).rglob("*.safetensors"))
    assert near(json.loads(dry.out)["output_bytes"], sum(file.stat().st_size for file in files))
    assert "exists already" in adm("export", toys.model, name, "--to", to, "--dry-run").err


def test_gallery(adm: Run) -> None:
    photos = draw_pictures(Path("photos"), count=60)
    asked = ("gallery", photos, "--output", "page.html")
    dry = json.loads(adm(*asked, "--dry-run", "--json").out)
    assert not Path("page.html").exists()
    made = json.loads(adm(*asked, "--json").out)
    assert dry["pictures"] == made["pictures"] > 100
    assert abs(dry["bytes"] - made["bytes"]) < 0.2 * made["bytes"]
    shown = adm("gallery", photos, "--output", "other.html", "--dry-run").out
    assert shown.splitlines()[1].split() == ["pictures", str(made["pictures"])]


def test_nll_finds_what_the_run_would(adm: Run, toys: Toys) -> None:
    photos = draw_pictures(Path("photos"), count=2)
    Path("taken.csv").write_text("mine")
    asked = ("nll", photos, "--model", toys.model)
    for out, word in (("x.txt", "ends in .csv"), ("taken.csv", "exists already")):
        dry, run = adm(*asked, "-o", out, "--dry-run"), adm(*asked, "-o", out)
        assert (dry.code, dry.err) == (run.code, run.err)
        assert word in dry.err, dry.err


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--out", "file/run"), "file"),
        (("--fresh",), "--fresh begins anew in --out"),
        (("--save-dtype", "int8"), "--save-dtype int8: expected"),
    ],
    ids=["out", "fresh", "save-dtype"],
)
def test_training_finds_what_the_run_would(
    adm: Run, options: tuple[str, ...], word: str, quick_training: None
) -> None:
    photos = draw_pictures(Path("photos"), count=2)
    Path("file").write_text("mine")
    asked = ("train-classifier", photos, "--size", 8, "--steps", 1, *options)
    dry, run = adm(*asked, "--dry-run"), adm(*asked)
    assert dry.code == run.code != 0
    assert word in dry.err
    assert word in run.err


def test_a_dry_training_makes_no_folder(adm: Run, quick_training: None) -> None:
    photos = draw_pictures(Path("photos"), count=2)
    asked = ("train-classifier", photos, "--size", 8, "--steps", 1, "--out", "new/run")
    assert adm(*asked, "--dry-run").code == 0
    assert not Path("new").exists()
