"""Edited trajectories, against exact scores and closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from adm_cli.diffusion.edit_steps import count_steps, steps_left, stretches
from adm_cli.diffusion.editing import guiding, inverted, keeping, noised, renoised, resampled
from adm_cli.diffusion.samplers import SAMPLERS
from adm_cli.diffusion.schedule import NoiseSchedule
from adm_cli.diffusion.steps import SampleStep

SCHEDULE = NoiseSchedule.cosine(1000).respace("40")
RHO = 0.9


def eps(x: Tensor, t: Tensor, rho: float = RHO) -> Tensor:
    """The exact noise of two pixels [B, 1, 1, 2], N(0, [[1, rho], [rho, 1]])."""
    abar = float(SCHEDULE.alphas_cumprod[SCHEDULE.timesteps.tolist().index(int(t[0]))])
    covariance = torch.tensor([[1.0, abar * rho], [abar * rho, 1.0]], dtype=x.dtype)
    score: Tensor = -torch.linalg.solve(covariance, x.reshape(-1, 2).T).T
    return -math.sqrt(1 - abar) * score.reshape(x.shape)


def noise_of(seed: int = 0) -> Callable[[int, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda _i, like: torch.randn(like.shape, generator=generator, dtype=like.dtype)


def sampling(
    name: str, model: Any = eps, **options: Any
) -> Callable[[NoiseSchedule, Tensor], Iterator[SampleStep]]:
    return partial(
        SAMPLERS[name], model, noise=noise_of(1), variance="fixed_small", clip_denoised=False,
        **options,
    )  # fmt: skip


def last(steps: Iterator[SampleStep]) -> Tensor:
    *_, end = steps
    x: Tensor = end.x
    return x


@pytest.mark.parametrize(
    ("strength", "left"), [(0.0, 0), (0.001, 1), (0.25, 5), (0.6, 12), (0.63, 13), (1.0, 20)]
)
def test_the_share_of_the_steps(strength: float, left: int) -> None:
    assert steps_left(20, strength) == left


def test_stretches_by_hand() -> None:
    """Down to a multiple of the jump, up again as often as asked, not up to the beginning."""
    assert stretches(6, 1, 2) == [(6, 0)]
    assert stretches(6, 3, 2) == [(6, 2), (4, 2), (4, 0), (2, 0), (2, 0)]
    assert stretches(5, 2, 2) == [(5, 2), (4, 0), (2, 0)]
    assert stretches(3, 2, 5) == [(3, 0)]
    assert count_steps(6, invert=False, resample=3, jump=2) == 4 + 2 + 4 + 2 + 2
    assert count_steps(6, invert=True, resample=1, jump=1) == 11
    assert count_steps(0, invert=True, resample=1, jump=1) == 1


def test_steps_count_down_to_0_whatever_the_jumps() -> None:
    x = torch.zeros(1, 1, 1, 2, dtype=torch.float64)
    steps = resampled(sampling("ddim"), SCHEDULE, x, 7, noise=noise_of(), resample=2, jump=3)
    count = count_steps(7, invert=False, resample=2, jump=3)
    assert [step.i for step in steps] == [*reversed(range(count))]


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_whole_way_is_the_sampler(name: str) -> None:
    x = noise_of(3)(0, torch.zeros(2, 1, 1, 2, dtype=torch.float64))
    plain = last(sampling(name)(SCHEDULE, x))
    assert torch.equal(
        last(resampled(sampling(name), SCHEDULE, x, 40, noise=noise_of())), plain
    )  # fmt: skip


def test_noise_up_and_up_again() -> None:
    """q(x_high | x_low) q(x_low | x_0) is q(x_high | x_0): means and variances agree."""
    x_0 = torch.full((20000, 1, 1, 1), 0.7, dtype=torch.float64)
    draw = noise_of(5)
    low = noised(SCHEDULE, x_0, draw(0, x_0), 9)
    high = renoised(SCHEDULE, low, draw(0, x_0), 9, 14)
    abar = float(SCHEDULE.alphas_cumprod[13])
    assert math.isclose(high.mean(), math.sqrt(abar) * 0.7, abs_tol=0.02)
    assert math.isclose(high.var(), 1 - abar, rel_tol=0.03)
    from_clean = renoised(SCHEDULE, x_0, draw(0, x_0), 0, 14)
    assert math.isclose(from_clean.var(), 1 - abar, rel_tol=0.03)
    assert torch.equal(noised(SCHEDULE, x_0, draw(0, x_0), 0), x_0)


@pytest.mark.parametrize("left", [1, 13, 40])
def test_an_inversion_leads_back(left: int) -> None:
    """DDIM from the latent is about the picture again; the whole latent is white noise."""
    x_0 = torch.linalg.cholesky(torch.tensor([[1.0, RHO], [RHO, 1.0]], dtype=torch.float64))
    x_0 = (noise_of(7)(0, torch.zeros(500, 2, dtype=torch.float64)) @ x_0.T).reshape(-1, 1, 1, 2)
    latent = x_0
    for step in inverted(eps, SCHEDULE, x_0, left, prediction="eps", variance="fixed_small"):
        latent = step.x
    if left == 40:
        assert abs(float(torch.corrcoef(latent.reshape(-1, 2).T)[0, 1])) < 0.12
    back = last(resampled(sampling("ddim"), SCHEDULE, latent, left, noise=noise_of()))
    assert (back - x_0).abs().mean() < 0.06


DRAWN = torch.tensor([False, True]).reshape(1, 1, 1, 2)


def repainted(name: str, resample: int, count: int = 3000) -> Tensor:
    """The second pixel, drawn where the first is 1: [count]."""
    x_0 = torch.tensor([1.0, 0.0], dtype=torch.float64).expand(count, 1, 1, 2)
    keep = keeping(x_0, DRAWN, None)
    x = noise_of(11)(0, x_0)
    found = last(
        resampled(
            sampling(name, denoised_fn=keep), SCHEDULE, x, 40,
            noise=noise_of(13), resample=resample, jump=2,
        )
    ).reshape(-1, 2)  # fmt: skip
    assert torch.allclose(found[:, 0], torch.ones(count, dtype=torch.float64), atol=1e-9)
    return found[:, 1]


@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpm++2m"])
def test_resampling_comes_near_the_posterior(name: str) -> None:
    """N(rho, 1 - rho^2): what is drawn fits what is kept the better, the oftener it is drawn."""
    once, often = (repainted(name, resample) for resample in (1, 8))
    assert abs(often.mean() - RHO) < 0.1 < abs(once.mean() - RHO)
    assert abs(often.std() - math.sqrt(1 - RHO**2)) < 0.1


def test_guidance_is_of_what_is_drawn() -> None:
    guidance = guiding(lambda x, _t: torch.ones_like(x), DRAWN)
    assert guidance(torch.zeros(1, 3, 1, 2), torch.zeros(1)).tolist() == [[[[0, 1]]] * 3]


def test_what_is_kept_is_predicted_after_thresholding() -> None:
    keep = keeping(torch.full((1, 1, 1, 2), 0.5), DRAWN, lambda x: x / 2)
    assert keep(torch.ones(1, 1, 1, 2)).flatten().tolist() == [0.5, 0.5]
    assert keep(torch.zeros(1, 1, 1, 2)).flatten().tolist() == [0.5, 0.0]
