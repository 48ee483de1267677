"""Classifier-free guidance in Python, end to end on toy models with a row for no class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import adm_cli.sampling.drawing.memory as memory_module
from adm_cli.checkpoints.sources import find_sources, find_upsampler
from adm_cli.config import SamplingConfig
from adm_cli.devices import reproducible_kernels
from adm_cli.diffusion.noise import noise_source
from adm_cli.diffusion.samplers import SAMPLERS
from adm_cli.errors import ConfigError, UsageError
from adm_cli.models.cost import activation_bytes
from adm_cli.models.unet import UNet
from adm_cli.pictures.images import to_uint8
from adm_cli.sampling.defaults import choose_schedule
from adm_cli.sampling.drawing.guiding import guided_by
from adm_cli.sampling.drawing.memory import fit_together, fitting_batch, image_costs, weight_bytes
from adm_cli.sampling.drawing.pipeline import Pipeline, enlarge, generate, load_pipeline
from tests.conftest import TOY_CLASSIFIER, TOY_DIFFUSION, TOY_UNET, Toys, save_toy

Images = dict[int, Tensor]
CLASSES = (0, 1, 3)


@pytest.fixture(scope="module")
def null_toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy that can also draw without a class."""
    path = tmp_path_factory.mktemp("null") / "null.safetensors"
    return save_toy(path, replace(TOY_UNET, null_class=True))


@pytest.fixture(scope="module")
def toy(null_toy: Path, toys: Toys) -> Pipeline:
    return load_pipeline(null_toy, toys.classifier, device="cpu")


def draw(pipeline: Pipeline, seeds: tuple[int, ...], **settings: Any) -> Images:
    """Images by seed, each of a class by its seed."""
    config = SamplingConfig(
        seeds=seeds,
        classes=tuple(CLASSES[seed % 3] for seed in seeds),
        **{"sampler": "ddim", "steps": "3", "batch_size": 2, **settings},
    )
    images: Images = {}
    for batch in generate(pipeline, config):
        assert len(batch.cfgs) == len(batch.seeds)
        images |= dict(zip(batch.seeds, batch.images, strict=True))
    return images


def by_the_formula(pipeline: Pipeline, config: SamplingConfig, weight: float) -> Tensor:
    """The images of a config, from two evaluations a step and the formula written out."""
    model, diffusion = pipeline.model, pipeline.diffusion
    draws = noise_source(config.seeds, (3, 8, 8))
    y = torch.tensor(config.classes)

    def model_fn(x: Tensor, t: Tensor) -> Tensor:
        seen = t * 1000 / diffusion.num_timesteps if diffusion.rescale_timesteps else t
        own, free = model(x, seen, y), model(x, seen, torch.full_like(y, 5))
        guided = free[:, :3] + weight * (own[:, :3] - free[:, :3])
        return torch.cat([guided, own[:, 3:]], dim=1)

    guidance = None
    if config.scale:
        assert pipeline.classifier is not None
        scales = config.image_scales
        guidance = guided_by(pipeline.classifier, diffusion, config, y, scales, torch.float32)
    x = draws()
    with reproducible_kernels():
        for step in SAMPLERS[config.sampler or ""](
            model_fn,
            choose_schedule(diffusion, config.steps),
            x,
            noise=lambda _i, _like: draws(),
            guidance=guidance,
            prediction=diffusion.prediction,
            variance=diffusion.variance,
        ):
            x = step.x
    return to_uint8(x)


@pytest.mark.parametrize(
    ("change", "settings"),
    [
        ({}, {"sampler": "ddpm"}),
        ({}, {"sampler": "ddim", "scale": 2.0}),
        ({"prediction": "v"}, {"sampler": "dpm++2m"}),
        ({"prediction": "x_start"}, {"sampler": "ddpm"}),
        ({"rescale_timesteps": True}, {"sampler": "dpm++2m", "scale": 2.0}),
    ],
)
def test_pictures_are_those_of_the_formula(
    tmp_path: Path, change: dict[str, Any], settings: dict[str, Any]
) -> None:
    path = tmp_path / "m.safetensors"
    diffusion = replace(TOY_DIFFUSION, **change)
    save_toy(path, replace(TOY_UNET, null_class=True), diffusion=diffusion)
    guide = save_toy(tmp_path / "c.safetensors", TOY_CLASSIFIER, diffusion=diffusion, seed=1)
    pipeline = load_pipeline(path, guide, device="cpu")
    config = SamplingConfig(
        seeds=(4, 5),
        classes=(0, 3),
        steps="3",
        batch_size=2,
        cfg=40.0,
        **{"scale": 0.0, **settings},
    )
    (batch,) = generate(pipeline, config)
    expected = by_the_formula(pipeline, config, 40.0)
    gap = (batch.images.int() - expected.int()).abs()
    assert int(gap.max()) <= 1  # rounding
    (off,) = generate(pipeline, replace(config, cfg=1.0))
    assert int((off.images.int() - expected.int()).abs().max()) > 3  # a toy hears its label faintly


