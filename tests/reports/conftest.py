"""Labelled pictures of two of the toy models' three classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.conftest import draw_pictures


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("shapes") / "shapes", count=4)
