"""Bits per dimension of a set: the golden-tested function, fed and averaged rightly."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adm_cli.checkpoints.loading import build_model
from adm_cli.config import DiffusionConfig, UNetConfig
from adm_cli.diffusion.losses import BitsPerDim, bits_per_dim
from adm_cli.diffusion.schedule import NoiseSchedule
from adm_cli.errors import AdmError
from adm_cli.models.unet import UNet
from adm_cli.pictures.datasets import ImageSet, open_images
from adm_cli.pictures.decode import center_crop, decode_picture
from adm_cli.pictures.images import to_model_range
from adm_cli.reports.likelihood import LikelihoodReport, RunningMean, likelihoods
from adm_cli.reports.pictures import noise_generators
from tests.conftest import TOY_UNET, randomise

DIFFUSION = DiffusionConfig(noise_schedule="linear", num_timesteps=100)
SCHEDULE = NoiseSchedule.linear(100).respace("6")


def network(config: UNetConfig = TOY_UNET) -> UNet:
    model = randomise(build_model(config)).double().eval().requires_grad_(False)
    assert isinstance(model, UNet)
    model.torso_dtype = torch.float64
    return model


def bounds(
    images: ImageSet,
    batch_size: int = 3,
    model: UNet | None = None,
    diffusion: DiffusionConfig = DIFFUSION,
    **options: Any,
) -> BitsPerDim:
    """Of all pictures, in one piece."""
    model = model or network()
    parts = [
        found
        for _, found in likelihoods(
            model, diffusion, SCHEDULE, images,
            batch_size=batch_size, dtype=torch.float64, **options,
        )
    ]  # fmt: skip
    return BitsPerDim(*(torch.cat(values) for values in zip(*parts, strict=True)))


def crops(images: ImageSet) -> Tensor:
    pixels = [
        center_crop(decode_picture(images.read(i), images.name(i)), (8, 8))
        for i in range(len(images))
    ]
    return to_model_range(torch.stack([torch.from_numpy(p.copy()) for p in pixels])).double()


@pytest.fixture
def images(shapes: Path) -> ImageSet:
    return open_images([shapes])


def test_equals_the_function(images: ImageSet) -> None:
    """What a person gets from the pieces by hand: centre crops, labels, noise by name."""
    model, generators = network(), noise_generators(images, 0, "likelihood")
    wanted = bits_per_dim(
        SCHEDULE,
        partial(model, y=torch.from_numpy(images.labels())),
        crops(images),
        noise=lambda _i, like: torch.stack(
            [torch.randn(like.shape[1:], generator=g) for g in generators]
        ).double(),
    )
    found = bounds(images, 8)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
    total = found.prior + found.vb.sum(dim=1)
    torch.testing.assert_close(found.total, total, rtol=1e-12, atol=0)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_batch_size_changes_nothing(images: ImageSet, size: int) -> None:
    for a, b in zip(bounds(images, size), bounds(images, 5), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_a_picture_does_not_depend_on_the_others(images: ImageSet) -> None:
    some = bounds(images.part([6, 1]))
    torch.testing.assert_close(some.total, bounds(images).total[[6, 1]], rtol=1e-10, atol=0)


def test_seeds(images: ImageSet) -> None:
    assert torch.equal(bounds(images, seed=1).total, bounds(images, seed=1).total)
    assert (bounds(images, seed=1).total != bounds(images, seed=2).total).all()


def test_labels_matter_and_may_be_none(images: ImageSet) -> None:
    model = network(replace(TOY_UNET, null_class=True))
    unlabelled = replace(images, classes={}, pictures=tuple(
        replace(p, label=None) for p in images.pictures
    ))  # fmt: skip
    null = bounds(unlabelled, model=model)
    assert (null.total != bounds(images, model=model).total).all()
    as_row_5 = replace(images, pictures=tuple(replace(p, label=5) for p in images.pictures))
    assert torch.equal(null.total, bounds(as_row_5, model=model).total)


def test_upsamplers_see_the_picture_made_small(images: ImageSet) -> None:
    model = network(replace(TOY_UNET, low_res_size=(4, 4)))
    seen = []
    model.register_forward_pre_hook(
        lambda _m, _args, kwargs: seen.append(kwargs["low_res"]), with_kwargs=True
    )
    bounds(images, 8, model=model)
    x = crops(images)
    by_hand = x.reshape(8, 3, 4, 2, 4, 2).mean(dim=(3, 5))
    torch.testing.assert_close(seen[0], by_hand, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("prediction", ["v", "x_start"])
def test_other_predictions(images: ImageSet, prediction: Any) -> None:
    other = replace(DIFFUSION, prediction=prediction)
    assert not torch.isclose(bounds(images, diffusion=other).vb, bounds(images).vb).all()


def test_a_perfect_denoiser_pays_for_the_prior_and_the_last_bits(images: ImageSet) -> None:
    """With x_0 known every posterior is met exactly: all terms but the decoder's are zero."""
    x = crops(images)

    class Oracle(torch.nn.Module):
        config = replace(TOY_UNET, num_classes=None, out_channels=3)

        def forward(self, _x: Tensor, _t: Tensor) -> Tensor:
            return x

    diffusion = replace(DIFFUSION, prediction="x_start", variance="fixed_small")
    found = bounds(images, 8, model=Oracle(), diffusion=diffusion)  # type: ignore[arg-type]
    assert found.vb[:, :-1].abs().max() < 1e-12
    assert found.xstart_mse.abs().max() < 1e-12
    assert (found.vb[:, -1] > 0).all()


