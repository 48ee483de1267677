"""The golden outputs and gradients on another device (ADM_TEST_DEVICE=cuda), or on the CPU.

benchmarks/gpu_checks.py checks the same without pytest.
"""

from __future__ import annotations

import os

import pytest

from adm_cli.devices import choose_device
from tests.golden_arrays import check_on_device, stems

DEVICE = choose_device(os.environ.get("ADM_TEST_DEVICE", "cpu"))


@pytest.mark.parametrize("name", stems("models"))
def test_golden_arrays(name: str) -> None:
    check_on_device(name, DEVICE)
