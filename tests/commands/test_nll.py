"""`adm nll`, end to end."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import adm_cli.reports.likelihood as likelihood_module
from adm_cli.checkpoints.format import save_model
from adm_cli.checkpoints.header import read_model_file
from adm_cli.checkpoints.loading import load_model
from adm_cli.diffusion.losses import BitsPerDim, bits_per_dim
from adm_cli.models.fast import FastResBlock
from adm_cli.pictures.datasets import open_images
from tests.commands.test_bad_input import refused
from tests.conftest import TOY_DIFFUSION, TOY_UNET, Result, Toys, save_toy
from tests.reports.test_likelihood import bounds
from tests.training.conftest import draw_pictures

Adm = Callable[..., Result]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("shapes") / "shapes", count=4)


@pytest.fixture
def nll(adm: Adm, toys: Toys, shapes: Path) -> Adm:
    """`adm nll` of the toy model in 6 steps; a model given again wins."""

    def call(*arguments: object) -> Result:
        return adm("nll", shapes, "--model", toys.model, "--steps", 6, *arguments)

    return call


def facts(result: Result) -> dict[str, Any]:
    assert result.code == 0, result.err
    (line,) = result.out.splitlines()
    return json.loads(line)  # type: ignore[no-any-return]


def test_equals_the_function(nll: Adm, shapes: Path) -> None:
    found = facts(nll("--json", "--dtype", "float64", "--batch-size", 3))
    wanted = bounds(open_images([shapes]), diffusion=TOY_DIFFUSION)
    assert found["bits_per_dim"] == pytest.approx(wanted.total.mean().item(), rel=1e-10)
    assert found["prior"] == pytest.approx(wanted.prior.mean().item(), rel=1e-10)
    error = wanted.total.std().item() / 8**0.5
    assert found["bits_per_dim_stderr"] == pytest.approx(error, rel=1e-8)
    assert sum(row["vb"] for row in found["quarters"]) == pytest.approx(found["vb"])
    assert (found["images"], found["num_steps"], found["complete"]) == (8, 6, True)


def test_batch_size_and_other_pictures_change_nothing(nll: Adm) -> None:
    a, b = (facts(nll("--json", "-b", size)) for size in (2, 5))
    assert a["bits_per_dim"] == pytest.approx(b["bits_per_dim"], rel=1e-5)
    few = facts(nll("--json", "--num", 3))
    assert few["images"] == 3
    assert facts(nll("--json", "--num", 3, "--seed", 1))["vb"] != few["vb"]


def test_both_paths_agree(nll: Adm, fast_blocks: list[FastResBlock]) -> None:
    fast = facts(nll("--json", "--num", 2))
    assert fast_blocks
    fast_blocks.clear()
    plain = facts(nll("--json", "--num", 2, "--plain"))
    assert not fast_blocks
    assert fast["bits_per_dim"] == pytest.approx(plain["bits_per_dim"], rel=1e-5)


def test_table_file_and_plot(nll: Adm) -> None:
    done = nll("--num", 4, "-o", "made/terms.csv", "-q")
    assert done.code == 0, done.err
    assert done.err == ""
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines] == ["noise", "t", "t", "t", "t", "prior", "total"]
    with Path("made/terms.csv").open(newline="") as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    assert [row["timestep"] for row in rows] == [0, 20, 40, 59, 79, 99]
    total = sum(row["vb"] for row in rows)
    assert float(lines[-1].split()[2]) == pytest.approx(total, rel=0.01)
    with Image.open("made/terms.png") as plot:
        assert plot.format == "PNG"
    again = nll("-o", "made/terms.csv")
    assert again.code == 1
    assert "--overwrite" in again.err
    assert nll("--num", 1, "-o", "made/terms.csv", "--overwrite").code == 0


def test_dry_run_tells_the_cost(nll: Adm) -> None:
    cost = facts(nll("--dry-run", "--num", 5, "-b", 2, "-o", "terms.csv", "--json"))
    assert (cost["pictures"], cost["steps"], cost["evaluations"]) == (5, 6, 30)
    assert min(cost[name] for name in ("seconds", "tflop", "memory_bytes")) >= 0
    shown = nll("--dry-run").out
    assert "evaluations    48" in shown
    assert "time           about " in shown
    assert not list(Path().glob("terms*"))


def test_one_picture_has_no_standard_error(nll: Adm) -> None:
    assert facts(nll("--json", "--num", 1))["bits_per_dim_stderr"] is None
    assert "±" not in nll("--num", 1).out


def test_without_classes(adm: Adm, nll: Adm, tmp_path: Path, shapes: Path) -> None:
    null = save_toy(tmp_path / "null.safetensors", replace(TOY_UNET, null_class=True))
    with_labels = facts(nll("--model", null, "--json"))
    without = facts(nll("--model", null, "--json", "--class", "none"))
    assert with_labels["labels"] is True
    assert without["labels"] is False
    assert with_labels["vb"] != without["vb"]
    only = facts(nll("--model", null, "--json", "--class", "square"))
    assert only["images"] == 4
    plain = save_toy(tmp_path / "plain.safetensors", replace(TOY_UNET, num_classes=None), {})
    (tmp_path / "flat").mkdir()
    for i, path in enumerate(shapes.rglob("*.png")):  # no labels at all
        (tmp_path / "flat" / f"{i}.png").write_bytes(path.read_bytes())
    assert facts(adm("nll", "flat", "--model", plain, "--steps", 3, "--json"))["images"] == 8
    refused(nll("--model", plain, "--class", "1"), 2, "plain is unconditional")


def test_upsampler_v_prediction_and_constant_pictures(adm: Adm, tmp_path: Path) -> None:
    config = replace(TOY_UNET, low_res_size=(4, 4))
    diffusion = replace(TOY_DIFFUSION, prediction="v")
    model = save_toy(tmp_path / "up.safetensors", config, diffusion=diffusion)
    (tmp_path / "white" / "star").mkdir(parents=True)
    Image.new("RGB", (8, 8), (255, 255, 255)).save("white/star/1.png")
    found = facts(adm("nll", "white", "--model", model, "--steps", 4, "--json"))
    assert np.isfinite(found["bits_per_dim"])


def test_every_timestep_is_the_default(adm: Adm, toys: Toys, shapes: Path) -> None:
    done = adm("nll", shapes, "--model", toys.model, "--num", 1, "--json", "-q")
    assert facts(done)["num_steps"] == 100


def test_interrupted_shows_what_it_has(nll: Adm, monkeypatch: pytest.MonkeyPatch) -> None:
    first = facts(nll("--json", "-b", 3, "--num", 3))
    count = 0

    def once(*arguments: Any, **options: Any) -> BitsPerDim:
        nonlocal count
        count += 1
        if count == 2:
            raise KeyboardInterrupt
        return bits_per_dim(*arguments, **options)

    monkeypatch.setattr(likelihood_module, "bits_per_dim", once)
    done = nll("--json", "-b", 3, "-o", "terms.csv")
    assert done.code == 130
    found = json.loads(done.out)
    assert (found["images"], found["complete"]) == (3, False)
    assert found["num_steps"] == first["num_steps"]
    assert "only a part of 8" in done.err
    assert not Path("terms.csv").exists()


def test_the_same_command_goes_on(nll: Adm, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what comes out is what would have, without an interruption."""
    whole = facts(nll("--json", "-b", 3, "-o", "whole.csv"))
    count = 0

    def twice(*arguments: Any, **options: Any) -> BitsPerDim:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return bits_per_dim(*arguments, **options)

    monkeypatch.setattr(likelihood_module, "bits_per_dim", twice)
    assert nll("-b", 3, "-o", "terms.csv").code == 130
    refused(nll("--seed", 1, "-q", "-o", "terms.csv"), 1, "not of this measurement", "--overwrite")
    again = nll("--json", "-b", 3, "-o", "terms.csv")
    assert "measured before: 6 of 8 pictures" in again.err
    assert facts(again) == whole
    assert count == 4
    assert Path("terms.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert not Path("terms.csv.part").exists()
    Path("other.csv.part").write_bytes(b"?")
    refused(nll("-q", "-o", "other.csv"), 1, "other.csv.part is there", "move it away")
    assert Path("other.csv.part").read_bytes() == b"?"


def test_a_broken_model_names_the_picture(
    adm: Adm, toys: Toys, shapes: Path, tmp_path: Path
) -> None:
    state = load_model(toys.model).state_dict()
    state = {name: torch.full_like(value, 1e30) for name, value in state.items()}
    save_model(tmp_path / "huge.safetensors", state, read_model_file(toys.model).info)
    done = adm("nll", shapes, "--model", "huge.safetensors", "--steps", 2, "-q")
    refused(done, 1, "circle/0.png", "the bound is nan")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--num", "0"], ["--num must be at least 1"]),
        (["--batch-size", "0"], ["--batch-size must be at least 1"]),
        (["--seed", "-1"], ["--seed must be at least 0"]),
        (["--steps", "101"], ["101 steps", "100 timesteps"]),
        (["--labels", "none"], ["no labels", "--labels"]),
        (["--class", "none"], ["not trained without classes"]),
        (["--class", "zebra"], ["unknown class 'zebra'"]),
        (["--class", "star"], ["no pictures of the class star"]),
        (["--out", "terms.json"], ["ends in .csv"]),
        (["--device", "gpu"], ["unknown device"]),
    ],
)
def test_wrong_usage(nll: Adm, options: list[str], words: list[str]) -> None:
    refused(nll(*options, "-q"), 2, *words)


