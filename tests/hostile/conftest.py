"""A folder with a sentinel beside it, and the commands that read each kind of file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

if sys.platform == "win32":  # pragma: no cover
    collect_ignore_glob = ["test_*.py"]  # needs fork and resource limits


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a command runs; whatever appears outside it, in its parent, was not meant to."""
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "precious.txt").write_text("precious")
    return inside


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than all the rest."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
