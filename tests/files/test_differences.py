"""What differs between two sets of facts, in words."""

from __future__ import annotations

from adm_cli.files.differences import BESIDE, differences


def test_differences_in_words() -> None:
    old = {"scale": 4.0, "eta": None, "model_sha256": "a" * 64, "clip": True}
    new = {"scale": 2.5, "eta": 0.5, "model_sha256": "b" * 64, "clip": True, "new": 1}
    assert differences(old, new) == [
        "scale 4 -> 2.5",
        "eta none -> 0.5",
        "model_sha256 aaaaaaaaaaaa -> bbbbbbbbbbbb",
        "new none -> 1",
    ]


def test_facts_that_are_asked_for_by_their_names() -> None:
    old, new = {"a": 1, "b": None, "c": "x" * 50}, {"a": 2, "b": False, "c": "y"}
    names = {"c": "the text", "b": "b", "d": "what neither has"}
    assert differences(old, new, BESIDE, names) == [
        f"the text ({'x' * 37}..., now y)",
        "b (none, now False)",
    ]
