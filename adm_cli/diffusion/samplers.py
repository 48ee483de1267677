"""Sampling loops: one generator function a sampler, one signature, no side effects.

    sampler(model_fn, schedule, x_T, *, noise, guidance=None, prediction, variance,
            clip_denoised=True, denoised_fn=None, <own options>) -> SampleStep, SampleStep, ...

``model_fn(x_t, t)`` gives the raw network output and ``guidance(x_t, t)`` the scaled gradient of
log p(y | x_t); t are original timesteps, int64 [B]. ``noise(i, like)`` gives standard normal noise
for step i, and is called once a step, also where a step adds none, so that every sampler uses up
randomness alike. Steps count down to 0; the last one's x is the sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from adm_cli.config import Prediction, Variance
from adm_cli.diffusion.guidance import Guidance
from adm_cli.diffusion.process import (
    DenoisedFn,
    clip_xstart,
    condition_mean,
    condition_score,
    ddim_reverse_step,
    ddim_step,
    ddpm_step,
    dpm_solver_xstart,
    model_timesteps,
    p_mean_variance,
)
from adm_cli.diffusion.schedule import NoiseSchedule

ModelFn = Callable[[Tensor, Tensor], Tensor]
NoiseFn = Callable[[int, Tensor], Tensor]


class SampleStep(NamedTuple):
    """``x`` after step ``i`` of the schedule, and the x_0 predicted on the way, [B, C, H, W]."""

    i: int
    x: Tensor
    pred_xstart: Tensor


class Sampler(Protocol):
    def __call__(
        self,
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
    ) -> Iterator[SampleStep]: ...


@torch.no_grad()
def ddpm_sample(
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
    """Ancestral sampling (arXiv 2006.11239, algorithm 2; guided: arXiv 2105.05233, algorithm 1)."""
    x = x_T
    for i in reversed(range(len(schedule))):
        t, model_t = _timesteps(schedule, i, x)
        p = p_mean_variance(
            schedule, model_fn(x, model_t), x, t,
            prediction=prediction, variance=variance,
            clip_denoised=clip_denoised, denoised_fn=denoised_fn,
        )  # fmt: skip
        if guidance is not None:
            p = condition_mean(p, guidance(x, model_t))
        x = ddpm_step(p, t, noise(i, x))
        yield SampleStep(i, x, p.pred_xstart)


@torch.no_grad()
def ddim_sample(
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
    """DDIM (arXiv 2010.02502; guided: arXiv 2105.05233, algorithm 2).

    ``eta`` in [0, 1]: 0 is deterministic given x_T, 1 adds as much noise as DDPM.
    """
    x = x_T
    for i in reversed(range(len(schedule))):
        t, model_t = _timesteps(schedule, i, x)
        p = p_mean_variance(
            schedule, model_fn(x, model_t), x, t,
            prediction=prediction, variance=variance,
            clip_denoised=clip_denoised, denoised_fn=denoised_fn,
        )  # fmt: skip
        if guidance is not None:
            p = condition_score(schedule, p, x, t, guidance(x, model_t))
        x = ddim_step(schedule, p, x, t, noise(i, x), eta)
        yield SampleStep(i, x, p.pred_xstart)


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
    form with ``eta`` 1. Unlike `ddim_sample` it clamps x_0 after guidance too: the paper's
    thresholding, without which a strong guidance runs away.
    """
    x, before = x_T, None
    for i in reversed(range(len(schedule))):
        t, model_t = _timesteps(schedule, i, x)
        p = p_mean_variance(
            schedule, model_fn(x, model_t), x, t,
            prediction=prediction, variance=variance,
            clip_denoised=clip_denoised, denoised_fn=denoised_fn,
        )  # fmt: skip
        if guidance is not None:
            p = condition_score(schedule, p, x, t, guidance(x, model_t))
            if clip_denoised:
                p = p._replace(pred_xstart=clip_xstart(p.pred_xstart))
        ahead = dpm_solver_xstart(schedule, p.pred_xstart, before, t)
        x = ddim_step(schedule, p._replace(pred_xstart=ahead), x, t, noise(i, x), eta)
        before = p.pred_xstart
        yield SampleStep(i, x, before)


@torch.no_grad()
def ddim_reverse(
    model_fn: ModelFn,
    schedule: NoiseSchedule,
    x_0: Tensor,
    *,
    prediction: Prediction = "eps",
    variance: Variance = "learned_range",
    clip_denoised: bool = True,
    denoised_fn: DenoisedFn | None = None,
) -> Iterator[SampleStep]:
    """Deterministic DDIM run backwards, from an image to its latent (arXiv 2010.02502, 4.3).

    Steps count up from 0; the x of step i has the noise of index i + 1. So the latent that
    `ddim_sample` with eta 0 turns back into about x_0 is the x of the last step but one; the last
    step goes on to pure noise (alphas_cumprod 0), as in the original.
    """
    x = x_0
    for i in range(len(schedule)):
        t, model_t = _timesteps(schedule, i, x)
        p = p_mean_variance(
            schedule, model_fn(x, model_t), x, t,
            prediction=prediction, variance=variance,
            clip_denoised=clip_denoised, denoised_fn=denoised_fn,
        )  # fmt: skip
        x = ddim_reverse_step(schedule, p, x, t)
        yield SampleStep(i, x, p.pred_xstart)


def _timesteps(schedule: NoiseSchedule, i: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """Index i for every image, on the CPU for the tables, and its original timestep beside x."""
    t = torch.full((x.shape[0],), i, dtype=torch.int64)
    return t, model_timesteps(schedule, t).to(x.device)


SAMPLERS: dict[str, Sampler] = {
    "ddim": ddim_sample,
    "ddpm": ddpm_sample,
    "dpm++2m": dpm_solver_sample,
}
SAMPLERS_WITH_ETA = ("ddim", "dpm++2m")
