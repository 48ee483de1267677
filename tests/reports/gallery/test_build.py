"""Pictures of runs, sweeps and folders, gathered into one page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import adm_cli
from adm_cli.commands import gallery as command
from adm_cli.errors import OutputError, UsageError
from adm_cli.events import Note
from adm_cli.pictures.images import save_image
from adm_cli.reports.gallery.build import THUMBNAIL, recipe_facts
from tests.reports.gallery.test_page import data_of

RECIPE = {"class": 1, "class_name": "goldfish", "seed": 7, "scale": 2.0, "sampler": "ddim",
          "num_steps": 10, "eta": None, "model": "toy", "model_sha256": "0" * 64,
          "size": [8, 8], "adm": "1"}  # fmt: skip


def draw(path: Path, **recipe: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(path, np.zeros((8, 8, 3), np.uint8), {**RECIPE, **recipe})


def test_what_made_a_picture_tells_it_apart() -> None:
    alone = recipe_facts(RECIPE)
    assert (alone["class"], alone["seed"], alone["scale"]) == ("1 goldfish", 7, 2.0)
    assert (alone["cfg"], alone["steps"], alone["model"]) == (1.0, 10, "toy")
    enlarged = recipe_facts({"model": "bicubic", "seed": None, "base": RECIPE})
    assert enlarged == {**alone, "upsampler": "bicubic"}
    assert recipe_facts(None) == {}
    assert recipe_facts({"seed": ["x"], "class": None})["seed"] is None  # whoever wrote that


def test_a_run_without_its_grid(tmp_path: Path) -> None:
    draw(tmp_path / "run" / "a.png", seed=1)
    draw(tmp_path / "run" / "b.png", seed=2)
    draw(tmp_path / "run" / ".base" / "small.png")
    (tmp_path / "run" / "run.json").write_text("{}")
    Image.new("RGB", (9, 9)).save(tmp_path / "run" / "grid.png")
    made = adm_cli.gallery(tmp_path / "run", tmp_path / "page.html")
    data = data_of(made.path.read_text())
    assert [p["file"] for p in data["pictures"]] == ["run/a.png", "run/b.png"]
    assert made.pictures == 2
    assert made.bytes == made.path.stat().st_size
    assert "folder" not in data["names"]
    with pytest.raises(OutputError, match=r"page\.html"):
        adm_cli.gallery(tmp_path / "run", made.path)


def test_folders_are_compared_by_their_names(tmp_path: Path) -> None:
    draw(tmp_path / "one" / "a.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "one" / "photo.JPG")  # carries no recipe
    draw(tmp_path / "two" / "a.png", scale=4.0)
    made = adm_cli.gallery([tmp_path / "one", tmp_path / "two"], tmp_path / "page.html")
    data = data_of(made.path.read_text())
    place = data["names"].index("folder")
    found = [data["values"][place][p["facts"][place]] for p in data["pictures"]]
    assert found == [str(tmp_path / name) for name in ("one", "one", "two")]


def test_a_picture_that_is_named_twice_is_shown_once(tmp_path: Path) -> None:
    draw(tmp_path / "one" / "a.png")
    draw(tmp_path / "one" / "b.png", seed=2)
    twice = [tmp_path / "one", tmp_path / "one" / "b.png", tmp_path / "one"]
    assert adm_cli.gallery(twice, tmp_path / "page.html").pictures == 2


def test_what_cannot_be_read_is_left_out_and_named(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    told: list[object] = []
    made = adm_cli.gallery(tmp_path, tmp_path / "page.html", on_event=told.append)
    assert made.pictures == 1
    (note,) = (event for event in told if isinstance(event, Note))
    assert "b.png" in note.text
    (tmp_path / "a.png").unlink()
    with pytest.raises(UsageError, match=r"b\.png"):
        adm_cli.gallery(tmp_path, tmp_path / "page.html", overwrite=True)
    with pytest.raises(UsageError, match="no png"):
        adm_cli.gallery(tmp_path / "page.html", tmp_path / "other.html")


def test_the_option_says_the_default() -> None:
    assert command._THUMBNAIL == THUMBNAIL
