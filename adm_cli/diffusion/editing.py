"""Trajectories that begin with a picture, or keep a part of one.

SDEdit (arXiv 2108.01073) begins with the noised picture, DDIM inversion (arXiv 2010.02502,
section 4.3) with its latent. Resampling is RePaint's (arXiv 2201.09865). A place in a trajectory is
the number of steps that are left of it: 0 is the picture, ``len(schedule)`` where sampling begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import islice

import torch
from torch import Tensor

from adm_cli.config import Prediction, Variance
from adm_cli.diffusion.edit_steps import stretches
from adm_cli.diffusion.guidance import Guidance
from adm_cli.diffusion.process import DenoisedFn, q_sample
from adm_cli.diffusion.samplers import ddim_reverse
from adm_cli.diffusion.schedule import NoiseSchedule, timestep_everywhere
from adm_cli.diffusion.steps import ModelFn, NoiseFn, SampleStep

Sampling = Callable[[NoiseSchedule, Tensor], Iterator[SampleStep]]  # a sampler, all else bound


def noised(schedule: NoiseSchedule, x_0: Tensor, noise: Tensor, left: int) -> Tensor:
    """``x_0`` [B, C, H, W] with the noise of where ``left`` steps are left."""
    if left == 0:
        return x_0
    return q_sample(schedule, x_0, timestep_everywhere(left - 1, x_0), noise)


def renoised(
    schedule: NoiseSchedule, x: Tensor, noise: Tensor, low: int, high: int
) -> Tensor:  # fmt: skip
    """x where ``high`` steps are left, from that where ``low`` are, by the forward process.

    q(x_high | x_low), equation 2 of arXiv 2006.11239 over several steps.
    """
    abar = schedule.alphas_cumprod
    kept = abar[high - 1] / (abar[low - 1] if low > 0 else 1.0)
    return float(kept.sqrt()) * x + float((1 - kept).sqrt()) * noise


def resampled(
    sampling: Sampling,
    schedule: NoiseSchedule,
    x: Tensor,
    left: int,
    *,
    noise: NoiseFn,
    resample: int = 1,
    jump: int = 1,
) -> Iterator[SampleStep]:
    """The last ``left`` steps of ``sampling``, begun with ``x``, resampled as `stretches` says.

    The i of each step is how many are to come.
    """
    pieces = stretches(left, resample, jump)
    todo, end = sum(high - low for high, low in pieces), left
    for high, low in pieces:
        if high != end:  # from the end of the last piece back up
            x = renoised(schedule, x, noise(high - 1, x), end, high)
        for step in islice(sampling(_first(schedule, high), x), high - low):
            x, todo = step.x, todo - 1
            yield step._replace(i=todo)
        end = low


def inverted(
    model_fn: ModelFn,
    schedule: NoiseSchedule,
    x_0: Tensor,
    left: int,
    *,
    prediction: Prediction,
    variance: Variance,
) -> Iterator[SampleStep]:
    """DDIM backwards from a picture to where ``left`` steps are left, in one step less.

    Unclamped, so that a deterministic sampler finds its way back. The last step's x is the latent;
    none where it is the picture itself. The i of each step counts up.
    """
    reverse = ddim_reverse(
        model_fn, schedule, x_0, prediction=prediction, variance=variance, clip_denoised=False
    )
    yield from islice(reverse, max(0, left - 1))


def keeping(x_0: Tensor, drawn: Tensor, denoised_fn: DenoisedFn | None) -> DenoisedFn:
    """A `DenoisedFn` that predicts ``x_0`` [B, C, H, W] wherever ``drawn`` [B, 1, H, W] is False.

    Each step then takes what is kept from q(x_{t-1} | x_t, x_0), so that it stays a noised version
    of the picture's, as equation 8a of arXiv 2201.09865 has it, whatever the sampler.
    """

    def kept(predicted: Tensor) -> Tensor:
        found = predicted if denoised_fn is None else denoised_fn(predicted)
        return torch.where(drawn, found, x_0)

    return kept


def guiding(guidance: Guidance, drawn: Tensor) -> Guidance:
    """``guidance`` of what is drawn alone, as in `keeping`."""
    return lambda x, t: guidance(x, t) * drawn


@lru_cache(maxsize=256)  # so that its tables go to a device once, not at every stretch
def _first(schedule: NoiseSchedule, steps: int) -> NoiseSchedule:
    return schedule if steps == len(schedule) else schedule.keep(range(steps))
