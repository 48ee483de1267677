"""Python equals the command line: each command is a function of the package, its options keywords.

And every public name is what it says, called through the package.
"""

from __future__ import annotations

import inspect
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import adm_cli
from adm_cli.commands.main import app
from adm_cli.diffusion.modifiers import NEUTRAL
from adm_cli.errors import ConfigError, UsageError
from adm_cli.evaluation.metrics import Moments
from adm_cli.events import Count, Doing, SoFar
from tests.checkpoints.test_originals import COND
from tests.conftest import DEEP_UNET, TOY_CLASSIFIER, TOY_UNET, Toys, save_toy
from tests.training.conftest import draw_pictures

VERBS = (
    *("convert", "evaluate", "evaluate_classifier", "export", "fetch", "nll", "reference"),
    *("train_classifier", "train_diffusion", "train_upsampler"),
)  # those that draw: tests/sampling/test_python.py
# Options that are about what a person sees, and options of the caller alone.
SHOWN = {"json", "quiet", "dry_run"}
CALLERS = {"on_event", "should_stop"}


@pytest.mark.parametrize("name", VERBS)
def test_options_are_keywords(name: str) -> None:
    typed = name.replace("_", "-")
    (command,) = [c.callback for c in app.registered_commands if c.name == typed]
    assert command is not None
    options, keywords = (
        {p.name: p.default for p in inspect.signature(function).parameters.values()}
        for function in (command, getattr(adm_cli, name))
    )
    assert set(keywords) - set(options) <= CALLERS
    assert set(options) - set(keywords) <= SHOWN
    shared = set(options) & set(keywords)
    assert {n: options[n] for n in shared} == {n: keywords[n] for n in shared}


def test_no_file_takes_the_place_of_a_name() -> None:
    """Importing adm_cli.x would make adm_cli.x the module, whatever it was."""
    root = Path(adm_cli.__file__).parent
    assert not [name for name in adm_cli.__all__ if (root / f"{name}.py").exists()]
    code = (
        "import adm_cli, pkgutil, importlib, types\n"
        "for m in pkgutil.walk_packages(adm_cli.__path__, 'adm_cli.'):\n"
        "    if not m.name.endswith('__main__'): importlib.import_module(m.name)\n"
        "for name in adm_cli.__all__:\n"
        "    assert not isinstance(getattr(adm_cli, name), types.ModuleType), name\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, adm_cli\nadm_cli.__all__, dir(adm_cli)\n"
        "assert not {'torch', 'numpy', 'typer', 'rich'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("shapes") / "shapes", count=4)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADM_HOME", str(tmp_path / "home"))
    return tmp_path


def test_nll(shapes: Path, toys: Toys, here: Path) -> None:
    events: list[Any] = []
    found = adm_cli.nll(
        str(shapes), model=str(toys.model), num=3, steps=2, batch_size=2, out="terms.csv",
        on_event=events.append,
    )  # fmt: skip
    assert found.complete
    assert (found.totals["images"], len(found.steps)) == (3, 2)
    assert found.bits_per_dim == found.to_json()["bits_per_dim"] > 0
    assert found.stderr is not None
    assert [e.result.totals["images"] for e in events if isinstance(e, SoFar)] == [2]
    counts = [(event.what, event.done) for event in events if isinstance(event, Count)]
    assert counts[:3] == [("pictures read", i) for i in (1, 2, 3)]
    assert counts[3:] == [("pictures", i) for i in (1.0, 2, 2.5, 3)]
    assert Path("terms.csv").is_file()


def test_evaluate_classifier(shapes: Path, toys: Toys, here: Path) -> None:
    found = adm_cli.evaluate_classifier(shapes, classifier=str(toys.classifier), timesteps=2)
    assert [row["timestep"] for row in found.timesteps] == [0, 99]
    assert found.summary["images"] == 8
    one = adm_cli.evaluate_classifier(shapes, classifier=str(toys.classifier), at="5", class_=1)
    assert one.summary["images"] == 4


