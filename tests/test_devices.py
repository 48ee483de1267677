"""The machine: here, the number of threads that computes on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from adm_cli.devices import cpu_threads, use_threads


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_threads_are_used_as_they_were_noted() -> None:
    for count in (3, 1, 2):
        assert use_threads(count)
        assert cpu_threads(torch.device("cpu")) == count
    assert use_threads(cpu_threads(torch.device("meta")))  # as on a GPU: nothing was noted
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    "count", [0, -1, 10**5, 2**63, 2**200, True, 1.0, "2", [2], {}, float("nan")]
)
def test_a_number_that_cannot_be_is_not_used(count: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_num_threads", None)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert not use_threads(count)
