"""Order of convergence of every sampler, on an exact mixture of Gaussians."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from adm_cli.diffusion.samplers import SAMPLERS, SAMPLERS_WITH_ETA
from adm_cli.diffusion.schedule import NoiseSchedule

MEANS, VARIANCE = (-0.7, 0.6), 0.25  # of each value of x_0, on its own
# What is left of an error where there are twice the steps is 2 to minus this; and how much smaller
# it is than Euler's with as many.
ORDERS: dict[str, tuple[float, float]] = {
    "ddim": (1, 1),
    "dpm++2m": (2, 20),
    "heun": (2, 5),
    "unipc2": (3, 100),  # its corrector's
    "dpm++3m": (2.5, 50),  # between its steps' order, 3, and 2, its first step's error
    "unipc": (3.3, 1000),  # between its predictor's order and its corrector's
}
# Samplers with noise, whose pictures have the right distribution where steps are many.
WEAK_ORDERS: dict[str, float] = {"ddpm": 1, "ddim": 1, "dpm++2m": 2}


def spaced(steps: int) -> NoiseSchedule:
    """From timestep 8,000 to 100 of 10,000, evenly in their logarithm."""
    dense = NoiseSchedule.linear(10_000)
    times = torch.linspace(math.log(100), math.log(8_000), steps).exp().round().long()
    abar = dense.alphas_cumprod[times]
    betas = 1 - abar / torch.cat([torch.ones(1, dtype=torch.float64), abar[:-1]])
    return NoiseSchedule(betas, times, 10_000)


def abar_at(schedule: NoiseSchedule, t: Tensor) -> float:
    return float(schedule.alphas_cumprod[schedule.timesteps.tolist().index(int(t[0]))])


def mixture_eps(schedule: NoiseSchedule, x: Tensor, t: Tensor) -> Tensor:
    """The exact noise prediction of every value's mixture of two."""
    abar = abar_at(schedule, t)
    total = abar * VARIANCE + 1 - abar
    away = torch.stack([x - math.sqrt(abar) * mean for mean in MEANS])
    shares = (-(away**2) / (2 * total)).softmax(0)
    return math.sqrt(1 - abar) * (shares * away).sum(0) / total


def below(x: Tensor, abar: float) -> Tensor:
    """How much of the mixture at noise level ``abar`` is below x."""
    width = math.sqrt(2 * (abar * VARIANCE + 1 - abar))
    halves = [torch.erf((x - math.sqrt(abar) * mean) / width) for mean in MEANS]
    return 0.5 + torch.stack(halves).mean(0) / 2


def exact_end(x: Tensor, abar_from: float, abar_to: float) -> Tensor:
    """The end of the probability flow of single numbers: as much lies below it as at its begin."""
    wanted = below(x, abar_from)
    low, high = torch.full_like(x, -20.0), torch.full_like(x, 20.0)
    for _ in range(60):
        middle = (low + high) / 2
        under = below(middle, abar_to) < wanted
        low, high = torch.where(under, middle, low), torch.where(under, high, middle)
    return (low + high) / 2


def path_error(sampler: Any, steps: int) -> float:
    """How far from the exact path a sampler is at index 2, before the last, shorter orders."""
    schedule = spaced(steps)
    x_T = torch.linspace(-1.5, 1.5, 16, dtype=torch.float64).reshape(1, 1, 4, 4)
    done = sampler(
        partial(mixture_eps, schedule), schedule, x_T,
        noise=lambda _i, like: torch.zeros_like(like),
        variance="fixed_small", clip_denoised=False,
    )  # fmt: skip
    found = next(step.x for step in done if step.i == 2)  # its noise is that of index 1
    abar = schedule.alphas_cumprod
    return float((found - exact_end(x_T, float(abar[-1]), float(abar[1]))).abs().max())


def test_every_sampler_has_an_order() -> None:
    assert {*ORDERS, "ddpm"} == set(SAMPLERS)
    assert {*SAMPLERS_WITH_ETA, "ddpm"} == set(WEAK_ORDERS)


@pytest.mark.parametrize("name", ORDERS)
def test_order_of_convergence(name: str) -> None:
    """Twice the steps: the error falls by 2 to the order, and is smaller at once."""
    order, gain = ORDERS[name]
    few, twice = path_error(SAMPLERS[name], 80), path_error(SAMPLERS[name], 160)
    assert abs(math.log2(few / twice) - order) < 0.35, (few, twice)
    assert few <= path_error(SAMPLERS["ddim"], 80) / gain


def variance_error(sampler: Any, steps: int) -> float:
    """How wrong the variance of a Gaussian is at index 2, without chance.

    With a Gaussian's score a sampler is linear in x_T and in each step's noise: its result for one
    of them alone, 1, is that one's part of the standard deviation.
    """
    schedule = spaced(steps)

    def eps(x: Tensor, t: Tensor) -> Tensor:
        abar = abar_at(schedule, t)
        return math.sqrt(1 - abar) * x / (abar * VARIANCE + 1 - abar)

    one = torch.eye(steps + 1, dtype=torch.float64)[:, :, None, None, None]  # [source, image]
    abar = schedule.alphas_cumprod
    start = math.sqrt(float(abar[-1]) * VARIANCE + 1 - float(abar[-1]))
    done = sampler(
        eps, schedule, start * one[-1], noise=lambda i, _like: one[i],
        variance="fixed_small", clip_denoised=False,
    )  # fmt: skip
    found = next(step.x for step in done if step.i == 2)
    return abs(float((found**2).sum()) - float(abar[1] * VARIANCE + 1 - abar[1]))


@pytest.mark.parametrize("name", WEAK_ORDERS)
def test_order_of_the_distribution_with_noise(name: str) -> None:
    eta: dict[str, Any] = {"eta": 1.0} if name in SAMPLERS_WITH_ETA else {}
    few, twice = (variance_error(partial(SAMPLERS[name], **eta), steps) for steps in (80, 160))
    assert abs(math.log2(few / twice) - WEAK_ORDERS[name]) < 0.35, (few, twice)
