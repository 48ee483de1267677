"""Networks and guidance that overflow: no picture is taken for one."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from adm_cli import enlarge, find_upsampler, generate, load_pipeline
from adm_cli.config import SamplingConfig
from adm_cli.diffusion.finite import FiniteWatch, finite_images
from adm_cli.diffusion.process import clip_xstart
from adm_cli.diffusion.samplers import SAMPLERS
from adm_cli.diffusion.schedule import NoiseSchedule
from adm_cli.errors import AdmError, NotFiniteError
from adm_cli.evaluation.inception import Features
from adm_cli.reports.measure import measure
from adm_cli.sampling.drawing.pipeline import Pipeline
from tests.conftest import TOY_CLASSIFIER, TOY_UNET, TOY_UPSAMPLER, Toys
from tests.overflow import LOST, overflowing
from tests.reports import test_measure as evaluation

SCHEDULE = NoiseSchedule.linear(100).respace("6")
BAD = (math.inf, -math.inf, math.nan)


def pipeline(model: Path, classifier: Path | None = None) -> Pipeline:
    return load_pipeline(model, classifier, guided=classifier is not None, device="cpu")


def config(*classes: int | None, **changes: object) -> SamplingConfig:
    seeds = tuple(range(len(classes)))
    settings = {"steps": "2", "batch_size": 3, **changes}
    return SamplingConfig(seeds=seeds, classes=classes, **settings)  # type: ignore[arg-type]


def draw(sampler: str, bad: float, place: str, at: int, *, clip: bool) -> tuple[Tensor, Tensor]:
    """Three images; one value of the second is ``bad`` at step ``at``. The last x, as it is and
    as a `FiniteWatch` marks it."""
    generator = torch.Generator().manual_seed(0)
    watch, calls = FiniteWatch(), {"model": 0, "gradient": 0}

    def function(name: str, channels: int) -> object:
        def output(x: Tensor, _t: Tensor) -> Tensor:
            found = torch.cat([0.3 * x, x.tanh()], dim=1)[:, :channels]
            if place.startswith(name) and calls[name] == at:
                found[1, -1 if place == "model's variance" else 0, 2, 1] = bad
            calls[name] += 1
            return found

        return watch.watched(output)

    for step in SAMPLERS[sampler](
        function("model", 6),  # type: ignore[arg-type]
        SCHEDULE,
        torch.randn(3, 3, 4, 4, generator=generator),
        noise=lambda _i, like: torch.randn(like.shape, generator=generator),
        guidance=function("gradient", 3),  # type: ignore[arg-type]
        clip_denoised=clip,
    ):
        x = step.x
    return x, watch.marked(x)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("clip", [True, False])
def test_what_is_not_finite_stays_so_to_the_last_step(sampler: str, *, clip: bool) -> None:
    whole, _ = draw(sampler, 0.0, "nowhere", 0, clip=clip)
    for bad in BAD:
        for place in ("model", "gradient"):
            for at in (0, 3, 5):
                x, marked = draw(sampler, bad, place, at, clip=clip)
                assert finite_images(x).tolist() == [True, False, True], (bad, place, at)
                assert torch.equal(x[::2], whole[::2])
                assert torch.equal(marked[::2], whole[::2])
                assert marked[1].isnan().all()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_a_sampler_leaves_out_is_seen_too(sampler: str) -> None:
    """A variance of exp(-inf) is 0, and one that is not used is nothing at all."""
    for bad in BAD:
        _, marked = draw(sampler, bad, "model's variance", 2, clip=True)
        assert finite_images(marked).tolist() == [True, False, True]


def test_clipping_does_not_make_a_pixel_of_an_overflow() -> None:
    x = torch.tensor([-math.inf, -3e38, -0.25, -0.0, 1.5, math.inf, math.nan])
    found = clip_xstart(x)
    assert found[1:5].tolist() == [-1, -0.25, 0, 1]
    assert found[[0, 5, 6]].isnan().all()


def test_generate_names_what_is_not_finite_once_the_others_are_there(
    toys: Toys, tmp_path: Path
) -> None:
    bad = pipeline(overflowing(tmp_path / "bad.safetensors", TOY_UNET))
    batches = generate(bad, config(0, LOST, 1, 0))
    found = [next(batches), next(batches)]
    assert [batch.finite for batch in found] == [(True, False, True), (True,)]
    assert found[0].picture(1) is None
    assert not found[0].images[1].any()
    good = list(generate(pipeline(toys.model), config(0, 1, 1, 0)))
    for i in (0, 2):
        np.testing.assert_array_equal(found[0].picture(i), good[0].picture(i))
    found[1].check_finite()
    for refused in (found[0].check_finite, lambda: next(batches)):
        with pytest.raises(
            NotFiniteError, match=r"1 of [34] images .* \(class 3, seed 1\): .*--dtype"
        ):
            refused()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_overflow_that_clipping_hid(tmp_path: Path, sampler: str) -> None:
    """The network's output is finite, the predicted x_0 is not."""
    bad = overflowing(tmp_path / "bad.safetensors", TOY_UNET, "out.2.bias", slice(3))
    with pytest.raises(NotFiniteError, match="2 of 2 images"):
        list(generate(pipeline(bad), config(0, 1, sampler=sampler)))


def test_guidance_that_overflows(toys: Toys, tmp_path: Path) -> None:
    """Images of scale 0 are drawn without it."""
    strong = config(0, 1, 0, sampler="ddim", scale=1e38, scales=(1e38, 0.0, 1.0))
    batches = generate(pipeline(toys.model, toys.classifier), strong)
    assert [next(batches).finite for _ in range(3)] == [(False,), (True,), (True,)]
    bad = overflowing(tmp_path / "c.safetensors", TOY_CLASSIFIER, "input_blocks.0.0.bias", slice(9))
    guided = config(0, 1, 0, scale=1.0, scales=(1.0, 0.0, 0.0))
    batches = generate(pipeline(toys.model, bad), guided)
    assert [next(batches).finite for _ in range(2)] == [(False,), (True, True)]


def test_upsample_names_them_too(tmp_path: Path) -> None:
    path = overflowing(tmp_path / "bad.safetensors", TOY_UPSAMPLER)
    bad = load_pipeline(find_upsampler(path), device="cpu")
    pictures = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    batches = enlarge(bad, pictures, config(LOST, 0))
    assert next(batches).finite == (False, True)
    with pytest.raises(NotFiniteError, match="class 3, seed 0"):
        next(batches)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 2e6, -1e20])
@pytest.mark.parametrize("which", ["pool", "spatial", "logits"])
def test_features_that_are_not_finite_are_refused(which: str, value: float) -> None:
    """Of the large ones the squares were not: precision and recall were 1."""

    def network(images: Tensor) -> Features:
        found = evaluation.network(images)
        getattr(found, which)[2, 1] = value
        return found

    extractor = replace(evaluation.extractor(), network=network)
    with pytest.raises(AdmError, match="the features of image 2 are NaN, infinite or above"):
        measure([evaluation.images(8)], extractor, count=8)
