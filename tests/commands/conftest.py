"""`adm sample` on the toy models, quick enough to run often."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conftest import Result, Toys


@pytest.fixture
def draw(adm: Callable[..., Result], toys: Toys) -> Callable[..., Result]:
    """`adm sample` with the toy models in 2 steps; an option given again wins."""

    def call(*arguments: object) -> Result:
        models = ("--model", toys.model, "--classifier", toys.classifier)
        return adm("sample", *models, "--steps", 2, "--device", "cpu", *arguments)

    return call
