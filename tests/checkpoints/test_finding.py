"""From names to weights files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from adm_cli.checkpoints.finding import find_weights
from adm_cli.errors import UsageError
from adm_cli.reports.describing_folders import describe_folder
from tests.conftest import Toys


def test_a_training_folder_is_the_model_that_it_made(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs/first").mkdir(parents=True)
    with pytest.raises(UsageError, match="runs/first is a folder without a model"):
        find_weights("runs/first")
    with pytest.raises(UsageError, match=r"runs is a folder without a model: .*file$"):
        find_weights("runs")
    shutil.copy(toys.model, "runs/first/model.safetensors")
    with pytest.raises(
        UsageError, match=r"runs is a folder without a model: .*such as runs/first$"
    ):
        find_weights("runs")
    assert find_weights("runs/first").path == Path("runs/first/model.safetensors")
    shutil.copytree("runs/first", "tiny")  # a preset's name comes before a folder's
    assert find_weights("tiny").parameters == 4_553_190


@pytest.mark.parametrize("part", ["", "unet", "classifier"])
def test_a_folder_of_diffusers_is_told_how_it_becomes_a_model(tmp_path: Path, part: str) -> None:
    (tmp_path / part).mkdir(exist_ok=True)
    (tmp_path / part / "config.json").write_text("{}")
    for read in (find_weights, describe_folder):
        with pytest.raises(UsageError, match=f"adm convert {tmp_path} makes a weights file of it"):
            read(tmp_path)
