"""What a run may go on with."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from adm_cli.errors import UsageError
from adm_cli.training.resuming import refuse_changes
from adm_cli.training.setup import open_data, settle


def test_runs_begun_before_a_setting_was_there_go_on(pictures: Path) -> None:
    options = {"data": [str(pictures)], "size": "8", "steps": 4}
    settings = settle("diffusion", options, open_data("diffusion", options))
    old = copy.deepcopy(settings.to_json())
    for part, name in (("config", "patch"), ("training", "least_crop")):
        del old[part][name]
    refuse_changes(old, settings)
    folded = settle("diffusion", {**options, "set": ["patch=2"]}, open_data("diffusion", options))
    with pytest.raises(UsageError, match=r"patch 1 -> 2"):
        refuse_changes(old, folded)


def test_a_class_that_vanished_between_two_stays_is_told(pictures: Path) -> None:
    options = {"data": [str(pictures)], "size": "8", "steps": 4}
    before = settle("diffusion", options, open_data("diffusion", options)).to_json()
    fewer = {"data": [str(pictures / "circle")], "size": "8", "steps": 4}
    now = settle("diffusion", fewer, open_data("diffusion", fewer))
    with pytest.raises(UsageError, match=r"classes .*; .*pictures 1\d -> \d"):
        refuse_changes(before, now)