def test_evaluate(shapes: Path, toys: Toys, here: Path) -> None:
    measured: dict[str, Any] = {"ref": shapes, "features": str(toys.classifier), "metrics": "fid"}
    with pytest.raises(UsageError, match="12x12: pass --resize 8x8"):
        adm_cli.evaluate(str(shapes), **measured)
    measured["resize"] = 8
    stored = adm_cli.evaluate(str(shapes), **measured)
    assert stored.numbers["fd_adm"]["value"] == pytest.approx(0, abs=1e-6)
    events: list[Any] = []
    drawn = adm_cli.evaluate(
        model=str(toys.model), scale=0, num=6, steps=2, class_=0, on_event=events.append, **measured
    )
    assert drawn.facts["images"] == 6
    assert drawn.numbers["fd_adm"]["value"] > 0
    assert Count("images", 6, 6) in events
    with pytest.raises(UsageError, match="give either SAMPLES"):
        adm_cli.evaluate(**measured)


def test_reference(shapes: Path, here: Path) -> None:
    events: list[Any] = []
    made = adm_cli.reference(
        shapes, out="r.safetensors", features="classifier", resize=32, on_event=events.append
    )
    assert made.path.is_file()
    assert (made.reference.images, made.reference.size) == (8, (32, 32))
    assert events[-1] == Count("images", 8, 8)
    with pytest.raises(UsageError, match=r"ends in \.safetensors"):
        adm_cli.reference(shapes, out="r.npz")


def test_convert(here: Path) -> None:
    deep = save_toy(here / "deep.safetensors", DEEP_UNET)
    torch.save(adm_cli.load_model(deep).state_dict(), "m.pt")
    events: list[Any] = []
    names = {i: f"kind {i}" for i in range(5)}
    made = adm_cli.convert("m.pt", flags=COND, classes=names, on_event=events.append)
    assert (made.path, made.info.kind, made.info.classes) == (
        Path("m.safetensors"), "diffusion", names,
    )  # fmt: skip
    assert events == [Doing("converting m.pt")]
    with pytest.raises(UsageError, match="pass it with --flags"):
        adm_cli.convert("m.pt", strict_flags=True)


def test_fetch_of_what_is_here(here: Path) -> None:
    with pytest.raises(UsageError, match="ships with adm"):
        adm_cli.fetch("tiny")
    with pytest.raises(UsageError, match="--timeout"):
        adm_cli.fetch("inception", timeout=0)
    with pytest.raises(adm_cli.AdmError, match="--offline was passed"):
        adm_cli.fetch(["inception"], offline=True)


MODEL: dict[str, Any] = {
    "size": 8, "set": ["num_res_blocks=1", "channel_mult=[1,1]"], "steps": 2, "batch_size": 2,
    "device": "cpu", "val_split": 0.5,
}  # fmt: skip


