"""Which timesteps a number of steps visits."""

from __future__ import annotations

import itertools
import math
from typing import get_args

import pytest
import torch

from adm_cli.diffusion.modifiers import Spacing
from adm_cli.diffusion.samplers import SAMPLERS
from adm_cli.diffusion.schedule import NoiseSchedule
from adm_cli.diffusion.spacing import spaced_timesteps
from adm_cli.errors import ConfigError
from tests.diffusion.mixture import Mixture, noisy

LINEAR, COSINE = NoiseSchedule.linear(1000), NoiseSchedule.cosine(1000)


@pytest.mark.parametrize(
    ("spacing", "count", "wanted"),
    [
        ("uniform", 5, [0, 250, 500, 749, 999]),
        ("trailing", 5, [199, 399, 599, 799, 999]),
        ("trailing", 1, [999]),
        ("quadratic", 5, [0, 62, 250, 562, 999]),
        ("quadratic", 1, [999]),
    ],
)
def test_known_lists(spacing: Spacing, count: int, wanted: list[int]) -> None:
    found = spaced_timesteps(LINEAR, count, spacing)
    assert found == wanted


@pytest.mark.parametrize("schedule", [LINEAR, COSINE], ids=["linear", "cosine"])
@pytest.mark.parametrize("spacing", get_args(Spacing))
@pytest.mark.parametrize("count", [25, 40, 250, 999, 1000])
def test_lists_rise_to_the_last_timestep(
    spacing: Spacing, count: int, schedule: NoiseSchedule
) -> None:
    if spacing == "lsun" and count > 500:  # more than its fifths have
        with pytest.raises(ConfigError, match="from a section of 200"):
            spaced_timesteps(schedule, count, spacing)
        return
    found = spaced_timesteps(schedule, count, spacing)
    assert len(found) == count
    assert all(a < b for a, b in itertools.pairwise(found))
    assert found[0] >= 0
    assert found[-1] == 999


def test_the_paper_s_schedule_has_its_name() -> None:
    wanted = LINEAR.respace("90,60,60,20,20").timesteps
    assert torch.equal(LINEAR.keep(spaced_timesteps(LINEAR, 250, "lsun")).timesteps, wanted)
    assert len(spaced_timesteps(LINEAR, 33, "lsun")) == 33


@pytest.mark.parametrize("schedule", [LINEAR, COSINE], ids=["linear", "cosine"])
def test_log_snr_spacing_is_even(schedule: NoiseSchedule) -> None:
    """Where neighbouring timesteps are closer together than the steps."""
    ratio = schedule.half_log_snr[spaced_timesteps(schedule, 12, "log-snr")]
    even = (schedule.half_log_snr[0] - schedule.half_log_snr[-1]) / 11
    gaps = ratio[:-1] - ratio[1:]
    inner = gaps[(ratio[:-1] < 3) & (ratio[1:] > -3)]
    assert len(inner) > 1
    torch.testing.assert_close(inner, even.expand(len(inner)), rtol=0.1, atol=0)


@pytest.mark.parametrize(("schedule", "most"), [(LINEAR, 157.4), (COSINE, 80.0)])
def test_rho_spacing_is_edm_s(schedule: NoiseSchedule, most: float) -> None:
    """Its equation 5, from the noise of the last timestep but at most 80, down to the first's."""
    sigmas = ((1 - schedule.alphas_cumprod) / schedule.alphas_cumprod).sqrt()
    most, least = min(most, 80.0), float(sigmas[0])
    for i, t in enumerate(reversed(spaced_timesteps(schedule, 18, "rho"))):
        wanted = (most ** (1 / 7) + i / 17 * (least ** (1 / 7) - most ** (1 / 7))) ** 7
        near = sorted(
            float(abs(sigmas[s] - wanted)) for s in range(max(0, t - 1), min(1000, t + 2))
        )
        assert t == 999 if i == 0 else float(abs(sigmas[t] - wanted)) == near[0]


@pytest.mark.parametrize("count", [0, 1001])
def test_numbers_that_cannot_be(count: int) -> None:
    with pytest.raises(ConfigError, match="from 1 to 1000"):
        spaced_timesteps(LINEAR, count, "trailing")


@pytest.mark.parametrize("spacing", ["trailing", "quadratic", "log-snr", "rho", "lsun"])
def test_more_steps_come_to_the_truth(spacing: Spacing) -> None:
    """On a Gaussian, where the end is known: x stays in its place among the others."""
    means = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    truth = Mixture(LINEAR, means, 0.25)
    x, _ = noisy(truth, 1)
    total = float(LINEAR.alphas_cumprod[-1]) * 0.25 + 1 - float(LINEAR.alphas_cumprod[-1])
    exact = x * math.sqrt(0.25 / total)
    errors = []
    for count in (25, 200):
        *_, last = SAMPLERS["ddim"](
            truth.eps, LINEAR.keep(spaced_timesteps(LINEAR, count, spacing)), x,
            noise=lambda _i, like: torch.zeros_like(like),
            variance="fixed_small", clip_denoised=False,
        )  # fmt: skip
        errors.append(float((last.x - exact).abs().mean()))
    assert errors[1] < 0.3 * errors[0]
    assert errors[1] < 0.02
