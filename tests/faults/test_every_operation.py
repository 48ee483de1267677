"""For every command that writes, and for every file operation it makes: what if that one fails?

An operation fails with EIO or ENOSPC, writes only half, or the process is killed there. Afterwards
no manifest vouches for an image that is not there, old files are old or new, the error is one
line, and the same command again ends with the bytes of a run that nothing befell. Another command
that writes is a row of `COMMANDS`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import adm_cli.pipeline as pipeline_module
from adm_cli.commands import main
from adm_cli.config import DiffusionConfig
from adm_cli.errors import AdmError
from adm_cli.loading import build_model
from adm_cli.openai_flags import openai_flags
from adm_cli.storage.checkpoints import ModelInfo, read_tensors, save_model
from adm_cli.storage.files import make_folder
from adm_cli.storage.runs import RunFolder
from adm_cli.storage.training_runs import MetricsFile
from adm_cli.storage.training_runs import RunFolder as TrainingFolder
from tests.conftest import TOY_CLASSES, TOY_UNET, Toys, randomise
from tests.faults.shim import FAULTS, KILLED, Shim
from tests.hostile.sandbox import COMMANDS as TYPER
from tests.hostile.sandbox import fork

FLAGS = "--image_size 8 --num_channels 32 --channel_mult 1 --num_res_blocks 1"

LEAVES = ("merge", "convert", "repro")  # a temporary file where killed: others may be at work there
POINTS: dict[str, int] = {}  # faults injected, by command
Action = Callable[[], tuple[int, str]]  # exit code and stderr


@dataclass(frozen=True)
class Command:
    """Something that writes: what it needs beforehand, and itself, in the present folder."""

    run: Action
    before: Action | None = None  # makes what is there when the command begins
    again: Action | None = None  # what mends it; by default the same once more
    spare: tuple[str, ...] = field(default=())  # files that need not be made again


def adm(*arguments: object) -> tuple[int, str]:
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        code = main.run([str(a) for a in arguments])
    return code, err.getvalue()


def sample(toys: Toys, *more: object, out: str = "o") -> Action:
    models = ("--model", toys.model, "--scale", 0, "--steps", 1, "--device", "cpu")
    wanted = ("--class", 0, "--num", 2, "-b", 1, "--out", out)
    return partial(adm, "sample", *models, *wanted, *more)


def both(*actions: Action) -> Action:
    def run() -> tuple[int, str]:
        for action in actions:
            code, err = action()
        return code, err

    return run


def damage(name: str) -> Action:
    def run() -> tuple[int, str]:
        path = next(Path("o").glob(name))
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        return 0, ""

    return run


def training() -> tuple[int, str]:
    """What the loop writes at a step, with tensors of a few bytes."""
    folder, metrics_row = TrainingFolder(Path("t")), {"step": 2.0, "loss": 0.5}
    try:
        make_folder(folder.path)
        folder.clean()
        folder.save_settings({"kind": "classifier"})
        metrics = MetricsFile(folder.path / "metrics.csv", 1)
        metrics.add(metrics_row)
        metrics.add({"step": 2.0, "val_loss": 0.25})
        info = ModelInfo(TOY_UNET, DiffusionConfig(), TOY_CLASSES)
        save_model(folder.best, {"a": torch.ones(4)}, info)
        for step in (1, 2, 3):
            folder.save_state(step, {"a": torch.full((4,), float(step))}, {"step": step})
        save_model(folder.model, {"a": torch.ones(4)}, info)
    except AdmError as error:
        return 1, f"adm: error: {error}\n"
    return 0, ""


def original() -> tuple[int, str]:
    model = randomise(build_model(openai_flags(FLAGS)[0]))
    torch.save(model.state_dict(), "m.pt")
    Path("m.safetensors").write_bytes(b"an older model")
    return 0, ""


def commands(toys: Toys) -> dict[str, Command]:
    run = sample(toys)
    repair = partial(adm, "verify", "o", "--repair", "--model", toys.model)
    convert = partial(adm, "convert", "m.pt", "--flags", FLAGS, "-o", "m.safetensors",
                      "--overwrite")  # fmt: skip
    return {
        "sample": Command(run),
        "sample webp, grid": Command(sample(toys, "--format", "webp", "--grid")),
        "sample npz": Command(sample(toys, "--format", "npz")),
        "sample animate": Command(sample(toys, "--animate", "o/x.gif"), spare=("x.gif",)),
        "sample --overwrite": Command(
            sample(toys, "--overwrite", "--no-clip"), before=run
        ),
        "sample --shard": Command(
            both(sample(toys, "--shard", "1/2"), sample(toys, "--shard", "2/2"))),
        "verify --repair": Command(
            repair, before=both(run, damage("*0001.png"), damage("manifest.jsonl"))),
        "merge npz": Command(partial(adm, "merge", "o", "--output", "o.npz"), before=run),
        "merge zip": Command(partial(adm, "merge", "o", "--output", "o.zip"), before=run),
        "merge tar": Command(partial(adm, "merge", "o", "--output", "o.tar"), before=run),
        "repro": Command(
            partial(adm, "repro", "o/class0000_seed000000.png", "--model", toys.model, "-o",
                    "again/x.png"), before=run),
        "convert": Command(convert, before=original),
        "training": Command(training),
    }  # fmt: skip


NAMES = list(commands(Toys(Path(), Path(), Path(), Path())))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, toys: Toys, tmp_path: Path) -> None:
    """Models are loaded once: they are not what is tested."""
    monkeypatch.setattr(main, "app", TYPER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADM_HOME", str(tmp_path / "home"))
    for name in ("ADM_MODEL", "ADM_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    real, loaded = pipeline_module.load_pipeline, {}

    def load(sources: Any, **options: Any) -> Any:
        key = str(options)
        if key not in loaded:
            loaded[key] = real(sources, **options)
        return loaded[key]

    monkeypatch.setattr(pipeline_module, "load_pipeline", load)


def contents(folder: Path) -> dict[str, str]:
    """Every file but locks and manifests, whose lines may differ in order."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix not in (".lock", ".jsonl")
    }


