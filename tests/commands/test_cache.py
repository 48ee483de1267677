"""`adm cache`: what is kept under ADM_HOME."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from adm_cli.files import disk as files
from tests.conftest import Result, Toys

Adm = Callable[..., Result]


@pytest.fixture
def home(adm: Adm, toys: Toys, tmp_path: Path) -> Path:
    home = tmp_path / "home"
    for name in ("models", "downloads", "inception"):
        (home / name).mkdir(parents=True)
    shutil.copy(toys.model, home / "models" / "mine.safetensors")
    (home / "downloads" / "x.pt.ab12.partial").write_bytes(b"half")
    (home / "downloads" / "x.pt.ab12.partial.json").write_bytes(b"{}")
    return home


def test_listed(adm: Adm, home: Path) -> None:
    assert adm("cache").out == adm("cache", "ls").out
    rows = [json.loads(line) for line in adm("cache", "ls", "--json").out.splitlines()]
    assert [(row["name"], row["kind"]) for row in rows] == [
        ("mine", "model"), ("x.pt.ab12.partial", "download"),
    ]  # fmt: skip
    assert rows[0]["bytes"] == (home / "models" / "mine.safetensors").stat().st_size
    assert "2 files, 0.00 GB there" in adm("cache").err


def test_verified(adm: Adm, home: Path) -> None:
    done = adm("cache", "verify")
    assert done.code == 0
    assert [line.split()[-1] for line in done.out.splitlines()] == ["whole", "it"]
    path = home / "models" / "mine.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    broken = adm("cache", "verify", "mine")
    assert broken.code == 1
    assert "BROKEN: " in broken.out
    inception = files.inception_path()
    inception.write_bytes(b"?")
    assert "adm fetch inception --overwrite" in adm("cache", "verify", "inception").out


def test_removed(adm: Adm, home: Path) -> None:
    assert adm("cache", "rm").code == 2
    typo = adm("cache", "rm", "mien")
    assert typo.code == 2
    assert "did you mean mine" in typo.err
    before = sorted(home.rglob("*"))
    tried = adm("cache", "rm", "all", "--dry-run")
    assert (tried.code, "would be removed" in tried.out) == (0, True)
    assert sorted(home.rglob("*")) == before
    assert adm("cache", "rm", "downloads").code == 0
    assert list((home / "downloads").iterdir()) == []
    assert (home / "models" / "mine.safetensors").exists()
    assert adm("cache", "rm", "all", "mine").code == 0
    assert list((home / "models").iterdir()) == []
    assert adm("cache").out == ""


def test_home_by_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ADM_HOME", "XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for platform, name, below in (
        ("linux", "XDG_DATA_HOME", ".local/share"),
        ("win32", "LOCALAPPDATA", "AppData/Local"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "platform", platform)
            assert files.adm_home() == tmp_path / below / "adm"
            patch.setenv(name, str(tmp_path / "data"))
            assert files.adm_home() == tmp_path / "data" / "adm"
