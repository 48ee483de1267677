"""Runs drawn by several processes: as one process draws them, whoever stops, fails or dies."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import adm_cli
import adm_cli.sampling.drawing.workers as module
from adm_cli.commands.progress import Progress
from adm_cli.errors import AdmError, UsageError
from adm_cli.events import Hint, Note
from adm_cli.sampling.choosing.images import Images, drawn_row
from adm_cli.sampling.choosing.inputs import open_inputs
from adm_cli.sampling.drawing.draw import image_tasks
from adm_cli.sampling.drawing.paint import batches
from adm_cli.sampling.drawing.workers import Crew
from adm_cli.sampling.events import BatchDone, Ended, Event, ImageDone, Started, Step
from adm_cli.sampling.folder import RunFolder, Shard, Survey
from tests.conftest import Result, Toys, pictures
from tests.sampling.runs import run_of

Options = dict[str, Any]


@pytest.fixture
def options(toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    monkeypatch.chdir(tmp_path)
    models = {"model": toys.model, "classifier": toys.classifier}
    return {**models, "steps": 2, "device": "cpu", "batch_size": 2, "class_": 0}


@pytest.fixture
def crews(monkeypatch: pytest.MonkeyPatch) -> list[Crew]:
    """Every one that is called together; none is left behind."""
    found: list[Crew] = []

    class Watched(Crew):
        def __init__(self, *how: Any) -> None:
            super().__init__(*how)
            found.append(self)

    monkeypatch.setattr(module, "Crew", Watched)
    return found


def contents(folder: str) -> dict[str, bytes]:
    names = (n for n in pictures(folder) if n not in ("base", "gallery.html"))  # it says the folder
    return {n: Path(folder, n).read_bytes() for n in names}


def kinds(events: list[Event]) -> list[type]:
    return [type(event) for event in events]


def ended(crew: Crew) -> bool:
    return all(process.poll() is not None for process in crew._processes)


def test_two_draw_what_one_draws(options: Options, crews: list[Crew]) -> None:
    asked: Options = {**options, "seeds": "0-4", "grid": True, "gallery": True}
    adm_cli.sample(**asked, out="one")
    told: list[Event] = []
    adm_cli.sample(**{**asked, "seeds": "3", "grid": False, "gallery": False}, out="two")
    done = adm_cli.sample(**asked, out="two", workers=2, on_event=told.append)
    assert contents("two") == contents("one")
    assert Path("two", "gallery.html").is_file()
    assert [path.name for path in done.paths()] == [n for n in pictures("one") if "seed" in n]
    (crew,) = crews
    assert (len(crew), ended(crew)) == (2, True)
    assert {path.name for path in RunFolder(Path("two")).manifests()} == {
        "manifest.jsonl", "manifest-1-of-2.jsonl", "manifest-2-of-2.jsonl",
    }  # fmt: skip
    told = [event for event in told if not isinstance(event, Hint)]
    found = kinds(told)
    assert (found[0], found[-1]) == (Started, Ended)
    assert (found.count(Started), found.count(Ended)) == (1, 1)
    assert (told[0].images, told[0].there) == (5, 1)  # type: ignore[union-attr]
    assert sorted(event.new for event in told if isinstance(event, ImageDone)) == [
        False,
        *4 * [True],
    ]
    assert sorted(event.worker for event in told if isinstance(event, BatchDone)) == [0, 1]
    step = next(event for event in told if isinstance(event, Step))
    with pytest.raises(UsageError, match="leave out workers"):
        step.view()


def test_enlarging_and_stacks(
    adm: Callable[..., Result], toys: Toys, options: Options, crews: list[Crew]
) -> None:
    """Also a stack whose small pictures come first."""
    asked: Options = {**options, "seeds": "0-2", "upsampler": toys.upsampler, "keep_base": True}
    asked["upsample_steps"] = 2
    adm_cli.sample(**asked, out="one")
    told: list[Event] = []
    adm_cli.sample(**asked, out="two", workers=2, on_event=told.append)
    assert contents("two/base") == contents("one/base")
    assert contents("two") == contents("one")
    begun = [event for event in told if isinstance(event, Started)]
    assert [(event.folder, event.images) for event in begun] == [
        (Path("two/base"), 3), (Path("two"), 3),
    ]  # fmt: skip
    enlarge = ("upsample", "one/base", "--model", toys.upsampler, "--steps", 2, "-b", 1)
    alone = adm(*enlarge, "--device", "cpu", "--out", "a")
    both = adm(*enlarge, "--device", "cpu", "--out", "b", "--workers", 2)
    assert (alone.code, both.code, both.err.count("\n")) == (0, 0, 1), both.err
    assert contents("a") == contents("b")
    assert sorted(both.out.split()) == sorted(alone.out.replace("a/", "b/").split())
    assert all(map(ended, crews))


def test_a_word_that_a_signal_swallows_is_told(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had been taken out of the queue, and nobody had it yet."""
    heard, swallowed = Crew._next, list[str]()

    def interrupted(crew: Crew) -> tuple[int, Any]:
        worker, message = heard(crew)
        if isinstance(message, ImageDone) and not swallowed:
            swallowed.append(message.path.name)
            raise KeyboardInterrupt
        return worker, message

    monkeypatch.setattr(Crew, "_next", interrupted)
    told: list[Event] = []
    asked: Options = {**options, "seeds": "0-7", "batch_size": 1, "out": "o", "workers": 2}
    with pytest.raises(KeyboardInterrupt):
        adm_cli.sample(**asked, on_event=told.append)
    names = [event.path.name for event in told if isinstance(event, ImageDone) and event.new]
    assert swallowed[0] in names
    assert sorted(names) == pictures("o")


