"""How far a long operation is: a bar on a terminal, lines elsewhere, fed by events."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console

from adm_cli.commands import console
from adm_cli.commands import progress as module
from adm_cli.commands.progress import Progress, duration
from adm_cli.commands.training_display import TrainingDisplay
from adm_cli.events import Count, Doing, Hint, Note, Transfer
from adm_cli.sampling.events import BatchDone, Started, Step
from adm_cli.training.loop import Begun, Validated
from adm_cli.training.loop import Progress as Stepped

SMALL = torch.zeros(2, 3, 4, 4)
DRAWING = (Started(Path("o"), 9, 1, 4), BatchDone(2), Step(3, 2, lambda: SMALL))


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is shown on a terminal of 80 columns."""
    stream = io.StringIO()
    terminal = Console(file=stream, force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(console, "err", terminal)
    return stream


def a_while_ago(progress: Progress) -> None:
    progress._begun = (time.monotonic() - 100.0, 0.0)


def test_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.0)
    with Progress(quiet=False) as progress:
        progress(Doing("thinking"))
        progress(Count("pictures read", 7, None))
        progress(Hint("for a terminal"))
        progress(Transfer("toy", 1_000_000, 3_000_000))
        a_while_ago(progress)
        progress(Transfer("toy", 2_000_000, 3_000_000))
        for event in DRAWING:
            progress(event)
            a_while_ago(progress)
    assert capsys.readouterr().err.splitlines() == [
        "adm: toy: 1 of 3 MB",
        "adm: toy: 2 of 3 MB, 0.02 MB/s, about 50 s left",
        "adm: drawing 2/8, 0.02 images/s, step 0/4, about 5 min left",
        "adm: drawing 2/8, 0.025 images/s, step 1/4, about 3 min left",
    ]
    with Progress(quiet=False) as progress:
        for event in (Started(None, 1, 0, 4), Step(2, 16, lambda: SMALL)):  # 15 are padding
            progress(event)
            a_while_ago(progress)
        progress._look()
    assert capsys.readouterr().err.splitlines()[-1] == (
        "adm: drawing 0/1, 0.005 images/s, step 2/4, about 100 s left"
    )
    with Progress(quiet=True) as silent:
        silent(Transfer("toy", 1, 2))
        silent(Note("nothing"))
    assert capsys.readouterr().err == ""


def test_a_bar_says_what_lines_say(screen: io.StringIO) -> None:
    with Progress(quiet=False) as progress:
        progress(Transfer("toy", 1_000_000, 3_000_000))
        progress(Note("a note"))
        progress(Transfer("toy", 3_000_000, 3_000_000))
        progress(Count("pictures read", 7, None))
        for event in DRAWING:
            progress(event)
            a_while_ago(progress)
    shown = screen.getvalue()
    for text in ("toy: 1 of 3 MB", "adm: a note", "checking and converting toy",
                 "7 pictures read", "drawing 2/8", "0.025 images/s, step 1/4"):  # fmt: skip
        assert text in shown


@pytest.mark.parametrize("both", [False, True])
def test_results_pass_by_the_bar_where_they_are_to_go(
    both: bool, screen: io.StringIO, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Above it where stdout is the same terminal; else a pipe gets them."""
    monkeypatch.setattr(console, "on_terminal", lambda: both)
    with Progress(quiet=False) as progress:
        progress(Count("pictures", 1, 2))
        print("a result")
    out = capsys.readouterr().out
    assert ("a result" in screen.getvalue(), "a result" in out) == (both, not both)


def test_training(
    screen: io.StringIO, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    events = (
        Begun(0, 2000, 16, 320),
        Stepped(1, 0.9, 40.0, 800.0),
        Validated(50, {"loss": 0.75}, best=True),
        Stepped(50, 0.5, 40.0, 780.0, {"loss": 0.5, "acc1": 0.25}),
    )
    with TrainingDisplay(quiet=False) as display:
        for event in events:
            display(event)
    shown = screen.getvalue()
    assert "step 50/2,000" in shown
    assert "epoch 2.5 of 100, 40.0 images/s, 13 min left" in shown
    assert "validation" in shown
    monkeypatch.undo()
    with TrainingDisplay(quiet=False) as display:
        for event in events:
            display(event)
    assert capsys.readouterr().err.splitlines() == [
        "adm: step 50: validation loss 0.75, the best so far",
        "adm: step 50/2,000: loss 0.5, top-1 25.0 %, epoch 2.5 of 100, 40.0 images/s, "
        "about 13 min left",
    ]


def test_durations() -> None:
    told = [duration(seconds) for seconds in (11.6, 119, 250, 12_000, float("inf"))]
    assert told == ["12 s", "119 s", "4 min", "3 h 20 min", "?"]
