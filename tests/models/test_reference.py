"""Networks against the original implementation's outputs and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from adm_cli.checkpoints.loading import build_model, expected_shapes
from adm_cli.diffusion.guidance import classifier_gradient
from adm_cli.models.layers import GroupNorm32, qkv_attention, timestep_embedding
from tests.golden_arrays import (
    ROOT,
    architectures,
    arrays,
    close,
    config_from_constructor,
    inputs,
    load,
    stems,
)


@pytest.mark.parametrize("name", stems("models"))
def test_output_float64(name: str) -> None:
    model, golden = load(name, torch.float64)
    x, t, extra = inputs(golden, torch.float64)
    close(model(x, t, **extra), golden["output_f64"], relative=1e-9)


@pytest.mark.parametrize("name", stems("models"))
def test_output_float32(name: str) -> None:
    model, golden = load(name, torch.float32)
    x, t, extra = inputs(golden, torch.float32)
    close(model(x, t, **extra), golden["output_f64"], absolute=1e-4)


@pytest.mark.parametrize("name", stems("models"))
def test_vector_jacobian_product(name: str) -> None:
    model, golden = load(name, torch.float64)
    model.requires_grad_(True)
    x, t, extra = inputs(golden, torch.float64)
    x.requires_grad_(True)
    (golden["vjp.v"].double() * model(x, t, **extra)).sum().backward()
    assert x.grad is not None
    close(x.grad, golden["vjp.grad_x_f64"], relative=1e-9)
    parameters = dict(model.named_parameters())
    norms = torch.stack([parameters[key].grad.norm() for key in golden.meta["state_dict_keys"]])
    close(norms, golden["vjp.param_grad_norm_f64"], relative=1e-9)


@pytest.mark.parametrize("name", stems("models", "cls*"))
def test_classifier_gradient(name: str) -> None:
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        model, golden = load(name, dtype)
        x, t, _ = inputs(golden, dtype)
        gradient = classifier_gradient(model, x, t, golden["y"])
        close(gradient, golden["grad_log_prob_y_f64"], relative=tolerance)


@pytest.mark.parametrize("name", stems("models"))
def test_half_precision_torso(name: str) -> None:
    """As many half parameters as the original, and an output about as far from the truth."""
    if not (ROOT / "models_fp16.safetensors").is_file():
        golden_half = None
    else:
        golden_half = arrays("models_fp16.safetensors")
    for dtype, tolerance in ((torch.float16, 0.02), (torch.bfloat16, 0.15)):
        model, golden = load(name, dtype)
        x, t, extra = inputs(golden, torch.float32)
        output = model(x, t, **extra)
        assert output.dtype == torch.float32
        close(output, golden["output_f64"], relative=tolerance)
        half = {key for key, value in model.named_parameters() if value.dtype == dtype}
        assert half == set(model.torso_parameters())
        if golden_half is not None and name in golden_half.meta["cases"]:
            assert half == set(golden_half.meta["cases"][name]["float16_parameters"])


@pytest.mark.parametrize("name", sorted(architectures()["checkpoints"]))
def test_published_architecture(name: str) -> None:
    """All names, shapes and counts of the 15 published checkpoints, in order."""
    row = architectures()["checkpoints"][name]
    shapes = expected_shapes(config_from_constructor(row["class"], row["constructor_args"]))
    assert list(shapes.items()) == [(key, tuple(shape)) for key, shape in row["state_dict"]]
    with torch.device("meta"):
        model = build_model(config_from_constructor(row["class"], row["constructor_args"]))
    assert sum(p.numel() for p in model.parameters()) == row["num_parameters"]
    assert len(shapes) == row["num_state_dict_keys"]


def test_timestep_embedding() -> None:
    golden = arrays("nn_ops.safetensors")
    for kind in ("int", "float"):
        t = golden[f"timestep_embedding.{kind}.t"]
        for dim in (32, 33, 64, 128):
            key = f"timestep_embedding.{kind}.dim{dim}"
            # an angle of 1000 radians is good to 6e-5 in float32, and processors differ in it
            close(timestep_embedding(t, dim), golden[f"{key}.f32"], absolute=2e-4)
            double = timestep_embedding(t, dim, dtype=torch.float64)
            close(double, golden[f"{key}.f64"], relative=1e-9)
    t = golden["timestep_embedding.float.t"]
    short = timestep_embedding(t, 32, max_period=golden.meta["max_period"])
    close(short, golden["timestep_embedding.maxperiod.f32"], absolute=2e-4)


def test_group_norm() -> None:
    golden = arrays("nn_ops.safetensors")
    norm = GroupNorm32(64)
    norm.load_state_dict({"weight": golden["group_norm.weight"], "bias": golden["group_norm.bias"]})
    close(norm(golden["group_norm.x"]), golden["group_norm.out_f64"], absolute=1e-5)
    half = norm(golden["group_norm.x_f16"])
    assert half.dtype == torch.float16
    close(half, golden["group_norm.out_f16"], absolute=2e-3)
    close(
        norm.double()(golden["group_norm.x"].double()), golden["group_norm.out_f64"], relative=1e-9
    )


@pytest.mark.parametrize("order", ["legacy", "new"])
def test_attention(order: Any) -> None:
    golden = arrays("nn_ops.safetensors")
    qkv, heads = golden["attention.qkv"], int(golden["attention.n_heads"])
    close(qkv_attention(qkv, heads, order), golden[f"attention.{order}.out_f64"], absolute=1e-5)
    double = qkv_attention(qkv.double(), heads, order)
    close(double, golden[f"attention.{order}.out_f64"], relative=1e-9)
