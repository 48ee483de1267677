"""The YAML of configurations, read without a library."""

from __future__ import annotations

from typing import Any

import pytest

from adm_cli.checkpoints.flags.plain_yaml import parse_yaml, plain_value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: x y  # no\n", {"a": 1, "b": "x y"}),
        ("a:\n  b:\n    c: 1\n  d: 2\ne: 3", {"a": {"b": {"c": 1}, "d": 2}, "e": 3}),
        ("a:\n- 1\n- two\nb: 3", {"a": [1, "two"], "b": 3}),
        ("a:\n  - b: 1\n    c:\n      - 2\n  - b: 3\nd: 4",
         {"a": [{"b": 1, "c": [2]}, {"b": 3}], "d": 4}),
        ("a: |\n  any: [text\n  - of lines\nb: 1", {"a": "|", "b": 1}),
        ("---\n'a b': \"1\"\n\n...", {"a b": "1"}),
        ("a:\nb: 1", {"a": None, "b": 1}),
    ],
)  # fmt: skip
def test_mappings(text: str, expected: dict[str, Any]) -> None:
    assert parse_yaml(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", 1), ("-2.5", -2.5), ("1e-4", 1e-4), ("1.e-4", 1e-4), ("True", True), ("null", None),
     ("[8, 16]", [8, 16]), ("[]", []), ("16,8", "16,8"), ("'1'", "1"), ("1" * 30, "1" * 30)],
)  # fmt: skip
def test_values(text: str, expected: Any) -> None:
    found = plain_value(text)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    "text",
    ["- 1", "a word", "a: 1\n  - 2", "&x a: 1",
     "\n".join(" " * i + "a:" for i in range(99)), "a: 1\n" * 9],
)  # fmt: skip
def test_what_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"plain YAML|over"):
        parse_yaml(text, 5 if len(text) < 60 else 100)
