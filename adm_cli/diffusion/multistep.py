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
from adm_cli.diffusion.process import DenoisedFn, ddim_step, dpm_solver_xstart
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
    form with ``eta`` 1.
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

    Deterministic given x_T.
    """
    denoise = partial(
        guided_xstart, model_fn, schedule, guidance=guidance, prediction=prediction,
        variance=variance, clip_denoised=clip_denoised, denoised_fn=denoised_fn,
    )  # fmt: skip
    x, known = x_T, _Known()
    for i in reversed(range(len(schedule))):
        known = [*known[-2:], (i, denoise(x, i))]
        noise(i, x)
        x = _step(schedule, x, i, known[-_order(i, 3) :])
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
) -> Iterator[SampleStep]:
    """UniPC-3: predicts as DPM-Solver++(3M), then corrects (arXiv 2302.04867).

    One evaluation a step: the correction uses the prediction of x_0 that the next step needs
    anyway. The weights integrate the polynomial exactly, so the paper's B(h) cancels out.
    Deterministic given x_T.
    """
    denoise = partial(
        guided_xstart, model_fn, schedule, guidance=guidance, prediction=prediction,
        variance=variance, clip_denoised=clip_denoised, denoised_fn=denoised_fn,
    )  # fmt: skip
    x, before, known = x_T, x_T, _Known()
    for i in reversed(range(len(schedule))):
        x_0 = denoise(x, i)
        if known:  # once more from the last place, now with the x_0 found at the end of that step
            used = known[-_order(i + 1, 3) :]
            x = _step(schedule, before, i + 1, [*used, (i, x_0)])
        known = [*known[-2:], (i, x_0)]
        noise(i, x)
        before, x = x, _step(schedule, x, i, known[-_order(i, 3) :])
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
) -> Iterator[SampleStep]:
    """Heun's second-order method for the integral above: both ends of a step, and a line between.

    Two evaluations a step, one at the last. Deterministic given x_T. (EDM's Heun, arXiv 2206.00364,
    works in x / alpha, where the first step from almost pure noise of a cosine schedule is lost.)
    """
    denoise = partial(
        guided_xstart, model_fn, schedule, guidance=guidance, prediction=prediction,
        variance=variance, clip_denoised=clip_denoised, denoised_fn=denoised_fn,
    )  # fmt: skip
    x = x_T
    for i in reversed(range(len(schedule))):
        x_0 = denoise(x, i)
        noise(i, x)
        before, x = x, _step(schedule, x, i, [(i, x_0)])
        if i > 0:
            x = _step(schedule, before, i, [(i, x_0), (i - 1, denoise(x, i - 1))])
        yield SampleStep(i, x, x_0)


def _order(i: int, most: int) -> int:
    """Of the step from index i: the last two are of first order, as in `dpm_solver_xstart`."""
    return most if i > 1 else 1


def _step(schedule: NoiseSchedule, x: Tensor, i: int, known: _Known) -> Tensor:
    """x at index i - 1 from that at index i, by the polynomial through ``known``."""
    if i == 0:  # no noise is left: all weight lies on the last prediction
        return known[-1][1]
    places = schedule.half_log_snr[[index for index, _ in known]]
    start, end = schedule.half_log_snr[i], schedule.half_log_snr[i - 1]
    weights = integral_weights(places, float(start), float(end))
    sigma = schedule.sqrt_one_minus_alphas_cumprod
    alpha = float(schedule.sqrt_alphas_cumprod[i - 1])
    x = float(sigma[i - 1] / sigma[i]) * x
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
    powers = torch.arange(len(places), dtype=torch.float64)[:, None]
    nodes = ((places - start) / h) ** powers  # [K, K], a row a power
    weights: Tensor = torch.linalg.solve(nodes, torch.tensor(moments, dtype=torch.float64))
    return weights
