"""Two trainings on one folder: the second is refused, for as long as the first one lives."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from adm_cli.errors import RunError
from adm_cli.training.distributed import World
from adm_cli.training.runs import TrainingFolder
from adm_cli.training.train import _alone
from adm_cli.training.trainer import Trainer
from tests.conftest import Result
from tests.training.conftest import draw_pictures

Adm = Callable[..., Result]
TRAIN = ("--size", 8, "--set", "num_res_blocks=1", "--set", "channel_mult=[1]", "--steps", 2,
         "--batch-size", 2, "--val-split", 0, "--device", "cpu")  # fmt: skip

if sys.platform == "win32":  # pragma: no cover
    pytest.skip("needs fork and flock", allow_module_level=True)


@pytest.fixture
def train(adm: Adm, tmp_path: Path) -> Adm:
    draw_pictures(tmp_path / "shapes", count=4)
    return lambda *more: adm("train-classifier", "shapes", *TRAIN, "--out", "run", *more)


def begin(train: Adm, monkeypatch: pytest.MonkeyPatch, *more: object) -> int:
    """A training in a process of its own, which stops for ever in its first step."""
    reading, writing = os.pipe()

    def step(*_arguments: Any) -> None:
        os.write(writing, b"x")
        signal.pause()

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", step)
        child = os.fork()
        if child == 0:
            try:
                train(*more)
            finally:
                os._exit(1)
    os.close(writing)
    assert os.read(reading, 1) == b"x"
    os.close(reading)
    return child


@pytest.mark.parametrize("more", [(), ("--fresh",)])
def test_the_second_is_refused(
    train: Adm, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    """Whether it would begin or go on; and once the first one is killed, it goes on."""
    child = begin(train, monkeypatch, *more)
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    try:
        done = train("--resume", "-q")
        assert done.code == 1
        assert done.err.splitlines() == [
            "adm: error: another process is training in run: wait for it, or choose another --out"
        ]
        assert {p: p.read_bytes() for p in Path("run").rglob("*") if p.is_file()} == before
        assert train("--dry-run").code == 0  # which writes nothing
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    done = train("--resume", "-q")
    assert done.code == 0, done.err
    assert done.out.split() == ["run/model.safetensors"]


def test_both_looked_before_either_began(train: Adm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was there when they looked, and one has finished when the other gets the lock."""
    real, others = TrainingFolder.lock, [lambda: train("-q").code]

    def late(self: TrainingFolder) -> Any:
        if others:
            assert others.pop()() == 0
        return real(self)

    monkeypatch.setattr(TrainingFolder, "lock", late)
    done = train("-q")
    assert done.code == 1
    assert "another process has trained in run just now: the same command" in done.err
    assert train("--resume", "-q").code == 0


def test_nothing_is_left_of_one_that_fails_at_once(train: Adm, adm: Adm) -> None:
    assert train("--save-dtype", "int3").code == 2
    assert not Path("run").exists()
    Path("run").mkdir()
    with TrainingFolder(Path("run")).lock():
        assert train().code == 1
        assert [path.name for path in Path("run").iterdir()] == [".train.lock"]  # it is in use


def test_a_file_system_without_locks(train: Adm, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_arguments: Any) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    assert train("-q").code == 0
    assert train("--resume", "--steps", 3, "-q").code == 0


@dataclass(frozen=True)
class _Several(World):
    """One of two processes; ``refused`` is what process 0 says."""

    size: int = 2
    refused: bool = False

    def any(self, flag: bool, device: torch.device) -> bool:
        return flag if self.rank == 0 else self.refused


def test_several_processes_of_one_training(tmp_path: Path) -> None:
    """The first one has the lock, and all end if it does not get it, one of them with a line."""
    cpu, folder = torch.device("cpu"), TrainingFolder(tmp_path)

    def alone(world: World) -> Any:
        return _alone(folder, world, cpu, resume=False)

    with alone(_Several()), alone(_Several(rank=1)):
        with pytest.raises(RunError, match="another process is training in"), alone(_Several()):
            raise AssertionError("two have it")
        refused = pytest.raises(RunError, match="process 0 may not train in")
        with refused, alone(_Several(rank=1, refused=True)):
            raise AssertionError("goes on alone")
