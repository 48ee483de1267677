"""Formulas of the forward process q and the reverse process p.

Tensors are [B, C, H, W]; t [B] int64 indexes the (respaced) schedule, 0 the least noise. Equation
numbers are of arXiv 2006.11239 (DDPM) unless another paper is named.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from adm_cli.config import Prediction, Variance
from adm_cli.diffusion.schedule import NoiseSchedule, gather

DenoisedFn = Callable[[Tensor], Tensor]


class Normal(NamedTuple):
    """A Gaussian: mean [B, C, H, W], variance and log_variance broadcastable to it."""

    mean: Tensor
    variance: Tensor
    log_variance: Tensor


class Reverse(NamedTuple):
    """p(x_{t-1} | x_t) and the x_0 it was made from."""

    mean: Tensor
    variance: Tensor
    log_variance: Tensor
    pred_xstart: Tensor


def model_timesteps(schedule: NoiseSchedule, t: Tensor, *, rescale: bool = False) -> Tensor:
    """What the network sees for index t: the original timestep, or float32 t * 1000 / T.

    Returns int64 [B], or float32 [B].
    """
    original = schedule.timesteps[t.cpu()].to(t.device)
    return rescaled(original, schedule.original_timesteps) if rescale else original


def rescaled(original_t: Tensor, original_timesteps: int) -> Tensor:
    """Original timesteps on the scale of a 1000-step process, float32."""
    return original_t.float() * (1000.0 / original_timesteps)


def q_mean_variance(schedule: NoiseSchedule, x_start: Tensor, t: Tensor) -> Normal:
    """q(x_t | x_0), equation 4."""
    return Normal(
        gather(schedule.sqrt_alphas_cumprod, t, x_start) * x_start,
        gather(schedule.one_minus_alphas_cumprod, t, x_start),
        gather(schedule.log_one_minus_alphas_cumprod, t, x_start),
    )


def q_sample(schedule: NoiseSchedule, x_start: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise, equation 4."""
    return (
        gather(schedule.sqrt_alphas_cumprod, t, x_start) * x_start
        + gather(schedule.sqrt_one_minus_alphas_cumprod, t, x_start) * noise
    )


def q_posterior_mean_variance(
    schedule: NoiseSchedule, x_start: Tensor, x_t: Tensor, t: Tensor
) -> Normal:
    """q(x_{t-1} | x_t, x_0), equations 6 and 7; the log-variance is clipped at index 0."""
    return Normal(
        gather(schedule.posterior_mean_coef1, t, x_t) * x_start
        + gather(schedule.posterior_mean_coef2, t, x_t) * x_t,
        gather(schedule.posterior_variance, t, x_t),
        gather(schedule.posterior_log_variance_clipped, t, x_t),
    )


