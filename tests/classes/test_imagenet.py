"""ImageNet's classes, and choosing among those that a model knows."""

from __future__ import annotations

import re

import pytest

from adm_cli.classes.groups import _GROUPS, group_ids, group_members
from adm_cli.classes.imagenet import (
    imagenet_classes,
    imagenet_names,
    search_classes,
    select_classes,
)
from adm_cli.errors import UsageError

ALL = imagenet_names()
FEW = {i: ALL[i] for i in (1, 207, 970)}
OWN = {0: "red, round", 1: "blue", 2: "green", 3: "green"}  # not ImageNet's


def test_the_table() -> None:
    rows = imagenet_classes()
    assert [row.id for row in rows] == list(range(1000))
    assert len({row.wnid for row in rows}) == 1000
    assert all(re.fullmatch(r"n\d{8}", row.wnid) for row in rows)
    assert [row.wnid for row in rows] == sorted(row.wnid for row in rows)  # the labels' order
    assert rows[207] == (207, "n02099601", ("golden retriever",))
    assert all(name and name == name.strip() for row in rows for name in row.names)
    assert {row.id: row.names[0] for row in rows} == ALL


@pytest.mark.parametrize(
    ("spec", "chosen"),
    [
        ("207", [207]),
        (" 0207 ", [207]),
        ("5-7", [5, 6, 7]),
        ("7-7", [7]),
        ("0-999", list(range(1000))),
        ("n02099601", [207]),
        ("N02099601", [207]),
        ("golden retriever", [207]),
        ("Golden RETRIEVER", [207]),
        ("white shark", [2]),
        ("man-eater", [2]),  # a dash, but no range
        ("207, tench,3-4 ,n01443537", [207, 0, 3, 4, 1]),
        ("1,1", [1, 1]),
        ("all", list(range(1000))),
        (" ALL", list(range(1000))),
        ("golden_retriever,Great_White_Shark", [207, 2]),
    ],
)
def test_forms_of_a_choice(spec: str, chosen: list[int]) -> None:
    assert select_classes(spec, ALL) == chosen


@pytest.mark.parametrize(
    ("spec", "chosen"),
    [
        ("red, round", [0]),  # a name with a comma
        ("Blue", [1]),
        ("blue, 3", [1, 3]),
        ("2-3", [2, 3]),
        ("all", [0, 1, 2, 3]),
    ],
)
def test_a_model_s_own_classes(spec: str, chosen: list[int]) -> None:
    assert select_classes(spec, OWN) == chosen


NUMBERS = {0: "0", 1: "1", 2: "10", 3: "2", 4: "unknown", 5: "1-2"}  # ids that are not the names


@pytest.mark.parametrize(
    ("word", "chosen"), [("2", 3), ("10", 2), ("0", 0), ("3", 3), ("002", 3), ("1-2", 5), ("5", 5)]
)
def test_a_word_means_the_same_alone_and_in_a_list(word: str, chosen: int) -> None:
    assert select_classes(word, NUMBERS) == [chosen]
    assert select_classes(f"{word},unknown", NUMBERS) == [chosen, 4]
    assert select_classes(f"unknown, {word} ,0", NUMBERS) == [4, chosen, 0]


def test_ranges_are_of_the_same_numbers() -> None:
    assert select_classes("0-2", NUMBERS) == [0, 1, 3]
    assert select_classes("unknown,9-10", NUMBERS | {9: "x"}) == [4, 9, 2]
    assert select_classes("all,unknown", {0: "a", 1: "unknown"}) == [0, 1, 1]
    assert search_classes("10", NUMBERS) == [2]


@pytest.mark.parametrize("spec", ["man-eater", "n01440764", "goldfish", "tench"])
def test_imagenet_names_choose_nothing_in_other_models(spec: str) -> None:
    """Their ids are other classes there."""
    with pytest.raises(UsageError, match=f"unknown class '{spec}'"):
        select_classes(spec, OWN)


@pytest.mark.parametrize("row", imagenet_classes()[::37], ids=lambda row: row.wnid)
def test_every_name_finds_its_class_or_asks(row: tuple[int, str, tuple[str, ...]]) -> None:
    class_id, wnid, names = row
    assert select_classes(wnid, ALL) == [class_id]
    for name in names:
        same = [r.id for r in imagenet_classes() if name.lower() in map(str.lower, r.names)]
        if same == [class_id]:
            assert select_classes(name.upper(), ALL) == [class_id]
        else:
            with pytest.raises(UsageError, match=rf"ambiguous: .*\b{class_id} \("):
                select_classes(name.upper(), ALL)


