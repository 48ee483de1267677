"""`adm sweep`, end to end: grids, going on, refusals, and what the results say."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import adm_cli.sampling.drawing.paint as paint_module
import adm_cli.sampling.sweeps.cells as cells_module
import adm_cli.sampling.sweeps.sweep as sweep_module
from adm_cli.pictures.images import open_picture
from adm_cli.pictures.sheets import contact_sheet
from adm_cli.sampling.drawing.batch import ImageBatch
from adm_cli.sampling.drawing.pipeline import draw_batches
from adm_cli.sampling.sweeps.grid import spread
from tests.commands.test_bad_input import refused
from tests.conftest import TOY_CLASSES, TOY_UNET, Result, Toys, save_toy

Adm = Callable[..., Result]
GRID = ("--class", "circle,star", "--num", 4, "--scale", "0,2.5", "--steps", "2,3")


@pytest.fixture
def sweep(adm: Adm, toys: Toys, quick_plots: None) -> Adm:
    def call(*arguments: object) -> Result:
        models = ("--model", toys.model, "--classifier", toys.classifier)
        return adm("sweep", *_with_the_last(*models, "--device", "cpu", *arguments))

    return call


def _with_the_last(*arguments: object) -> list[object]:
    """Lists that are given again in place of `GRID`'s, which a command would refuse."""
    words = list(arguments)
    for name in ("--model", "--scale", "--steps", "--sampler", "--metrics"):
        for _ in range(words.count(name) - 1):
            del words[words.index(name) : words.index(name) + 2]
    return words


@pytest.fixture
def judged(sweep: Adm, toys: Toys, adm: Adm) -> Adm:
    """A sweep that is measured against other images of the same models."""
    models = ("--model", toys.model, "--classifier", toys.classifier, "--steps", 2)
    made = adm("sample", *models, "--seeds", "90-101", "--class", "0", "--out", "ref", "-q")
    assert made.code == 0, made.err

    def call(*arguments: object) -> Result:
        judge = ("--ref", "ref", "--features", toys.classifier, "--metrics", "fid,pr")
        return sweep(*judge, *arguments)

    return call


def pictures_of(folder: str) -> dict[str, bytes]:
    """Every picture below a folder but plots, by its path there."""
    files = [p for p in Path(folder).rglob("*.png") if p.name != "sweep.png"]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def cells(folder: str) -> list[dict[str, Any]]:
    """The rows of a sweep without what depends on the clock."""
    rows = json.loads(Path(folder, "sweep.json").read_text())["cells"]
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second", "drawn")}
            for row in rows]  # fmt: skip