def test_wrong_files(adm: Adm, toys: Toys, shapes: Path, tmp_path: Path) -> None:
    def of(model: Path, data: Path) -> Result:
        return adm("nll", data, "--model", model, "--steps", 2, "-q")

    refused(of(toys.classifier, shapes), 2, "holds a classifier")
    refused(of(toys.model, tmp_path / "gone"), 2, "no such folder")
    (tmp_path / "empty").mkdir()
    refused(of(toys.model, tmp_path / "empty"), 2, "no pictures in")
    other = draw_pictures(tmp_path / "other")
    for name in ("circle", "square"):
        (other / name).rename(other / f"{name}-ish")
    refused(of(toys.model, other), 2, "knows none of the pictures' 2 classes")
    (tmp_path / "bad" / "star").mkdir(parents=True)
    (tmp_path / "bad" / "star" / "1.png").write_bytes(b"?")
    refused(of(toys.model, tmp_path / "bad"), 1, "bad/star/1.png", "--skip-bad")
    done = adm("nll", "bad", "--model", toys.model, "--steps", 2, "--skip-bad", "-q")
    refused(done, 1, "none of 1 picture can be read")
    mixed = draw_pictures(tmp_path / "mixed")
    for kind in ("circle", "square"):
        (mixed / kind / "z.png").write_bytes(b"?")
    done = adm("nll", mixed, "--model", toys.model, "--steps", 2, "-q")
    refused(done, 1, "2 of ", "circle/z.png", "square/z.png", "--skip-bad")
