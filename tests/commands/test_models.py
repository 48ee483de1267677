"""`adm models`: presets, and whether their weights are here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from adm_cli.checkpoints.architectures import ABLATIONS
from adm_cli.checkpoints.presets import PRESETS
from tests.conftest import Result, Toys

Run = Callable[..., Result]


def test_presets(adm: Run) -> None:
    done = adm("models")
    assert (done.code, done.err) == (0, "")
    lines = [line.split() for line in done.out.splitlines()[1:]]
    assert [line[0] for line in lines[1:]] == [row.name for row in PRESETS]
    by_name = {line[0]: line for line in lines[1:]}
    assert by_name["tiny"][-1] == "yes"
    assert by_name["imagenet256"][1:] == ["256x256", "ddpm", "250", "1.0", "4.59", "no"]
    stack = ["512x512", "ddpm", "250+250", "0.5", "3.85", "no"]
    assert by_name["imagenet512-stack"][1:] == stack
    assert max(map(len, done.out.splitlines())) <= 80


def test_json_tells_which_weights_are_missing(adm: Run, tmp_path: Path, toys: Toys) -> None:
    models = tmp_path / "home" / "models"
    models.mkdir(parents=True)
    shutil.copy(toys.model, models / "128x128_diffusion.safetensors")
    shutil.copy(toys.model, models / "lsun_cat.safetensors")
    rows = {row["name"]: row for row in map(json.loads, adm("models", "--json").out.splitlines())}
    assert list(rows) == [row.name for row in PRESETS]
    assert (rows["tiny"]["present"], rows["tiny"]["missing"]) == (True, [])
    assert rows["imagenet128"]["missing"] == ["128x128_classifier"]
    assert not rows["imagenet128"]["present"]
    assert rows["imagenet64"]["missing"] == ["64x64_diffusion", "64x64_classifier"]
    assert rows["lsun-cat"]["present"]
    assert rows["imagenet512-stack"]["missing"] == ["128x128_classifier", "128_512_upsampler"]


def test_ablations(adm: Run) -> None:
    done = adm("models", "--ablations")
    assert [line.split()[0] for line in done.out.splitlines()[2:]] == [r.name for r in ABLATIONS]
    rows = [json.loads(line) for line in adm("models", "--ablations", "--json").out.splitlines()]
    assert rows[0] == {"name": "ablation-base", "fid_700k": 15.33, "fid_1200k": 13.21}
