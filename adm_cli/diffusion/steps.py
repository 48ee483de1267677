"""What every sampler is made of: its signature, and the model's guided prediction at one index.

    sampler(model_fn, schedule, x_T, *, noise, guidance=None, prediction, variance,
            clip_denoised=True, denoised_fn=None, <own options>) -> SampleStep, SampleStep, ...

``model_fn(x_t, t)`` gives the raw network output and ``guidance(x_t, t)`` the scaled gradient of
log p(y | x_t); t are original timesteps, int64 [B]. ``noise(i, like)`` gives standard normal noise
for step i, and is called once a step, also where a step adds none, so that every sampler uses up
randomness alike. Steps count down to 0; the last one's x is the sample, [B, C, H, W] like x_T, a
picture in [-1, 1]. What a callable gives in another shape than x_t's raises ValueError, and so do
options outside of their range. No gradient goes back through a sampler: a loop of its own over
`process` keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from torch import Tensor

from adm_cli.config import Prediction, Variance
from adm_cli.diffusion.guidance import Guidance
from adm_cli.diffusion.process import (
    DenoisedFn,
    clip_xstart,
    condition_score,
    p_mean_variance,
)
from adm_cli.diffusion.schedule import NoiseSchedule, timestep_everywhere

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


def timesteps_at(schedule: NoiseSchedule, i: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """Index i for every image, and its original timestep; both beside x."""
    return timestep_everywhere(i, x), timestep_everywhere(int(schedule.timesteps[i]), x)


def guided_xstart(
    model_fn: ModelFn,
    schedule: NoiseSchedule,
    x: Tensor,
    i: int,
    *,
    guidance: Guidance | None,
    prediction: Prediction,
    variance: Variance,
    clip_denoised: bool,
    denoised_fn: DenoisedFn | None,
) -> Tensor:
    """The x_0 predicted at index ``i``, shifted by the guidance, [B, C, H, W].

    Thresholded and clamped after guidance too, where the original's DDIM is not: as in
    arXiv 2211.01095, without which a strong guidance runs away in a solver that extrapolates.
    """
    t, model_t = timesteps_at(schedule, i, x)
    p = p_mean_variance(
        schedule, model_fn(x, model_t), x, t,
        prediction=prediction, variance=variance,
        clip_denoised=clip_denoised, denoised_fn=denoised_fn,
    )  # fmt: skip
    if guidance is None:
        return p.pred_xstart
    x_0 = condition_score(schedule, p, x, t, guidance(x, model_t)).pred_xstart
    x_0 = x_0 if denoised_fn is None else denoised_fn(x_0)
    return clip_xstart(x_0) if clip_denoised else x_0
