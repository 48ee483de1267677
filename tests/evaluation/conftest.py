"""Inception with weights made by a rule."""

from __future__ import annotations

import pytest

from adm_cli.evaluation.inception import InceptionV3
from tests.evaluation.rule import rule_weights


@pytest.fixture(scope="session")
def inception() -> InceptionV3:
    model = InceptionV3()
    model.load_state_dict(rule_weights())
    return model.eval().requires_grad_(False)
