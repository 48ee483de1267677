"""Python has all of the command line: the same names and defaults, results instead of text."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import adm_cli
from adm_cli.checkpoints.sources import find_sources
from adm_cli.commands.main import app
from adm_cli.errors import RunError, UsageError
from adm_cli.events import Hint, Note
from adm_cli.pictures.images import open_picture
from adm_cli.sampling.drawing.draw import draw
from adm_cli.sampling.drawing.models import Models
from adm_cli.sampling.events import (
    BatchDone,
    Ended,
    Event,
    FileMade,
    ImageDone,
    Started,
    Step,
    follow,
)
from adm_cli.sampling.folder import RunFolder
from adm_cli.sampling.recipes.repro import Reproduction
from tests.conftest import Toys, pictures

VERBS = (
    "sample",
    "edit",
    "interpolate",
    "upsample",
    "sweep",
    "verify",
    "merge",
    "repro",
    "gallery",
)
SPOKEN = {"json", "quiet", "context"}  # of how a command speaks, and Typer's own


@pytest.mark.parametrize("name", VERBS)
def test_every_option_is_a_keyword_with_its_default(name: str) -> None:
    (command,) = [c.callback for c in app.registered_commands if c.name == name]
    assert command is not None
    options = inspect.signature(command).parameters
    keywords = inspect.signature(getattr(adm_cli, name)).parameters
    assert list(keywords) == [*(o for o in options if o not in SPOKEN), "on_event"]
    for option in set(options) - SPOKEN:
        assert str(keywords[option].default) == str(options[option].default), option


@pytest.fixture
def options(toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    models = {"model": toys.model, "classifier": toys.classifier}
    return {**models, "steps": 2, "device": "cpu", "batch_size": 2}


def test_editing_and_interpolating(options: dict[str, Any]) -> None:
    """With paths, numbers and seeds as Python has them."""
    one = {**options, "class_": 3}
    frames = adm_cli.interpolate(**one, seeds=[4, 9], frames=2, out="way")
    assert frames.files == [Path("way/interpolation.webp")]
    drawn = adm_cli.sample(**one, seeds=[4, 9], out="run")
    for frame, image in zip(frames.paths(), drawn.paths(), strict=True):
        assert np.array_equal(open_picture(frame)[0], open_picture(image)[0])
    kept = adm_cli.edit(drawn.paths(), **one, strength=0.0, out="kept")
    for edited, image in zip(kept.paths(), drawn.paths(), strict=True):
        assert np.array_equal(open_picture(edited)[0], open_picture(image)[0])


def test_a_run_from_start_to_end(options: dict[str, Any], toys: Toys) -> None:
    """Drawn, gone on with, verified, enlarged, merged and made again."""
    told: list[Event] = []
    asked: dict[str, Any] = {**options, "class_": [0, "star"], "seeds": range(2), "out": "run"}
    done = adm_cli.sample(**asked, grid=True, on_event=told.append)
    assert done.paths() == [Path("run", name) for name in pictures("run") if "seed" in name]
    assert done.files == [Path("run/grid.png")]
    assert [record["seed"] for record in done.records()] == [0, 1, 0, 1]
    kinds = [type(event) for event in told]
    assert (kinds[:2], kinds[-1], kinds.count(ImageDone)) == ([Hint, Started], Ended, 4)
    assert kinds.count(Step) == 4
    assert kinds.count(FileMade) == 1
    steps = [event for event in told if isinstance(event, Step)]
    assert [step.left for step in steps] == [1, 0, 1, 0]
    assert steps[-1].view().shape == (2, 3, 8, 8)
    told.clear()
    assert adm_cli.sample(**asked, on_event=told.append).paths() == done.paths()
    assert [event.new for event in told if isinstance(event, ImageDone)] == [False] * 4

    first, second = done.paths()[:2]
    assert adm_cli.verify("run") == []
    before = second.read_bytes()
    second.unlink()
    (wrong,) = adm_cli.verify("run")
    assert (wrong.kind, wrong.file) == ("missing", second.name)
    weights: dict[str, Any] = {"model": str(toys.model), "classifier": toys.classifier}
    assert adm_cli.verify("run", repair=True, **weights) == []
    assert second.read_bytes() == before

    found = adm_cli.repro(second, **weights)
    assert isinstance(found, Reproduction)
    assert (found.identical, found.inputs_that_differ) == (True, [])
    assert np.array_equal(found.pixels, open_picture(second)[0])
    (made,) = adm_cli.merge("run", "x.npz")
    assert (made.path, made.about) == (Path("x.npz"), {"images": 4})
    large = adm_cli.upsample(first, toys.upsampler, steps=1, device="cpu", out="large")
    assert [path.name for path in large.paths()] == [first.name]
    assert open_picture(large.paths()[0])[0].shape == (16, 16, 3)


def test_a_sweep(options: dict[str, Any]) -> None:
    asked = {**options, "scale": [0, 2], "class_": 0, "num": 2, "out": "s"}
    costs = adm_cli.sweep(**asked, dry_run=True)
    assert [row["to_draw"] for row in costs.rows] == [2, 2]
    told: list[Event] = []
    done = adm_cli.sweep(**asked, on_event=told.append)
    assert [(row["scale"], row["drawn"]) for row in done.rows] == [(0.0, 2), (2.0, 2)]
    assert Path("s/sheet.png").exists()
    assert adm_cli.verify("s") == []
    assert any(isinstance(event, Note) and "cell 2 of 2" in event.text for event in told)


def test_a_dry_run_says_what_would_be(options: dict[str, Any]) -> None:
    facts = adm_cli.sample(**options, class_=0, num=3, dry_run=True, out="o").settings
    assert (facts["images"], facts["to_draw"], facts["num_steps"]) == (3, 3, 2)
    assert facts["seeds"] == [0, 2]
    assert not Path("o").exists()


def test_errors_are_those_of_the_command(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="unknown sampler"):
        adm_cli.sample(**options, sampler="none")
    adm_cli.sample(**options, class_=0, seeds=[1], out="o")
    with pytest.raises(RunError, match="scale 1 -> 2"):
        adm_cli.sample(**options, class_=0, seeds=[1], scale=2, out="o")


@pytest.mark.parametrize("at", [Started, Step, ImageDone])
def test_whoever_stops_it_is_told_what_is_kept(options: dict[str, Any], at: type) -> None:
    """An error of showing stops the work; what was handed over is written and told first."""
    told: list[Event] = []
    stopped: list[Event] = []

    def show(event: Event) -> None:
        told.append(event)
        if isinstance(event, at) and not stopped and not (at is Step and len(told) < 5):
            stopped.append(event)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adm_cli.sample(**options, class_=0, num=6, out="o", on_event=show)
    kept = {event.path.name for event in told if isinstance(event, ImageDone)}
    assert kept == set(pictures("o"))
    assert isinstance(told[-1], Ended)
    assert told[-1].drawn == len(kept)
    told.clear()
    adm_cli.sample(**options, class_=0, num=6, out="o", on_event=told.append)
    assert sum(isinstance(event, ImageDone) and event.new for event in told) == 6 - len(kept)


def test_what_could_not_be_told_is_counted(options: dict[str, Any]) -> None:
    """As a pipe that is closed: the end says how many are kept."""
    told: list[Event] = []

    def show(event: Event) -> None:
        told.append(event)
        if isinstance(event, ImageDone):
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        adm_cli.sample(**{**options, "batch_size": 6}, class_=0, num=6, out="o", on_event=show)
    assert isinstance(told[-1], Ended)
    assert told[-1].drawn == len(pictures("o")) == 6


def test_an_empty_path_is_refused(options: dict[str, Any]) -> None:
    for call in (
        lambda: adm_cli.sample(**options, class_=0, out=""),
        lambda: adm_cli.verify(""),
        lambda: adm_cli.merge(["o", ""], "x.npz"),
    ):
        with pytest.raises(UsageError, match="is empty, expected a path"):
            call()
    assert list(Path().iterdir()) == []


def test_a_run_that_is_abandoned_keeps_what_is_done(options: dict[str, Any]) -> None:
    """A loop that is left closes the generator: nobody is told, nothing is lost."""
    run = adm_cli.sample(**options, class_=0, num=4, dry_run=True, out="o").run
    sources = find_sources(options["model"], options["classifier"])
    events = draw(run, RunFolder(Path("o")), Models([sources], torch.device("cpu")))
    for event in events:
        if isinstance(event, BatchDone):
            break
    events.close()
    assert len(pictures("o")) == 2
    with RunFolder(Path("o")).lock("manifest") as mine:  # let go of
        assert mine


def test_follow_returns_what_comes_of_it() -> None:
    def work() -> Any:
        yield Note("a")
        return 7

    seen: list[Any] = []
    assert follow(work(), seen.append) == 7
    assert seen == [Note("a")]
    assert follow(work(), None) == 7
