"""The golden outputs and gradients on another device: ADM_TEST_DEVICE=cuda, as benchmarks/gpu.sh.

Without that variable, on the CPU.
"""

from __future__ import annotations

import os

import pytest
import torch

from adm_cli.devices import choose_device, reproducible_kernels
from adm_cli.diffusion.guidance import classifier_gradient
from tests.golden_arrays import close, stems
from tests.models.test_reference import inputs, load

DEVICE = choose_device(os.environ.get("ADM_TEST_DEVICE", "cpu"))


@pytest.mark.parametrize("name", stems("models"))
def test_golden_arrays(name: str) -> None:
    model, golden = load(name, torch.float32)
    model.to(DEVICE)
    x, t, extra = inputs(golden, torch.float32)
    extra = {key: value.to(DEVICE) for key, value in extra.items()}
    with reproducible_kernels():
        output = model(x.to(DEVICE), t.to(DEVICE), **extra)
        close(output.cpu(), golden["output_f64"], absolute=1e-4)
        if golden.meta["model_class"] == "EncoderUNetModel":
            y = golden["y"].to(DEVICE)
            gradient = classifier_gradient(model, x.to(DEVICE), t.to(DEVICE), y)
            close(gradient.cpu(), golden["grad_log_prob_y_f64"], relative=1e-4)
