"""Tables that other programs read, and plots that need no matplotlib to be left out."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from adm_cli.files.tables import Panel, draw_panels, write_csv, write_json


def test_csv_has_every_name_that_occurs(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"a": 1, "b": 'x, "y"'}, {"a": 0.1 + 0.2, "c": None}]
    write_csv(tmp_path / "new" / "t.csv", rows)
    with (tmp_path / "new" / "t.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert read == [
        {"a": "1", "b": 'x, "y"', "c": ""},
        {"a": "0.30000000000000004", "b": "", "c": ""},  # to the last digit
    ]


def test_json(tmp_path: Path) -> None:
    write_json(tmp_path / "t.json", {"a": [1, None]})
    assert json.loads((tmp_path / "t.json").read_text()) == {"a": [1, None]}


def test_panels_stand_side_by_side(tmp_path: Path) -> None:
    one = Panel("x", "y", {"y": ([0, 1], [1, 2])})
    two = Panel(
        "x",
        "z",
        {"a": ([0, 1], [1, 10]), "b": ([0], [3])},
        log=True,
        errors={"a": [0.5, float("nan")]},
    )
    assert draw_panels(tmp_path / "1.png", [one])
    assert draw_panels(tmp_path / "2.png", [one, two])
    with Image.open(tmp_path / "1.png") as a, Image.open(tmp_path / "2.png") as b:
        assert (2 * a.width, a.height) == b.size


def test_no_plot_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert not draw_panels(tmp_path / "1.png", [Panel("x", "y", {})])
    assert not list(tmp_path.iterdir())


def test_values_that_no_plot_can_hold_are_left_out(tmp_path: Path) -> None:
    values = [1.0, float("inf"), -1e308, float("nan"), 1e308, 2.0]
    assert draw_panels(tmp_path / "1.png", [Panel("x", "y", {"y": (range(6), values)})])