@pytest.mark.parametrize(
    ("train", "more"),
    [
        (adm_cli.train_classifier, {}),
        (adm_cli.train_diffusion, {"label_dropout": 0.5, "sample_every": 0}),
        (adm_cli.train_upsampler, {"low_size": 4, "sample_every": 0}),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_training(
    train: Callable[..., Any], more: dict[str, Any], shapes: Path, here: Path
) -> None:
    events: list[Any] = []
    done = train(shapes, out="run", **MODEL, **more, on_event=events.append)
    assert (done.step, done.steps, done.stopped) == (2, 2, False)
    assert done.model == Path("run/model.safetensors")
    assert done.model.is_file()
    kinds = [type(event).__name__ for event in events]
    assert kinds.index("Begun") < kinds.index("Progress") < kinds.index("Validated")
    again = train(out="run", resume=True, steps=4, should_stop=lambda: True)
    assert (again.step, again.steps, again.stopped) == (3, 4, True)
    assert min(again.seconds, done.seconds) > 0


def test_ctrl_c_ends_a_training_after_the_step(shapes: Path, here: Path) -> None:
    """A notebook's stop is one: what was learned is kept, and the same call goes on."""

    def interrupt(event: object) -> None:
        if type(event).__name__ == "Progress":
            os.kill(os.getpid(), signal.SIGINT)

    options: Any = {**MODEL, "steps": 5, "save_every": 5, "sample_every": 0, "out": "run"}
    handler = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            adm_cli.train_diffusion(shapes, **options, on_event=interrupt)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, handler)
    assert [p.name for p in Path("run").glob("state-*1.safetensors")]
    assert adm_cli.train_diffusion(shapes, **options).step == 5


@pytest.mark.parametrize("asked", ["on_event", "should_stop"])
def test_an_exception_of_the_caller_ends_a_training_after_the_step(
    asked: str, shapes: Path, here: Path
) -> None:
    """As out of a drawing: what was learned is kept, then it comes out as it was."""
    seen: list[str] = []

    def fail(*events: object) -> bool:
        seen.append(type(events[0]).__name__ if events else "Progress")
        if seen[-1] == "Progress":
            raise ZeroDivisionError("mine")
        return False

    options: Any = {**MODEL, "steps": 5, "save_every": 5, "sample_every": 0, "out": "run"}
    mine: Any = {asked: fail}
    with pytest.raises(ZeroDivisionError, match=r"^mine$"):
        adm_cli.train_diffusion(shapes, **options, **mine)
    assert seen.count("Progress") == 1
    assert seen[-1] == "Progress"
    assert [p.name for p in Path("run").glob("state-*1.safetensors")]
    assert adm_cli.train_diffusion(shapes, **options).step == 5


def test_a_word_that_is_no_option(shapes: Path) -> None:
    near = "train_diffusion\\(\\) has no keyword 'stepps'; did you mean steps"
    with pytest.raises(TypeError, match=near):
        adm_cli.train_diffusion(shapes, stepps=4)  # type: ignore[call-arg]


def test_a_word_that_is_nearly_one() -> None:
    with pytest.raises(TypeError, match="sample\\(\\) has no keyword 'classes'; did you mean cl"):
        adm_cli.sample(classes=207)  # type: ignore[call-arg]


def test_what_tools_see_of_a_training() -> None:
    """Also type checkers, as the error above has it: each option, and the types it may be of."""
    shown = inspect.signature(adm_cli.train_upsampler)
    assert shown.parameters["data"].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert {"low_size", "on_event", "should_stop"} < set(shown.parameters)
    assert shown.return_annotation == "Training"
    assert shown.parameters["size"].annotation == "Text | None"


def test_what_is_no_pipeline_or_no_config(toys: Toys) -> None:
    pipeline = adm_cli.load_pipeline(toys.model, guided=False)
    config = adm_cli.SamplingConfig(seeds=range(1), classes=[0], steps="2")
    wrong: Any = str(toys.model)
    for draw in (adm_cli.generate, partial(adm_cli.enlarge, pictures=[])):
        with pytest.raises(ConfigError, match=r"^pipeline must be a Pipeline, got '"):
            draw(wrong, config=config)
        with pytest.raises(ConfigError, match=r"^config must be a SamplingConfig, got '"):
            draw(pipeline, config=wrong)


OPTIONS = (
    *VERBS, "bench", "edit", "find_upsampler", "gallery", "interpolate", "load_model",
    "load_pipeline", "merge", "openai_flags", "repro", "sample", "sweep", "upsample", "verify",
)  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_arguments_of_other_types_are_told_of_by_name(name: str) -> None:
    function = getattr(adm_cli, name)
    checked = [p for p in inspect.signature(function).parameters if p not in NEUTRAL]
    for option in set(checked) - CALLERS:
        with pytest.raises(ConfigError, match=rf"^{option} must be .*, got <object"):
            function(**{option: object()})


def test_torchs_names_are_as_good_as_texts_and_numpys_numbers_as_pythons(here: Path) -> None:
    others: dict[str, Any] = {
        "num": np.int64(2), "device": torch.device("cpu"), "dtype": torch.float32,
    }  # fmt: skip
    asked = adm_cli.sample(class_=207, steps=1, dry_run=True, **others)
    assert len(asked.run.images) == 2
    with pytest.raises(UsageError, match=r"gone\.txt"):
        adm_cli.openai_flags(Path("gone.txt"))  # type: ignore[arg-type]


def test_every_public_name_is_used_through_the_package() -> None:
    """As whoever installs it would, in some test."""
    used: set[str] = set()
    for path in Path(__file__).parent.rglob("*.py"):
        text = path.read_text()
        used |= set(re.findall(r"\badm_cli\.(\w+)", text))
        for names in re.findall(r"^from adm_cli import (.*)$", text, re.M):
            used |= set(re.findall(r"\w+", names))
    assert not set(adm_cli.__all__) - used


def test_flags_and_networks() -> None:
    config, diffusion = adm_cli.openai_flags("--image_size 64 --num_channels 64")
    assert isinstance(config, adm_cli.UNetConfig)
    assert isinstance(diffusion, adm_cli.DiffusionConfig)
    assert isinstance(TOY_CLASSIFIER, adm_cli.ClassifierConfig)
    x, t, y = torch.zeros(1, 3, 8, 8), torch.zeros(1).long(), torch.zeros(1).long()
    assert adm_cli.UNet(TOY_UNET)(x, t, y).shape == (1, 6, 8, 8)
    small = replace(TOY_UNET, low_res_size=(4, 4))
    enlarged = adm_cli.SuperResUNet(small)(x, t, y, low_res=torch.zeros(1, 3, 4, 4))
    assert enlarged.shape == (1, 6, 8, 8)
    assert adm_cli.NoisyClassifier(TOY_CLASSIFIER)(x, t).shape == (1, 5)


def test_samplers_and_guidance() -> None:
    schedule, x = adm_cli.NoiseSchedule.linear(100), torch.ones(1, 3, 2, 2)

    def model(x_t: Tensor, _t: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(x_t)] * 2, dim=1)

    def classifier(x_t: Tensor, _t: Tensor) -> Tensor:
        return x_t.flatten(1)[:, :2]

    guidance = adm_cli.classifier_guidance(classifier, torch.zeros(1).long(), 2.0)
    none = adm_cli.limited_guidance(guidance, 200, 300)
    label: Any = 1
    with pytest.raises(ValueError, match=r"a class id for each of 1 images, .* got 1$"):
        adm_cli.classifier_guidance(classifier, label, 2.0)(x, torch.zeros(1))
    samplers = (
        adm_cli.ddpm_sample, adm_cli.ddim_sample, adm_cli.dpm_solver_sample,
        adm_cli.dpm_solver_3m_sample, adm_cli.unipc_sample, adm_cli.heun_sample,
    )  # fmt: skip
    for sampler in samplers:
        found = []
        for guide in (None, none, guidance):
            *_, last = sampler(model, schedule, x, noise=_no_noise, guidance=guide)
            assert isinstance(last, adm_cli.SampleStep)
            found.append(last.x)
        assert torch.equal(found[0], found[1])
        assert not torch.equal(found[0], found[2])
    assert len(list(adm_cli.ddim_reverse(model, schedule, x))) == 100


