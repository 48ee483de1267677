"""Mixtures of classes as they are typed and kept."""

from __future__ import annotations

import pytest

from adm_cli.classes.imagenet import imagenet_names
from adm_cli.classes.mixtures import (
    heaviest,
    mixture_name,
    mixture_text,
    read_mixture,
    select_choices,
)
from adm_cli.errors import ConfigError, UsageError

ALL = imagenet_names()
OWN = {0: "a+b", 1: "salt, or sugar", 2: "c", 3: "x*2"}


@pytest.mark.parametrize(
    ("spec", "chosen"),
    [
        ("207+281", ["207+281"]),
        ("281 + 207", ["207+281"]),
        ("207*0.7+281*0.3", ["207*0.7+281*0.3"]),
        ("207*2+281", ["207*2+281*1"]),
        ("golden retriever*0.5+tabby*0.5", ["207+281"]),
        ("golden_retriever+n02123045,0-2,goldfish", ["207+281", 0, 1, 2, 1]),
        ("207+281+963", ["207+281+963"]),
        ("207+281*2+207", ["207+281"]),
        ("207+207", [207]),
        ("207", [207]),
    ],
)
def test_what_is_asked_for(spec: str, chosen: list[int | str]) -> None:
    assert select_choices(spec, ALL) == chosen


@pytest.mark.parametrize(
    ("spec", "chosen"),
    [
        ("a+b", [0]),
        ("a+b,c", [0, 2]),
        ("salt, or sugar", [1]),
        ("x*2", [3]),
        ("2+3", ["2+3"]),
        ("c*2+3,a+b", ["2*2+3*1", 0]),
    ],
)
def test_a_class_that_is_called_so_comes_first(spec: str, chosen: list[int | str]) -> None:
    assert select_choices(spec, OWN) == chosen
    with pytest.raises(UsageError, match="unknown class 'x'"):
        select_choices("c+x*2", OWN)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("207*0.5", "a weight is of a class in a mixture"),
        ("207*a+281", "expected a weight after the \\*"),
        ("207*0+281", "weights in a mixture must be from"),
        ("207*-1+281", "weights in a mixture must be from"),
        ("207*nan+281", "weights in a mixture must be from"),
        ("207+0-3", "a mixture is of single classes"),
        ("207+all", "a mixture is of single classes"),
        ("207+", "a class is missing in a mixture"),
        ("207+nothing", "unknown class 'nothing'"),
        ("0+1+2+3+4+5+6+7+8", "a mixture has 2 to 8 classes, got 9"),
    ],
)
def test_what_cannot_be_asked_for(spec: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        select_choices(spec, ALL)


def test_the_text_and_its_shares() -> None:
    for text, shares in {
        "207+281": ((207, 0.5), (281, 0.5)),
        "1*0.7+3*0.3": ((1, 0.7), (3, 0.3)),
        "1*2+3*6+4*2": ((1, 0.2), (3, 0.6), (4, 0.2)),
    }.items():
        found = read_mixture(text)
        assert [i for i, _ in found] == [i for i, _ in shares]
        assert [share for _, share in found] == pytest.approx([share for _, share in shares])
    assert mixture_text({281: 0.25, 207: 0.75}) == "207*0.75+281*0.25"
    assert mixture_text({5: 1e-6, 4: 1e6}) == "4*1000000+5*0.000001"
    assert read_mixture(mixture_text({5: 1e-6, 4: 1e6}))[1][1] == pytest.approx(1e-12)
    assert [heaviest(text) for text in ("207+281", "1*0.2+3*0.3")] == [207, 3]
    assert mixture_name("207+281", ALL) == "golden retriever + tabby"


@pytest.mark.parametrize(
    "text",
    ["", "207", "207+207", "a+b", "1*x+2", "1*0+2", "1*1e9+2", "1+2 ", "-1+2", "1++2", None],
)
def test_a_text_that_is_none(text: object) -> None:
    with pytest.raises(ConfigError, match="mixture"):
        read_mixture(text)
