"""How an upsampler's small pictures are made: filters, noise, squares; the same at every go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from adm_cli.checkpoints.loading import build_model, expected_shapes
from adm_cli.config import UNetConfig
from adm_cli.errors import ConfigError
from adm_cli.training.config import TrainingConfig
from adm_cli.training.degradation import (
    KERNELS,
    crop_squares,
    degraded,
    low_resolution,
    shrink,
)
from adm_cli.training.feed import Batch
from adm_cli.training.tasks import Inputs
from adm_cli.training.trainer import Trainer
from tests.conftest import TOY_UPSAMPLER, randomise
from tests.training.conftest import settings, toy_task

CPU = torch.device("cpu")
NOISY = replace(TOY_UPSAMPLER, low_res_noise=0.4, num_classes=None)
PILLOW = {
    "area": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def seeded(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("kernel", sorted(KERNELS))
@pytest.mark.parametrize("size", [(6, 10), (4, 7)])
def test_filters_are_pillows(kernel: str, size: tuple[int, int]) -> None:
    x = seeded(1, 1, 12, 20)
    image = Image.fromarray(x[0, 0].numpy())
    expected = np.asarray(image.resize(size[::-1], PILLOW[kernel]))
    assert np.allclose(shrink(x, size, kernel)[0, 0], expected, atol=1e-5)


def test_the_area_filter_is_that_of_area_averages() -> None:
    x = seeded(2, 3, 8, 12)
    assert torch.allclose(shrink(x, (4, 6), "area"), low_resolution(x, (4, 6)), atol=1e-6)


def test_squares_are_everywhere_and_whole() -> None:
    x = torch.arange(2 * 6 * 8.0).reshape(2, 1, 6, 8)
    corners = torch.tensor([[0.0, 0.0], [0.999, 0.999]])
    first, second = crop_squares(x, corners, 4)
    assert torch.equal(first, x[0, :, :4, :4])
    assert torch.equal(second, x[1, :, 2:, 4:])


def test_small_pictures_are_a_function_of_seed_step_and_place() -> None:
    """Shares of a batch are what the whole batch has there; kernels and noise do vary."""
    x = seeded(64, 3, 16, 16)
    training = settings(batch_size=64, vary_kernel=True)

    def make(step: int, places: slice, how: TrainingConfig = training) -> tuple[Tensor, Tensor]:
        small, level = degraded(x[places], NOISY, how, step, places)
        assert small is not None
        assert level is not None
        return small, level

    whole, levels = make(5, slice(0, 64))
    part, part_levels = make(5, slice(16, 32))
    assert torch.equal(whole[16:32], part)
    assert torch.equal(levels[16:32], part_levels)
    assert 0 <= float(levels.min()) < 0.1
    assert 0.3 < float(levels.max()) < 0.4
    for other in (make(6, slice(0, 64)), make(5, slice(0, 64), replace(training, seed=9))):
        assert not torch.equal(whole, other[0])
        assert not torch.equal(levels, other[1])
    clean = replace(NOISY, low_res_noise=None)
    varied, none = degraded(x, clean, training, 5, slice(0, 64))
    assert varied is not None
    assert none is None
    made = torch.stack([shrink(x, (8, 8), kernel) for kernel in KERNELS])  # [4, 64, 3, 8, 8]
    closest = (made - varied).abs().amax(dim=(2, 3, 4))
    assert float(closest.min(dim=0).values.max()) < 1e-5
    assert set(closest.argmin(dim=0).tolist()) == {0, 1, 2, 3}
    spread = (whole - varied).std(dim=(1, 2, 3))
    assert torch.allclose(spread, levels, rtol=0.25, atol=0.01)
    assert degraded(x, clean, settings(batch_size=64), 5, slice(0, 64)) == (None, None)


def test_the_network_is_told_the_level() -> None:
    model = randomise(build_model(NOISY))
    x, small, t = seeded(2, 3, 16, 16), seeded(2, 3, 8, 8), torch.tensor([5, 50])
    seen: list[Tensor] = []
    model.input_blocks[0][0].register_forward_pre_hook(lambda _m, a: seen.append(a[0]))  # type: ignore[union-attr,index]
    told = model(x, t, low_res=small, low_res_noise=torch.tensor([0.1, 0.4]))
    assert torch.allclose(seen[0][:, 6, 0, 0], torch.tensor([0.25, 1.0]))
    assert seen[0][0, 6].std() == 0
    clean = model(x, t, low_res=small)
    assert torch.equal(clean, model(x, t, low_res=small, low_res_noise=torch.zeros(2)))
    assert not torch.equal(clean, told)
    plain = build_model(replace(TOY_UPSAMPLER, num_classes=None))
    with pytest.raises(ValueError, match="trained without noise"):
        plain(x, t, low_res=small, low_res_noise=torch.zeros(2))


def test_what_is_off_changes_no_shape() -> None:
    plain = expected_shapes(replace(TOY_UPSAMPLER, num_classes=None))
    noisy, conv = expected_shapes(NOISY), expected_shapes(replace(NOISY, middle_attention=False))
    first = "input_blocks.0.0.weight"
    assert (plain[first][1], noisy[first][1]) == (6, 7)
    assert {n: s for n, s in plain.items() if n != first} == {
        n: s for n, s in noisy.items() if n != first
    }
    assert len(conv) < len(noisy)
    assert not [name for name in conv if name.startswith("middle_block") and "qkv" in name]
    for wrong in ({"low_res_size": None}, {"low_res_noise": 0.0}, {"low_res_noise": 11.0}):
        changes: dict[str, Any] = wrong
        with pytest.raises(ConfigError, match="low_res_noise"):
            replace(NOISY, **changes)


def test_convolutions_alone_see_a_crop_as_a_part_of_the_whole() -> None:
    """Far from its edges: so crops teach what whole pictures need."""
    config = UNetConfig(
        image_size=(64, 64), low_res_size=(32, 32), model_channels=32, num_res_blocks=1,
        channel_mult=(1,), attention_factors=(), middle_attention=False, out_channels=6,
    )  # fmt: skip
    model = build_model(config).requires_grad_(False)
    x, small, t = seeded(1, 3, 64, 64), seeded(1, 3, 32, 32), torch.tensor([5])
    randomise(model)
    for norm in (m for m in model.modules() if isinstance(m, torch.nn.GroupNorm)):
        norm.forward = torch.nn.Identity().forward  # type: ignore[method-assign]  # sees all
    whole = model(x, t, low_res=small)[..., 28:36, 28:36]
    part = model(x[..., 16:48, 16:48], t, low_res=small[..., 8:24, 8:24])[..., 12:20, 12:20]
    assert torch.allclose(part, whole, rtol=1e-3, atol=1e-4 * float(whole.abs().max()))


def test_a_step_learns_from_squares() -> None:
    task = toy_task(low_res_size=(4, 4), low_res_noise=0.5)
    one = Trainer(task, settings(crop=4, vary_kernel=True, microbatch=3), device=CPU)
    pixels = (seeded(4, 8, 8, 3) * 127 + 128).to(torch.uint8)
    batch = Batch(pixels, torch.zeros(4, dtype=torch.int64), [])
    inputs: Inputs = one.inputs(batch)
    assert inputs.x_start.shape == inputs.noise.shape == (4, 3, 4, 4)
    assert inputs.low_res is not None
    assert inputs.low_res.shape == (4, 3, 2, 2)
    assert one.train_step(inputs).applied
    assert set(one.validate(pixels, batch.labels)) >= {"loss"}  # of whole pictures