def _no_noise(_i: int, like: Tensor) -> Tensor:
    return torch.zeros_like(like)


def test_metrics() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 12, 3, generator=generator)
    assert adm_cli.precision_recall(a, a).precision.value == 1
    assert adm_cli.density_coverage(a, a).coverage.value == 1
    assert adm_cli.kernel_distance(a, b, groups=4).value != 0
    assert adm_cli.inception_score(a).value >= 1
    moments = Moments()
    moments.add(a)
    gaussian = moments.gaussian()
    assert adm_cli.frechet_distance(gaussian, gaussian) == pytest.approx(0, abs=1e-6)
    features: Any = a
    with pytest.raises(ValueError, match="expected two Gaussians, got features: Moments makes"):
        adm_cli.frechet_distance(features, features)


def test_drawing(toys: Toys) -> None:
    pipeline = adm_cli.load_pipeline(toys.model, toys.classifier)
    assert isinstance(pipeline, adm_cli.Pipeline)
    config = adm_cli.SamplingConfig(seeds=(1,), classes=(0,), scale=1.0, steps="2")
    (batch,) = adm_cli.generate(pipeline, config)
    assert isinstance(batch, adm_cli.ImageBatch)
    assert batch.images.shape == (1, 8, 8, 3)
    with pytest.raises(adm_cli.NotFiniteError):
        replace(batch, finite=(False,)).check_finite()


