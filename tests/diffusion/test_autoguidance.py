"""Autoguidance, against what it is for two Gaussians."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from adm_cli.diffusion.guidance import classifier_free, led_away, worse
from adm_cli.diffusion.samplers import ddim_sample
from adm_cli.diffusion.schedule import NoiseSchedule
from tests.diffusion.mixture import Mixture, noisy, three_classes


def gaussian(schedule: NoiseSchedule, mean: float, variance: float) -> Mixture:
    means = torch.full((1, 1, 64, 64), mean, dtype=torch.float64)
    return Mixture(schedule, means, variance)


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_the_guided_score_is_a_ratio_of_densities(weight: float) -> None:
    """p ** w / p_weak ** (w - 1): scores add up with these weights."""
    schedule = NoiseSchedule.linear(100)
    strong, weak = gaussian(schedule, 0.5, 0.2), gaussian(schedule, 0.3, 0.6)
    x, t = noisy(strong, 40, 2)
    abar, total = strong.at(t)
    _, wide = weak.at(t)
    score = weight * (math.sqrt(abar) * 0.5 - x) / total
    score += (1 - weight) * (math.sqrt(abar) * 0.3 - x) / wide
    found = led_away(strong.eps, [(weight, worse(weak.eps))])(x, t)
    torch.testing.assert_close(found, -math.sqrt(1 - abar) * score)


def test_samples_leave_what_the_weak_model_spreads() -> None:
    """A weak model that is too wide makes them narrower; the mean goes on, away from its mean."""
    schedule = NoiseSchedule.linear(1000)
    strong, weak = gaussian(schedule, 0.3, 0.25), gaussian(schedule, 0.2, 0.5)
    x, _ = noisy(strong, 5, 1)
    ends = []
    for weight in (1.0, 1.5):
        *_, last = ddim_sample(
            led_away(strong.eps, [(weight, worse(weak.eps))]), schedule.respace("100"), x,
            noise=lambda _i, like: torch.zeros_like(like),
            variance="fixed_small", clip_denoised=False,
        )  # fmt: skip
        ends.append(last.x)
    plain, guided = ends
    assert plain.mean().item() == pytest.approx(0.3, abs=0.03)
    assert plain.var().item() == pytest.approx(0.25, rel=0.08)
    assert guided.mean().item() > plain.mean().item() + 0.03
    assert guided.var().item() < 0.85 * plain.var().item()


def test_variance_channels_and_labels() -> None:
    mixture = three_classes()
    x, t = noisy(mixture, 10)
    y = torch.arange(len(x)) % 3

    def strong(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return torch.cat([mixture.eps_of(x, t, y), torch.full_like(x, 7.0)], dim=1)

    def weak(x: Tensor, t: Tensor, _y: Tensor) -> Tensor:
        return mixture.eps(x, t)  # without a variance

    found = led_away(strong, [(2.0, worse(weak))])(x, t, y)
    own, free = mixture.eps_of(x, t, y), mixture.eps(x, t)
    torch.testing.assert_close(found[:, :1], 2 * own - free)
    assert bool((found[:, 1:] == 7).all())
    assert torch.equal(led_away(strong, [(1.0, worse(weak))])(x, t, y), strong(x, t, y))


def test_a_weak_model_without_classes_is_classifier_free_guidance() -> None:
    """Then the two are the same formula."""
    mixture = three_classes()
    x, t = noisy(mixture, 30)
    y = torch.arange(len(x)) % 3
    none = torch.full_like(y, 3)

    def model(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        own = mixture.eps_of(x, t, y.clamp(max=2))
        return torch.where((y == 3)[:, None, None, None], mixture.eps(x, t), own)

    auto = led_away(model, [(3.0, worse(lambda x, t, _y: mixture.eps(x, t)))])(x, t, y)
    free = classifier_free(model, y, none, 3.0)(x, t)
    torch.testing.assert_close(auto, free)
