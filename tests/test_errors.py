"""What messages show of values."""

from __future__ import annotations

import pytest

from adm_cli.errors import trim


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("short", "'short'"),
        ("x" * 9, "'xxxxxxx'..."),
        ("a\n\n\n\nb", "'a\\n\\n\\n'..."),
        ("it's so", '"it\'s so"'),
        (3, "3"),
        ([1, 2, 3, 4], "[1, 2, 3,..."),
    ],
)
def test_a_value_that_is_long_is_cut_with_its_quote_closed(value: object, shown: str) -> None:
    assert trim(value, 9) == shown