@pytest.mark.parametrize(
    ("spec", "known", "message"),
    [
        ("crane", ALL, r"'crane' is ambiguous: 134 \(crane\), 517 \(crane\); give the id"),
        ("1,crane", ALL, "'crane' is ambiguous"),
        ("green", OWN, r"'green' is ambiguous: 2 \(green\), 3 \(green\)"),
        ("golden retreiver", ALL, "unknown class .*did you mean golden retriever"),
        ("Golden Retreiver", FEW, r"did you mean golden retriever\?"),
        ("dogs", FEW, r"unknown class 'dogs': of ImageNet's 151-268 this model has 207 \(golden"),
        ("dog", ALL, r"has 151 \(Chihuahua\), .* \.\.\. \(adm classes dog lists them\)"),
        (
            "cat",
            FEW,
            r"ImageNet's 281-293 is not of this model, which has 1 goldfish, 207 ",
        ),
        ("labrador", ALL, r"unknown class 'labrador'; did you mean 208 \(Labrador retriever\)\?"),
        (
            "Labrador",
            FEW,
            "ImageNet's 208 Labrador retriever is not of this model, which has",
        ),
        ("a golden retriever puppy", ALL, r"did you mean 207 \(golden retriever\)\?"),
        ("a photo of a dog", FEW, r"of ImageNet's 151-268 this model has 207 \(golden"),
        ("dog", OWN, "unknown class 'dog': this model has 0 red, round, 1 blue, 2 green"),
        ("1000", ALL, "class 1000 is out of range: this model has 0 to 999"),
        ("990-1001", ALL, "class 1000 is out of range.*; of 990-1001 it has 10: --class 990-999$"),
        ("0-60", FEW, r"class 0 \(tench\) is not among .*; of 0-60 it has 1: --class 1$"),
        ("0-5", {0: "a", 1: "b", 3: "c"}, "2 is not among .*; of 0-5 it has 3: --class 0-1,3$"),
        ("0-60", {2 * i: "x" for i in range(30)}, "of 0-60 it has 30: adm classes lists them$"),
        ("2-9", FEW, "class 2 .* golden retriever.*[^:]$"),
        ("4", OWN, "class 4 is out of range: this model has 0 to 3"),
        ("208", FEW, r"208 \(Labrador retriever\) is not among the 3 classes .*: 1 goldfish, 207"),
        ("n02099712", FEW, r"class 208 \(Labrador retriever\) is not among"),
        ("white shark", FEW, r"class 2 \(great white shark\) is not among"),
        ("crane", FEW, r"class 134 \(crane\) is not among"),
        ("1000", FEW, "class 1000 is not among"),
        ("3", {0: "a", 2: "b"}, "class 3 is not among the 2 classes .*: 0 a, 2 b$"),
        ("99", {2 * i: f"name {i}" for i in range(30)}, "30 classes .*: 0 name 0, .*19, ...$"),
        ("9-5", ALL, "class range 9-5: the first id is above the last"),
        ("0-99999999", ALL, "class range 0-99999999: too many classes"),
        ("0-" + "9" * 20, ALL, "too many classes"),
        ("0-" + "9" * 5000, ALL, "unknown class"),
        ("9" * 5000, ALL, "unknown class"),
        ("3", {}, "class 3: this model has no classes"),
    ],
)
def test_choices_that_cannot_be_met(spec: str, known: dict[int, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        select_classes(spec, known)


@pytest.mark.parametrize("known", [ALL, FEW, OWN, {}], ids=["all", "few", "own", "none"])
@pytest.mark.parametrize(
    "spec",
    [
        *("", " ", ",", "1,", "-", "--", "-1", "1-", "+1", "1.0", "1e0", "0x1", "1_0", "1-2-3"),
        *("²", "٣", "٠-٣", "0-٣", "³-5", "１", "Ⅷ", "\0", "\n", "all,1,", "🦊"),
    ],
)
def test_what_is_no_class_is_refused(spec: str, known: dict[int, str]) -> None:
    with pytest.raises(UsageError):
        select_classes(spec, known)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("golden retriever", [207]),
        ("RETRIEVER golden", [207]),
        ("n02099601", [207]),
        ("man-eater", [2]),
        ("great shark", [2]),
        ("crane", [134, 517]),
        ("9 retriever", []),  # a number is no part of a WordNet id
        ("zzz", []),
    ],
)
def test_search(query: str, found: list[int]) -> None:
    assert search_classes(query, ALL) == found


def test_groups() -> None:
    """Every row rises and stays among the classes, and every word is there once."""
    rows = [line.split(": ") for line in _GROUPS.strip().splitlines()]
    words = [word for names, _ in rows for word in names.split()]
    assert len(set(words)) == len(words)
    for word in words:
        members = group_members(word)
        assert members == sorted(set(members)), word
        assert 0 <= members[0] <= members[-1] < 1000, word
    assert group_ids("DOGS ") == group_ids("puppies") == "151-268"
    assert group_ids("butterflies") == group_ids("butterfly")
    assert group_members("cardigan") == []
    for name, word in (("cocker spaniel", "dog"), ("pickup", "truck"), ("indian cobra", "snake")):
        (class_id,) = select_classes(name, ALL)
        assert class_id in group_members(word)


def test_search_by_id_and_among_few() -> None:
    assert 207 in search_classes(" 207 ", ALL)
    assert search_classes("1 145", ALL) == [1, 145]  # not what has them in its WordNet id
    assert search_classes("retriever", FEW) == [207]
    assert search_classes("0", FEW) == []
    assert search_classes("", FEW) == [1, 207, 970]
    assert search_classes("gree", OWN) == [2, 3]
    assert search_classes("shark", OWN) == []