def stop_after(batches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C after so many batches, counted over all cells."""
    left = batches

    def stopping(*arguments: Any) -> Iterator[Any]:
        nonlocal left
        for found in draw_batches(*arguments):
            if isinstance(found, ImageBatch):
                if not left:
                    raise KeyboardInterrupt
                left -= 1
            yield found

    monkeypatch.setattr(paint_module, "draw_batches", stopping)


def test_cells_are_what_sample_draws(sweep: Adm, adm: Adm, toys: Toys) -> None:
    done = sweep(*GRID, "--out", "grid")
    assert done.code == 0, done.err
    names = [f"toy_ddpm_{steps}_scale{scale}" for steps in (2, 3) for scale in ("0", "2.5")]
    assert [row["cell"] for row in cells("grid")] == names
    assert sorted(p.name for p in Path("grid").iterdir()) == sorted(
        [*names, "sheet.png", "sweep.csv", "sweep.json", ".sweep.json.copy"]
    )
    models = ("--model", toys.model, "--classifier", toys.classifier)
    for scale in (0, 2.5):
        alone = adm("sample", *models, *GRID[:4], "--steps", 3, "--scale", scale, "-o", str(scale))
        assert alone.code == 0, alone.err
        assert pictures_of(str(scale)) == pictures_of(f"grid/toy_ddpm_3_scale{scale}")


def test_sheet_shows_the_same_seed_along_a_row(sweep: Adm) -> None:
    assert sweep(*GRID, "--rows", 5, "--out", "grid", "-q").code == 0
    sheet, _ = open_picture(Path("grid/sheet.png"))
    names = [
        f"{c:04d}_{TOY_CLASSES[c]}_seed{s:06d}.png"
        for c, s in zip([0] * 4 + [3] * 4, range(8), strict=True)
    ]
    picked = [names[i] for i in spread(8, 5)]
    folders = [Path("grid", row["cell"]) for row in cells("grid")]
    images = [[open_picture(folder / name)[0] for folder in folders] for name in picked]
    columns = [f"{s} steps\nscale {c}" for s in (2, 3) for c in ("0", "2.5")]
    rows = [
        f"{'circle' if '0000_' in name else 'star'}\nseed {int(name[-10:-4])}" for name in picked
    ]
    wanted = contact_sheet(images, rows, columns)
    assert np.array_equal(sheet, wanted.pixels)
    top, left, f = wanted.tops[3], wanted.lefts[2], wanted.factor
    assert np.array_equal(sheet[top : top + 8 * f : f, left : left + 8 * f : f], images[3][2])


def test_tables_parse_and_agree(judged: Adm, real_plots: None) -> None:
    done = judged(*GRID, "--out", "grid", "--json", "-q")
    assert done.code == 0, done.err
    told = [json.loads(line) for line in done.out.splitlines()]
    stored = json.loads(Path("grid/sweep.json").read_text())
    with Path("grid/sweep.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["cell"] for row in told] == [row["cell"] for row in table]
    for line, row, text in zip(told, stored["cells"], table, strict=True):
        assert line.items() <= row.items()
        for name in ("fd_adm", "precision", "recall", "seconds", "scale"):
            assert float(text[name]) == row[name]
        assert row["images"] == row["drawn"] == 8
    assert stored["axes"]["scale"] == [0.0, 2.5]
    assert {row["reference_images"] for row in stored["cells"]} == {12}
    assert all("toy_classifier" in row["features"] for row in table)
    assert Path("grid/sweep.png").read_bytes()[:4] == b"\x89PNG"


def test_the_table_shows_what_evaluate_does(judged: Adm, adm: Adm, toys: Toys) -> None:
    lines = judged("--class", 0, "--seeds", "0-7", "--steps", 1, "--out", "one", "-q").out
    cell = str(next(path.parent for path in Path("one").glob("*/run.json")))
    judge = ("--ref", "ref", "--features", toys.classifier, "--metrics", "fid,pr")
    measured = adm("evaluate", cell, *judge, "--device", "cpu", "-q").out.splitlines()[-3:]
    for metric in measured:
        _, value, error = metric.split()
        assert f"  {value}{'' if error == '-' else f' ± {error}'}" in lines


def test_a_folder_is_of_one_kind(sweep: Adm, adm: Adm, toys: Toys) -> None:
    """Both in one folder, all commands would take it for one of them."""
    models = ("--model", toys.model, "--classifier", toys.classifier, "--steps", 1)
    one = ("--class", 0, "--seeds", 0, "--steps", 1)
    assert adm("sample", *models, "--seeds", 0, "--out", "run", "-q").code == 0
    assert sweep(*one, "--out", "swept", "-q").code == 0
    for done, of in (
        (sweep(*one, "--out", "run"), "run is the folder of a run"),
        (adm("train-diffusion", "run", "--out", "run"), "run is the folder of a run"),
        (adm("sample", *models, "--out", "swept", "--overwrite"), "swept is the folder of a sweep"),
    ):
        assert (done.code, done.out) == (1, "")
        assert f"{of}: choose another --out" in done.err
    for words in (
        ("merge", "--output", "x.npz"),
        ("repro",),
        ("edit", "--class", 1),
        ("upsample",),
    ):
        done = adm(words[0], "swept", *words[1:])
        assert (done.code, done.out) in ((1, ""), (2, ""))
        assert "swept is a sweep: name the folder of a cell, such as swept/" in done.err


def test_an_equal_set_has_no_distance(judged: Adm) -> None:
    grid = ("--class", "0", "--seeds", "90-101", "--steps", "2,3", "--scale", "1")
    assert judged(*grid, "--out", "grid", "-q").code == 0
    same, other = cells("grid")
    assert same["fd_adm"] == pytest.approx(0, abs=1e-4)
    assert (same["precision"], same["recall"]) == (1, 1)
    assert other["fd_adm"] > same["fd_adm"]


def test_going_on_equals_never_stopping(judged: Adm, monkeypatch: pytest.MonkeyPatch) -> None:
    once = judged(*GRID, "-b", 3, "--out", "whole", "-q")
    assert once.code == 0, once.err
    with monkeypatch.context() as patched:
        stop_after(4, patched)  # in the middle of the second cell
        stopped = judged(*GRID, "-b", 3, "--out", "parts")
    assert stopped.code == 130
    assert "the same command with --out parts goes on" in stopped.err
    assert [row.get("fd_adm") is None for row in cells("parts")] == [False, True, True, True]
    assert Path("parts/sheet.png").is_file()  # of what there is
    before = pictures_of("parts")
    assert 8 < len(before) < 17
    again = judged(*GRID, "-b", 3, "--out", "parts")
    assert again.code == 0, again.err
    assert pictures_of("parts") == pictures_of("whole")
    assert cells("parts") == cells("whole")
    stored = json.loads(Path("parts/sweep.json").read_text())["cells"]
    assert [row["drawn"] for row in stored] == [8] * 4


def test_a_third_time_nothing_is_drawn_or_measured(
    judged: Adm, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = judged(*GRID, "--out", "grid", "-q")

    def never(*_arguments: Any, **_options: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(paint_module, "draw_batches", never)
    monkeypatch.setattr(sweep_module, "load_stage", never)
    monkeypatch.setattr(cells_module, "compute_scores", never)
    again = judged(*GRID, "--out", "grid", "-q")
    assert again.code == 0, again.err
    assert again.out == first.out
    with pytest.raises(AssertionError):
        judged(*GRID, "--out", "grid", "--metrics", "fid")


def test_more_cells_may_be_added_and_metrics_later(sweep: Adm, judged: Adm) -> None:
    small = ("--class", "0", "--num", 6, "--steps", 2)
    assert sweep(*small, "--scale", "0", "--out", "grid", "-q").code == 0
    before = pictures_of("grid")
    more = judged(*small, "--scale", "0,3", "--out", "grid")
    assert more.code == 0, more.err
    assert "cell 2 of 2" in more.err
    assert "cell 1 of 2" not in more.err
    after = pictures_of("grid")
    assert {k: v for k, v in after.items() if "scale0" in k} == {
        k: v for k, v in before.items() if "scale0" in k
    }
    assert all("fd_adm" in row for row in cells("grid"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--scale", "0"], ["scale 0,2.5 -> 0", "--overwrite"]),
        (["--steps", "2,4"], ["steps 2,3 -> 2,4"]),
        (["--num", "3"], ["beside those asked for now"]),
        (["--no-clip"], ["clip_denoised True -> False"]),
        (["--dtype", "float64"], ["dtype float32 -> float64"]),
        (["--batch-size", "7"], ["batch_size"]),
    ],
)
def test_a_changed_sweep_is_refused(
    sweep: Adm, sample_grid: Path, change: list[str], words: list[str]
) -> None:
    shutil.copytree(sample_grid, "grid")
    before = {p: p.read_bytes() for p in Path("grid").rglob("*") if p.is_file()}
    done = sweep(*GRID, "--out", "grid", *change)
    assert (done.code, done.out) == (1, ""), done.err
    for word in words:
        assert word in done.err
    after = {p: p.read_bytes() for p in Path("grid").rglob("*") if p.is_file()}
    assert {p: data for p, data in after.items() if p.suffix != ".lock"} == {
        p: data for p, data in before.items() if p.suffix != ".lock"
    }


@pytest.fixture(scope="module")
def sample_grid(toys: Toys, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from adm_cli.commands.main import run

    folder = tmp_path_factory.mktemp("sweep") / "grid"
    models = ["--model", str(toys.model), "--classifier", str(toys.classifier)]
    options = [*models, *map(str, GRID), "--device", "cpu", "--out", str(folder), "-q"]
    assert run(["sweep", *options]) == 0
    return folder


def test_overwrite_starts_anew(
    sweep: Adm, sample_grid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(sample_grid, "grid")
    with monkeypatch.context() as patched:
        stop_after(1, patched)
        stopped = sweep(*GRID, "--seed", 5, "--out", "grid", "--overwrite")
    assert stopped.code == 130
    assert "24 images missing" in stopped.err  # none of the old ones counts
    done = sweep(*GRID, "--seed", 5, "--out", "grid", "-q")
    assert done.code == 0, done.err
    old, new = pictures_of(str(sample_grid)), pictures_of("grid")
    assert len(new) == len(old)
    assert new["sheet.png"] != old["sheet.png"]
    assert "toy_ddpm_2_scale0/0000_circle_seed000000.png" not in new


def test_more_images_make_old_scores_void(judged: Adm, sweep: Adm) -> None:
    grid = ("--class", "0", "--scale", "0,1", "--steps", 2, "--out", "grid", "-q")
    assert judged(*grid, "--seeds", "0-5").code == 0
    before = cells("grid")
    assert sweep(*grid, "--seeds", "0-7").code == 0
    assert all(row["images"] == 8 and "fd_adm" not in row for row in cells("grid"))
    assert judged(*grid, "--seeds", "0-7").code == 0
    assert cells("grid")[0]["fd_adm"] != before[0]["fd_adm"]


def test_dry_run(sweep: Adm, sample_grid: Path) -> None:
    plan = sweep(*GRID, "--out", "grid", "--dry-run", "--json")
    assert plan.code == 0, plan.err
    rows = [json.loads(line) for line in plan.out.splitlines()]
    assert [row["evaluations"] for row in rows] == [16, 16, 24, 24]
    assert rows[1]["gflop"] > rows[0]["gflop"]  # guidance costs
    assert not Path("grid").exists()
    table = sweep(*GRID, "--dry-run")
    assert table.out.splitlines()[-1].split()[:4] == ["4", "cells", "32", "32"]
    assert not Path("out").exists()
    there = sweep(*GRID, "--out", sample_grid, "--dry-run", "--json")
    assert [json.loads(line)["to_draw"] for line in there.out.splitlines()] == [0] * 4


def test_samplers_models_and_eta(sweep: Adm, toys: Toys, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):  # two runs' models, as training names them
        (tmp_path / name).mkdir()
        save_toy(tmp_path / name / "model.safetensors", TOY_UNET, seed=seed)
    done = sweep("--model", "a/model.safetensors,b/model.safetensors", "--sampler", "ddpm,ddim",
                 "--eta", 0.5, "--steps", 2, "--scale", 1, "--class", "0", "--num", 1, "-q",
                 "--json", "--out", "grid")  # fmt: skip
    assert done.code == 0, done.err
    rows = cells("grid")
    assert [(row["model"], row["sampler"], row["eta"]) for row in rows] == [
        ("a-model", "ddpm", None), ("a-model", "ddim", 0.5),
        ("b-model", "ddpm", None), ("b-model", "ddim", 0.5),
    ]  # fmt: skip
    pictures = [data for name, data in pictures_of("grid").items() if "seed" in name]
    assert len(set(pictures)) == 4


def test_churn_is_of_the_cells_that_have_it(sweep: Adm) -> None:
    asked = ("--steps", 4, "--scale", 0, "--class", "0", "--num", 1, "--dry-run", "--json")
    churn = ("--churn", "0,2", "--churn-noise", "1,1.05")
    done = sweep("--sampler", "ddim,heun", *churn, *asked)
    assert done.code == 0, done.err
    found = [json.loads(line)["cell"].partition("_scale0")[::2] for line in done.out.splitlines()]
    assert [(cell.split("_")[-2], rest) for cell, rest in found] == [
        ("ddim", ""), ("heun", ""), ("heun", "_churn-2"), ("heun", "_churn-2_churn-noise-1.05"),
    ]  # fmt: skip
    none = sweep("--sampler", "ddim", *churn, *asked)
    assert (none.code, "--churn has no meaning for the ddim sampler" in none.err) == (2, True)


def test_scales_where_nothing_is_asked_for(sweep: Adm) -> None:
    def scales(*options: object) -> list[float]:
        plan = sweep("--class", "0", "--num", 1, "--dry-run", "--json", *options)
        assert plan.code == 0, plan.err
        names = [json.loads(line)["cell"] for line in plan.out.splitlines()]
        return [float(name.rpartition("scale")[2]) for name in names]

    assert scales() == [0, 1, 2, 4, 8]
    assert len(scales("--steps", "2,3")) == 2


def test_eta_and_interval_are_axes(sweep: Adm, adm: Adm) -> None:
    asked = ("--sampler", "ddim", "--steps", 2, "--scale", "0,1", "--class", "0", "--num", 1,
             "--out", "grid", "-q", "--guide-interval", "0,1")  # fmt: skip
    done = sweep(*asked, "--eta", "0,1", "--guide-interval", "0.5,0.8")
    assert done.code == 0, done.err
    found = {row["cell"]: (row["eta"], row.get("interval")) for row in cells("grid")}
    assert [v for name, v in found.items() if "scale0" in name] == [(0, None), (1, None)]
    assert [v for name, v in found.items() if "scale1" in name] == [
        (eta, interval) for eta in (0, 1) for interval in ([0, 1], [0.5, 0.8])
    ]
    assert done.out.splitlines()[0].split()[:3] == ["scale", "eta", "interval"]
    assert len({data for name, data in pictures_of("grid").items() if "seed" in name}) >= 4
    sheet = Path("grid/sheet.png").read_bytes()
    Path("grid/sheet.png").unlink()
    assert adm("verify", "grid", "--repair", "-q").code == 0
    assert Path("grid/sheet.png").read_bytes() == sheet
    fewer = sweep(*asked)
    assert fewer.code == 1
    assert "cells that are not asked for now (eta" in fewer.err


def test_a_cell_of_which_nothing_was_drawn_may_be_left_out(adm: Adm, toys: Toys) -> None:
    """As where its model is damaged: to ask for it too would fail again, for ever."""
    bad = bytearray(toys.model.read_bytes())
    bad[-9] ^= 64
    Path("bad.safetensors").write_bytes(bad)
    asked = ("sweep", "--num", 1, "--steps", 2, "--scale", 0, "--out", "grid", "-q", "--model")
    failed = adm(*asked, f"{toys.model},bad.safetensors")
    assert failed.code == 1
    assert "bad.safetensors is damaged" in failed.err
    done = adm(*asked, toys.model)
    assert done.code == 0, done.err
    assert adm("verify", "grid", "-q").code == 0


def test_no_out_makes_a_folder_of_its_own(sweep: Adm) -> None:
    for number in ("0001", "0002"):
        assert sweep("--num", 1, "--steps", 2, "--scale", 0, "-q").code == 0
        assert Path("out", number, "sweep.json").is_file()


def test_interrupted_before_anything_leaves_nothing(
    sweep: Adm, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(0, monkeypatch)
    done = sweep(*GRID)
    assert done.code == 130
    assert not list(Path("out").iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--scale", "0,x"], ["--scale '0,x'", "0,1,2.5,4"]),
        (["--scale", "nan"], ["finite"]),
        (["--steps", "2,,3"], ["--steps '2,,3'"]),
        (["--steps", "101"], ["101 steps"]),
        (["--sampler", "ddpm,dim"], ["unknown sampler 'dim'"]),
        (["--eta", "1"], ["--eta 1", "ddim"]),
        (["--eta", "2", "--sampler", "ddim"], ["eta must be in [0, 1]"]),
        (["--rows", "0"], ["--rows must be at least 1"]),
        (["--metrics", "fid"], ["pass --ref"]),
        (["--features", "classifier"], ["pass --ref"]),
        (["--class", "zebra"], ["unknown class 'zebra'"]),
        (["--num", "0"], ["--num"]),
        (["--model", "tiny,gone"], ["'gone' is neither a preset nor a file"]),
    ],
)
def test_wrong_usage(sweep: Adm, options: list[str], words: list[str]) -> None:
    if "--model" in options:
        options = [*options, "--classifier", "tiny_classifier"]
    refused(sweep("--steps", 2, *options), 2, *words)


def test_wrong_references(sweep: Adm, toys: Toys, tmp_path: Path) -> None:
    judge = ("--features", toys.classifier)
    refused(sweep("--steps", 2, "--num", 6, "--ref", "gone", *judge), 2, "gone")
    few = sweep("--steps", 2, "--class", "0", "--num", 5, "--ref", "gone", *judge)
    refused(few, 1, "5 images, too few to measure")
    (tmp_path / "empty").mkdir()
    refused(sweep("--steps", 2, "--num", 6, "--ref", "empty", *judge), 2, "no pictures")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "sweep.json").write_text('{"format": 1, "axes": 3}')
    done = sweep("--steps", 2, "--out", "damaged")
    assert done.code == 1
    assert "damaged/sweep.json is there, and nothing in it says" in done.err


def test_models_must_agree(sweep: Adm, toys: Toys, tmp_path: Path) -> None:
    classes = {0: "circle", 1: "cube", 3: "star"}
    other = save_toy(tmp_path / "other.safetensors", TOY_UNET, classes)
    both = f"{toys.model},{other}"
    guide = ("--classifier", toys.classifier)
    grid = ("--scale", 0, "--steps", 2, "--num", 1, "--model", both, *guide)
    refused(sweep(*grid, "--class", "1"), 2, "class 1 is not the same to toy and other")
    refused(sweep("--model", f"{toys.model},tiny", "--scale", 0), 2, "different sizes")
    assert sweep(*grid, "--class", "3", "-q").code == 0
