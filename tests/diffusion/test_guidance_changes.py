"""Mixtures of classes, negative classes, schedules, Adam's moments and a classifier of x_0, on a
mixture of Gaussians.
"""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from adm_cli.diffusion.guidance import (
    PredictedStart,
    adaptive_moments,
    classifier_free,
    classifier_gradient,
    classifier_guidance,
    divergence,
    guidance_on_xstart,
    mixed_classes,
    scaled_guidance,
    schedule_factor,
)
from adm_cli.diffusion.modifiers import ScaleSchedule
from adm_cli.diffusion.process import p_mean_variance, predict_xstart_from_eps
from adm_cli.diffusion.samplers import SAMPLERS
from adm_cli.diffusion.schedule import NoiseSchedule, timestep_everywhere
from tests.diffusion.mixture import Mixture, noisy, three_classes

NONE = 3


def model(mixture: Mixture, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
    own = mixture.eps_of(x, t, y.clamp(max=2))
    return torch.where((y == NONE)[:, None, None, None], mixture.eps(x, t), own)


def test_a_mixture_is_the_product_of_its_classes() -> None:
    """p_a ** w * p_b ** (1 - w) of Gaussians of one width is one, its mean between theirs."""
    mixture = three_classes()
    x, t = noisy(mixture, 40)
    abar, total = mixture.at(t)
    y = torch.tensor([[0] * 8, [2] * 8])
    shares = torch.linspace(0.1, 0.9, 8, dtype=torch.float64)
    shares = torch.stack([shares, 1 - shares])
    calls = []

    def seen(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        calls.append(len(x))
        return model(mixture, x, t, y)

    found = mixed_classes(seen, y, shares)(x, t)
    assert calls == [16]  # both classes of all images at once
    means = shares[0][:, None, None, None] * mixture.means[0]
    means = means + shares[1][:, None, None, None] * mixture.means[2]
    wanted = -math.sqrt(1 - abar) * (math.sqrt(abar) * means - x) / total
    torch.testing.assert_close(found, wanted)


def test_guidance_of_a_mixture_away_from_a_class() -> None:
    """score of the mixture + (w - 1) (that - score of the negative class)."""
    mixture = three_classes()
    x, t = noisy(mixture, 30)
    abar, _ = mixture.at(t)
    y, shares = torch.tensor([[0] * 8, [1] * 8]), torch.full((2, 8), 0.5, dtype=torch.float64)
    pulls = mixture.pulls(x, t)
    own = (pulls[:, 0] + pulls[:, 1]) / 2
    for away, other in ((2, pulls[:, 2]), (NONE, -mixture.eps(x, t) / math.sqrt(1 - abar))):
        found = classifier_free(
            lambda x, t, y: model(mixture, x, t, y), y, torch.full((8,), away), 3.0, shares=shares
        )(x, t)
        wanted = -math.sqrt(1 - abar) * (own + 2 * (own - other))
        torch.testing.assert_close(found, wanted)
        outside = classifier_free(
            lambda x, t, y: model(mixture, x, t, y), y, torch.full((8,), away), 3.0,
            shares=shares, last=20,
        )(x, t)  # fmt: skip
        torch.testing.assert_close(outside, -math.sqrt(1 - abar) * own)


def test_the_gradient_of_weighted_log_probabilities() -> None:
    """sum w_k grad log p_k = sum w_k (pull_k - mean pull), of shares less a negative class."""
    mixture = three_classes()
    x, t = noisy(mixture, 25)
    weights = torch.tensor([[0.7, 0.3, -1.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
    weights = weights.repeat(4, 1)
    found = classifier_gradient(mixture.logits, x, t, weights)
    p = mixture.logits(x, t).softmax(-1)
    wanted = torch.einsum(
        "bk,bkchw->bchw", weights - weights.sum(-1, True) * p, mixture.pulls(x, t)
    )
    torch.testing.assert_close(found, wanted)
    one = classifier_gradient(mixture.logits, x, t, torch.zeros(8, dtype=torch.int64))
    torch.testing.assert_close(found[1::2], one[1::2])


def test_a_divergence_from_a_mixture() -> None:
    """Its target shares 0.9 as the mixture does; a negative class has no part in it."""
    log_p = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64).log()
    mixed = torch.tensor([[0.25, 0.75, -1.0]], dtype=torch.float64)
    q = torch.tensor([0.9 * 0.25, 0.9 * 0.75, 0.0], dtype=torch.float64) + 0.1 / 3
    wanted = (q * (q.log() - log_p[0])).sum()
    assert divergence(log_p, mixed, "rkl").item() == pytest.approx(wanted.item())
    ids, one_hot = torch.tensor([1]), torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
    for kind in ("rkl", "fkl", "js"):
        assert torch.allclose(divergence(log_p, ids, kind), divergence(log_p, one_hot, kind))


@pytest.mark.parametrize("schedule", get_args(ScaleSchedule))
def test_schedules_have_mean_one(schedule: ScaleSchedule) -> None:
    levels = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    factors = [schedule_factor(schedule, level) for level in levels.tolist()]
    assert sum(factors) / len(factors) == pytest.approx(1, abs=1e-6)
    assert min(factors) >= 0
    ends = {"constant": (1, 1), "linear": (2, 0), "cosine": (2, 0), "sine": (0, 0)}[schedule]
    found = schedule_factor(schedule, 0), schedule_factor(schedule, 1)
    assert found == pytest.approx(ends, abs=1e-12)


def test_a_schedule_multiplies_the_scale_and_the_excess_of_cfg() -> None:
    mixture = three_classes()
    x, t = noisy(mixture, 33)
    y, away = torch.arange(8) % 3, torch.full((8,), NONE)

    def factor(at: int) -> float:
        return schedule_factor("cosine", at / 99)

    wanted = 1 + math.cos(math.pi / 3)
    guidance = classifier_guidance(mixture.logits, y, 2.0)
    torch.testing.assert_close(scaled_guidance(guidance, factor)(x, t), wanted * guidance(x, t))
    seen = lambda x, t, y: model(mixture, x, t, y)  # noqa: E731
    found = classifier_free(seen, y, away, 3.0, factor=factor)(x, t)
    torch.testing.assert_close(found, classifier_free(seen, y, away, 1 + wanted * 2)(x, t))


def test_adaptive_moments_by_hand() -> None:
    """Three calls, each value by itself: Adam's formulas with bias correction."""
    gradients = [torch.tensor([[3.0, -1e-3]]), torch.tensor([[1.0, 2e-3]]), torch.zeros(1, 2)]
    gradients = [g.double()[..., None, None] for g in gradients]
    left = iter(gradients)
    guidance = adaptive_moments(lambda _x, _t: next(left), 0.6, 0.8)
    x, t = torch.zeros(1, 2, 1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
    found = [guidance(x, t) for _ in gradients]
    assert torch.allclose(found[0].flatten(), torch.tensor([1.0, -1.0]).double(), atol=1e-4)
    for value in range(2):
        m = v = 0.0
        for k, gradient in enumerate(gradients, 1):
            g = gradient[0, value].item()
            m, v = 0.6 * m + 0.4 * g, 0.8 * v + 0.2 * g * g
            wanted = m / (1 - 0.6**k) / (math.sqrt(v / (1 - 0.8**k)) + 1e-8)
            assert found[k - 1][0, value].item() == pytest.approx(wanted)


def test_adaptive_moments_do_not_mix_images() -> None:
    """Nor do they know the size of the gradient."""
    mixture = three_classes()
    x, _ = noisy(mixture, 3, 6)
    y = torch.arange(6) % 3

    def path(rows: slice, scale: float) -> list[Tensor]:
        guidance = adaptive_moments(classifier_guidance(mixture.logits, y[rows], scale), 0.9, 0.99)
        return [guidance(x[rows] * k, torch.full((len(x[rows]),), 50)) for k in (1, 2, 3)]

    for whole, part, larger in zip(
        path(slice(0, 6), 1.0), path(slice(2, 4), 1.0), path(slice(0, 6), 1000.0), strict=True
    ):
        torch.testing.assert_close(part, whole[2:4])
        torch.testing.assert_close(larger, whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "heun"])
def test_a_classifier_of_clean_pictures_sees_the_predicted_x_0(sampler: str) -> None:
    """Of the step under way, at t = 0; its gradient there is the one that counts."""
    mixture = three_classes()
    schedule = mixture.schedule.respace("6")
    index = {t: i for i, t in enumerate(schedule.timesteps.tolist())}
    seen: list[tuple[Tensor, int]] = []

    def predict(output: Tensor, x: Tensor, t: Tensor) -> Tensor:
        i = timestep_everywhere(index[int(t[0])], x)
        return predict_xstart_from_eps(schedule, x, i, output)

    def classifier(x: Tensor, t: Tensor) -> Tensor:
        seen.append((x.detach(), int(t[0])))
        return mixture.logits(x, t)

    start = PredictedStart(predict)
    guidance = guidance_on_xstart(classifier_guidance(classifier, torch.tensor([1, 2]), 1.0), start)
    x, _ = noisy(mixture, 4, 2)
    given: list[tuple[Tensor, Tensor]] = []

    def watched(x: Tensor, t: Tensor) -> Tensor:
        found = guidance(x, t)
        given.append((predict(mixture.eps(x, t), x, t), found))
        return found

    list(
        SAMPLERS[sampler](
            start.watched(mixture.eps), schedule, x,
            noise=lambda _i, like: torch.zeros_like(like),
            guidance=watched, variance="fixed_small", clip_denoised=False,
        )
    )  # fmt: skip
    assert len(seen) == len(given) == (11 if sampler == "heun" else 6)
    zero = torch.zeros(2, dtype=torch.int64)
    for (x_0, at), (wanted, gradient) in zip(seen, given, strict=True):
        assert at == 0
        torch.testing.assert_close(x_0, wanted)
        p = mixture.logits(wanted, zero).softmax(-1)
        own = torch.nn.functional.one_hot(torch.tensor([1, 2]), 3) - p
        by_hand = (own[:, :, None, None, None] * mixture.pulls(wanted, zero)).sum(1)
        torch.testing.assert_close(gradient, by_hand)
    with pytest.raises(ValueError, match="before the model"):
        start(x.clone(), zero)


@pytest.mark.parametrize("shape", [(1,), (2, 1), (), (3,), (1, 4)])
def test_labels_of_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    """Else images beyond the labels would go without guidance, and nobody would know."""
    x, t = torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64)

    def classifier(x: Tensor, t: Tensor) -> Tensor:
        return x.flatten(1)[:, :4]

    with pytest.raises(ValueError, match="for each of 2 images"):
        classifier_gradient(classifier, x, t, torch.zeros(shape, dtype=torch.int64))


def test_a_scale_for_each_column_is_refused() -> None:
    """[B] of B images that are B wide would be one."""
    y, scales = torch.zeros(4, dtype=torch.int64), torch.ones(4)
    with pytest.raises(ValueError, match=r"reshape\(-1, 1, 1, 1\)"):
        classifier_guidance(lambda x, _: x, y, scales)
    with pytest.raises(ValueError, match=r"reshape\(-1, 1, 1, 1\)"):
        classifier_free(lambda x, *_: x, y, y, scales)


def test_unknown_words_are_no_other_word() -> None:
    schedule, x = NoiseSchedule.cosine(10), torch.zeros(1, 3, 4, 4)
    wrong: Any = "epsilon"
    t = torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match="expected eps, x_start or v"):
        p_mean_variance(schedule, x, x, t, prediction=wrong, variance="fixed_small")
    with pytest.raises(ValueError, match="fixed_large or fixed_small"):
        p_mean_variance(schedule, x, x, t, variance=wrong)
    with pytest.raises(ValueError, match="rkl, fkl or js"):
        divergence(torch.zeros(1, 3), t, wrong)