def predict_xstart_from_eps(schedule: NoiseSchedule, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """Equation 4 solved for x_0."""
    return (
        gather(schedule.sqrt_recip_alphas_cumprod, t, x_t) * x_t
        - gather(schedule.sqrt_recipm1_alphas_cumprod, t, x_t) * eps
    )


def predict_xstart_from_v(schedule: NoiseSchedule, x_t: Tensor, t: Tensor, v: Tensor) -> Tensor:
    """x_0 = sqrt(abar_t) x_t - sqrt(1 - abar_t) v (arXiv 2202.00512, section 4).

    Unlike equation 4 solved for x_0 it never divides by a small sqrt(abar_t), so an error of the
    network at high noise stays as small as it is.
    """
    return (
        gather(schedule.sqrt_alphas_cumprod, t, x_t) * x_t
        - gather(schedule.sqrt_one_minus_alphas_cumprod, t, x_t) * v
    )


def v_target(schedule: NoiseSchedule, x_start: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """v = sqrt(abar_t) noise - sqrt(1 - abar_t) x_0 (arXiv 2202.00512, section 4)."""
    return (
        gather(schedule.sqrt_alphas_cumprod, t, x_start) * noise
        - gather(schedule.sqrt_one_minus_alphas_cumprod, t, x_start) * x_start
    )


def predict_eps_from_xstart(
    schedule: NoiseSchedule, x_t: Tensor, t: Tensor, x_start: Tensor
) -> Tensor:
    """Equation 4 solved for the noise."""
    return (gather(schedule.sqrt_recip_alphas_cumprod, t, x_t) * x_t - x_start) / gather(
        schedule.sqrt_recipm1_alphas_cumprod, t, x_t
    )


def predicted_xstart(
    schedule: NoiseSchedule, output: Tensor, x_t: Tensor, t: Tensor, prediction: Prediction
) -> Tensor:
    """The x_0 that a network's output, [B, C, H, W] without variances, stands for.

    Raises ValueError for another kind of prediction.
    """
    if prediction == "eps":
        return predict_xstart_from_eps(schedule, x_t, t, output)
    if prediction == "v":
        return predict_xstart_from_v(schedule, x_t, t, output)
    if prediction != "x_start":
        raise ValueError(f"unknown prediction {prediction!r}: expected eps, x_start or v")
    return output


def p_mean_variance(
    schedule: NoiseSchedule,
    model_output: Tensor,
    x_t: Tensor,
    t: Tensor,
    *,
    prediction: Prediction = "eps",
    variance: Variance = "learned_range",
    clip_denoised: bool = True,
    denoised_fn: DenoisedFn | None = None,
) -> Reverse:
    """p(x_{t-1} | x_t) from the network's raw output.

    ``model_output`` is [B, C, H, W], or [B, 2C, H, W] with a learned variance. The predicted x_0
    passes through ``denoised_fn`` (thresholding and the like), then `clip_xstart` if
    ``clip_denoised``. Raises ValueError if the channels do not fit the kind of variance, for
    another kind of it or of prediction, and for other shapes than x_t's.
    """
    channels = x_t.shape[1]
    wanted = 2 * channels if variance == "learned_range" else channels
    if model_output.shape[1] != wanted:
        raise ValueError(
            f"variance {variance!r} needs {wanted} output channels, got {model_output.shape[1]}"
        )
    output = check_like("the network's prediction", model_output[:, :channels], x_t)
    pred_xstart = predicted_xstart(schedule, output, x_t, t, prediction)
    if denoised_fn is not None:
        pred_xstart = check_like("the result of denoised_fn", denoised_fn(pred_xstart), x_t)
    if clip_denoised:
        pred_xstart = clip_xstart(pred_xstart)
    mean = q_posterior_mean_variance(schedule, pred_xstart, x_t, t).mean
    var, log_var = _variance(schedule, model_output[:, channels:], t, mean, variance)
    return Reverse(mean, var, log_var, pred_xstart)


def check_like(what: str, value: Tensor, x: Tensor) -> Tensor:
    """``value``; ValueError unless shaped as x: one image's would pass for that of all."""
    if value.shape != x.shape:
        raise ValueError(f"{what} is {list(value.shape)}, expected {list(x.shape)}, as x_t is")
    return value


def dynamic_threshold(x: Tensor, quantile: float) -> Tensor:
    """Each image over the ``quantile`` of its absolute values, where that is above 1.

    Clamped to it first (arXiv 2205.11487, section 2.3; there 0.995): what strong guidance drives
    out of [-1, 1] comes back into it whole, where clamping would leave flat patches. A
    `DenoisedFn`, x [B, C, H, W].
    """
    of_each = [torch.quantile(image.abs().flatten(), quantile) for image in x]
    s = torch.stack(of_each).clamp(min=1).reshape(-1, 1, 1, 1)
    return x.clamp(-s, s) / s


def scaled_eps(
    schedule: NoiseSchedule, output: Tensor, x_t: Tensor, t: Tensor, prediction: Prediction,
    scale: float,
) -> Tensor:  # fmt: skip
    """A network's output [B, C or 2C, H, W] whose predicted noise is divided by ``scale``.

    In sampling a network meets its own errors, and predicts larger noise than it did in training
    (arXiv 2308.15321, section 5; for ADM about 1.004, more with fewer steps). Of x_0 and v the
    same, written out; ``t`` are indices of ``schedule``. Variance channels stay.
    """
    channels = x_t.shape[1]
    found, rest = output[:, :channels] / scale, 1 - 1 / scale
    if prediction == "x_start":
        found = found + rest * gather(schedule.sqrt_recip_alphas_cumprod, t, x_t) * x_t
    elif prediction == "v":
        found = found - rest * gather(schedule.sqrt_recipm1_alphas_cumprod, t, x_t) * x_t
    return torch.cat([found, output[:, channels:]], dim=1)


def clip_xstart(x: Tensor) -> Tensor:
    """Clamped to [-1, 1]; what overflowed becomes NaN instead of a pixel like any other."""
    return torch.where(x.isfinite(), x.clamp(-1, 1), math.nan)


def _variance(
    schedule: NoiseSchedule, v: Tensor, t: Tensor, like: Tensor, variance: Variance
) -> tuple[Tensor, Tensor]:
    if variance == "learned_range":  # arXiv 2102.09672, equation 15; v in [-1, 1], not clamped
        low = gather(schedule.posterior_log_variance_clipped, t, like)
        high = gather(schedule.log_betas, t, like)
        fraction = (v + 1) / 2
        log_var = fraction * high + (1 - fraction) * low
        return log_var.exp(), log_var
    if variance == "fixed_large":
        return (
            gather(schedule.fixed_large_variance, t, like),
            gather(schedule.fixed_large_log_variance, t, like),
        )
    if variance != "fixed_small":
        raise ValueError(
            f"unknown variance {variance!r}: expected learned_range, fixed_large or fixed_small"
        )
    return (
        gather(schedule.posterior_variance, t, like),
        gather(schedule.posterior_log_variance_clipped, t, like),
    )


def condition_mean(p: Reverse, gradient: Tensor) -> Reverse:
    """Shift the mean by variance * gradient of log p(y | x_t) (arXiv 2105.05233, algorithm 1).

    The predicted x_0 stays unguided, as in the original. Raises ValueError for another shape.
    """
    check_like("the guidance", gradient, p.mean)
    return p._replace(mean=p.mean + p.variance * gradient)


def condition_score(
    schedule: NoiseSchedule, p: Reverse, x_t: Tensor, t: Tensor, gradient: Tensor
) -> Reverse:
    """eps - sqrt(1 - abar_t) * gradient (arXiv 2105.05233, algorithm 2).

    Like the original, does not clamp the new x_0 again. Raises ValueError for another shape.
    """
    check_like("the guidance", gradient, x_t)
    eps = predict_eps_from_xstart(schedule, x_t, t, p.pred_xstart)
    eps = eps - gather(schedule.sqrt_one_minus_alphas_cumprod, t, x_t) * gradient
    pred_xstart = predict_xstart_from_eps(schedule, x_t, t, eps)
    mean = q_posterior_mean_variance(schedule, pred_xstart, x_t, t).mean
    return p._replace(mean=mean, pred_xstart=pred_xstart)


def ddpm_step(p: Reverse, t: Tensor, noise: Tensor) -> Tensor:
    """x_{t-1} drawn from p, without noise at index 0 (algorithm 2); ValueError for shapes."""
    check_like("the noise", noise, p.mean)
    moving = (t > 0).to(noise.dtype).to(noise.device).reshape(-1, 1, 1, 1)
    return p.mean + moving * torch.exp(0.5 * p.log_variance) * noise


def ddim_step(
    schedule: NoiseSchedule,
    x_start: Tensor,
    x_t: Tensor,
    t: Tensor,
    noise: Tensor,
    eta: float = 0.0,
) -> Tensor:
    """x_{t-1} by equations 12 and 16 of arXiv 2010.02502 (DDIM), from a predicted x_0.

    ``eta`` in [0, 1]. Raises ValueError for any other, and for noise of another shape.
    """
    check_like("the noise", noise, x_t)
    if not 0 <= eta <= 1:  # more noise than the next x has
        raise ValueError(f"eta must be in [0, 1], got {eta:g}")
    eps = predict_eps_from_xstart(schedule, x_t, t, x_start)
    abar = gather(schedule.alphas_cumprod, t, x_t)
    abar_prev = gather(schedule.alphas_cumprod_prev, t, x_t)
    sigma = eta * torch.sqrt((1 - abar_prev) / (1 - abar)) * torch.sqrt(1 - abar / abar_prev)
    left = (1 - abar_prev - sigma**2).clamp(min=0)  # below 0 by rounding, where eta is 1
    mean = x_start * torch.sqrt(abar_prev) + torch.sqrt(left) * eps
    moving = (t > 0).to(noise.dtype).to(noise.device).reshape(-1, 1, 1, 1)
    return mean + moving * sigma * noise


def dpm_solver_xstart(
    schedule: NoiseSchedule, x_start: Tensor, before: Tensor | None, t: Tensor
) -> Tensor:
    """The x_0 halfway to index t - 1, by a line through this one and that ``before`` it.

    A line over half the logarithm of the signal-to-noise ratio (arXiv 2211.01095, algorithm 2;
    ``before`` is of index t + 1, None at the first step). The last two steps take ``x_start`` as
    it is, the paper's lower order at the end: that to index 0 is by far the longest, that to no
    noise at all infinitely long.
    """
    if before is None:
        return x_start
    return x_start + gather(schedule.second_order_weights, t, x_start) * (x_start - before)


def ddim_reverse_step(schedule: NoiseSchedule, p: Reverse, x_t: Tensor, t: Tensor) -> Tensor:
    """x_{t+1} by the deterministic DDIM run backwards (arXiv 2010.02502, section 4.3)."""
    eps = predict_eps_from_xstart(schedule, x_t, t, p.pred_xstart)
    abar_next = gather(schedule.alphas_cumprod_next, t, x_t)
    return p.pred_xstart * torch.sqrt(abar_next) + torch.sqrt(1 - abar_next) * eps
