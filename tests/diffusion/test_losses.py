"""Losses and likelihoods against the original's numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from adm_cli.config import Prediction, Variance
from adm_cli.diffusion.losses import (
    approx_standard_normal_cdf,
    bits_per_dim,
    discretized_gaussian_log_likelihood,
    normal_kl,
    training_loss,
    vb_term,
)
from adm_cli.diffusion.process import predict_xstart_from_eps, q_sample, v_target
from adm_cli.diffusion.schedule import NoiseSchedule
from adm_cli.diffusion.steps import ModelFn
from tests.diffusion.test_process import DTYPES, PREDICTIONS, VARIANCES, make_schedule
from tests.golden_arrays import arrays, close, stems

LOSSES: dict[str, Any] = {
    "MSE": "mse",
    "RESCALED_MSE": "rescaled_mse",
    "KL": "kl",
    "RESCALED_KL": "rescaled_kl",
}


def constant(output: Tensor) -> ModelFn:
    """A network that always says the same."""
    return lambda _x, _t: output


def by_timestep(outputs: Tensor, timesteps: Tensor) -> ModelFn:
    """A network whose output is stored for every timestep."""
    index = {int(original): i for i, original in enumerate(timesteps)}
    return lambda _x, t: outputs[index[int(t[0])]]


TOLERANCE = {"f64": 1e-9, "f32": 1e-4}


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("stem", stems("process", "losses*"))
def test_training_losses(stem: str, precision: str) -> None:
    golden = arrays(f"process/{stem}.safetensors")
    dtype = DTYPES[precision][0]
    proc = stem.split(".")[1]
    schedule, t = make_schedule(golden.meta["proc"]), golden[f"{proc}.t"]
    x_start, noise = golden["x_start"].to(dtype), golden["noise"].to(dtype)
    x_t = q_sample(schedule, x_start, t, noise)
    checked = 0
    for mean, prediction in PREDICTIONS.items():
        for variance, kind in VARIANCES.items():
            parts = [golden[f"out.{mean}"]]
            if variance == "LEARNED_RANGE":
                parts.append(golden["out.LEARNED_RANGE"])
            output = torch.cat(parts, dim=1).to(dtype)
            for name, loss in LOSSES.items():
                key = f"{proc}.{name}.{mean}.{variance}"
                out = output.clone().requires_grad_(True)
                terms = training_loss(
                    schedule,
                    constant(out),
                    x_start,
                    t,
                    t,
                    noise,
                    prediction=prediction,
                    variance=kind,
                    loss=loss,
                )
                for part in ("loss", "mse", "vb"):
                    value = getattr(terms, part)
                    stored = f"{key}.{part}.{precision}" in golden
                    assert (value is not None) == stored, f"{key}.{part}"
                    if stored:
                        expected = golden[f"{key}.{part}.{precision}"]
                        close(value, expected, relative=TOLERANCE[precision])
                if precision == "f64":
                    (gradient,) = torch.autograd.grad(terms.loss.sum(), out)
                    close(gradient, golden[f"{key}.grad_out"], relative=1e-6)
                checked += 1
            for clip in (False, True):
                term = vb_term(
                    schedule,
                    output,
                    x_start,
                    x_t,
                    t,
                    prediction=prediction,
                    variance=kind,
                    clip_denoised=clip,
                )
                expected = golden[f"{proc}.vb_terms.{mean}.{variance}.clip{int(clip)}.{precision}"]
                close(term.bits, expected, relative=TOLERANCE[precision])
    assert checked == 24


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("stem", stems("process", "bpd*"))
def test_bits_per_dim(stem: str, precision: str) -> None:
    golden = arrays(f"process/{stem}.safetensors")
    dtype = DTYPES[precision][0]
    schedule = make_schedule(golden.meta["proc"])
    steps = len(schedule)
    checked = 0
    for variance, kind in VARIANCES.items():
        channels = 6 if variance == "LEARNED_RANGE" else 3
        outputs = golden["model_out"].to(dtype)[:, :, :channels]
        for clip in (False, True):
            got = bits_per_dim(
                schedule,
                by_timestep(outputs, schedule.timesteps),
                golden["x_start"].to(dtype),
                noise=lambda i, _like: golden["noise"][steps - 1 - i].to(dtype),
                variance=kind,
                clip_denoised=clip,
            )
            key = f"{variance}.clip{int(clip)}"
            for name, value in (
                ("vb", got.vb),
                ("xstart_mse", got.xstart_mse),
                ("mse", got.mse),
                ("prior_bpd", got.prior),
                ("total_bpd", got.total),
            ):
                # the prior is a tiny difference of numbers near 1
                relative = max(TOLERANCE[precision], 1e-3 if name == "prior_bpd" else 0)
                close(value, golden[f"{key}.{name}.{precision}"], relative=relative)
                checked += 1
    assert checked == 30


def test_likelihood_primitives() -> None:
    golden = arrays("process/likelihood.safetensors")
    for precision, (dtype, _) in DTYPES.items():
        get = {n: golden[n].to(dtype) for n in golden.names() if n.rsplit(".", 1)[1][0] != "o"}
        got = discretized_gaussian_log_likelihood(
            get["dgll.x"], get["dgll.means"], get["dgll.log_scales"]
        )
        truth = golden["dgll.out_f64"]
        # in the far tails float32 cancels before the floor of 1e-12
        near = truth > -10 if precision == "f32" else torch.ones_like(truth, dtype=torch.bool)
        close(got[near], truth[near], relative=1e-3 if precision == "f32" else 1e-9)
        kl = normal_kl(get["kl.mean1"], get["kl.logvar1"], get["kl.mean2"], get["kl.logvar2"])
        close(kl, golden[f"kl.out_{precision}"], relative=TOLERANCE[precision])
        zero = torch.zeros((), dtype=dtype)
        standard = normal_kl(get["kl.mean1"], get["kl.logvar1"], zero, zero)
        close(standard, golden[f"kl.standard_out_{precision}"], relative=TOLERANCE[precision])
        cdf = approx_standard_normal_cdf(get["cdf.x"])
        close(cdf, golden[f"cdf.out_{precision}"], relative=max(TOLERANCE[precision], 1e-6))


def test_likelihood_is_a_distribution() -> None:
    """Over the 256 values of a pixel the probabilities sum to one."""
    x = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    for mean, scale in ((0.0, 0.5), (0.9, 0.01), (-1.0, 2.0)):
        log_scales = torch.full_like(x, scale).log()
        log_p = discretized_gaussian_log_likelihood(x, torch.full_like(x, mean), log_scales)
        assert abs(log_p.exp().sum().item() - 1) < 1e-9


@pytest.mark.parametrize("variance", ["learned_range", "fixed_small"])
def test_v_is_the_same_model_in_other_words(variance: Variance) -> None:
    """A v output and the eps output it stands for: one posterior; MSE(eps) = abar_t MSE(v)."""
    schedule = NoiseSchedule.cosine(1000).respace("20")
    generator = torch.Generator().manual_seed(0)
    x_start, noise, eps = torch.randn(3, 20, 3, 4, 4, generator=generator, dtype=torch.float64)
    rest = torch.randn(20, 3, 4, 4, generator=generator, dtype=torch.float64)
    t = torch.arange(20)
    x_t = q_sample(schedule, x_start, t, noise)
    v = v_target(schedule, predict_xstart_from_eps(schedule, x_t, t, eps), t, eps)
    found = {}
    kinds: tuple[tuple[Prediction, Tensor], ...] = (("eps", eps), ("v", v))
    for prediction, output in kinds:
        full = torch.cat([output, rest], dim=1) if variance == "learned_range" else output
        found[prediction] = training_loss(
            schedule, constant(full), x_start, t, t, noise,
            prediction=prediction, variance=variance,
        )  # fmt: skip
    one, other = found["eps"], found["v"]
    assert one.mse is not None
    assert other.mse is not None
    torch.testing.assert_close(one.mse, schedule.alphas_cumprod * other.mse, rtol=1e-6, atol=1e-12)
    if one.vb is not None and other.vb is not None:
        torch.testing.assert_close(one.vb, other.vb, rtol=1e-6, atol=1e-12)
