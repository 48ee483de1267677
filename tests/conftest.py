"""What the tests share: golden arrays, a toy pair of models, and the command line in-process."""

from __future__ import annotations

import importlib
import pkgutil
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import adm_cli
from adm_cli.checkpoints.format import save_model
from adm_cli.checkpoints.header import ModelInfo
from adm_cli.checkpoints.loading import build_model
from adm_cli.commands.main import run
from adm_cli.config import ClassifierConfig, DiffusionConfig, UNetConfig
from tests.outputs import check_messages, check_output

# All now: what was first imported while a test has other presets would keep those.
for module in pkgutil.walk_packages(adm_cli.__path__, "adm_cli."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)

torch.set_num_threads(1)  # toy tensors are too small to be worth sharing out

TOY_CLASSES = {0: "circle", 1: "square", 3: "star"}  # of 5: classes 2 and 4 are untrained
TOY_DIFFUSION = DiffusionConfig(noise_schedule="linear", num_timesteps=100, respacing="5")
# Of one level, with attention in the middle: hundreds of tests load and run them.
TOY_UNET = UNetConfig(
    image_size=(8, 8),
    model_channels=32,
    num_res_blocks=1,
    channel_mult=(1,),
    attention_factors=(),
    num_head_channels=16,
    num_classes=5,
    out_channels=6,
)
TOY_UPSAMPLER = UNetConfig(
    image_size=(16, 16),
    low_res_size=(8, 8),
    model_channels=32,
    num_res_blocks=1,
    channel_mult=(1,),
    attention_factors=(),
    num_head_channels=16,
    num_classes=5,
    out_channels=6,
)
TOY_CLASSIFIER = ClassifierConfig(
    image_size=(8, 8),
    model_channels=32,
    num_res_blocks=1,
    channel_mult=(1,),
    attention_factors=(),
    num_head_channels=16,
    num_classes=5,
)
LEVELS: dict[str, Any] = {
    "channel_mult": (1, 1),
    "attention_factors": (2,),
    "resblock_updown": True,
}
DEEP_UNET = replace(TOY_UNET, **LEVELS)  # for what is about levels
DEEP_CLASSIFIER = replace(TOY_CLASSIFIER, **LEVELS)


def pictures(folder: Path | str) -> list[str]:
    """What a run's folder holds beside the run's own books, temporaries included."""
    books = re.compile(r"run\.json|manifest.*\.jsonl|\.run\.json\.copy|\..*\.lock")
    return sorted(p.name for p in Path(folder).iterdir() if not books.fullmatch(p.name))


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Toys:
    """Weights files of random models, quick to sample."""

    model: Path
    classifier: Path
    upsampler: Path  # of the same classes
    plain_upsampler: Path  # unconditional


def randomise(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Random parameters everywhere, the zero-initialised ones too: nothing is the identity."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = noise * (0.5 / max(1, parameter[0].numel()) ** 0.5)
    return model


def save_toy(
    path: Path,
    config: UNetConfig | ClassifierConfig,
    classes: dict[int, str] | None = None,
    diffusion: DiffusionConfig = TOY_DIFFUSION,
    seed: int = 0,
    source: dict[str, Any] | None = None,
) -> Path:
    """A random model of ``config`` as a weights file."""
    model = randomise(build_model(config), seed)
    info = ModelInfo(
        config=config,
        diffusion=diffusion,
        classes=TOY_CLASSES if classes is None else classes,
        training={},
        source=source or {},
    )
    save_model(path, model.state_dict(), info)
    return path


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="the long versions of the fault tests")


@pytest.fixture(scope="session")
def slow(request: pytest.FixtureRequest) -> bool:
    """Whether the long versions are asked for."""
    return bool(request.config.getoption("--slow"))


@pytest.fixture(scope="session", autouse=True)
def _signals_reach_children() -> None:
    """Started in the background or by nohup, this process and its children would ignore some."""
    for name, usual in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
        number = getattr(signal, name, None)  # the second is not on Windows
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Toys:
    folder = tmp_path_factory.mktemp("toys")
    return Toys(
        save_toy(folder / "toy.safetensors", TOY_UNET),
        save_toy(folder / "toy_classifier.safetensors", TOY_CLASSIFIER, seed=1),
        save_toy(folder / "toy_upsampler.safetensors", TOY_UPSAMPLER, seed=2),
        save_toy(
            folder / "plain_upsampler.safetensors",
            replace(TOY_UPSAMPLER, num_classes=None),
            {},
            seed=3,
        ),
    )


class _Figure:
    """A plot that takes no time."""

    def __init__(self, **_options: Any) -> None:
        pass

    def subplots(self, _rows: int, columns: int, **_options: Any) -> list[list[_Axis]]:
        return [[_Axis() for _ in range(columns)]]

    def savefig(self, file: Any, **_options: Any) -> None:
        file.write(b"a plot, tEXtSoftware\0adm")


class _Axis:
    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_arguments, **_options: None


@pytest.fixture
def quick_plots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of no plot, unless asked for `real_plots`: one takes longer than the run it shows."""
    if "real_plots" in request.fixturenames:
        return
    for name, value in (("matplotlib", {}), ("matplotlib.figure", {"Figure": _Figure})):
        module = ModuleType(name)
        vars(module).update(value)
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def real_plots() -> None:
    """Plots as users see them, where the quick ones are the rule."""


@pytest.fixture
def quick_training(quick_plots: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer images to validate on and fewer steps for its samples, no plots of losses."""
    shorten_training(monkeypatch)


def shorten_training(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("adm_cli.training.trainer.LEAST_VALIDATED", 16)
    patch.setattr("adm_cli.training.tasks._SAMPLE_STEPS", "ddim2")


@pytest.fixture
def adm(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Runs a command line in an empty folder, in this process; checks what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADM_HOME", str(tmp_path / "home"))
    for name in ("ADM_MODEL", "ADM_DEBUG"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: object) -> Result:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        check_messages(captured.err)
        if "--json" in arguments:
            check_output(str(arguments[0]), captured.out)
        return Result(code, captured.out, captured.err)

    return call
