"""Self-attention guidance: against its formula for a known model, whatever that predicts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from adm_cli.config import Prediction
from adm_cli.diffusion.guidance import led_away, worse
from adm_cli.diffusion.process import predicted_xstart, v_target
from adm_cli.diffusion.schedule import NoiseSchedule, timestep_everywhere
from adm_cli.diffusion.self_attention import blurred, gaussian_blur
from tests.diffusion.mixture import Mixture, noisy

SIDE = 8


def pictures() -> Mixture:
    """One class of pictures, stripes with some noise."""
    means = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.float64)
    means[..., ::2] = 0.8
    return Mixture(NoiseSchedule.linear(100), means, 0.05)


def output(mixture: Mixture, prediction: Prediction, x: Tensor, t: Tensor) -> Tensor:
    """What a network that predicts so says, with a variance channel."""
    eps, abar = mixture.eps(x, t), mixture.at(t)[0]
    x_0 = (x - math.sqrt(1 - abar) * eps) / math.sqrt(abar)
    kinds = {"eps": eps, "x_start": x_0, "v": v_target(mixture.schedule, x_0, t, eps)}
    return torch.cat([kinds[prediction], torch.full_like(x, 0.3)], dim=1)


@pytest.mark.parametrize("t", [2, 50, 99])
@pytest.mark.parametrize("prediction", ["eps", "x_start", "v"])
def test_the_noise_is_led_away_from_that_of_the_blurred_picture(
    prediction: Prediction, t: int
) -> None:
    """eps + (w - 1) (eps(x_t) - eps(x_t blurred)), the paper's formula."""
    mixture, weight = pictures(), 1.7
    x, times = noisy(mixture, t, 3)
    where = torch.zeros(3, 1, 4, 4, dtype=torch.bool)
    where[:, :, :2] = True
    where[2] = False  # nothing salient: nothing is blurred
    calls = []

    def fn(x: Tensor, t: Tensor) -> Tensor:
        return output(mixture, prediction, x, t)

    def again(x: Tensor, t: Tensor) -> Tensor:
        calls.append(len(x))
        return fn(x, t)

    difference = blurred(again, lambda: where, mixture.schedule, prediction)
    found = led_away(fn, [(weight, difference)])(x, times)
    assert calls == [3]
    assert bool((found[:, 1:] == 0.3).all())

    eps, abar = mixture.eps(x, times), mixture.at(times)[0]
    x_0 = ((x - math.sqrt(1 - abar) * eps) / math.sqrt(abar)).clamp(-1, 1)
    soft = x_0.clone()
    soft[:2, :, : SIDE // 2] = gaussian_blur(x_0)[:2, :, : SIDE // 2]
    x_bar = math.sqrt(abar) * soft + math.sqrt(1 - abar) * eps
    guided = eps + (weight - 1) * (eps - mixture.eps(x_bar, times))
    wanted = (x - math.sqrt(1 - abar) * guided) / math.sqrt(abar)
    index = timestep_everywhere(t, x)
    x_0 = predicted_xstart(mixture.schedule, found[:, :1], x, index, prediction)
    torch.testing.assert_close(x_0, wanted)


def test_a_blur_keeps_the_mean_and_softens() -> None:
    flat = torch.full((2, 3, 32, 32), 0.25)
    assert torch.allclose(gaussian_blur(flat), flat, atol=1e-6)
    point = torch.zeros(1, 1, 128, 128, dtype=torch.float64)
    point[..., 64, 64] = 1
    spread = gaussian_blur(point)[0, 0]
    assert spread.sum().item() == pytest.approx(1)
    places = torch.arange(128, dtype=torch.float64) - 64
    for across in (spread.sum(0), spread.sum(1)):  # the paper's deviation at this size is 3
        assert math.sqrt((across * places**2).sum().item()) == pytest.approx(3, rel=0.02)


def test_differences_add_up() -> None:
    """All are from what the model itself says, which is asked once."""
    x, t, calls = torch.ones(2, 1, 1, 1), torch.zeros(2).long(), []

    def plain(x: Tensor, _t: Tensor, y: Tensor) -> Tensor:
        calls.append(1)
        return 5 * x + y[:, None, None, None]

    away = [
        (3.0, worse(lambda x, _t, _y: 2 * x)),
        (0.5, worse(lambda x, _t, y: y.reshape(2, 1, 1, 1) + 0 * x)),
    ]
    found = led_away(plain, away)(x, t, torch.tensor([0, 1]))
    assert found.flatten().tolist() == [5 + 2 * (5 - 2) - 0.5 * 5, 6 + 2 * (6 - 2) - 0.5 * 5]
    assert calls == [1]
