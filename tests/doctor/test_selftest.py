"""The stored picture: right, and sensitive to what could go wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from adm_cli.doctor import selftest
from adm_cli.doctor.selftest import TOLERANCE, sample_picture, self_test


@pytest.fixture(scope="module")
def picture() -> Tensor:
    return sample_picture("cpu")


def test_this_machine_passes() -> None:
    result = self_test("cpu")
    assert result.passed
    assert result.device == "cpu"


def test_double_precision_agrees(picture: Tensor) -> None:
    """So the stored bytes are no accident of one machine's rounding."""
    gap = (picture.int() - sample_picture("cpu", "float64").int()).abs()
    assert gap.max() <= 1
    assert (gap > 0).sum() < 5


def test_the_picture_is_no_flat_field(picture: Tensor) -> None:
    assert picture.float().std() > 50
    assert len(set(picture.flatten().tolist())) > 50


@pytest.mark.parametrize(
    "change", [{"eta": 0.4}, {"scale": 30.0}, {"classes": (1,)}, {"seeds": (8,)}, {"steps": "5"}]
)
def test_what_is_wrong_is_noticed(monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]) -> None:
    monkeypatch.setattr(selftest, "_SETTINGS", replace(selftest._SETTINGS, **change))
    result = self_test("cpu")
    assert not result.passed
    assert result.largest_difference > TOLERANCE
    assert result.values_that_differ > 0


def test_threads_are_left_as_they_were() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        sample_picture("cpu")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
