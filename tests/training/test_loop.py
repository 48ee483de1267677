"""Whole runs: stopped and resumed, killed, out of disk, out of numbers."""

from __future__ import annotations

import csv
import errno
import math
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from adm_cli.checkpoints.format import read_tensors
from adm_cli.checkpoints.header import read_model_file
from adm_cli.checkpoints.loading import load_model
from adm_cli.errors import AdmError, CheckpointError, OutputError
from adm_cli.events import Note
from adm_cli.pictures.datasets import ImageSet
from adm_cli.pictures.images import open_picture
from adm_cli.training.config import TrainingConfig
from adm_cli.training.loop import Sampled, Saved, TrainingRun, Validated
from adm_cli.training.runs import MetricsFile, TrainingFolder
from adm_cli.training.tasks import Task
from tests.conftest import shorten_training
from tests.training.conftest import finish, make_run, same_state, settings, toy_task


def states(folder: Path) -> list[str]:
    return [path.name for path in TrainingFolder(folder).states()]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_files_of_a_run(images: ImageSet, tmp_path: Path) -> None:
    events = finish(make_run(tmp_path, images, settings(sample_every=3, ema_rates=(0.9, 0.5))))
    assert states(tmp_path) == ["state-00000006.safetensors", "state-00000004.safetensors"]
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {
        *states(tmp_path), "model.safetensors", "model-ema0.5.safetensors", "metrics.png",
        "best.safetensors", "best-ema0.5.safetensors", "metrics.csv", "samples",
    }  # fmt: skip
    pictures = ["step-00000003.png", "step-00000006.png"]
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == pictures
    assert [e.step for e in events if isinstance(e, Saved)] == [0, 2, 4, 6]
    assert [e.step for e in events if isinstance(e, Validated)] == [3, 6]
    assert [e.step for e in events if isinstance(e, Sampled)] == [3, 6]
    assert [row["step"] for row in rows(tmp_path)] == ["2", "3", "4", "6", "6"]
    file = read_model_file(tmp_path / "model.safetensors")
    assert file.info.classes == {0: "circle", 1: "square"}
    assert file.info.training["steps"] == 6
    assert file.info.training["images_seen"] == 24
    load_model(tmp_path / "model.safetensors")


def test_the_model_is_the_average(images: ImageSet, tmp_path: Path) -> None:
    run = make_run(tmp_path, images)
    finish(run)
    tensors, _ = read_tensors(tmp_path / "model.safetensors")
    for name, value in run.trainer.averaged().items():
        assert torch.equal(tensors[name], value)
    assert not all(
        torch.equal(tensors[n], p) for n, p in zip(tensors, run.trainer.parameters, strict=True)
    )


def test_best_is_that_of_the_lowest_validation_loss(images: ImageSet, tmp_path: Path) -> None:
    run = make_run(tmp_path, images, settings(eval_every=1))
    losses = iter([5.0, 3.0, 4.0, math.nan, 3.5, 3.2])
    run.trainer.validate = lambda *_: {"loss": next(losses)}  # type: ignore[method-assign]
    events = finish(run)
    assert [e.best for e in events if isinstance(e, Validated)] == [True, True] + [False] * 4
    assert (run.best.loss, run.best.step) == (3.0, 2)
    info = read_model_file(tmp_path / "best.safetensors").info
    assert info.training["steps"] == 2
    assert info.training["validation"] == {"loss": 3.0}


@pytest.mark.parametrize("kind", ["diffusion", "classifier"])
def test_a_run_that_diverges_is_told_once(kind: str, images: ImageSet, tmp_path: Path) -> None:
    calm = finish(make_run(tmp_path / "calm", images, settings(log_every=1), toy_task(kind)))
    assert not [e for e in calm if isinstance(e, Note)]
    rate = settings(log_every=1, lr=0.1, steps=12, warmup=0)
    wild = finish(make_run(tmp_path / "wild", images, rate, toy_task(kind)))
    (note,) = [e.text for e in wild if isinstance(e, Note)]
    assert "seems to diverge" in note
    assert "a lower --lr than 0.1" in note


def varied(kind: str) -> tuple[TrainingConfig, Task]:
    """What a run of each kind can be asked for, all at once."""
    changes: dict[str, dict[str, Any]] = {
        "diffusion": {"dropout": 0.2, "null_class": True},
        "upsampler": {"low_res_size": (4, 4), "low_res_noise": 0.3, "middle_attention": False},
    }
    task = toy_task(kind, **changes.get(kind, {}))
    config = settings(
        anneal="cosine", warmup=2, random_crop=kind == "classifier",
        label_dropout=0.3 if kind == "diffusion" else 0.0,
        timestep_sampler="loss-second-moment" if kind == "diffusion" else "uniform",
        vary_kernel=kind == "upsampler", crop=4 if kind == "upsampler" else None,
        optimizer="adamw" if kind == "classifier" else "muon",
    )  # fmt: skip
    return config, task