def vouched(folder: Path) -> dict[str, str]:
    """What the manifests of the run ``o`` say; each file they name must be there and right."""
    run = RunFolder(folder / "o")
    if not run.exists():
        return {}
    return {name: record["sha256"] for name, record in run.records().items()}


def check_vouched(folder: Path, *, damaged: bool) -> None:
    for name, digest in vouched(folder).items():
        path = folder / "o" / name
        there = path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest
        assert there or damaged, f"{name} is vouched for and is not there"


def strike(folder: Path, command: Command, fault: str, at: int) -> tuple[int, str]:
    """Runs the command with one fault; a kill takes a process of its own."""
    shim = Shim(folder, fault, at)

    def action() -> int:
        with shim.installed():
            return command.run()[0]

    if fault == "kill":
        return fork(action)[0], ""
    with shim.installed():
        return command.run()


@pytest.mark.parametrize("name", NAMES)
def test_every_operation(name: str, toys: Toys, tmp_path: Path) -> None:
    command = commands(toys)[name]
    begin, whole, folder = (tmp_path / n for n in ("begin", "whole", "folder"))
    begin.mkdir()
    os.chdir(begin)
    if command.before is not None:
        assert command.before()[0] == 0
    shutil.copytree(begin, whole)
    os.chdir(whole)
    with Shim(whole).installed() as counter:
        assert command.run()[0] == 0
    old, wanted, records = contents(begin), contents(whole), vouched(whole)
    POINTS[name] = 0
    for fault in FAULTS:
        for at in range(1, len(counter.log) + 1):
            if fault == "short" and counter.log[at - 1][0] != "write":
                continue
            os.chdir(tmp_path)
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(begin, folder)
            os.chdir(folder)
            what = f"{fault} at {at}, {counter.log[at - 1]}"
            code, err = strike(folder, command, fault, at)
            check_strike(folder, name, what, code, err, fault, old, wanted)
            again_code, again_err = (command.again or command.run)()
            if again_code and name.split(maxsplit=1)[0] in (
                "repro",
                "merge",
            ):  # it was finished: not replaced
                assert "exist" in again_err, (what, again_err)
                assert code in (0, KILLED), (what, again_err)
            else:
                assert again_code == 0, (what, again_err)
            found = contents(folder)
            if fault == "kill" and name.split(maxsplit=1)[0] in LEAVES:
                found = {n: d for n, d in found.items() if not n.endswith(".tmp")}
            missing = {n for n in set(wanted) - set(found) if Path(n).name not in command.spare}
            assert not missing, what
            assert {n: d for n, d in found.items() if wanted.get(n) != d} == {}, what
            assert vouched(folder).items() >= {
                (n, d) for n, d in records.items() if n not in command.spare
            }, what
            POINTS[name] += 1
    os.chdir(tmp_path)


def check_strike(
    folder: Path, name: str, what: str, code: int, err: str, fault: str,
    old: dict[str, str], wanted: dict[str, str],
) -> None:  # fmt: skip
    """Right after the fault, before anything is mended."""
    if fault == "kill":
        assert code in (KILLED, 0), what
    else:
        assert code in (0, 1), (what, err)
        errors = [line for line in err.splitlines() if line.startswith("adm: error: ")]
        assert len(errors) == code, (what, err)
        assert not list(folder.rglob("*.tmp")), (what, "left behind")
    check_vouched(folder, damaged=name == "verify --repair")
    for file, digest in contents(folder).items():
        if file.endswith(".tmp"):
            continue
        if "state-" in file:  # later ones replace earlier ones
            read_tensors(folder / file)
            continue
        if not file.endswith(
            ("grid.png", "o/samples_1x8x8x3.npz", "metrics.csv")
        ):  # of what is there
            assert digest in (old.get(file), wanted.get(file)), (what, file, "neither old nor new")


def test_there_were_a_thousand_points() -> None:
    """The promise of the README's table; run after the others."""
    if len(POINTS) == len(NAMES):
        print(f"{sum(POINTS.values())} faults injected: {POINTS}")
        assert sum(POINTS.values()) >= 1000, POINTS
