"""Classifier-free guidance: the scores of a Gaussian mixture, and the formula on any function."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from adm_cli.config import Prediction
from adm_cli.diffusion.guidance import classifier_free
from adm_cli.diffusion.samplers import SAMPLERS
from adm_cli.diffusion.schedule import NoiseSchedule

# x_0 of class k is normal; without a class it is one of the two, as likely as the weights say.
MEANS, VARIANCES, WEIGHTS = (-0.8, 0.5), (0.1, 0.3), (0.3, 0.7)
NONE = len(MEANS)


def log_density(x: Tensor, abar: float, label: int) -> Tensor:
    """log p(x_t) up to a constant: of a class, or of the mixture of all."""
    logs = []
    for mean, variance, weight in zip(MEANS, VARIANCES, WEIGHTS, strict=True):
        total = abar * variance + 1 - abar
        logs.append(
            -((x - math.sqrt(abar) * mean) ** 2) / (2 * total)
            - 0.5 * math.log(total)
            + math.log(weight)
        )
    return torch.logsumexp(torch.stack(logs), dim=0) if label == NONE else logs[label]


def score(x: Tensor, abar: float, label: int) -> Tensor:
    """The gradient of `log_density`, by autograd: no formula of guidance is used."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(log_density(x, abar, label).sum(), x)
    return gradient


def exact_model(schedule: NoiseSchedule, prediction: Prediction) -> Any:
    """What a perfect network would say of each image by its label."""
    abar_of = dict(zip(schedule.timesteps.tolist(), schedule.alphas_cumprod.tolist(), strict=True))

    def model_fn(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        abar = float(abar_of[int(t[0])])
        scores = torch.cat([score(x[i : i + 1], abar, int(label)) for i, label in enumerate(y)])
        eps = -math.sqrt(1 - abar) * scores
        x_start = (x - math.sqrt(1 - abar) * eps) / math.sqrt(abar)
        v = math.sqrt(abar) * eps - math.sqrt(1 - abar) * x_start
        return {"eps": eps, "x_start": x_start, "v": v}[prediction]

    return model_fn


@pytest.mark.parametrize("prediction", ["eps", "x_start", "v"])
@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_a_step_follows_the_combined_scores(name: str, prediction: Prediction) -> None:
    """x_0 is Tweedie's of score(y) + (w - 1) (score(y) - score of the mixture), image by image."""
    schedule = NoiseSchedule.linear(1000).respace("10")
    x = torch.linspace(-1.5, 1.5, 12, dtype=torch.float64).reshape(4, 1, 1, 3)
    y, weights = torch.tensor([0, 1, 1, 0]), (3.0, 0.0, 1.1, -2.0)
    model_fn = classifier_free(
        exact_model(schedule, prediction),
        y,
        torch.full_like(y, NONE),
        torch.tensor(weights, dtype=torch.float64).reshape(4, 1, 1, 1),
    )
    steps = SAMPLERS[name](
        model_fn,
        schedule,
        x,
        noise=lambda _i, like: torch.ones_like(like),
        prediction=prediction,
        variance="fixed_small",
        clip_denoised=False,
    )
    for step in steps:
        abar = float(schedule.alphas_cumprod[step.i])
        for i, weight in enumerate(weights):
            own = score(x[i], abar, int(y[i]))
            both = own + (weight - 1) * (own - score(x[i], abar, NONE))
            expected = (x[i] + (1 - abar) * both) / math.sqrt(abar)
            scale = max(1.0, float(expected.abs().max()))
            assert (step.pred_xstart[i] - expected).abs().max() < 1e-9 * scale
        x = step.x


def test_the_formula_the_variance_and_one_evaluation() -> None:
    calls: list[int] = []

    def model_fn(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        calls.append(len(x))
        assert len(t) == len(y) == len(x)
        shift = (y * 10 + t)[:, None, None, None].to(x)
        return torch.cat([x.sin() + shift, x.cos() * shift], dim=1)

    x, t = torch.linspace(-1, 1, 24).reshape(2, 3, 2, 2), torch.full((2,), 7)
    y, none = torch.tensor([1, 4]), torch.tensor([5, 5])
    own, free = model_fn(x, t, y), model_fn(x, t, none)
    calls.clear()
    guided = classifier_free(model_fn, y, none, 2.5)(x, t)
    assert calls == [4]  # both at once
    expected = own[:, :3] + 1.5 * (own[:, :3] - free[:, :3])
    assert torch.allclose(guided[:, :3], expected, rtol=1e-6)
    assert torch.equal(guided[:, 3:], own[:, 3:])  # the variance is the conditional's
    assert not torch.equal(own[:, 3:], free[:, 3:])
    assert torch.equal(classifier_free(model_fn, y, none, 1.0)(x, t), own)
    zero = classifier_free(model_fn, y, none, 0.0)(x, t)
    assert torch.allclose(zero[:, :3], free[:, :3], atol=1e-5)


def test_one_weight_and_many_are_the_same_bits() -> None:
    def model_fn(x: Tensor, _t: Tensor, y: Tensor) -> Tensor:
        return x * (y[:, None, None, None] + 0.3)

    x, t = (
        torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0)),
        torch.zeros(3).long(),
    )
    y, none = torch.tensor([0, 1, 2]), torch.tensor([3, 3, 3])
    weights = (1.1, 1.7, 3.3)
    column = torch.tensor(weights, dtype=torch.float64)[:, None, None, None]
    together = classifier_free(model_fn, y, none, column)(x, t)
    for i, weight in enumerate(weights):
        assert torch.equal(classifier_free(model_fn, y, none, weight)(x, t)[i], together[i])


def test_outside_of_the_interval_the_label_alone_is_evaluated() -> None:
    calls: list[list[int]] = []

    def model_fn(x: Tensor, _t: Tensor, y: Tensor) -> Tensor:
        calls.append(y.tolist())
        return x * y[:, None, None, None]

    x, y, none = torch.ones(2, 1, 1, 1), torch.tensor([2, 3]), torch.tensor([9, 9])
    limited = classifier_free(model_fn, y, none, 2.0, first=20, last=60)
    found = [limited(x, torch.full((2,), t)).flatten().tolist() for t in (0, 19, 20, 60, 61)]
    assert calls == [[2, 3], [2, 3], [2, 3, 9, 9], [2, 3, 9, 9], [2, 3]]
    assert found == [[2, 3], [2, 3], [-5, -3], [-5, -3], [2, 3]]
