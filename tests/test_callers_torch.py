"""What the caller has set of torch changes no picture, and is as before afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import adm_cli
from adm_cli import SamplingConfig, generate, load_pipeline
from adm_cli.devices import reproducible_kernels
from adm_cli.reports.pictures import drawn_noise
from adm_cli.sampling.defaults import choose_schedule
from adm_cli.training.randomness import image_noise, uniforms
from tests.conftest import Toys
from tests.training.conftest import draw_pictures

CUDNN: Any = torch.backends.cudnn
MATMUL, CONVOLUTION = torch.backends.cuda.matmul, CUDNN.conv


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def draw(toys: Toys) -> torch.Tensor:
    choose_schedule.cache_clear()
    pipeline = load_pipeline(toys.model, toys.classifier, device="cpu")
    config = SamplingConfig(
        seeds=(3, 4), classes=(0, 1), scale=2.0, steps="2", mixtures=(None, "0*0.7+1*0.3")
    )
    return torch.cat([batch.images for batch in generate(pipeline, config)])


@pytest.mark.parametrize(
    "mode",
    [
        lambda: default_dtype(torch.float64),
        lambda: default_dtype(torch.bfloat16),
        torch.inference_mode,
        torch.no_grad,
        lambda: torch.device("meta"),
    ],
    ids=["float64", "bfloat16", "inference_mode", "no_grad", "device"],
)
def test_pictures_are_the_same(toys: Toys, mode: Callable[[], AbstractContextManager[Any]]) -> None:
    expected = draw(toys)
    with mode():
        found = draw(toys)
    assert found.equal(expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"sampler": "dpm++3m", "spacing": "rho", "guide_adam": "0.9/0.99"},
        {"sampler": "unipc", "spacing": "quadratic", "negative_class": 2},
        {"sampler": "heun", "spacing": "log-snr", "churn": 1.0, "classifier_on": "x0"},
        {"sampler": "ddim", "eta": 1.0, "threshold": 0.9, "guide_by": "js", "spacing": "trailing"},
    ],
    ids=lambda settings: settings["sampler"],
)
def test_each_sampler_draws_whatever_the_default_device(
    toys: Toys, settings: dict[str, Any]
) -> None:
    config = SamplingConfig(seeds=(3,), classes=(1,), scale=0.5, steps="3", **settings)
    found = []
    for device in ("cpu", "meta"):
        choose_schedule.cache_clear()
        with torch.device(device):
            pipeline = load_pipeline(toys.model, toys.classifier, device="cpu")
            found += [batch.images for batch in generate(pipeline, config)]
    assert found[1].equal(found[0])


def test_training_and_measuring_whatever_the_default_device(
    tmp_path: Path, toys: Toys, quick_training: None
) -> None:
    pictures = draw_pictures(tmp_path / "shapes", count=2)
    told: list[object] = []
    for device in ("cpu", "meta"):
        with torch.device(device):
            done = adm_cli.train_classifier(
                pictures, out=tmp_path / device, size=8, steps=1, batch_size=2, device="cpu",
                set=["num_res_blocks=1", "channel_mult=[1,1]", "model_channels=32"], val_split=0,
            )  # fmt: skip
            assert done.model is not None
            model = str(done.model)
            scores = adm_cli.evaluate_classifier(pictures, classifier=model, device="cpu")
        told += [load_file(done.model)["time_embed.0.weight"].tolist(), scores.summary["mean"]]
    assert told[:2] == told[2:]


def test_noise_is_the_same_whatever_the_default_type() -> None:
    def numbers() -> list[torch.Tensor]:
        like = torch.zeros(1, 2, 3, dtype=torch.float32)
        return [
            drawn_noise([torch.Generator().manual_seed(1)], like),
            uniforms(1, 2, "crops", 3),
            image_noise(1, "noise", range(2), (3,), torch.device("cpu")),
        ]

    expected = numbers()
    with default_dtype(torch.float64):
        found = numbers()
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.float32
        assert a.equal(b)


@pytest.mark.parametrize("place", [torch.backends, MATMUL, torch.backends.cudnn])
def test_either_way_of_asking_for_tf32(place: Any) -> None:
    """Where it is asked for by its newer name the older cannot be read."""
    before = place.fp32_precision
    place.fp32_precision = "tf32"
    try:
        asked = MATMUL.fp32_precision, CONVOLUTION.fp32_precision
        with reproducible_kernels():
            assert (MATMUL.fp32_precision, CONVOLUTION.fp32_precision) == ("ieee", "ieee")
        assert (MATMUL.fp32_precision, CONVOLUTION.fp32_precision) == asked
        assert place.fp32_precision == "tf32"
    finally:
        place.fp32_precision = before
    assert MATMUL.fp32_precision == "none"  # nothing that only followed is set now


def test_threads_that_compute_at_once_put_the_kernels_back() -> None:
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic
    first, second = reproducible_kernels(), reproducible_kernels()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert cudnn.deterministic  # the second computes still
    second.__exit__(None, None, None)
    assert cudnn.deterministic == before is False


def test_the_number_of_threads_is_the_callers(
    toys: Toys, tmp_path: Path, threads: Callable[[int], None]
) -> None:
    settings: dict[str, Any] = {
        "model": toys.model, "class_": 0, "scale": 0, "steps": 1, "out": tmp_path / "run",
        "device": "cpu",
    }  # fmt: skip
    threads(1)
    run = adm_cli.sample(num=2, **settings)
    threads(2)
    one, other = run.paths()
    assert adm_cli.repro(one, model=toys.model).identical
    assert torch.get_num_threads() == 2
    assert adm_cli.repro(run.folder, model=toys.model).identical
    assert torch.get_num_threads() == 2
    other.unlink()
    used: list[int] = []
    adm_cli.sample(num=2, **settings, on_event=lambda _: used.append(torch.get_num_threads()))
    assert 1 in used  # as the run was begun
    assert torch.get_num_threads() == 2
    one.unlink()
    assert adm_cli.verify(run.folder, repair=True, model=str(toys.model)) == []
    assert torch.get_num_threads() == 2


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_training_leaves_the_callers_random_numbers(tmp_path: Path, quick_training: None) -> None:
    pictures = draw_pictures(tmp_path / "shapes", count=2)
    state = torch.get_rng_state()
    with torch.no_grad():
        adm_cli.train_classifier(
            pictures, out=tmp_path / "run", size=8, steps=1, batch_size=2, device="cpu",
            set=["num_res_blocks=1", "channel_mult=[1,1]", "model_channels=32"], val_split=0,
        )  # fmt: skip
        assert not torch.is_grad_enabled()
    assert torch.get_rng_state().equal(state)
