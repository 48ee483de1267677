"""Upsampling in Python: the original's trajectory, and one seed, one image."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from adm_cli.checkpoints.format import save_model
from adm_cli.checkpoints.header import ModelInfo
from adm_cli.checkpoints.loading import load_model
from adm_cli.checkpoints.sources import find_sources, find_upsampler
from adm_cli.config import DiffusionConfig, SamplingConfig
from adm_cli.diffusion.noise import upsampling_seed
from adm_cli.diffusion.samplers import SAMPLERS
from adm_cli.diffusion.schedule import NoiseSchedule
from adm_cli.diffusion.steps import SampleStep
from adm_cli.errors import ConfigError, DeviceError, UsageError
from adm_cli.pictures.images import to_uint8
from adm_cli.sampling.drawing import conditioning
from adm_cli.sampling.drawing.pipeline import Pipeline, generate, load_pipeline
from adm_cli.sampling.drawing.pipeline import enlarge as upsample
from tests.conftest import TOY_DIFFUSION, TOY_UPSAMPLER, Toys, save_toy
from tests.golden_arrays import ROOT, arrays, close, config_from_constructor
from tests.sampling.test_pipeline import limit_memory

Images = dict[int, Tensor]  # by position among the pictures

PICTURES = torch.randint(
    0, 256, (7, 8, 8, 3), generator=torch.Generator().manual_seed(3), dtype=torch.uint8
)
CLASSES = (0, 3, 1, 0, 3, 0, 1)
SEEDS = (5, 0, 2, 9, 2**64 - 1, 5, 5)


@pytest.fixture(scope="module")
def toy(toys: Toys) -> Pipeline:
    return load_pipeline(find_upsampler(toys.upsampler), device="cpu")


def enlarge(pipeline: Pipeline, chosen: list[int], **settings: Any) -> Images:
    """Some of `PICTURES` enlarged."""
    config = SamplingConfig(
        seeds=tuple(SEEDS[i] for i in chosen),
        classes=tuple(CLASSES[i] for i in chosen),
        **{"sampler": "ddim", "steps": "3", **settings},
    )
    images: list[Tensor] = []
    for batch in upsample(pipeline, PICTURES[chosen], config):
        assert batch.images.shape[0] == len(batch.seeds) == len(batch.classes)
        images += batch.images
    assert len(images) == len(chosen)
    return dict(zip(chosen, images, strict=True))


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_a_picture_depends_on_nothing_beside_it(toy: Pipeline, sampler: str) -> None:
    everything = list(range(len(PICTURES)))
    for size in (1, 3):
        whole = enlarge(toy, everything, batch_size=size, sampler=sampler)
        for chosen in (everything[::-1], everything[3:], [4]):
            part = enlarge(toy, chosen, batch_size=size, sampler=sampler)
            assert all(torch.equal(image, whole[i]) for i, image in part.items())


def test_batch_sizes_differ_by_rounding_only(toy: Pipeline) -> None:
    base = enlarge(toy, list(range(7)), batch_size=1, sampler="ddpm")
    for size in (2, 5, 16):
        other = enlarge(toy, list(range(7)), batch_size=size, sampler="ddpm")
        gaps = torch.stack([(other[i].int() - base[i].int()).abs() for i in base])
        assert (gaps > 1).sum() <= 6
        assert (gaps > 0).float().mean() < 0.01


def test_picture_seed_class_sampler_and_eta_all_matter(toy: Pipeline) -> None:
    """DDIM is honoured: the original ignores its flag here."""
    images = [enlarge(toy, [i], batch_size=1)[i] for i in range(4)]
    images += [enlarge(toy, [0], batch_size=1, **s)[0] for s in (
        {"sampler": "ddpm"}, {"eta": 0.5}, {"steps": "2"}, {"clip_denoised": False},
    )]  # fmt: skip
    same = partial(upsample, toy, PICTURES[:1])
    for config in (
        SamplingConfig(seeds=(6,), classes=(0,), steps="3"),
        SamplingConfig(seeds=(5,), classes=(1,), steps="3"),
    ):
        images.append(next(same(config)).images[0])
    for i, one in enumerate(images):
        assert one.shape == (16, 16, 3)
        assert not any(torch.equal(one, other) for other in images[:i])


def test_it_is_the_sampler_on_the_network(toys: Toys, toy: Pipeline) -> None:
    """By hand: low_res in [-1, 1], one generator an image, its seed hashed."""
    model = load_model(toys.upsampler)
    generators = [torch.Generator().manual_seed(upsampling_seed(seed)) for seed in SEEDS[:3]]

    def draw() -> Tensor:
        return torch.stack([torch.randn((3, 16, 16), generator=g) for g in generators])

    low_res = PICTURES[:3].permute(0, 3, 1, 2).float() / 127.5 - 1
    *_, last = SAMPLERS["ddpm"](
        partial(model, y=torch.tensor(CLASSES[:3]), low_res=low_res),
        NoiseSchedule.linear(100).respace("4"),
        draw(),
        noise=lambda _i, _like: draw(),
    )
    ours = enlarge(toy, [0, 1, 2], sampler="ddpm", steps="4")
    assert torch.equal(torch.stack(list(ours.values())), to_uint8(last.x))


def test_stages_have_noise_of_their_own() -> None:
    """The same seed in both stages must not give the same numbers."""
    seeds = [0, 1, 2, 2**64 - 1]
    hashed = [upsampling_seed(seed) for seed in seeds]
    assert len({*seeds, *hashed}) == 8
    assert all(0 <= seed < 2**32 for seed in hashed)  # what torch's generator sees
    # part of the format of a recipe: never to change
    assert upsampling_seed(0) == 3492503776


@pytest.fixture
def golden_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Any:
    """The original's super-resolution run, its weights in a file, its noise and pictures put in."""
    golden = arrays("sampling/ddpm10_sr.safetensors")
    network = arrays(golden.meta["model"])
    config = config_from_constructor("SuperResModel", network.meta["constructor_args"])
    config = replace(config, image_size=(12, 12), low_res_size=(4, 4))  # type: ignore[arg-type]
    prefix = "state_dict."
    state = {name.removeprefix(prefix): network[name] for name in network.names(prefix)}
    diffusion = DiffusionConfig(noise_schedule="linear", respacing="10")
    path = tmp_path / "sr.safetensors"
    save_model(path, state, ModelInfo(config, diffusion, {i: f"class {i}" for i in range(10)}))
    draws = [golden["x_init"], *golden["noise"]]
    monkeypatch.setattr(conditioning, "noise_source", lambda *_: iter(draws).__next__)
    monkeypatch.setattr(conditioning, "to_model_range", lambda _: golden["low_res"])
    return golden, load_pipeline(find_upsampler(path), device="cpu", dtype=request.param)


