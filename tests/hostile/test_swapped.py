"""A link in the place of a run's folder, or of a file in it, while the run is at work."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adm_cli.errors import OutputError
from adm_cli.files.disk import atomic_write, make_folder, write_files
from adm_cli.files.links import remove
from adm_cli.files.locks import hold
from adm_cli.files.manifests import ManifestWriter
from adm_cli.pictures.images import save_image
from adm_cli.sampling.folder import RunFolder
from adm_cli.training.runs import MetricsFile
from tests.conftest import Result, Toys
from tests.hostile.test_links import everything
from tests.training.conftest import draw_pictures

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


def swapped_after(monkeypatch: pytest.MonkeyPatch, path: Path, target: Path) -> None:
    """A link to ``target`` in the place of ``path`` once the first picture is recorded."""
    real = ManifestWriter.append

    def append(self: ManifestWriter, records: Iterable[Mapping[str, Any]]) -> None:
        real(self, records)
        if path.exists() and not path.is_symlink():
            swap(path, target)

    monkeypatch.setattr(ManifestWriter, "append", append)


EACH = ("--batch-size", 1, "--steps", 1, "--device", "cpu", "--out", "run")
COMMANDS: dict[str, Callable[[Toys], tuple[object, ...]]] = {
    "upsample": lambda toys: ("upsample", "photos", "--class", 1, "--model", toys.upsampler, *EACH),
    "edit": lambda toys: ("edit", "photos", "--class", 1, "--model", toys.model, *EACH),
    "interpolate": lambda toys: (
        "interpolate", "--class", 1, "--seeds", "1,2", "--frames", 3, "--model", toys.model, *EACH,
    ),
    "sample with all beside": lambda toys: (
        "sample", "--model", toys.model, "--scale", 0, "--class", 1, "--num", 3, *EACH,
        "--grid", "--gallery", "--animate", "run/film.gif",
    ),
    "sweep": lambda toys: (
        "sweep", "--model", toys.model, "--scale", 0, "--class", 1, "--num", 1, *EACH[:2],
        "--steps", "1,2", *EACH[4:],
    ),
    "stack": lambda toys: (
        "sample", "--model", toys.model, "--scale", 0, "--class", 1, "--num", 3, "--upsampler",
        toys.plain_upsampler, "--upsample-steps", 1, *EACH,
    ),
    "stack with its base": lambda toys: (*COMMANDS["stack"](toys), "--keep-base"),
}  # fmt: skip


def photos(names: tuple[str, ...] = ("a", "b", "c"), folder: str = "photos") -> None:
    Path(folder).mkdir()
    generator = np.random.default_rng(sum(map(ord, folder)))
    for name in names:
        pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        save_image(Path(folder) / f"{name}.png", pixels)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        *((command, "run") for command in COMMANDS),
        ("stack with its base", "run/base"),
        ("sweep", "run/cell"),
    ],
)
def test_every_command_that_draws(
    adm: Callable[..., Result],
    toys: Toys,
    outside: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    name: str,
) -> None:
    """The folder of its run, or one in it, is swapped: nothing outside is changed."""
    photos()
    arguments = COMMANDS[command](toys)
    if name == "run/cell":
        done = adm(*arguments, "--dry-run", "--json")
        name = f"run/{json.loads(done.out.splitlines()[0])['cell']}"
    before = everything(outside)
    swapped_after(monkeypatch, Path(name), outside)
    done = adm(*arguments)
    assert Path(name).is_symlink()
    assert done.code == 1, done
    assert done.err.splitlines()[-1].startswith("adm: error: run"), done.err
    words = (
        f"{name} is a link",
        "no longer the folder that was begun",
        f"{name}/run.json is damag",
    )
    assert any(text in done.err for text in words), done
    assert everything(outside) == before


@pytest.mark.parametrize("command", ["upsample", "edit"])
def test_the_pictures_that_are_read(
    adm: Callable[..., Result], toys: Toys, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Others by the same names, once the first were looked at: none is drawn of those."""
    photos()
    photos(folder="others")
    before = everything(Path("others"))
    real, others = RunFolder.begin, Path("others").absolute()

    def begin(self: RunFolder, *arguments: Any, **options: Any) -> Any:
        swap(Path("photos"), others)
        return real(self, *arguments, **options)

    monkeypatch.setattr(RunFolder, "begin", begin)
    done = adm(*COMMANDS[command](toys))
    assert (done.code, Path("photos").is_symlink()) == (1, True)
    assert "has changed since the start: run the command again" in done.err
    assert everything(Path("others")) == before
    assert not list(Path("run").glob("*.png"))


@pytest.mark.parametrize("name", ["run", "run/samples", "run/settings.json"])
@pytest.mark.usefixtures("quick_training")
def test_a_training(
    adm: Callable[..., Result],
    tmp_path: Path,
    outside: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """Swapped when its first numbers are written."""
    draw_pictures(tmp_path / "set", count=4)
    (outside / "samples").mkdir()
    before, real, link = everything(outside), MetricsFile.add, Path(name)

    def add(self: MetricsFile, row: Mapping[str, float]) -> None:
        real(self, row)
        if not link.is_symlink():
            link.parent.mkdir(exist_ok=True)
            if name == "run/samples":
                link.mkdir(exist_ok=True)
            swap(link, outside / link.relative_to("run"))

    monkeypatch.setattr(MetricsFile, "add", add)
    done = adm(
        "train-diffusion", "set", "--size", 8, "--set", "num_res_blocks=1", "--set",
        "channel_mult=[1]", "--steps", 2, "--batch-size", 2, "--val-split", 0, "--device", "cpu",
        "--log-every", 1, "--sample-every", 1, "--save-every", 1, "--out", "run",
    )  # fmt: skip
    assert (done.code, link.is_symlink()) == (1, True), done
    said = "no longer the folder that was begun" if name == "run" else "is a link"
    assert said in done.err.splitlines()[-1]
    assert everything(outside) == before


@pytest.mark.parametrize("name", ["samples", "tensorboard", "base", "any"])
def test_a_folder_in_one_that_is_locked(tmp_path: Path, outside: Path, name: str) -> None:
    """Before anything in it says that it is a run."""
    run, before = tmp_path / "run", everything(outside)
    (run / name).mkdir(parents=True)
    with hold(run / ".train.lock", "busy"):
        swap(run / name, outside)
        for write in (
            lambda: write_files(run / name, [("a.png", b"x")], ".t-"),
            lambda: make_folder(run / name / "new"),
            lambda: remove(run / name / "a.png"),
        ):
            with pytest.raises(OutputError, match=f"run/{name} is a link"):
                write()
    assert everything(outside) == before