def test_rescaled_timesteps_are_what_the_model_sees(images: ImageSet) -> None:
    model, seen = network(), []
    model.register_forward_pre_hook(lambda _m, args: seen.append(args[1][0].item()))
    bounds(images.part([0]), model=model, diffusion=replace(DIFFUSION, rescale_timesteps=True))
    assert seen == [t * 10.0 for t in reversed(SCHEDULE.timesteps.tolist())]


def test_not_a_number_is_an_error(images: ImageSet) -> None:
    model = network()
    next(model.parameters()).data.fill_(torch.nan)
    with pytest.raises(AdmError, match=r"circle/0\.png: the bound is nan"):
        bounds(images, model=model)


def test_an_overflow_that_is_clipped_is_no_bound(images: ImageSet) -> None:
    """Of the predicted x_0: a finite output of the network, times what divides by the signal."""
    model = network()
    model.get_parameter("out.2.bias").data[:3] = 1e308
    with pytest.raises(AdmError, match="the bound is nan"):
        bounds(images, model=model)


def test_steps_to_come_are_told(images: ImageSet) -> None:
    told: list[tuple[int, int]] = []
    bounds(images.part([0, 1]), on_step=lambda n, left: told.append((n, left)))
    assert told == [(2, left) for left in (5, 4, 3, 2, 1)]


def test_moments_are_those_of_the_whole() -> None:
    values = torch.randn(11, 4, generator=torch.Generator().manual_seed(0)) + 1000
    moments = RunningMean()
    for part in (values[:1], values[1:5], values[5:]):
        moments.add(part)
    whole = values.double()
    torch.testing.assert_close(moments.mean, whole.mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(moments.stderr(), whole.std(0) / 11**0.5, rtol=1e-9, atol=0)
    alone = RunningMean()
    alone.add(values[:1])
    assert alone.stderr().isnan().all()


def test_report_adds_up(images: ImageSet) -> None:
    found, report = bounds(images), LikelihoodReport(SCHEDULE)
    for start in (0, 3):
        report.add(BitsPerDim(*(v[start : 3 if start == 0 else None] for v in found)))
    totals, quarters, steps = report.totals(), report.quarters(), report.steps()
    assert totals["images"] == 8
    assert totals["bits_per_dim"] == pytest.approx(found.total.mean().item(), rel=1e-12)
    error = found.total.std().item() / 8**0.5
    assert totals["bits_per_dim_stderr"] == pytest.approx(error, rel=1e-9)
    for rows in (quarters, steps):
        vb = sum(row["vb"] for row in rows)
        assert vb + totals["prior"] == pytest.approx(totals["bits_per_dim"], rel=1e-12)
    assert [row["timestep"] for row in steps] == SCHEDULE.timesteps.tolist()
    assert [row["timesteps"] for row in quarters] == [[0, 24], [25, 49], [50, 74], [75, 99]]
    assert sum(row["steps"] for row in quarters) == len(SCHEDULE)
    mse = sum(row["mse"] * row["steps"] for row in quarters) / len(SCHEDULE)
    assert mse == pytest.approx(totals["mse"], rel=1e-12)
    assert steps[0]["vb"] == pytest.approx(found.vb[:, -1].mean().item())


def test_quarters_without_steps_are_left_out() -> None:
    report = LikelihoodReport(NoiseSchedule.linear(100).respace("1"))
    one = torch.ones(2, 1)
    report.add(BitsPerDim(one[:, 0], one[:, 0], one, one, one))
    assert [row["quarter"] for row in report.quarters()] == [0]