@pytest.mark.skipif(
    not (ROOT / "sampling" / "ddpm10_sr.safetensors").is_file(), reason="not in the choice"
)
@pytest.mark.parametrize("golden_run", ["float32", "float64"], indirect=True)
def test_trajectory_of_the_original(golden_run: Any) -> None:
    golden, pipeline = golden_run
    steps: list[SampleStep] = []
    config = SamplingConfig(seeds=(0, 1), classes=tuple(golden["y"].tolist()), sampler="ddpm")
    pictures = torch.zeros(2, 4, 4, 3, dtype=torch.uint8)
    (batch,) = upsample(pipeline, pictures, config, on_step=steps.append)
    assert [step.i for step in steps] == golden["t_index"].tolist()
    states = torch.stack([step.x for step in steps])
    if pipeline.dtype == torch.float64:
        close(states, golden["x_f64"][1:], relative=1e-9)
    else:
        close(states, golden["x_f64"][1:], absolute=2e-3)
    assert (batch.images.int() - golden["sample_uint8"].int()).abs().max() <= 1


def test_labels_pass_through_an_unconditional_upsampler(toys: Toys) -> None:
    plain = load_pipeline(find_upsampler(toys.plain_upsampler), device="cpu")
    config = SamplingConfig(seeds=(1, 2), classes=(900, None), steps="2")
    (batch,) = upsample(plain, PICTURES[:2], config)
    assert (batch.classes, batch.seeds) == ((900, None), (1, 2))


