"""Sampling loops: one generator function a sampler, all with the signature of `steps`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from adm_cli.config import Prediction, Variance
from adm_cli.diffusion.guidance import Guidance
from adm_cli.diffusion.multistep import (
    dpm_solver_3m_sample,
    dpm_solver_sample,
    heun_sample,
    unipc_sample,
)
from adm_cli.diffusion.process import (
    DenoisedFn,
    condition_mean,
    condition_score,
    ddim_reverse_step,
    ddim_step,
    ddpm_step,
    p_mean_variance,
)
from adm_cli.diffusion.schedule import NoiseSchedule
from adm_cli.diffusion.steps import ModelFn, NoiseFn, Sampler, SampleStep, timesteps_at


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
    """Ancestral sampling (arXiv 2006.11239, algorithm 2; guided: arXiv 2105.05233, algorithm 1).

    Arguments, steps and errors are those of every sampler: `adm_cli.diffusion.steps`.
    """
    x = x_T
    for i in reversed(range(len(schedule))):
        t, model_t = timesteps_at(schedule, i, x)
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

    ``eta`` in [0, 1]: 0 is deterministic given x_T, 1 adds as much noise as DDPM. All else is as
    in every sampler: `adm_cli.diffusion.steps`.
    """
    x = x_T
    for i in reversed(range(len(schedule))):
        t, model_t = timesteps_at(schedule, i, x)
        p = p_mean_variance(
            schedule, model_fn(x, model_t), x, t,
            prediction=prediction, variance=variance,
            clip_denoised=clip_denoised, denoised_fn=denoised_fn,
        )  # fmt: skip
        if guidance is not None:
            p = condition_score(schedule, p, x, t, guidance(x, model_t))
        x = ddim_step(schedule, p.pred_xstart, x, t, noise(i, x), eta)
        yield SampleStep(i, x, p.pred_xstart)


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
        t, model_t = timesteps_at(schedule, i, x)
        p = p_mean_variance(
            schedule, model_fn(x, model_t), x, t,
            prediction=prediction, variance=variance,
            clip_denoised=clip_denoised, denoised_fn=denoised_fn,
        )  # fmt: skip
        x = ddim_reverse_step(schedule, p, x, t)
        yield SampleStep(i, x, p.pred_xstart)


SAMPLERS: dict[str, Sampler] = {
    "ddim": ddim_sample,
    "ddpm": ddpm_sample,
    "dpm++2m": dpm_solver_sample,
    "dpm++3m": dpm_solver_3m_sample,
    "heun": heun_sample,
    "unipc": unipc_sample,
    "unipc2": partial(unipc_sample, order=2),
}
SAMPLERS_WITH_ETA = ("ddim", "dpm++2m")
