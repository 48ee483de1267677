"""Settings in Python, JSON and YAML: read, never run."""

from __future__ import annotations

from typing import Any

import pytest

from adm_cli.checkpoints.flags.pasted_settings import NotPlain, read_settings

KNOWN = ("size", "width", "steps")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{'size': 64, 'width': 3}", {"size": 64, "width": 3}),
        ('{"size": 64, "other": null}', {"size": 64, "other": None}),
        ('{"model": {"size": 1}, "more": {"deep": {"width": 2}}}', {"size": 1, "width": 2}),
        ("config = defaults()\nconfig.update({'size': 1})\nconfig['width'] = 2",
         {"size": 1, "width": 2}),
        ("config.update(dict(size=1))\nconfig.update({'size': 2})", {"size": 2}),
        ("args = Namespace(size=1, lr=0.1)\nargs.width = [1, 2]",
         {"size": 1, "lr": 0.1, "width": [1, 2]}),
        ("n = 'ddim25'\nmake(size=1, steps=n)", {"size": 1, "steps": "ddim25"}),
        ("size = 64\nwidth = 32  # wide", {"size": 64, "width": 32}),
        ("  'size': 64,\n  'width': 3,", {"size": 64, "width": 3}),
        ("size=64,\nwidth=3,", {"size": 64, "width": 3}),
        ("!pip install x\n%cd y\nm = {'size': 1}", {"size": 1}),
        ("size: 64\nwidth: '1,2'  # a comment\nnested:\n  - x\n  steps: null",
         {"size": 64, "width": "1,2", "nested": ["x"], "steps": None}),
    ],
)  # fmt: skip
def test_one_reading(text: str, expected: dict[str, Any]) -> None:
    (found,) = read_settings(text, KNOWN)
    assert found.values == expected


def test_branches_and_rivals_are_alternatives() -> None:
    branches = read_settings(
        "m = {}\nif big:\n  m.update({'size': 2})\nelif small:\n  m['size'] = 1\nm['width'] = 3",
        KNOWN,
    )
    assert [(row.values, row.where) for row in branches] == [
        ({"size": 2, "width": 3}, "if big"),
        ({"size": 1, "width": 3}, "if small"),
    ]
    rivals = read_settings("a = {'size': 1}\nb = dict(size=2)", KNOWN)
    assert [(row.values["size"], row.where) for row in rivals] == [(1, "a"), (2, "b")]


def test_what_only_running_would_tell() -> None:
    (found,) = read_settings("{'size': side * 2, 'width': 3}", KNOWN)
    assert isinstance(found.values["size"], NotPlain)
    assert found.values["size"] == "side * 2"


@pytest.mark.parametrize(
    "text",
    ["", "--size 64", "A='--size 64'", "run --size 1", "[" * 5000, "{'other': 1}", "\0", "size:",
     "x" * 300_000, '{"a":' * 3000 + "1" + "}" * 3000],
)  # fmt: skip
def test_what_is_none(text: str) -> None:
    assert read_settings(text, KNOWN) == []