def test_out_of_memory_halves_the_batch(toy: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = enlarge(toy, list(range(7)), batch_size=2)
    limit_memory(toy.model, 2, monkeypatch)
    halved = enlarge(toy, list(range(7)), batch_size=8)
    assert all(torch.equal(halved[i], image) for i, image in expected.items())
    limit_memory(toy.model, 0, monkeypatch)
    with pytest.raises(DeviceError, match="for a single image"):
        enlarge(toy, [0])


def test_pictures_are_read_batch_by_batch(toy: Pipeline) -> None:
    asked: list[int] = []

    class Lazy:
        def __len__(self) -> int:
            return 5

        def __getitem__(self, i: int) -> Any:
            asked.append(i)
            return PICTURES[i].numpy()

    config = SamplingConfig(seeds=(0,) * 5, classes=(0,) * 5, steps="1", batch_size=2)
    run = upsample(toy, Lazy(), config)
    assert asked == []
    next(run)
    assert asked == [0, 1]
    list(run)
    assert asked == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("pictures", "settings", "message"),
    [
        (torch.zeros(1, 16, 16, 3, dtype=torch.uint8), {}, r"picture 0 is .*\[16, 16, 3\].*\[8, 8"),
        (
            [Image.new("RGB", (8, 8))],
            {},
            "picture 0 is of type Image, expected a tensor",
        ),
        (torch.zeros(1, 8, 8, 3), {}, "float32"),
        (PICTURES[:2], {}, "1 seed for 2 pictures$"),
        (PICTURES[0], {}, r"1 seed for 8 pictures: a single one is \[picture\]"),
        (PICTURES[:1], {"scale": 1.0}, "takes no guidance"),
        (PICTURES[:1], {"classes": (2,)}, "not trained on class 2, but on 0 circle, "),
        (PICTURES[:1], {"classes": (None,)}, "every image needs one"),
        (PICTURES[:1], {"sampler": "ddpm", "eta": 0.5}, "no meaning for the ddpm"),
        (PICTURES[:1], {"steps": "101"}, "cannot take 101 steps"),
    ],
)
def test_what_does_not_fit(
    toy: Pipeline, pictures: Tensor, settings: dict[str, Any], message: str
) -> None:
    config = SamplingConfig(**{"seeds": (0,), "classes": (0,), "steps": "2", **settings})
    with pytest.raises((UsageError, ConfigError), match=message):
        list(upsample(toy, pictures, config))


def test_each_kind_has_its_function(toys: Toys, toy: Pipeline) -> None:
    config = SamplingConfig(seeds=(0,), classes=(0,), steps="2")
    with pytest.raises(UsageError, match="is an upsampler: it enlarges pictures"):
        generate(toy, config)
    with pytest.raises(UsageError, match="is no upsampler"):
        upsample(load_pipeline(toys.model, guided=False), PICTURES[:1], config)
    with pytest.raises(UsageError, match="holds a diffusion model, expected an upsampler"):
        find_upsampler(toys.model)
    with pytest.raises(
        UsageError, match="--model expects a diffusion model: what enlarges pictures is"
    ):
        find_sources(toys.upsampler)
    with pytest.raises(UsageError, match="--model tiny-stack draws what it enlarges") as refused:
        load_pipeline("tiny_upsampler")
    assert "(in Python load_pipeline(find_upsampler('tiny_upsampler')), for" in str(refused.value)
    with pytest.raises(UsageError, match="expected an upsampler"):
        find_upsampler("tiny")


def test_non_square_pictures(tmp_path: Path) -> None:
    config = replace(TOY_UPSAMPLER, image_size=(8, 16), low_res_size=(3, 5))
    path = save_toy(tmp_path / "wide.safetensors", config, diffusion=TOY_DIFFUSION)
    wide = load_pipeline(find_upsampler(path), device="cpu")
    pictures = torch.zeros(1, 3, 5, 3, dtype=torch.uint8)
    (batch,) = upsample(wide, pictures, SamplingConfig(seeds=(0,), classes=(0,), steps="1"))
    assert batch.images.shape == (1, 8, 16, 3)
