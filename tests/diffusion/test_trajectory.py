"""Guidance at some steps, scaled noise and dynamic thresholding, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from adm_cli.config import DiffusionConfig, Prediction, SamplingConfig
from adm_cli.diffusion.guidance import guidance_at
from adm_cli.diffusion.process import (
    dynamic_threshold,
    p_mean_variance,
    scaled_eps,
    v_target,
)
from adm_cli.diffusion.samplers import SAMPLERS
from adm_cli.sampling.drawing.guiding import guided_by
from tests.diffusion.mixture import Mixture, noisy, three_classes


def test_guidance_at_some_timesteps() -> None:
    called: list[int] = []

    def guidance(x: Tensor, t: Tensor) -> Tensor:
        called.append(int(t[0]))
        return torch.ones_like(x)

    limited, x = guidance_at(guidance, {20, 60}), torch.zeros(2, 1, 1, 1)
    assert [int(limited(x, torch.full((2,), t)).sum()) for t in (0, 20, 40, 60)] == [0, 2, 0, 2]
    assert called == [20, 60]


@pytest.mark.parametrize(
    ("every", "interval", "wanted"),
    [
        (1, None, [99, 79, 59, 40, 20, 0]),
        (2, None, [99, 59, 20]),
        (2, (0.0, 0.85), [79, 40, 0]),
        (4, (0.0, 0.85), [79, 0]),
        (9, None, [99]),
    ],
)
@pytest.mark.parametrize("sampler", ["ddim", "dpm++2m"])
def test_every_k_th_step_of_those_that_are_guided(
    every: int, interval: tuple[float, float] | None, wanted: list[int], sampler: str
) -> None:
    """Counted from the first step at which the classifier may guide."""
    mixture, seen = three_classes(), []

    def classifier(x: Tensor, t: Tensor) -> Tensor:
        seen.append(int(t[0]))
        return mixture.logits(x, t)

    config = SamplingConfig(
        seeds=(0,), classes=(1,), scale=1.0, guide_every=every, guide_interval=interval
    )
    schedule, x = mixture.schedule.respace("6"), noisy(mixture, 1, 1)[0]
    guidance = guided_by(
        classifier, DiffusionConfig(num_timesteps=100), config, torch.tensor([1]), (1.0,),
        torch.float64, schedule,
    )  # fmt: skip
    list(
        SAMPLERS[sampler](
            mixture.eps, schedule, x, noise=lambda _i, like: torch.zeros_like(like),
            guidance=guidance, variance="fixed_small",
        )
    )  # fmt: skip
    assert seen == wanted


@pytest.mark.parametrize("prediction", ["eps", "x_start", "v"])
@pytest.mark.parametrize("t", [2, 50, 99])
def test_scaled_noise_is_the_same_of_every_prediction(prediction: Prediction, t: int) -> None:
    """The x_0 of a mixture's exact noise over 1.1, whatever the network predicts."""
    mixture = three_classes()
    x, times = noisy(mixture, t)
    eps, abar = mixture.eps(x, times), mixture.at(times)[0]
    x_0 = (x - math.sqrt(1 - abar) * eps) / math.sqrt(abar)
    outputs = {"eps": eps, "x_start": x_0, "v": v_target(mixture.schedule, x_0, times, eps)}
    output = torch.cat([outputs[prediction], torch.full_like(x, 0.3)], dim=1)
    scaled = scaled_eps(mixture.schedule, output, x, times, prediction, 1.1)
    assert bool((scaled[:, 1:] == 0.3).all())
    p = p_mean_variance(
        mixture.schedule, scaled, x, times, prediction=prediction, clip_denoised=False
    )
    wanted = (x - math.sqrt(1 - abar) * eps / 1.1) / math.sqrt(abar)
    torch.testing.assert_close(p.pred_xstart, wanted)
    assert torch.equal(scaled_eps(mixture.schedule, output, x, times, prediction, 1.0), output)


def test_scaled_noise_narrows_samples_less() -> None:
    """DDIM with too large a noise takes away too much; dividing by its excess is exact again."""
    mixture = three_classes(1000)
    single = Mixture(mixture.schedule, torch.zeros(1, 1, 32, 32, dtype=torch.float64), 0.25)
    x, _ = noisy(single, 3, 1)
    schedule = single.schedule.respace("100")

    def biased(x: Tensor, t: Tensor) -> Tensor:
        return 1.02 * single.eps(x, t)

    def mended(x: Tensor, t: Tensor) -> Tensor:
        index = torch.tensor([schedule.timesteps.tolist().index(int(t[0]))])
        return scaled_eps(schedule, biased(x, t), x, index, "eps", 1.02)

    ends = []
    for model in (single.eps, biased, mended):
        *_, last = SAMPLERS["ddim"](
            model, schedule, x, noise=lambda _i, like: torch.zeros_like(like),
            variance="fixed_small", clip_denoised=False,
        )  # fmt: skip
        ends.append(last.x)
    assert ends[1].var() < 0.95 * ends[0].var()
    torch.testing.assert_close(ends[2], ends[0])


def test_dynamic_threshold() -> None:
    x = torch.linspace(-3, 3, 101, dtype=torch.float64).reshape(1, 1, 1, 101)
    found = dynamic_threshold(x, 0.8)
    s = float(torch.quantile(x.abs().flatten(), 0.8))
    assert s == pytest.approx(2.4, abs=0.05)
    torch.testing.assert_close(found, x.clamp(-s, s) / s)
    small = x / 4  # inside [-1, 1]: stays
    assert torch.equal(dynamic_threshold(small, 0.8), small)
    both = dynamic_threshold(torch.cat([x, small]), 0.8)  # each by itself
    assert torch.equal(both, torch.cat([found, small]))


@pytest.mark.parametrize("sampler", ["ddim", "dpm++2m", "unipc"])
def test_a_threshold_acts_after_guidance_where_clamping_does(sampler: str) -> None:
    """Guidance that drives out of [-1, 1] is scaled back by samplers that clamp it."""
    mixture, quantile = three_classes(), 0.5
    x, _ = noisy(mixture, 9)
    steps = SAMPLERS[sampler](
        mixture.eps, mixture.schedule.respace("6"), x,
        noise=lambda _i, like: torch.zeros_like(like),
        guidance=lambda x, _t: torch.ones_like(x) * torch.tensor([30.0, 3.0]),
        variance="fixed_small", denoised_fn=lambda x: dynamic_threshold(x, quantile),
    )  # fmt: skip
    largest = torch.stack([step.pred_xstart.abs().amax() for step in steps]).amax()
    assert (largest <= 1) == (sampler != "ddim")
