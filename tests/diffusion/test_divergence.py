"""Guidance by a divergence, against its gradient written out for a mixture of Gaussians."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor

from adm_cli.diffusion.guidance import classifier_gradient, classifier_guidance, divergence
from adm_cli.diffusion.modifiers import GuideBy
from adm_cli.diffusion.samplers import SAMPLERS
from tests.diffusion.mixture import Mixture, noisy, three_classes

KINDS = [kind for kind in get_args(GuideBy) if kind != "log-p"]


def target(y: Tensor, count: int) -> Tensor:
    return 0.9 * torch.nn.functional.one_hot(y, count).double() + 0.1 / count


# By divergence, p f'(p / q) of D_f(q || p) = sum of q f(p / q).
SLOPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "rkl": lambda p, q: -q,  # f(r) = -log r
    "fkl": lambda p, q: p * ((p / q).log() + 1),  # f(r) = r log r
    "js": lambda p, q: p * (2 * p / (p + q)).log() / 2,  # half of KL(p || m) + KL(q || m)
}


def by_hand(mixture: Mixture, x: Tensor, t: Tensor, y: Tensor, kind: str, weight: float) -> Tensor:
    """The gradient of log p_y - weight * D, of what the mixture knows of every class.

    The gradient of log p_i is that of the Gaussian's log-density, less the mean of those under p.
    """
    p = mixture.logits(x, t).softmax(-1)
    slopes = SLOPES[kind](p, target(y, p.shape[1]))
    pulls = mixture.pulls(x, t)
    log_p = pulls - (p[:, :, None, None, None] * pulls).sum(1, keepdim=True)
    own = torch.nn.functional.one_hot(y, p.shape[1])
    return ((own - weight * slopes)[:, :, None, None, None] * log_p).sum(1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("t", [3, 60])
def test_gradient_of_a_divergence(kind: GuideBy, t: int) -> None:
    mixture = three_classes()
    x, times = noisy(mixture, t)
    y = torch.arange(len(x)) % 3
    found = classifier_gradient(mixture.logits, x, times, y, guide_by=kind, divergence_weight=1.5)
    wanted = by_hand(mixture, x, times, y, kind, 1.5)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    plain = classifier_gradient(mixture.logits, x, times, y)
    nothing = classifier_gradient(mixture.logits, x, times, y, guide_by=kind, divergence_weight=0)
    assert torch.equal(nothing, plain)


def test_the_reverse_kl_pulls_to_every_class_by_its_target() -> None:
    """Of Gaussians of one width, the force has no p but that of the way back to the mean of all:
    (1 + weight 0.9) to the class, weight 0.1 / K to each."""
    mixture = three_classes()
    x, times = noisy(mixture, 40)
    y, weight = torch.arange(len(x)) % 3, 2.0
    found = classifier_gradient(
        mixture.logits, x, times, y, guide_by="rkl", divergence_weight=weight
    )
    abar, total = mixture.at(times)
    p = mixture.logits(x, times).softmax(-1)
    middle = torch.einsum("bk,kchw->bchw", p, mixture.means)
    to = (1 + weight * 0.9) * mixture.means[y] + weight * 0.1 * mixture.means.mean(0)
    wanted = math.sqrt(abar) * (to - (1 + weight) * middle) / total
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_divergence_is_none_at_its_target(kind: GuideBy) -> None:
    y = torch.tensor([1, 0])
    at = divergence(target(y, 4).log(), y, kind)
    torch.testing.assert_close(at, torch.zeros_like(at), atol=1e-7, rtol=0)
    other = divergence(torch.full((2, 4), 0.25, dtype=torch.float64).log(), y, kind)
    assert bool((other > 0.1).all())


def test_the_values_of_divergences() -> None:
    p, y = torch.tensor([[0.5, 0.5]], dtype=torch.float64), torch.tensor([0])
    q = (0.95, 0.05)
    middle = [(0.5 + one) / 2 for one in q]
    rkl = sum(one * math.log(one / 0.5) for one in q)
    fkl = sum(0.5 * math.log(0.5 / one) for one in q)
    js = sum(
        (0.5 * math.log(0.5 / m) + one * math.log(one / m)) / 2
        for one, m in zip(q, middle, strict=True)
    )
    found = [divergence(p.log(), y, kind).item() for kind in ("rkl", "fkl", "js")]
    assert found == pytest.approx([rkl, fkl, js])


@pytest.mark.parametrize("kind", KINDS)
def test_a_sure_classifier_is_still_told_where_the_class_is(kind: GuideBy) -> None:
    """Where p is 1 to the last digit, log p has no gradient and these are finite."""
    found = classifier_gradient(
        lambda x, _t: torch.tensor([[1e6, 0.0]]) * x.sum((1, 2, 3))[:, None],
        torch.ones(1, 1, 1, 1), torch.zeros(1, dtype=torch.int64), torch.tensor([0]),
        guide_by=kind,
    )  # fmt: skip
    assert bool(found.isfinite().all())


@pytest.mark.parametrize("kind", ["log-p", *KINDS])
def test_guidance_by_divergences_draws_the_class(kind: GuideBy) -> None:
    """From a mixture's own score, guidance leads to the class that was asked for."""
    mixture = three_classes(1000)
    y = torch.arange(60) % 3
    x, _ = noisy(mixture, 7, 60)
    guidance = classifier_guidance(mixture.logits, y, 2.0, guide_by=kind)
    schedule = mixture.schedule.respace("50")
    *_, last = SAMPLERS["ddim"](
        mixture.eps, schedule, x, noise=lambda _i, like: torch.zeros_like(like),
        guidance=guidance, variance="fixed_small", clip_denoised=False,
    )  # fmt: skip
    named = mixture.logits(last.x, torch.zeros(60, dtype=torch.int64)).argmax(-1)
    assert (named == y).float().mean() > 0.95
