"""Whatever nobody asked for is decided once a run, and what a folder holds is read once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import adm_cli
import adm_cli.files.manifests as manifests_module
import adm_cli.sampling.folder as folder_module
import adm_cli.sampling.sample as sample_module
import adm_cli.sampling.settings as settings_module
from adm_cli.sampling.defaults import choose_schedule
from tests.conftest import Toys


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each was called."""
    found: Counter[str] = Counter()

    def watch(module: ModuleType, name: str) -> None:
        real = getattr(module, name)

        def counting(*given: Any, **named: Any) -> Any:
            found[name] += 1
            return real(*given, **named)

        monkeypatch.setattr(module, name, counting)

    watch(sample_module, "choose_device")
    for name in ("resolve", "choose_dtype", "fitting_batch"):
        watch(settings_module, name)
    watch(folder_module, "read_run")
    watch(manifests_module, "read_lines")
    return found


@pytest.mark.parametrize("stages", [1, 2])
def test_one_sample(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: Counter[str], stages: int
) -> None:
    """Once a stage; a run that is gone on with reads its settings and its manifest once."""
    monkeypatch.chdir(tmp_path)
    asked: dict[str, Any] = {
        "model": toys.model,
        "classifier": toys.classifier,
        "class_": 0,
        "out": "o",
    }
    if stages == 2:
        asked |= {"upsampler": toys.upsampler, "upsample_steps": 1}
    choose_schedule.cache_clear()
    adm_cli.sample(**asked, steps=2, num=1)
    assert choose_schedule.cache_info().misses == stages
    decided = {"resolve": stages, "choose_dtype": stages, "choose_device": 1, "fitting_batch": 1}
    assert {name: calls[name] for name in decided} == decided
    calls.clear()
    adm_cli.sample(**asked, steps=2, num=2)
    assert (calls["read_run"], calls["read_lines"]) == (1, 1)
