"""Samplers of higher order for few steps, by the exponential integrator.

With lambda = log(alpha / sigma), the probability flow from lambda_s to lambda_t is exactly

    x_t = sigma_t / sigma_s x_s + alpha_t * integral of exp(lambda - lambda_t) x_0(lambda)

(arXiv 2206.00927; for a prediction of x_0, arXiv 2211.01095). DPM-Solver++
and UniPC put a polynomial through known predictions of x_0 in place of x_0(lambda).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from adm_cli.config import Prediction, Variance
from adm_cli.diffusion.guidance import Guidance
from adm_cli.diffusion.process import DenoisedFn, check_like, ddim_step, dpm_solver_xstart
from adm_cli.diffusion.schedule import NoiseSchedule
from adm_cli.diffusion.steps import ModelFn, NoiseFn, SampleStep, guided_xstart, timesteps_at

_Known = list[tuple[int, Tensor]]  # indices and their predictions of x_0, newest last


@torch.no_grad()
def dpm_solver_sample(
    model_fn: ModelFn,
    schedule: NoiseSchedule,
    x_T: Tensor,
    *,
    noise: NoiseFn,
    guidance: Guidance | None = None,
    prediction: Prediction = "eps",
    variance: Variance = "learned_range",
    clip_denoised: bool = True,
    denoised_fn: DenoisedFn | None = None,
    eta: float = 0.0,
) -> Iterator[SampleStep]:
    """DPM-Solver++(2M), second order at one evaluation a step (arXiv 2211.01095, algorithm 2).

    Written as DDIM from an extrapolated x_0, which gives the paper's update and its stochastic
    form with ``eta`` (in [0, 1]) 1. All else is as in every sampler: `adm_cli.diffusion.steps`.
    """
    denoise = partial(
        guided_xstart, model_fn, schedule, guidance=guidance, prediction=prediction,
        variance=variance, clip_denoised=clip_denoised, denoised_fn=denoised_fn,
    )  # fmt: skip
    x = x_T
    before: Tensor | None = None
    for i in reversed(range(len(schedule))):
        t, _ = timesteps_at(schedule, i, x)
        x_0 = denoise(x, i)
        ahead = dpm_solver_xstart(schedule, x_0, before, t)
        x, before = ddim_step(schedule, ahead, x, t, noise(i, x), eta), x_0
        yield SampleStep(i, x, x_0)


@torch.no_grad()
def dpm_solver_3m_sample(
    model_fn: ModelFn,
    schedule: NoiseSchedule,
    x_T: Tensor,
    *,
    noise: NoiseFn,
    guidance: Guidance | None = None,
    prediction: Prediction = "eps",
    variance: Variance = "learned_range",
    clip_denoised: bool = True,
    denoised_fn: DenoisedFn | None = None,
) -> Iterator[SampleStep]:
    """DPM-Solver++(3M): third order at one evaluation a step (arXiv 2211.01095).

    Deterministic given x_T. All else is as in every sampler: `adm_cli.diffusion.steps`.
    """
    denoise = partial(
        guided_xstart, model_fn, schedule, guidance=guidance, prediction=prediction,
        variance=variance, clip_denoised=clip_denoised, denoised_fn=denoised_fn,
    )  # fmt: skip
    x, known = x_T, _Known()
    for i in reversed(range(len(schedule))):
        known = [*known[-2:], (i, denoise(x, i))]
        noise(i, x)
        x = _step(schedule, x, i, i - 1, known[-_order(i, 3) :])
        yield SampleStep(i, x, known[-1][1])


@torch.no_grad()
def unipc_sample(
    model_fn: ModelFn,
    schedule: NoiseSchedule,
    x_T: Tensor,
    *,
    noise: NoiseFn,
    guidance: Guidance | None = None,
    prediction: Prediction = "eps",
    variance: Variance = "learned_range",
    clip_denoised: bool = True,
    denoised_fn: DenoisedFn | None = None,
    order: int = 3,
) -> Iterator[SampleStep]:
    """UniPC: predicts as DPM-Solver++ of an ``order`` of 1 to 3, then corrects (arXiv 2302.04867).

    One evaluation a step: the correction uses the prediction of x_0 that the next step needs
    anyway, and is of one order more. The weights integrate the polynomial exactly, so the paper's
    B(h) cancels out. Deterministic given x_T. All else is as in every sampler:
    `adm_cli.diffusion.steps`.
    """
    if not 1 <= order <= 3:
        raise ValueError(f"order must be from 1 to 3, got {order}")
    denoise = partial(
        guided_xstart, model_fn, schedule, guidance=guidance, prediction=prediction,
        variance=variance, clip_denoised=clip_denoised, denoised_fn=denoised_fn,
    )  # fmt: skip
    x, before, known = x_T, x_T, _Known()
    for i in reversed(range(len(schedule))):
        x_0 = denoise(x, i)
        if known:  # once more from the last place, now with the x_0 found at the end of that step
            used = known[-_order(i + 1, order) :]
            x = _step(schedule, before, i + 1, i, [*used, (i, x_0)])
        known = [*known[-2:], (i, x_0)]
        noise(i, x)
        before, x = x, _step(schedule, x, i, i - 1, known[-_order(i, order) :])
        yield SampleStep(i, x, x_0)


@torch.no_grad()
def heun_sample(
    model_fn: ModelFn,
    schedule: NoiseSchedule,
    x_T: Tensor,
    *,
    noise: NoiseFn,
    guidance: Guidance | None = None,
    prediction: Prediction = "eps",
    variance: Variance = "learned_range",
    clip_denoised: bool = True,
    denoised_fn: DenoisedFn | None = None,
    gamma: float = 0.0,
    inflation: float = 1.0,
    churned: tuple[float, float] = (0.05, 50.0),
) -> Iterator[SampleStep]:
    """Heun's second-order method for the integral above: both ends of a step, and a line between.

    Two evaluations a step, one at the last. (EDM's Heun, arXiv 2206.00364, works in x / alpha,
    where the first step from almost pure noise of a cosine schedule is lost.) Deterministic given
    x_T, unless each step whose sigma is in ``churned`` first goes back up by noise, to 1 +
    ``gamma`` times its sigma: EDM's churn (algorithm 2), to the nearest original timestep.
    ``inflation`` multiplies that noise; a little above 1 makes up for networks that take away too
    much. The defaults of ``churned`` are EDM's for ADM (S_tmin and S_tmax of its table 5). All else
    is as in every sampler: `adm_cli.diffusion.steps`.
    """
    process, places = schedule, list(range(len(schedule)))
    if gamma > 0:
        process = schedule.unspaced
        places = [process.place(t)[1] for t in schedule.timesteps.tolist()]
    denoise = partial(
        guided_xstart, model_fn, process, guidance=guidance, prediction=prediction,
        variance=variance, clip_denoised=clip_denoised, denoised_fn=denoised_fn,
    )  # fmt: skip
    x = x_T
    for i in reversed(range(len(schedule))):
        start, end = places[i], places[i - 1] if i > 0 else -1
        if churned[0] <= float(process.sigmas[start]) <= churned[1]:
            start = _back_up(process, start, gamma)
        drawn = check_like("the noise", noise(i, x), x)
        x = _noisier(process, x, places[i], start, inflation * drawn)
        x_0 = denoise(x, start)
        before, x = x, _step(process, x, start, end, [(start, x_0)])
        if end >= 0:
            x = _step(process, before, start, end, [(start, x_0), (end, denoise(x, end))])
        yield SampleStep(i, x, x_0)


def churn_gamma(churn: float, steps: int) -> float:
    """A step's part of EDM's S_churn, at most sqrt(2) - 1 (arXiv 2206.00364, algorithm 2)."""
    return min(churn / steps, math.sqrt(2) - 1)


def _back_up(process: NoiseSchedule, i: int, gamma: float) -> int:
    """The index of 1 + ``gamma`` times the sigma of index i; i itself where none is nearer."""
    sigma = float(process.sigmas[i])
    return max(i, int((process.sigmas - (1 + gamma) * sigma).abs().argmin()))


def _noisier(process: NoiseSchedule, x: Tensor, low: int, high: int, noise: Tensor) -> Tensor:
    """x of index ``high``, from that of index ``low``: q(x_high | x_low)."""
    if high == low:
        return x
    kept = process.alphas_cumprod[high] / process.alphas_cumprod[low]
    return float(kept.sqrt()) * x + float((1 - kept).sqrt()) * noise


def _order(i: int, most: int) -> int:
    """Of the step from index i: the last two are of first order, as in `dpm_solver_xstart`."""
    return most if i > 1 else 1


def _step(schedule: NoiseSchedule, x: Tensor, start: int, end: int, known: _Known) -> Tensor:
    """x at index ``end`` from that at index ``start``, by the polynomial through ``known``."""
    if end < 0:  # no noise is left: all weight lies on the last prediction
        return known[-1][1]
    half_log_snr = schedule.half_log_snr
    places = half_log_snr[[index for index, _ in known]]
    weights = integral_weights(places, float(half_log_snr[start]), float(half_log_snr[end]))
    sigma = schedule.sqrt_one_minus_alphas_cumprod
    alpha = float(schedule.sqrt_alphas_cumprod[end])
    x = float(sigma[end] / sigma[start]) * x
    for weight, (_, x_0) in zip(weights.tolist(), known, strict=True):
        x = x + alpha * weight * x_0
    return x


def integral_weights(places: Tensor, start: float, end: float) -> Tensor:
    """Weights [K] for values at ``places`` [K], distinct, float64, summing to 1 - e^(start - end).

    With them the sum over the values of any polynomial p of degree below K is the integral of
    exp(u - end) p(u) from ``start`` to ``end``.
    """
    h = end - start
    moments = [-math.expm1(-h)]  # of ((u - start) / h)^n, by parts
    for n in range(1, len(places)):
        moments.append(1 - n * moments[-1] / h)
    powers = torch.arange(len(places), dtype=torch.float64, device="cpu")[:, None]
    nodes = ((places - start) / h) ** powers  # [K, K], a row a power
    weights: Tensor = torch.linalg.solve(
        nodes, torch.tensor(moments, dtype=torch.float64, device="cpu")
    )
    return weights
