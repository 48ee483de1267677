"""`adm classes`: searching ids and names."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.conftest import Result, Toys

Run = Callable[..., Result]


def test_all_of_imagenet(adm: Run) -> None:
    lines = adm("classes").out.splitlines()
    assert len(lines) == 1000
    assert lines[0].startswith("   0  tench")
    assert lines[207] == " 207  golden retriever"


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        (["golden", "retriever"], [207]),
        (["GOLDEN retriever"], [207]),
        (["207"], [207]),
        (["n02099601"], [207]),
        (["king penguin"], [145]),
    ],
)
def test_search(adm: Run, query: list[str], ids: list[int]) -> None:
    done = adm("classes", *query, "--json")
    assert (done.code, done.err) == (0, "")
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["id"] for row in rows] == ids
    assert all(set(row) == {"id", "wnid", "names"} for row in rows)
    assert rows[0]["wnid"].startswith("n0")


def test_classes_of_a_model(adm: Run, toys: Toys) -> None:
    assert adm("classes", "--model", toys.model).out == "   0  circle\n   1  square\n   3  star\n"
    (row,) = adm("classes", "st", "--model", toys.model, "--json").out.splitlines()
    assert json.loads(row) == {"id": 3, "wnid": None, "names": ["star"]}
    assert len(adm("classes", "--model", "tiny").out.splitlines()) == 10


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["golden retreever"], "no class matches 'golden retreever'; did you mean golden retriev"),
        (["zzzzzzzz"], "no class matches 'zzzzzzzz'"),
        (["golden", "--model", "tinny"], "did you mean tiny?"),
    ],
)
def test_what_is_refused(adm: Run, options: list[str], words: str) -> None:
    done = adm("classes", *options)
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1
    assert words in done.err