@pytest.fixture(scope="module", params=["diffusion", "classifier", "upsampler"])
def whole(
    request: pytest.FixtureRequest, images: ImageSet, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, TrainingRun]:
    """A run of each kind that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    run = make_run(folder, images, *varied(request.param))
    with pytest.MonkeyPatch.context() as patch:
        shorten_training(patch)
        finish(run)
    return request.param, folder, run


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_resumed_equals_uninterrupted(
    whole: tuple[str, Path, TrainingRun], stop: int, images: ImageSet, tmp_path: Path
) -> None:
    """Bit for bit: weights, averages, optimizer, and what is written of them."""
    kind, folder, uninterrupted = whole
    config, task = varied(kind)
    first = make_run(tmp_path, images, config, task)
    finish(first, stop_after=stop)
    assert first.stopped
    assert first.trainer.step == stop
    torch.manual_seed(12345)  # a new process has another global generator
    second = make_run(tmp_path, images, config, task, resume=True)
    assert second.trainer.step == stop
    finish(second)
    assert not second.stopped
    assert same_state(uninterrupted.trainer, second.trainer)
    a, _ = read_tensors(folder / "model.safetensors")
    b, _ = read_tensors(tmp_path / "model.safetensors")
    assert all(torch.equal(a[name], b[name]) for name in a)
    if stop % config.log_every == 0:

        def numbers(folder: Path) -> list[tuple[str, str, str]]:
            return [(r["step"], r["loss"], r["val_loss"]) for r in rows(folder)]

        assert numbers(folder) == numbers(tmp_path)


def test_a_damaged_state_gives_way_to_the_one_before(images: ImageSet, tmp_path: Path) -> None:
    whole = make_run(tmp_path, images)
    finish(whole)
    newest = TrainingFolder(tmp_path).states()[0]
    newest.write_bytes(newest.read_bytes()[:-7])
    run = make_run(tmp_path, images, resume=True)
    assert run.trainer.step == 4
    notes = [e.text for e in finish(run) if isinstance(e, Note)]
    assert "damaged" in notes[0]
    assert same_state(whole.trainer, run.trainer)
    for path in TrainingFolder(tmp_path).states():
        path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="no state can be read: "):
        make_run(tmp_path, images, resume=True)
    with pytest.raises(CheckpointError, match="no state to resume from"):
        make_run(tmp_path / "empty", images, resume=True)


def test_a_full_disk_leaves_the_old_state(
    images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, images)
    events = run.events()
    for event in events:
        if isinstance(event, Saved) and event.step == 4:
            break
    before = {path: path.read_bytes() for path in tmp_path.glob("*.safetensors")}

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="disk is full"):
            list(events)
    after = {path: path.read_bytes() for path in tmp_path.glob("*.safetensors")}
    assert after == before
    assert not list(tmp_path.glob(".adm-*"))
    whole = make_run(tmp_path / "whole", images)
    finish(whole)
    resumed = make_run(tmp_path, images, resume=True)
    finish(resumed)
    assert same_state(whole.trainer, resumed.trainer)


def poison(run: TrainingRun, bad: range) -> None:
    """Makes the loss NaN whenever one of these steps is trained."""
    original = run.trainer.inputs

    def inputs(batch: Any) -> Any:
        found = original(batch)
        if run.trainer.step in bad:
            found.x_start.fill_(math.nan)
        return found

    run.trainer.inputs = inputs  # type: ignore[method-assign]


def test_a_step_without_a_finite_loss_is_skipped(images: ImageSet, tmp_path: Path) -> None:
    run = make_run(tmp_path, images)
    poison(run, range(2, 4))
    notes = [e.text for e in finish(run) if isinstance(e, Note)]
    assert len(notes) == 2
    assert "loss nan" in notes[0]
    assert "skipped" in notes[0]
    assert (run.trainer.step, run.trainer.updates) == (6, 4)
    assert all(bool(p.isfinite().all()) for p in run.trainer.parameters)


@pytest.mark.parametrize("last", [3, 6])
def test_the_last_step_may_be_skipped(images: ImageSet, tmp_path: Path, last: int) -> None:
    """Also where someone stops it then: what was learned before is saved."""
    run = make_run(tmp_path, images, settings(steps=6, save_every=100))
    poison(run, range(last - 1, last))
    for _ in run.events(lambda: run.trainer.step == last):
        pass
    assert states(tmp_path)[0] == f"state-{last:08d}.safetensors"
    assert read_model_file(tmp_path / "model.safetensors").info.training["steps"] == last


def test_nothing_but_skipped_steps_is_an_error(images: ImageSet, tmp_path: Path) -> None:
    run = make_run(tmp_path, images, settings(steps=3))
    poison(run, range(3))
    wanted = "no step had finite ones: nothing was learned; begin anew"
    with pytest.raises(AdmError, match=wanted):
        finish(run)
    assert not (tmp_path / "model.safetensors").exists()


def test_many_in_a_row_go_back_slower(images: ImageSet, tmp_path: Path) -> None:
    run = make_run(tmp_path, images, settings(steps=20, save_every=4))
    original = run.trainer.train_step
    rates: dict[int, list[float]] = {}

    def train_step(inputs: Any) -> Any:
        step = run.trainer.step
        if run.trainer.rate_scale == 1 and step >= 5:
            inputs.x_start.fill_(math.nan)
        result = original(inputs)
        rates.setdefault(step, []).append(result.lr)
        return result

    run.trainer.train_step = train_step  # type: ignore[method-assign]
    notes = [e.text for e in finish(run) if isinstance(e, Note)]
    assert "back to step 4 with the learning rate times 0.5" in notes[-1]
    assert rates[5] == [1e-3, 5e-4]
    assert (run.trainer.step, run.returns) == (20, 1)
    steps = [int(row["step"]) for row in rows(tmp_path)]
    assert steps == sorted(steps)
    resumed = make_run(tmp_path, images, settings(steps=22, save_every=4), resume=True)
    assert (resumed.trainer.rate_scale, resumed.returns) == (0.5, 1)


def test_sample_pictures_that_are_not_finite_are_left_out(images: ImageSet, tmp_path: Path) -> None:
    run = make_run(tmp_path, images)
    (sixteen,) = run._sample()
    assert isinstance(sixteen, Sampled)
    run.trainer.ema_model.get_parameter("label_emb.weight").data[1] = 3e38
    run.trainer.step = 1
    note, sampled = run._sample()
    assert isinstance(note, Note)
    assert note.text.startswith("step 1: 8 of 16 sample pictures are not finite")
    assert isinstance(sampled, Sampled)
    grey = [(open_picture(made.path)[0] == 230).all(-1).mean() for made in (sampled, sixteen)]
    assert grey[0] > grey[1] + 0.2  # half of the sheet's pictures, and none
    run.trainer.ema_model.get_parameter("label_emb.weight").data[0] = 3e38
    run.trainer.step = 2
    (note,) = run._sample()
    assert len(list((tmp_path / "samples").iterdir())) == 2


def test_a_hopeless_run_stops_and_says_so(images: ImageSet, tmp_path: Path) -> None:
    run = make_run(tmp_path, images, settings(steps=100, save_every=2))
    poison(run, range(3, 100))
    wanted = r"after 3 returns .* with a lower --lr than 0.001 or --clip-norm 1$"  # float32 it is
    with pytest.raises(AdmError, match=wanted):
        finish(run)
    _, facts, _ = TrainingFolder(tmp_path).load_state()
    assert facts["step"] == 2


def test_metrics_go_on_where_the_state_does(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    first = MetricsFile(path)
    for step in (10, 20, 30):
        first.add({"step": step, "loss": 1 / step})
    first.add({"step": 30, "val_loss": 0.5})
    with path.open("a") as file:
        file.write("40,0.0")  # a crash in the middle of a row
    second = MetricsFile(path, upto=20)
    second.add({"step": 30, "loss": 0.25})
    assert path.read_text().splitlines() == [
        "step,loss", "10,0.1", "20,0.05", "30,0.25",
    ]  # fmt: skip
    assert second.series("loss") == ([10, 20, 30], [0.1, 0.05, 0.25])


def test_leftovers_of_killed_writers_are_removed(images: ImageSet, tmp_path: Path) -> None:
    (tmp_path / ".adm-abc.tmp").write_bytes(b"half a state")
    (tmp_path / "mine.txt").write_bytes(b"not ours")
    make_run(tmp_path, images)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_killed_at_any_moment_it_can_be_resumed(
    images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: bool
) -> None:
    """Many times SIGKILL; in the end the run equals one that was left alone."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # against power cuts, not against kills
    config = settings(steps=10**6, save_every=1, eval_every=7, log_every=3)
    folder = tmp_path / "killed"
    rng = random.Random(0)
    reached, kills, wanted = 0, 0, 200 if slow else 24
    task = toy_task(image_size=(4, 4))
    fresh = make_run(folder, images, config, task)  # a child begins with it and reads the rest
    whole = make_run(tmp_path / "whole", images, config, task)
    finish(whole, stop_after=1)  # warms up what every child would
    while kills < wanted:
        heard, tells = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                for _ in TrainingRun(fresh.trainer, fresh.job, resume=kills > 0).events():
                    os.write(tells, b".")
            finally:
                os._exit(1)
        os.close(tells)
        for _ in range(rng.randrange(5) if kills else 9):  # events, then somewhere after them
            os.read(heard, 1)
        time.sleep(rng.uniform(0.0, 0.04))
        os.kill(child, signal.SIGKILL)
        os.close(heard)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "the run failed before it was killed"
        kills += 1
        _, facts, wrong = TrainingFolder(folder).load_state()
        assert not wrong, "a state was torn"
        assert facts["step"] >= reached
        reached = facts["step"]
        for name in ("model.safetensors", "best.safetensors"):
            if (folder / name).exists():
                read_tensors(folder / name)
    assert reached > wanted // 10
    resumed = make_run(folder, images, config, task, resume=True)
    finish(resumed, stop_after=reached + 3)
    finish(whole, stop_after=reached + 3)
    assert same_state(whole.trainer, resumed.trainer)
    steps = [int(row["step"]) for row in rows(folder)]
    assert steps == sorted(steps)
    assert not [p for p in folder.iterdir() if p.name.startswith(".adm-")]