def test_an_image_does_not_depend_on_what_guides_those_beside_it(toy: Pipeline) -> None:
    seeds = tuple(range(8))
    cfgs = (3.0, 1.0, 1.5, 0.0, 1.0, 3.0, -1.0, 1.7)
    scales = (0.0, 0.0, 2.0, 2.0, 1.0, 0.0, 0.0, 0.0)
    together = draw(toy, seeds, cfgs=cfgs, scales=scales, batch_size=3)
    for seed, cfg, scale in zip(seeds, cfgs, scales, strict=True):
        alone = draw(toy, (seed,), cfg=cfg, scale=scale, batch_size=3)
        assert torch.equal(alone[seed], together[seed])


def watch(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The original timestep and the number of images of every evaluation of a UNet."""
    seen: list[tuple[int, int]] = []
    real = UNet.forward

    def forward(self: UNet, x: Tensor, t: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        seen.append((int(t[0]), len(x)))
        return real(self, x, t, *args, **kwargs)

    monkeypatch.setattr(UNet, "forward", forward)
    return seen


def test_a_weight_of_1_costs_nothing(toy: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watch(monkeypatch)
    plain = draw(toy, (0, 1))
    one = draw(toy, (0, 1), cfg=1.0, cfg_interval=(0.2, 0.5))
    assert [images for _, images in seen] == [2] * 6
    assert all(torch.equal(plain[seed], one[seed]) for seed in plain)
    seen.clear()
    far = draw(toy, (0, 1), cfg=40.0)
    assert [images for _, images in seen] == [4] * 3
    assert not any(torch.equal(plain[seed], far[seed]) for seed in plain)


def test_guidance_in_an_interval(toy: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watch(monkeypatch)
    options: dict[str, Any] = {"sampler": "ddpm", "steps": "5", "cfg": 40.0}  # 0, 25, 50, 74, 99
    half = draw(toy, (0, 1), cfg_interval=(0.25, 0.6), **options)
    assert seen == [(99, 2), (74, 2), (50, 4), (25, 4), (0, 2)]
    never = draw(toy, (0, 1), cfg_interval=(0.1, 0.2), **options)
    whole = draw(toy, (0, 1), cfg_interval=(0.0, 1.0), **options)
    everywhere = draw(toy, (0, 1), **options)
    off = draw(toy, (0, 1), **{**options, "cfg": 1.0})
    assert torch.equal(never[0], off[0])
    assert torch.equal(whole[0], everywhere[0])
    assert not torch.equal(half[0], off[0])
    assert not torch.equal(half[0], whole[0])


def test_the_doubled_batch_is_counted(
    toy: Pipeline, toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def costs(*, free: bool) -> list[int]:
        return image_costs(base, guided=False, classifier_free=free)

    base, large = find_sources(toy.sources.model.path), find_upsampler(toys.upsampler)
    cost = activation_bytes(toy.model.config)
    monkeypatch.setattr(memory_module, "free_bytes", lambda _device: int(8.1 * cost / 0.6))
    assert fitting_batch(costs(free=False), toy.device, 16) == 8
    assert fitting_batch(costs(free=True), toy.device, 16) == 4
    assert fitting_batch(costs(free=False), toy.device, 16, weights=int(4 * cost / 0.6)) == 4
    weights = sum(weight_bytes(one, torch.float32, guided=False) for one in (base, large))
    assert weights == 4 * (base.model.parameters + large.model.parameters)
    monkeypatch.setattr(memory_module, "activation_bytes", lambda _config: 10**6)
    monkeypatch.setattr(memory_module, "free_bytes", lambda _device: (weights + 1_500_000) / 0.9)
    assert fit_together(weights, max(costs(free=False)), toy.device)
    assert not fit_together(weights, max(costs(free=True)), toy.device)


def test_models_that_cannot(toys: Toys, tmp_path: Path) -> None:
    labelled = load_pipeline(toys.model, device="cpu")
    with pytest.raises(UsageError, match=r"not trained to draw without a class.*--label-dropout"):
        draw(labelled, (0,), cfg=2.0)
    path = save_toy(tmp_path / "free.safetensors", replace(TOY_UNET, num_classes=None), {})
    with pytest.raises(UsageError, match="is unconditional: --cfg needs a model"):
        draw(load_pipeline(path, toys.classifier, device="cpu"), (0,), cfg=2.0, scale=1.0)
    pictures = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    config = SamplingConfig(seeds=(0,), classes=(0,), cfg=2.0)
    with pytest.raises(ConfigError, match=r"takes no guidance: .*cfg 1"):
        next(enlarge(load_pipeline(find_upsampler(toys.upsampler), device="cpu"), pictures, config))


def test_the_embedded_model_can() -> None:
    tiny = load_pipeline("tiny", guided=False, device="cpu")
    config = SamplingConfig(seeds=(0,), classes=(207,), sampler="dpm++2m", steps="2", cfg=2.0)
    (guided,), (plain,) = generate(tiny, config), generate(tiny, replace(config, cfg=1.0))
    assert not torch.equal(guided.images, plain.images)
