"""`--fetch` and the question, of every command that may lack published weights."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import adm_cli
from adm_cli.checkpoints import fetching
from adm_cli.checkpoints.supplying import supplied
from adm_cli.commands import console
from adm_cli.errors import DownloadError, MissingWeightsError
from tests.commands.conftest import terminal
from tests.conftest import Result
from tests.training.conftest import draw_pictures

Run = Callable[..., Result]

LACKING = [
    (("sample", "--model", "imagenet64"), ("64x64_diffusion", "64x64_classifier")),
    (("sample", "--model", "imagenet64", "--scale", 0), ("64x64_diffusion",)),
    (("sample", "--upsampler", "64_256_upsampler"), ("64_256_upsampler",)),
    (("sweep", "--model", "imagenet64"), ("64x64_diffusion", "64x64_classifier")),
    (("upsample", "photos", "--model", "64_256_upsampler"), ("64_256_upsampler",)),
    (("nll", "photos", "--model", "imagenet64"), ("64x64_diffusion",)),
    (("evaluate-classifier", "photos", "--classifier", "imagenet64"), ("64x64_classifier",)),
    (("evaluate", "photos", "--ref", "photos"), ("inception",)),
    (("reference", "photos", "--out", "r.safetensors"), ("inception",)),
    (
        ("evaluate", "--model", "imagenet64", "--ref", "photos", "--features", "classifier"),
        ("64x64_diffusion", "64x64_classifier"),
    ),
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with pictures, on a machine without published weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADM_HOME", str(tmp_path / "home"))
    draw_pictures(tmp_path / "photos", count=6)
    return tmp_path


@pytest.mark.parametrize(("command", "names"), LACKING, ids=lambda part: " ".join(part[:3]))
def test_what_is_missing_is_brought(
    adm: Run, home: Path, monkeypatch: pytest.MonkeyPatch, command: Sequence[str],
    names: tuple[str, ...],
) -> None:  # fmt: skip
    asked: list[Any] = []

    def bring(wanted: Any, **_: Any) -> None:
        asked.append(wanted)
        raise DownloadError("no network today")

    monkeypatch.setattr(fetching, "fetch", bring)
    before = sorted(home.rglob("*"))
    without = adm(*command)
    assert (without.code, asked) == (1, [])
    assert "adm fetch" in without.err
    done = adm(*command, "--fetch")
    assert (done.code, asked) == (1, [names]), done.err
    assert "no network today" in done.err
    assert sorted(home.rglob("*")) == before  # nothing was begun


def test_it_begins_again_until_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    here: list[str] = []

    @supplied
    def work(*needed: str, fetch: bool = False, dry_run: bool = False) -> list[str]:
        for name in needed:
            if name not in here:
                error = MissingWeightsError(name)
                error.published = (name,) if name != "embedded" else ()
                raise error
        return here

    monkeypatch.setattr(fetching, "fetch", lambda names, on_event: here.extend(names))
    with pytest.raises(MissingWeightsError, match="a"):
        work("a")
    with pytest.raises(MissingWeightsError, match="a"):
        work("a", fetch=True, dry_run=True)
    assert work("a", "b", fetch=True) == ["a", "b"]
    with pytest.raises(MissingWeightsError, match="embedded"):
        work("a", "embedded", fetch=True)
    monkeypatch.setattr(fetching, "fetch", lambda names, on_event: None)
    with pytest.raises(MissingWeightsError, match="c"):  # brought, and still not here
        work("c", fetch=True)


@pytest.mark.parametrize(
    ("answer", "fetched"), [("y\n", ["64x64_diffusion"]), ("\n", []), ("", [])]
)
def test_a_person_is_asked_by_every_command(
    adm: Run, home: Path, monkeypatch: pytest.MonkeyPatch, answer: str, fetched: list[str]
) -> None:
    class Keyboard(io.StringIO):
        def isatty(self) -> bool:
            return True

    brought: list[str] = []

    def fetch(names: Sequence[str], **_: Any) -> None:
        brought.extend(names)
        raise DownloadError("no network today")

    monkeypatch.setattr(fetching, "fetch", fetch)
    monkeypatch.setattr(console, "on_terminal", lambda: True)
    monkeypatch.setattr(console, "err", terminal())
    for command in (
        ("train-diffusion", "photos", "--init", "imagenet64", "--out", "run"),
        ("nll", "photos", "--model", "imagenet64"),
    ):
        brought.clear()
        monkeypatch.setattr("sys.stdin", Keyboard(answer))
        done = adm(*command)
        assert (done.code, brought) == (1, fetched)
        assert "fetch them now, and go on? [y/N]" in done.err
    brought.clear()
    monkeypatch.setattr("sys.stdin", Keyboard("y\n"))
    assert adm("nll", "photos", "--model", "imagenet64", "--dry-run").code == 1
    assert brought == []


def test_from_python(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(fetching, "fetch", lambda names, on_event: on_event(names))
    with pytest.raises(MissingWeightsError):
        adm_cli.nll("photos", model="imagenet64", fetch=True, on_event=told.append)
    assert told == [("64x64_diffusion",)]
