"""`adm classes`: searching ids and names."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import TOY_UNET, Result, Toys, save_toy

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
        (["king_penguin"], [145]),
        (["cats"], [*range(281, 294)]),
        (["foxes"], [277, 278, 279, 280]),
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


def test_classes_of_every_kind_of_model(adm: Run, toys: Toys) -> None:
    for path in (toys.classifier, toys.upsampler):
        assert adm("classes", "--model", path).out == "   0  circle\n   1  square\n   3  star\n"
    for path in (toys.plain_upsampler, _lsun(toys)):
        done = adm("classes", "--model", path)
        assert (done.code, done.out) == (2, "")
        assert "is unconditional: it has no classes" in done.err


def _lsun(toys: Toys) -> Path:
    """As the LSUN models are: no classes, and no classifier among the presets."""
    return save_toy(Path("lsun.safetensors"), replace(TOY_UNET, num_classes=None), {})


def test_another_list_of_classes(adm: Run, toys: Toys) -> None:
    """A community model's own ids and names, wherever a class is named."""
    names = {0: "tench", 1: "Great Tit", 4: "tit, great"}
    model = save_toy(Path("birds.safetensors"), TOY_UNET, names)
    assert adm("classes", "great", "--model", model).out == "   1  Great Tit\n   4  tit, great\n"
    assert "classes                0 tench, 1 Great Tit, 4 tit, great" in adm("info", model).out
    options = ("--model", model, "--scale", 0, "--steps", 1, "--num", 1, "--device", "cpu")
    for spec, class_id in (("great tit", 1), ("tit, great", 4), ("4", 4)):
        (row,) = adm("sample", *options, "--class", spec, "--json").out.splitlines()
        assert json.loads(row)["class"] == class_id
    refused = adm("sample", *options, "--class", "goldfish")
    assert refused.code == 2
    assert "unknown class 'goldfish'" in refused.err
    assert "class 2 is not among the 3 classes" in adm("sample", *options, "--class", 2).err
    # the same id, another meaning: not guided by a classifier of other classes
    assert (
        "class 0 is tench to the model birds but circle to the classifier"
        in adm("sample", "--model", model, "--classifier", toys.classifier).err
    )


def test_an_unconditional_model_draws_without_a_class(adm: Run, toys: Toys) -> None:
    options = ("--model", _lsun(toys), "--steps", 1, "--num", 2, "--device", "cpu", "--json")
    rows = [json.loads(line) for line in adm("sample", *options).out.splitlines()]
    assert [row["class"] for row in rows] == [None, None]
    refused = adm("sample", *options, "--class", 0)
    assert "lsun is unconditional and not guided: --class would change nothing" in refused.err
    guided = adm("sample", *options, "--classifier", toys.classifier, "--class", "star")
    assert [json.loads(line)["class"] for line in guided.out.splitlines()] == [3, 3]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["golden retreever"], "no class matches 'golden retreever'; did you mean golden retriev"),
        (["zzzzzzzz"], "no class matches 'zzzzzzzz'"),
        (["golden", "--model", "tinny"], "did you mean tiny"),
    ],
)
def test_what_is_refused(adm: Run, options: list[str], words: str) -> None:
    done = adm("classes", *options)
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1
    assert words in done.err


def test_what_the_default_model_draws(
    adm: Run, toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = adm("classes", "dog")
    assert " 151  Chihuahua\n" in done.out
    assert "ids 151-268" in done.err
    assert adm("classes", "fox").out.split("\n")[4].startswith(" 166  Walker hound")
    assert "of these, the default model, tiny, draws 207 golden retriever\n" in done.err
    assert "tiny, draws none" in adm("classes", "labrador").err
    monkeypatch.setenv("ADM_MODEL", str(toys.model))  # its classes are not ImageNet's
    assert adm("classes", "labrador").err == ""
