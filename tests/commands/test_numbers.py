"""Numbers with no more digits than their errors allow."""

from __future__ import annotations

import math

import pytest

from adm_cli.commands.numbers import with_error


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (12.3457, 0.012, "12.346 ± 0.012"),
        (49.26, 13.04, "49 ± 13"),
        (0.0163, 0.00098, "0.01630 ± 0.00098"),
        (4.4312e-10, 3.1e-11, "4.43e-10 ± 3.1e-11"),
        (-3e-7, 2e-8, "-3.00e-07 ± 2.0e-08"),
        (1e-6, 3e-6, "1.0e-06 ± 3.0e-06"),
        (0.5, 0.0, "0.5 ± 0"),
        (1 / 3, None, "0.333333"),
        (1 / 3, math.nan, "0.333333"),
        (None, None, "-"),
    ],
)
def test_a_number_ends_with_its_error(
    value: float | None, error: float | None, text: str
) -> None:  # fmt: skip
    assert with_error(value, error) == text
