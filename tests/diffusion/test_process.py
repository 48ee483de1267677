"""Forward and reverse formulas against the original's numbers, and identities between them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from adm_cli.diffusion.losses import prior_bits_per_dim
from adm_cli.diffusion.process import (
    Reverse,
    condition_mean,
    condition_score,
    ddim_reverse_step,
    ddim_step,
    ddpm_step,
    model_timesteps,
    p_mean_variance,
    predict_eps_from_xstart,
    predict_xstart_from_eps,
    predict_xstart_from_v,
    q_mean_variance,
    q_posterior_mean_variance,
    q_sample,
    v_target,
)
from adm_cli.diffusion.schedule import NoiseSchedule
from tests.golden_arrays import Arrays, arrays, close, stems

PREDICTIONS: dict[str, Any] = {"EPSILON": "eps", "START_X": "x_start"}
VARIANCES: dict[str, Any] = {
    "LEARNED_RANGE": "learned_range",
    "FIXED_LARGE": "fixed_large",
    "FIXED_SMALL": "fixed_small",
}
# the largest relative error, by precision; float32 at cosine's last step divides by 5e-5
DTYPES = {"f64": (torch.float64, 1e-9), "f32": (torch.float32, 2e-5)}
FILES = stems("process", "p_mean_variance*")


def make_schedule(proc: list[Any]) -> NoiseSchedule:
    name, steps, respacing = proc
    return NoiseSchedule.named(name, steps).respace(respacing or "")


class Case:
    """One golden file of constant network outputs, in one precision."""

    def __init__(self, stem: str, precision: str) -> None:
        self.golden: Arrays = arrays(f"process/{stem}.safetensors")
        self.dtype, self.tolerance = DTYPES[precision]
        self.precision = precision
        self.proc = stem.split(".")[1]
        self.schedule = make_schedule(self.golden.meta["proc"])
        self.t = self.golden[f"{self.proc}.t"]

    def __getitem__(self, name: str) -> Tensor:
        return self.golden[name].to(self.dtype)

    def check(self, name: str, value: Tensor, relative: float | None = None) -> None:
        expected = self.golden[f"{self.proc}.{name}.{self.precision}"]
        assert value.dtype == expected.dtype
        close(value, expected, relative=relative or self.tolerance)

    def output(self, mean: str, variance: str) -> Tensor:
        learned = variance == "LEARNED_RANGE"
        parts = [self[f"out.{mean}"], *([self["out.LEARNED_RANGE"]] if learned else [])]
        return torch.cat(parts, dim=1)

    def reverse(self, mean: str, variance: str, **options: Any) -> Reverse:
        return p_mean_variance(
            self.schedule,
            self.output(mean, variance),
            self["x_t"],
            self.t,
            prediction=PREDICTIONS[mean],
            variance=VARIANCES[variance],
            **options,
        )


@pytest.fixture(params=[(f, p) for f in FILES for p in DTYPES], ids=lambda p: f"{p[0]}-{p[1]}")
def case(request: pytest.FixtureRequest) -> Case:
    return Case(*request.param)


@pytest.mark.parametrize("precision", DTYPES)
def test_forward_process(precision: str) -> None:
    golden = arrays("process/forward.safetensors")
    dtype, tolerance = DTYPES[precision]
    x_start, x_t, noise = (golden[n].to(dtype) for n in ("x_start", "x_t", "noise"))
    for proc, how in golden.meta["procs"].items():
        schedule, t = make_schedule(how), golden[f"{proc}.t"]
        q = q_mean_variance(schedule, x_start, t)
        posterior = q_posterior_mean_variance(schedule, x_start, x_t, t)
        got = {
            "q_sample": q_sample(schedule, x_start, t, noise),
            "xstart_from_eps": predict_xstart_from_eps(
                schedule, x_t, t, golden["out.EPSILON"].to(dtype)
            ),
            "eps_from_xstart": predict_eps_from_xstart(
                schedule, x_t, t, golden["out.START_X"].to(dtype)
            ),
        }
        for name in ("mean", "variance", "log_variance"):
            got[f"q_mean_variance.{name}"] = getattr(q, name)
            got[f"q_posterior.{name}"] = getattr(posterior, name)
        for name, value in got.items():
            close(value, golden[f"{proc}.{name}.{precision}"], relative=tolerance)
        prior = prior_bits_per_dim(schedule, x_start)
        close(prior, golden[f"{proc}.prior_bpd.{precision}"], relative=max(tolerance, 1e-3))


def test_mean_and_prediction(case: Case) -> None:
    for mean in PREDICTIONS:
        for clip in (False, True):
            for variance in VARIANCES:
                p = case.reverse(mean, variance, clip_denoised=clip)
                case.check(f"{mean}.clip{int(clip)}.mean", p.mean)
                case.check(f"{mean}.clip{int(clip)}.pred_xstart", p.pred_xstart)
        p = case.reverse(mean, "FIXED_SMALL", denoised_fn=lambda x: 0.7 * x + 0.1)
        case.check(f"{mean}.denoised_fn_clip1.mean", p.mean)
        case.check(f"{mean}.denoised_fn_clip1.pred_xstart", p.pred_xstart)


def test_variance(case: Case) -> None:
    for mean in PREDICTIONS:
        for variance in VARIANCES:
            p = case.reverse(mean, variance)
            case.check(f"var.{variance}.variance", p.variance)
            case.check(f"var.{variance}.log_variance", p.log_variance)


def test_guided_and_sampled(case: Case) -> None:
    gradient, noise, x_t = case["cond_grad"], case["noise"], case["x_t"]
    seen = model_timesteps(case.schedule, case.t)
    assert torch.equal(seen, case.golden[f"{case.proc}.t_model"])
    for variance in VARIANCES:
        p = case.reverse("EPSILON", variance)
        guided = condition_mean(p, gradient)
        assert torch.equal(guided.pred_xstart, p.pred_xstart)
        case.check(f"condition_mean.{variance}", guided.mean)
        case.check(f"p_sample.{variance}", ddpm_step(p, case.t, noise))
        case.check(f"p_sample_guided.{variance}", ddpm_step(guided, case.t, noise))
    p = case.reverse("EPSILON", "FIXED_LARGE")
    guided = condition_score(case.schedule, p, x_t, case.t, gradient)
    case.check("condition_score.mean", guided.mean)
    case.check("condition_score.pred_xstart", guided.pred_xstart)


def test_ddim(case: Case) -> None:
    gradient, noise, x_t = case["cond_grad"], case["noise"], case["x_t"]
    checked = 0
    for mean in PREDICTIONS:
        p = case.reverse(mean, "FIXED_LARGE")
        guided = condition_score(case.schedule, p, x_t, case.t, gradient)
        case.check(f"ddim_reverse.{mean}.sample", ddim_reverse_step(case.schedule, p, x_t, case.t))
        for kind, reverse in (("ddim_sample", p), ("ddim_sample_guided", guided)):
            prefix = f"{case.proc}.{kind}.{mean}.eta"
            for key in case.golden.names(prefix):
                if not key.endswith(case.precision):
                    continue
                eta = float(key.removeprefix(prefix).split(".sample")[0])
                # at eta 1 a difference of nearly equal numbers stands under a root
                tolerance = 1e-3 if eta == 1 and case.precision == "f32" else None
                got = ddim_step(case.schedule, reverse.pred_xstart, x_t, case.t, noise, eta)
                case.check(f"{kind}.{mean}.eta{key.removeprefix(prefix)[:-4]}", got, tolerance)
                checked += 1
    assert checked >= 4


def test_wrong_number_of_channels() -> None:
    schedule = NoiseSchedule.linear(100)
    x, t = torch.zeros(1, 3, 2, 2), torch.tensor([5])
    with pytest.raises(ValueError, match="6 output channels, got 3"):
        p_mean_variance(schedule, x, x, t, variance="learned_range")
    with pytest.raises(ValueError, match="3 output channels, got 6"):
        p_mean_variance(schedule, x.repeat(1, 2, 1, 1), x, t, variance="fixed_small")


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_identities(name: str) -> None:
    """Forward and posterior agree with Bayes' rule, and predictions invert each other."""
    schedule = NoiseSchedule.named(name, 1000).respace("50")
    generator = torch.Generator().manual_seed(0)
    x_start, noise = torch.randn(2, 50, 3, 4, 4, generator=generator, dtype=torch.float64)
    t = torch.arange(50)
    x_t = q_sample(schedule, x_start, t, noise)
    close(predict_eps_from_xstart(schedule, x_t, t, x_start), noise, absolute=1e-9)
    recovered = predict_xstart_from_eps(schedule, x_t, t, noise)
    # cosine's last abar is 2e-9: dividing by its root costs four digits
    close(recovered, x_start, absolute=1e-10)
    v = v_target(schedule, x_start, t, noise)
    close(predict_xstart_from_v(schedule, x_t, t, v), x_start, absolute=1e-14)
    # one forward step from x_{t-1} and the marginal of x_{t-1} give the posterior
    late = t[1:]
    abar_prev = schedule.alphas_cumprod[late - 1].view(-1, 1, 1, 1)
    beta = schedule.betas[late].view(-1, 1, 1, 1)
    precision = (1 - beta) / beta + 1 / (1 - abar_prev)
    mean = (
        (1 - beta).sqrt() / beta * x_t[1:] + abar_prev.sqrt() / (1 - abar_prev) * x_start[1:]
    ) / precision
    posterior = q_posterior_mean_variance(schedule, x_start[1:], x_t[1:], late)
    close(posterior.mean, mean, relative=1e-9)
    torch.testing.assert_close(posterior.variance, 1 / precision, rtol=1e-9, atol=0)
    torch.testing.assert_close(posterior.log_variance, -precision.log(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_full_noise_leaves_no_root_of_less_than_nothing(name: str) -> None:
    """In float32 1 - abar_prev - sigma^2 may round to below 0, where few steps are taken."""
    for steps in (2, 3, 5, 8, 10, 25, 50):
        schedule = NoiseSchedule.named(name, 1000).respace(str(steps))
        t = torch.arange(steps)
        x = torch.ones(steps, 3, 2, 2)
        assert ddim_step(schedule, 0.5 * x, x, t, x, eta=1.0).isfinite().all()