def test_the_loop_of_ones_own_is_ddim_with_gradients() -> None:
    """As docs/python.md has it, in fewer steps."""
    code = _documented("x_T")
    names: dict[str, Any] = {}
    exec(code.replace("respace(10)", "respace(2)"), names)
    model, x_T = partial(names["model"], y=names["y"]), names["x_T"]
    assert x_T.grad.abs().max() > 0
    *_, last = adm_cli.ddim_sample(
        model, names["schedule"], x_T.detach(), noise=lambda _, x: torch.zeros_like(x),
        prediction="v",
    )  # fmt: skip
    assert names["x"].equal(last.x)
    *_, half, _ = adm_cli.ddim_sample(
        model, names["schedule"], x_T, noise=lambda _, x: torch.zeros_like(x), prediction="v"
    )
    rest = names["schedule"].keep(range(half.i))
    *_, gone_on = adm_cli.ddim_sample(
        model, rest, half.x, noise=lambda _, x: torch.zeros_like(x), prediction="v"
    )
    assert gone_on.x.equal(last.x)
    assert not gone_on.x.requires_grad


def _documented(word: str) -> str:
    """The block of docs/python.md that has it."""
    text = (Path(__file__).parents[1] / "docs" / "python.md").read_text()
    blocks: list[str] = re.findall(r"```python\n(.*?)```", text, re.S)
    (code,) = [block for block in blocks if word in block]
    return code


def test_the_gaussian_of_features_in_batches() -> None:
    """As docs/python.md has it."""
    names: dict[str, Any] = {}
    exec(_documented("Moments()"), names)
    features = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)).double()
    found = names["gaussian"]([features[:8], features[8:]])
    assert torch.allclose(found.mean, features.mean(dim=0))
    assert torch.allclose(found.covariance, features.T.cov())


def test_devices_and_precisions_are_names_or_torchs_own(toys: Toys) -> None:
    named = adm_cli.load_model(toys.model, device="cpu", dtype="float64")
    ours = adm_cli.load_pipeline(toys.model, device=torch.device("cpu"), dtype=torch.float64)
    assert named.torso_dtype == ours.dtype == torch.float64
    with pytest.raises(UsageError, match=r"unknown dtype 'torch\.int64'"):
        adm_cli.load_model(toys.model, dtype=torch.int64)
    if not torch.cuda.is_available():
        with pytest.raises(adm_cli.AdmError, match="torch sees 0 CUDA devices"):
            adm_cli.load_model(toys.model, device="cuda")


def test_numpys_numbers_are_numbers(toys: Toys) -> None:
    asked: dict[str, Any] = {"class_": np.int64(1), "seeds": np.arange(2), "steps": np.int64(2)}
    planned = adm_cli.sample(toys.model, scale=0, dry_run=True, **asked)
    assert (planned.settings["classes"], planned.settings["seeds"]) == ([1], [0, 1])
    assert planned.settings["num_steps"] == 2