def test_one_that_dies(options: Options, crews: list[Crew]) -> None:
    """What the others draw is kept, to the end, and the same command draws the rest."""
    asked: Options = {**options, "seeds": "0-39", "batch_size": 1, "out": "o", "workers": 2}
    told: list[Event] = []

    def watch(event: Event) -> None:
        told.append(event)
        if isinstance(event, Step) and len(crews) == 1 and event.worker == 1:
            crews[0]._processes[1].kill()

    with pytest.raises(AdmError, match=r"worker 2 of 2 was killed by signal 9 .* draws the rest"):
        adm_cli.sample(**asked, on_event=watch)
    kept = {event.path.name for event in told if isinstance(event, ImageDone)}
    assert 20 <= len(kept) < 40
    assert kept == set(pictures("o"))
    notes = [i for i, event in enumerate(told) if isinstance(event, Note)]
    assert len(notes) == 1
    assert re.search(r"worker 2 of 2 was killed .* the other workers go on", str(told[notes[0]]))
    assert any(isinstance(event, BatchDone) for event in told[notes[0] :])  # not at the end
    assert isinstance(told[-1], Ended)
    assert told[-1].drawn == len(kept)
    adm_cli.sample(**{**asked, "workers": 1})
    assert adm_cli.verify("o") == []
    assert ended(crews[0])


def test_ctrl_c_ends_all(options: Options, crews: list[Crew]) -> None:
    told: list[Event] = []

    def interrupt(event: Event) -> None:
        told.append(event)
        if isinstance(event, ImageDone) and kinds(told).count(ImageDone) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adm_cli.sample(
            **{**options, "batch_size": 1}, seeds="0-199", out="o", workers=2, on_event=interrupt
        )
    kept = {event.path.name for event in told if isinstance(event, ImageDone)}
    assert 1 <= len(kept) < 200
    assert kept == set(pictures("o"))
    assert isinstance(told[-1], Ended)
    assert ended(crews[0])


def test_nothing_is_begun_where_the_weights_cannot_be_loaded(
    options: Options, toys: Toys, crews: list[Crew]
) -> None:
    data = bytearray(toys.model.read_bytes())
    data[-1] ^= 1
    Path("damaged.safetensors").write_bytes(data)
    with pytest.raises(AdmError, match=r"damaged\.safetensors"):
        adm_cli.sample(**{**options, "model": "damaged.safetensors"}, num=4, out="o", workers=2)
    assert not any(Path("o").iterdir())
    assert ended(crews[0])


def test_no_more_than_there_are_batches(options: Options, crews: list[Crew]) -> None:
    told: list[Event] = []
    adm_cli.sample(**options, num=2, workers=3, out="o", on_event=told.append)
    notes = [event.text for event in told if isinstance(event, Note)]
    assert notes == [
        "2 images are one batch, which one process draws: a smaller --batch-size gives 3 workers "
        "one each"
    ]
    adm_cli.sample(**options, num=2, workers=3, out="o")
    assert crews == []
    assert adm_cli.sample(**options, num=8, workers=2, dry_run=True).settings["workers"] == 2


def test_arrays_are_opened_by_each(tmp_path: Path) -> None:
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    np.savez(tmp_path / "small.npz", arr_0=images, arr_1=np.array([3, 1]))
    pictures = open_inputs([tmp_path / "small.npz"])
    again = pickle.loads(pickle.dumps(pictures))
    assert [item.label for item in again.items] == [3, 1]
    assert np.array_equal(again[1], images[1])


def test_one_display_counts_the_batches_of_all() -> None:
    shown = Progress(quiet=True)

    def done(*events: Event) -> float:
        for event in events:
            shown(event)
        assert shown.sight is not None
        return shown.sight.done

    def step(left: int, worker: int) -> Step:
        return Step(left, 2, lambda: torch.zeros(2, 3, 4, 4), worker)

    assert done(Started(None, 7, 0, 4), step(2, 0), step(1, 1)) == 1 + 1.5
    assert done(BatchDone(2, worker=0)) == 2 + 1.5
    assert done(*(step(0, worker) for worker in range(4))) == 7  # padding is none


def test_wrong_numbers(options: Options) -> None:
    with pytest.raises(UsageError, match="--workers 0: expected at least 1"):
        adm_cli.sample(**options, workers=0)


def test_each_gets_whole_batches(tmp_path: Path) -> None:
    """Those that one process computes, though some images are guided and others not."""
    rows = [drawn_row(0, range(i, i + 1), ".png", scale=float(i % 3 == 0)) for i in range(21)]
    run = run_of([], images=Images(rows), batch_size=4)
    folder, every = RunFolder(tmp_path), np.arange(21)

    def cut(places: Any) -> list[list[str]]:
        (tasks,) = image_tasks(run, folder, np.array(places))
        return [[image.file for image in batch] for batch in batches(run, tasks)]

    crew: Any = range(2)
    work = module._SharedWork(run, folder, crew, Shard(3, 8))
    shares = list(work._shares(Survey([], every)))
    found = [cut(sorted(run.images.find(name) for name in share.only)) for share in shares]
    assert sorted(found[0] + found[1]) == sorted(cut(every))
    assert sorted(map(len, found[0] + found[1])) == [2, 3, 4, 4, 4, 4]
    assert [str(share.shard) for share in shares] == ["3/16", "11/16"]
