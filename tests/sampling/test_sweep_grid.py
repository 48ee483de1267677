"""Cells, their names and labels, and the curves over them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from adm_cli.sampling.sweeps.grid import Cell, axes_of, curves, number, spread, varied_axes

A = Cell("tiny", "ddim", "25", 0.0)
B = Cell("tiny", "ddim", "25", 2.5)
C = Cell("tiny", "ddpm", "", -1.0)


def row(scale: float, steps: str = "25", sampler: str = "ddim", **scores: Any) -> dict[str, Any]:
    axes = {"model": "tiny", "sampler": sampler, "steps": steps, "scale": scale}
    return {**axes, "num_steps": int(steps.removeprefix("ddim")), **scores}


def test_names_are_plain_and_differ() -> None:
    assert [cell.name for cell in (A, B, C)] == [
        "tiny_ddim_25_scale0", "tiny_ddim_25_scale2.5", "tiny_ddpm_all_scale-1",
    ]  # fmt: skip
    assert Cell("a b/ü*", "ddim", "ddim25", 1e-7).name == "a-b-ü-_ddim_ddim25_scale1e-07"
    assert Cell("tiny", "ddim", "25", 1e20).name == "tiny_ddim_25_scale1e20"


def test_rare_axes_are_those_of_sweeps_that_have_them() -> None:
    cells = [Cell("tiny", "ddim", "25", 4.0, 1.0, eta, (0.0, 0.85)) for eta in (0.0, 0.5)]
    assert [cell.name[-14:] for cell in cells] == ["_eta0_at0-0.85", "ta0.5_at0-0.85"]
    assert varied_axes(cells) == ["eta"]
    assert (axes_of(cells)["eta"], "eta" in axes_of([A, B])) == ([0.0, 0.5], False)
    assert cells[1].label(["eta", "interval"]) == "eta 0.5\nat 0-0.85"
    rows = [
        {**row(s, fid=s), "eta": eta, "interval": (0.0, 0.85)} for eta in (0, 1) for s in (0, 1)
    ]
    (panel,) = curves(rows, ["fid"])
    assert panel.lines == {f"eta {eta}": ([0, 1], [0, 1]) for eta in (0, 1)}


def test_numbers_are_never_rounded() -> None:
    assert [number(v) for v in (4.0, 0.1, 1 / 3, -2)] == ["4", "0.1", "0.3333333333333333", "-2"]


def test_labels_say_what_differs() -> None:
    assert varied_axes([A, B]) == ["scale"]
    assert varied_axes([A, C]) == ["sampler", "steps", "scale"]
    assert B.label(["scale"]) == "scale 2.5"
    assert C.label(["sampler", "steps"]) == "ddpm\nall steps"
    assert A.label([]) == "scale 0"
    assert axes_of([A, B, C])["scale"] == [0.0, 2.5, -1.0]


@pytest.mark.parametrize(("count", "most", "wanted"), [(3, 10, [0, 1, 2]), (10, 3, [0, 3, 6])])
def test_spread(count: int, most: int, wanted: list[int]) -> None:
    assert spread(count, most) == wanted


def test_curves_over_the_scale() -> None:
    rows = [
        row(4, fid=2.0, fid_error=0.5, precision=0.9, recall=0.1),
        row(0, fid=3.0, precision=0.5, recall=0.6),
    ]
    distance, trade = curves(rows, ["fid", "precision", "recall"])
    assert (distance.x, distance.y, distance.lines) == (
        "guidance scale", "fid", {"fid": ([0, 4], [3.0, 2.0])},
    )  # fmt: skip
    assert distance.errors["fid"][1] == 0.5
    assert math.isnan(distance.errors["fid"][0])
    assert trade.lines == {"precision": ([0, 4], [0.5, 0.9]), "recall": ([0, 4], [0.6, 0.1])}


def test_a_line_for_each_of_the_other_axes() -> None:
    rows = [row(s, steps, fid=s) for steps in ("25", "50") for s in (0, 1)]
    (panel,) = curves([*rows, row(2)], ["fid"])  # not measured: no point
    assert panel.lines == {"25": ([0, 1], [0, 1]), "50": ([0, 1], [0, 1])}
    both = [row(1, "25", s, precision=1, recall=0) for s in ("ddim", "ddpm")]
    more = [row(1, "ddim50", s, precision=2, recall=0) for s in ("ddim", "ddpm")]
    precision, recall = curves([*both, *more], ["precision", "recall"])
    assert precision.x == "steps"
    assert precision.lines == {"ddim": ([25, 50], [1, 2]), "ddpm": ([25, 50], [1, 2])}
    assert recall.y == "recall"


def test_no_curve_through_a_point() -> None:
    assert curves([row(1, fid=1.0)], ["fid"]) == []
    assert curves([row(1), row(2)], []) == []
