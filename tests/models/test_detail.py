"""Upsamplers that predict only the detail over the enlarged small picture."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from adm_cli.checkpoints.loading import build_model
from adm_cli.config import UNetConfig
from adm_cli.diffusion.process import predict_xstart_from_v, q_sample, v_target
from adm_cli.diffusion.schedule import NoiseSchedule
from adm_cli.errors import ConfigError
from adm_cli.models.detail import (
    Detail,
    cosine_signal_and_noise,
    enlarge_exactly,
    without_averages,
)

SCHEDULE = NoiseSchedule.cosine(1000)
STEPS = torch.tensor([0, 1, 30, 250, 500, 900, 998, 999])
DETAILED = UNetConfig(
    image_size=(16, 16), low_res_size=(8, 8), model_channels=32, num_res_blocks=1,
    channel_mult=(1,), attention_factors=(), middle_attention=False, out_channels=6,
    patch=2, detail_scale=0.3,
)  # fmt: skip


def seeded(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def smooth(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Large pictures [B, 3, 16, 16] and the averages of their 2x2 areas."""
    x = 0.4 * seeded(count, 3, 16, 16)
    return x, F.interpolate(x, (8, 8), mode="area")


@pytest.mark.parametrize("large", [(16, 16), (16, 24), (32, 32)])
def test_the_enlarged_picture_averages_to_the_small_one(large: tuple[int, int]) -> None:
    small = seeded(2, 3, 8, 8)
    big = enlarge_exactly(small, large)
    assert torch.allclose(F.interpolate(big, (8, 8), mode="area"), small, atol=1e-5)
    flat = torch.full((1, 3, 8, 8), 0.25)
    assert torch.allclose(enlarge_exactly(flat, large), torch.full((1, 3, *large), 0.25))
    ramp = torch.linspace(-1, 1, 8).expand(1, 1, 8, 8)  # stays one: no steps of whole pixels
    risen = enlarge_exactly(ramp, (8, 32))[0, 0, 4, 8:24].diff()
    assert float(risen.min()) > 0


def test_signal_and_noise_are_the_cosine_schedules() -> None:
    for dtype, off in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        a, s = cosine_signal_and_noise(torch.arange(999), torch.zeros(1, dtype=dtype))
        tables = SCHEDULE.sqrt_alphas_cumprod[:999], SCHEDULE.sqrt_one_minus_alphas_cumprod[:999]
        for found, table in zip((a, s), tables, strict=True):
            assert float((found.flatten().double() / table - 1).abs().max()) < off * 100
    a, s = cosine_signal_and_noise(torch.tensor([999]), torch.zeros(1))
    assert float(a) < 1e-4  # where beta is clipped
    assert float(s) == pytest.approx(1)


def test_what_is_predicted_of_the_detail_is_v_of_the_picture() -> None:
    x_start, small = (v.double() for v in smooth(len(STEPS)))
    noise = seeded(*x_start.shape, seed=1).double()
    x_t = q_sample(SCHEDULE, x_start, STEPS, noise)
    seen = Detail.of(x_t, STEPS, small, 0.3)
    detail = (x_start - enlarge_exactly(small, (16, 16))) / 0.3
    a, s = cosine_signal_and_noise(STEPS, x_t)
    width = torch.sqrt((a * 0.3) ** 2 + s**2)
    fine = without_averages(noise, small)
    assert torch.allclose(seen.noisy, (a * 0.3 * detail + s * fine) / width, atol=1e-4)
    perfect = (a * 0.3 * fine - s * detail) / width  # v, of the detail
    v = seen.v(perfect + 5 * F.interpolate(seeded(*small.shape).double(), (16, 16)))
    assert torch.allclose(v, v_target(SCHEDULE, x_start, STEPS, noise), atol=2e-3)
    found = predict_xstart_from_v(SCHEDULE, x_t, STEPS, v)
    assert torch.allclose(found, x_start, atol=1e-3)


def test_whatever_it_predicts_averages_to_the_small_picture() -> None:
    model = build_model(DETAILED).requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_(std=0.1)
    x_start, small = smooth(len(STEPS))
    x_t = q_sample(SCHEDULE, x_start, STEPS, seeded(*x_start.shape, seed=1))
    out = model(x_t, STEPS, low_res=small)
    assert out.shape == (len(STEPS), 6, 16, 16)
    with pytest.raises(ValueError, match="trained without noise"):
        model(x_t, STEPS, low_res=small, low_res_noise=torch.zeros(len(STEPS)))
    found = predict_xstart_from_v(SCHEDULE, x_t, STEPS, out[:, :3])
    assert float((found - x_start).abs().max()) > 0.01
    halved = F.interpolate(found, (8, 8), mode="area")
    assert torch.allclose(halved, small, atol=2e-3)


def test_an_untrained_one_enlarges_at_most_noise() -> None:
    """Its last layer is 0: the whole detail is unknown, the enlarged picture is all it says."""
    _, small = smooth(1)
    out = build_model(DETAILED)(seeded(1, 3, 16, 16), torch.tensor([998]), low_res=small)
    big = enlarge_exactly(small, (16, 16))
    assert torch.allclose(-out[:, :3], big, atol=0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"low_res_size": None}, "is for upsamplers only"),
        ({"detail_scale": 0.0}, "above 0"),
        ({"detail_scale": float("nan")}, r"in \[0, 10\]"),
        ({"low_res_noise": 0.1}, "low_res_noise null"),
        ({"low_res_size": (6, 8)}, "multiple of low_res_size"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(DETAILED, **changes)  # type: ignore[arg-type]
