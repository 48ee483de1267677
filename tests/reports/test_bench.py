"""`bench`: what it measures of which networks; never how fast they are."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import adm_cli
from adm_cli.checkpoints.loading import load_model
from adm_cli.checkpoints.presets import Checkpoint, find_checkpoint
from adm_cli.commands.bench import bench as command
from adm_cli.errors import DeviceError, UsageError
from adm_cli.models.cost import forward_gflops
from adm_cli.models.unet import UNet
from adm_cli.reports import bench as benching
from tests.conftest import TOY_CLASSIFIER, TOY_DIFFUSION, TOY_UNET, TOY_UPSAMPLER, Result, Toys

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benching, "_ROUNDS", 1)
    monkeypatch.setattr(benching, "_CONVOLUTION", (8, 16))
    monkeypatch.setattr(benching, "_PRODUCT", 32)


def test_rows_of_dtypes_batches_threads_and_paths(toys: Toys) -> None:
    before = torch.get_num_threads()
    rows = list(
        adm_cli.bench(
            toys.model,
            toys.classifier,
            dtype=("float32", "float64"),
            batch_size=(1, 2),
            threads=(1,),
            compare=True,
            seconds=1e-6,
        )
    )
    found = [(row.dtype, row.threads, row.batch, row.plain) for row in rows]
    assert found == [
        (dtype, threads, batch, plain)
        for dtype in ("float32", "float64")
        for threads in (1,)
        for batch in (1, 2)
        for plain in (False, True)
    ]
    assert torch.get_num_threads() == before
    gflop = forward_gflops(load_model(toys.model))
    for row in rows:
        assert row.gflop == pytest.approx(row.batch * gflop)
        assert row.rate == pytest.approx(row.gflop / row.unet_ms * 1e3)
        assert row.of_convolutions == pytest.approx(row.rate / row.convolution_rate)
        assert row.steps == 5
        assert row.images_per_second == pytest.approx(row.batch / row.step_ms * 1e3 / row.steps)
        assert row.gradient_gflop is not None
        assert row.gradient_ms is not None
        assert all(math.isfinite(v) and v >= 0 for v in asdict(row).values() if type(v) is float)


def test_whatever_the_default_device(toys: Toys) -> None:
    with torch.device("meta"):
        (row,) = adm_cli.bench(toys.model, toys.classifier, batch_size=1, seconds=1e-6)
    assert row.device == "cpu"


def test_memory_that_runs_out(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB")

    monkeypatch.setattr(UNet, "forward", greedy)
    with pytest.raises(DeviceError, match=r"not enough memory on cpu .* a smaller --batch-size"):
        next(adm_cli.bench(toys.model, batch_size=1, seconds=1e-6))


def test_an_upsampler_alone(toys: Toys) -> None:
    (row,) = adm_cli.bench(toys.upsampler, batch_size=1, seconds=1e-6)
    assert (row.model, row.classifier) == (toys.upsampler.stem, None)
    assert row.gflop == pytest.approx(forward_gflops(load_model(toys.upsampler)))
    with pytest.raises(UsageError, match="holds an upsampler model, --model expects a diffusion"):
        list(adm_cli.bench(toys.upsampler, toys.classifier))


def test_steps_are_those_that_drawing_takes() -> None:
    for random in (False, True):
        (row,) = adm_cli.bench("tiny_upsampler", random_weights=random, batch_size=1, seconds=1e-6)
        assert row.steps == 8


def test_a_step_holds_what_a_step_needs(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guided step calls the network and the classifier's gradient once each."""
    calls: list[str] = []
    gradient = adm_cli.classifier_guidance

    def guidance(classifier: object, y: torch.Tensor, scale: float) -> object:
        calls.append(f"guided by {scale}")
        return gradient(classifier, y, scale)  # type: ignore[arg-type]

    monkeypatch.setattr(benching, "classifier_guidance", guidance)
    rows = list(adm_cli.bench(toys.model, toys.classifier, batch_size=(1,), seconds=1e-6))
    assert calls == ["guided by 1.0"]
    unguided = list(adm_cli.bench(toys.model, unguided=True, batch_size=(1,), seconds=1e-6))
    assert rows[0].classifier is not None
    assert unguided[0].classifier is None
    assert unguided[0].gradient_ms is None


def test_operations_of_the_ceilings_and_of_a_gradient(toys: Toys) -> None:
    for call, flop in benching._ceilings(torch.device("cpu"), torch.float64).values():
        with FlopCounterMode(display=False) as counter:
            call()
        assert counter.get_total_flops() == flop
    classifier = load_model(toys.classifier)
    forward = benching.evaluation_gflop(classifier.config)
    assert forward == forward_gflops(classifier)
    assert 1.8 * forward < benching.gradient_gflop_of(classifier.config) < 3 * forward


def test_random_weights_of_a_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    toy: dict[str, Any] = {
        "diffusion": TOY_UNET,
        "classifier": TOY_CLASSIFIER,
        "upsampler": TOY_UPSAMPLER,
    }

    def small(name: str) -> Checkpoint:
        row = find_checkpoint(name)
        return replace(row, config=toy[row.kind], diffusion=TOY_DIFFUSION)

    monkeypatch.setattr(benching, "find_checkpoint", small)
    rows = list(adm_cli.bench("tiny-stack", random_weights=True, batch_size=(1,), seconds=1e-6))
    assert [row.model for row in rows] == ["tiny", "tiny_upsampler"]
    assert [row.classifier for row in rows] == ["tiny_classifier", None]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"model": "nothing"}, "neither a preset nor a file"),
        ({"model": "nothing", "random_weights": True}, "unknown checkpoint"),
        ({"model": "tiny_classifier", "random_weights": True}, "is a classifier"),
        ({"batch_size": (0,)}, "batch size"),
        ({"batch_size": (1, 5000)}, "from 1 to 4096, such as"),
        ({"threads": (0,)}, "threads"),
        ({"threads": (10**6,)}, "too many"),
        ({"seconds": 0}, "seconds"),
        ({"dtype": ("float7",)}, "unknown dtype"),
    ],
)
def test_wrong_usage(options: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        list(adm_cli.bench(**options))  # type: ignore[arg-type]


def test_every_option_is_a_keyword_with_its_default() -> None:
    options = dict(inspect.signature(command).parameters)
    options.pop("json")
    keywords = inspect.signature(adm_cli.bench).parameters
    assert {n: p.default for n, p in options.items()} == {n: p.default for n, p in keywords.items()}


def test_the_command(adm: Run, toys: Toys) -> None:
    models = ("--model", toys.model, "--classifier", toys.classifier)
    done = adm("bench", *models, "-b", "1,2", "--seconds", "0.00001", "--json")
    assert done.code == 0, done.err
    assert [json.loads(line)["batch"] for line in done.out.splitlines()] == [1, 2]
    done = adm("bench", *models, "-b", "1", "--seconds", "0.00001", "--compare")
    lines = done.out.splitlines()
    assert lines[0].split()[:5] == ["model", "dtype", "batch", "threads", "path"]
    assert [line.split()[4] for line in lines[1:3]] == ["fast", "plain"]
    assert adm("bench", *models, "-b", "one").code == 2
