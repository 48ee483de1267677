"""A place for files in memory, and all that is not tested made quick: models of a few
parameters, loaded once, and plots of nothing."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adm_cli.checkpoints import converting, fetching, loading, presets, sources
from adm_cli.checkpoints.flags.model import openai_flags
from adm_cli.checkpoints.loading import build_model, expected_shapes
from adm_cli.checkpoints.originals import read_weights
from adm_cli.checkpoints.presets import CHECKPOINTS, Checkpoint, Preset, PublishedFile
from adm_cli.commands import models
from adm_cli.config import ClassifierConfig, UNetConfig
from adm_cli.reports import measure as evaluating
from adm_cli.sampling.drawing import pipeline
from adm_cli.sampling.sweeps import cells as sweep_cells
from adm_cli.training import loop, tasks, trainer
from tests.conftest import TOY_DIFFUSION, Toys, randomise, save_toy
from tests.faults.writing import FLAGS, INCEPTION, PUBLISHED
from tests.http_server import Request, Server, good, serving

_SHAPE: dict[str, Any] = {
    "image_size": (8, 8), "model_channels": 32, "num_res_blocks": 1, "channel_mult": (1,),
    "attention_factors": (), "num_head_channels": 32,
}  # fmt: skip
_UNET = UNetConfig(**_SHAPE, num_classes=2, null_class=True, out_channels=6)
_LARGE = {"image_size": (16, 16), "low_res_size": (8, 8)}


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder in memory, where there is such a thing."""
    memory = Path("/dev/shm")
    inside = memory if os.access(memory, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="adm-faults-", dir=inside)).resolve()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Toys:
    """Smaller ones than elsewhere."""
    folder, names = tmp_path_factory.mktemp("small"), {0: "circle", 1: "square"}
    return Toys(
        save_toy(folder / "toy.safetensors", _UNET, names),
        save_toy(folder / "guide.safetensors", ClassifierConfig(**_SHAPE, num_classes=2), names),
        Path(),
        save_toy(
            folder / "upsampler.safetensors", UNetConfig(**_SHAPE | _LARGE, out_channels=6), {}
        ),
    )


@pytest.fixture(scope="session")
def original() -> bytes:
    """Weights as the original saves them."""
    file = io.BytesIO()
    torch.save(randomise(build_model(openai_flags(FLAGS)[0])).state_dict(), file)
    return file.getvalue()


@pytest.fixture(scope="session")
def server(original: bytes) -> Iterator[Server]:
    def answer(request: Request) -> None:
        good(original if request.path.endswith(".pt") else INCEPTION)(request)

    with serving(answer) as running:
        yield running


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, quick_plots: None, place: Path, server: Server) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("ADM_HOME", "home")
    for name in ("ADM_MODEL", "ADM_DEBUG", "ADM_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    _load_once(monkeypatch)
    _publish(monkeypatch, server)
    _stop_clocks(monkeypatch)
    monkeypatch.setattr(trainer, "build_model", _Few)
    monkeypatch.setattr(torch, "manual_seed", torch.default_generator.manual_seed)
    monkeypatch.setattr(trainer, "LEAST_VALIDATED", 2)
    monkeypatch.setattr(tasks, "_SAMPLE_STEPS", "ddim2")


def _load_once(monkeypatch: pytest.MonkeyPatch) -> None:
    load_pipeline, load_model = pipeline.load_pipeline, loading.load_model
    loaded: dict[tuple[Path, str], Any] = {}

    def quick_pipeline(found: Any, **options: Any) -> Any:
        key = (found.model.path, str(options))
        if key not in loaded:
            loaded[key] = whole = load_pipeline(found, **options)
            if whole.model.config.low_res_size is None:
                few: Any = randomise(_Few(whole.model.config))
                loaded[key] = replace(whole, model=few)
        return loaded[key]

    @cache
    def loaded_model(model: Path, options: tuple[Any, ...]) -> Any:
        return load_model(model, **dict(options))

    def quick_model(file: Any, **options: Any) -> Any:
        return loaded_model(file.path, tuple(options.items()))

    originals: dict[bytes, Any] = {}

    def quick_original(path: Path, wanted: str | None) -> Any:
        data = path.read_bytes()
        if data not in originals:
            originals[data] = read_weights(path, wanted)
        return originals[data]

    monkeypatch.setattr(pipeline, "load_pipeline", quick_pipeline)
    for module in (loading, evaluating):
        monkeypatch.setattr(module, "load_model", quick_model)
    monkeypatch.setattr(converting, "read_weights", quick_original)
    monkeypatch.setattr(converting, "expected_shapes", cache(expected_shapes))
    monkeypatch.setattr(fetching, "expected_shapes", cache(expected_shapes))


def _publish(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """A model and Inception's weights, on a server of this machine."""
    config = openai_flags(FLAGS)[0]
    count = sum(torch.Size(shape).numel() for shape in expected_shapes(config).values())
    row = Checkpoint(name=PUBLISHED, config=config, diffusion=TOY_DIFFUSION, parameters=count)
    preset = Preset(name="toys", model=PUBLISHED, classifier=None, steps="5", scale=0.0)
    for module in (presets, loading, converting, fetching, sources, models):
        for name, value in (("CHECKPOINTS", (CHECKPOINTS[0], row)), ("PRESETS", (preset,))):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)
    inception = PublishedFile(
        name="inception",
        url=server.url("/inception.pth"),
        file_bytes=len(INCEPTION),
        sha256=hashlib.sha256(INCEPTION).hexdigest(),
        terms="of its own",
    )
    monkeypatch.setattr(fetching, "ORIGINALS", server.url())
    monkeypatch.setattr(fetching, "INCEPTION", inception)


def _stop_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written of time and memory is the same every time."""
    still: Callable[[], float] = lambda: 0.0  # noqa: E731
    stopped = SimpleNamespace(monotonic=still, perf_counter=still)
    for module in (sweep_cells, loop):
        monkeypatch.setattr(module, "time", stopped)
    monkeypatch.setattr(loop, "peak_bytes", lambda _device: 0)
    monkeypatch.setattr(
        fetching, "date", SimpleNamespace(today=lambda: SimpleNamespace(isoformat=lambda: "today"))
    )


class _Few(nn.Module):
    """A model of no time: a classifier, or one that sees neither timestep nor class."""

    def __init__(self, config: UNetConfig | ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.guesses = isinstance(config, ClassifierConfig)
        self.mix = nn.Linear(3, config.num_classes or 2 if self.guesses else 6)
        self.torso_dtype = torch.float32

    def forward(self, x: Tensor, t: Tensor, *_conditions: Tensor, **_more: Tensor) -> Tensor:
        if self.guesses:
            return self.mix(x.mean(dim=(2, 3)))  # type: ignore[no-any-return]
        return self.mix(x.movedim(1, -1)).movedim(-1, 1)  # type: ignore[no-any-return]
