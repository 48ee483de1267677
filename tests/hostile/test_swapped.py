"""A link in the place of a run's folder, or of a file in it, while the run is at work."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from adm_cli.errors import OutputError
from adm_cli.files.disk import atomic_write, make_folder, write_files
from adm_cli.files.locks import hold
from adm_cli.files.manifests import ManifestWriter
from tests.conftest import Result, Toys
from tests.hostile.test_links import everything

WRITERS: tuple[Callable[[Path], object], ...] = (
    lambda folder: write_files(folder, [("a.png", b"x")], ".t-"),
    lambda folder: write_files(folder / "base", [("a.png", b"x")], ".t-"),
    lambda folder: make_folder(folder / "new"),
    lambda folder: atomic_write(folder / "run.json").__enter__(),
)


def swap(path: Path, outside: Path) -> None:
    path.rename(path.parent / f"{path.name}-moved")
    path.symlink_to(outside)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Another run."""
    folder = tmp_path / "outside"
    (folder / "base").mkdir(parents=True)
    for name in ("run.json", "manifest.jsonl", "a.png"):
        (folder / name).write_text("theirs")
    return folder


@pytest.mark.parametrize("write", WRITERS)
def test_the_folder_itself(tmp_path: Path, outside: Path, write: Callable[[Path], object]) -> None:
    run, before = tmp_path / "run", everything(outside)
    run.mkdir()
    with hold(run / ".manifest.lock", "busy"):
        make_folder(run / "base")
        swap(run, outside)
        with pytest.raises(OutputError, match=r"run is no longer the folder that was begun"):
            write(run)
    assert everything(outside) == before


@pytest.mark.parametrize("name", ["run.json", ".run.json.copy", "settings.json", ".manifest.lock"])
def test_a_book_or_a_lock(tmp_path: Path, outside: Path, name: str) -> None:
    run, before = tmp_path / "run", everything(outside)
    run.mkdir()
    with hold(run / ".manifest.lock", "busy"):
        (run / name).touch()
        swap(run / name, outside / "run.json")
        with pytest.raises(OutputError, match=f"{name} is a link"):
            write_files(run, [("a.png", b"x")], ".t-")
    assert everything(outside) == before


def test_the_folder_is_no_longer_watched_afterwards(tmp_path: Path, outside: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with hold(run / ".manifest.lock", "busy"):
        pass
    swap(run, outside)  # as a user may, between two commands
    assert write_files(run, [("b.png", b"x")], ".t-") == (1, None)


def test_a_manifest(tmp_path: Path, outside: Path) -> None:
    manifest, before = ManifestWriter(tmp_path / "manifest.jsonl", alone=True), everything(outside)
    swap(tmp_path / "manifest.jsonl", outside / "manifest.jsonl")
    with pytest.raises(OutputError, match=r"manifest\.jsonl is a link"):
        manifest.append([{"file": "a.png"}])
    manifest.close()
    assert everything(outside) == before


@pytest.mark.parametrize("name", ["run", "run/manifest.jsonl", "run/run.json"])
def test_a_run(
    adm: Callable[..., Result],
    toys: Toys,
    tmp_path: Path,
    outside: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """Swapped once the first picture is recorded."""
    real, before = ManifestWriter.append, everything(outside)

    def append(self: ManifestWriter, records: Iterable[Mapping[str, Any]]) -> None:
        real(self, records)
        if not os.path.islink(name):
            swap(Path(name), outside / Path(name).relative_to("run"))

    monkeypatch.setattr(ManifestWriter, "append", append)
    draw = ("--scale", 0, "--class", 1, "--num", 3, "--batch-size", 1, "--steps", 1)
    done = adm("sample", "--model", toys.model, *draw, "--device", "cpu", "--out", "run")
    assert done.code == 1, done
    said = "no longer the folder that was begun" if name == "run" else "a link"
    assert done.err.splitlines()[-1].startswith(f"adm: error: {name} is {said}")
    assert everything(outside) == before
