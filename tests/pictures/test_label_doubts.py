"""Labels that are none, several, or another thing's: left out, or doubted in a line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adm_cli.errors import UsageError
from adm_cli.pictures.datasets import ImageSet, open_images
from adm_cli.pictures.doubts import strange
from adm_cli.pictures.guesses import guess_by_names
from adm_cli.pictures.label_files import label_word
from tests.pictures.test_doubts import put

THREE = ("a.png", "b.png", "c.png")


def by_list(tmp_path: Path, text: str, name: str = "l.csv") -> ImageSet:
    folder = put(tmp_path / "set", *THREE)
    (tmp_path / name).write_text(text)
    return open_images([folder], labels=str(tmp_path / name))


@pytest.mark.parametrize("word", ["", "nan", "NaN", "None", "null", "NULL", "<NA>", "N/A"])
def test_nothing_is_no_class(tmp_path: Path, word: str) -> None:
    rows = f"file,label\na.png,cat\nb.png,dog\nc.png,{word}\n"
    with pytest.raises(UsageError, match=r"no label for 1 of 3 pictures, e\.g\. c\.png: write it"):
        by_list(tmp_path, rows)
    images = by_list(tmp_path, "".join(f"{name},{word}\n" for name in THREE))
    assert (images.classes, images.notes) == ({}, ("l.csv says that there are no labels",))
    put(tmp_path / "beside", *THREE)
    for name in THREE:
        (tmp_path / "beside" / name).with_suffix(".cls").write_text(word or " ")
    with pytest.raises(UsageError, match=r"a\.cls: expected a label"):
        open_images([tmp_path / "beside"])


def test_nothing_in_json(tmp_path: Path) -> None:
    rows = [{"file_name": name, "label": label}
            for name, label in zip(THREE, (3.0, None, float("nan")), strict=True)]  # fmt: skip
    with pytest.raises(UsageError, match="no label for 2 of 3"):
        by_list(tmp_path, "\n".join(map(json.dumps, rows)), "l.jsonl")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("cat", "none", "none"),
            "'none' is a class (2 pictures), though it may mean that there is none",
        ),
        (
            ("cat", "cat", "NaN"),
            "'NaN' is a class (1 picture), though it may mean that there is none",
        ),
        (
            ("cat", "cat", "-1"),
            "'-1' is a class (1 picture), though it may mean that there is none",
        ),
        (("cat", "dog", "cat|dog"), "a label of several, such as 'cat|dog', is a class of its own"),
        (("1", "01", "2"), "'1' and '01' are one class, 1"),
        (
            ("a", "b", "c", "d"),
            "each picture is a class of its own: these may be no labels (or --labels none)",
        ),
        (("cat", "cat", "dog, brown"), ""),
        (("0", "10", "2", "2"), ""),
    ],
)
def test_strange_labels_are_said(words: tuple[str, ...], said: str) -> None:
    assert strange(words) == ([said] if said else [])


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (True, "True"), (False, "False"), (3.0, "3"), (" cat ", "cat"), (["cat"], "cat"),
        ([0, 0, 1], "2"), (None, ""), (float("nan"), ""), ([None], ""), ([0.5, 0.5], None),
        (1.5, None), ({}, None), (["a", "b"], None), ([], None),
    ],
)  # fmt: skip
def test_words_of_json(value: object, word: str | None) -> None:
    assert label_word(value) == word


@pytest.mark.parametrize("text", ['{"label": ["cat"]}', '"cat"', '{"cls": "cat"}', "7", "true"])
def test_json_beside_a_picture(tmp_path: Path, text: str) -> None:
    put(tmp_path, "1.png", "2.png")
    for name, label in (("1.cls.json", text), ("2.json", '"other"')):
        (tmp_path / name).write_text(label)
    word = {"7": "7", "true": "True"}.get(text, "cat")
    assert set(open_images([tmp_path]).classes.values()) == {word, "other"}


def test_a_column_for_each_class(tmp_path: Path) -> None:
    text = "image,MEL,NV,BCC\na,1.0,0.0,0.0\nb,0.0,1.0,0.0\nc,1.0,0.0,0.0\n"
    images = by_list(tmp_path, text)
    assert images.classes == {0: "MEL", 1: "NV"}
    assert [p.label for p in images.pictures] == [0, 1, 0]
    for other in ("1.0,1.0,0.0", "0.0,0.0,0.0", "0.5,0.5,0.0"):
        with pytest.raises(UsageError, match="no column is called label"):
            by_list(tmp_path, text.replace("0.0,1.0,0.0", other))


def test_columns_that_are_no_labels_and_those_that_are_not_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the column 'caption' is no label"):
        by_list(tmp_path, "file,caption\na.png,a cat\nb.png,a dog\nc.png,a cat\n")
    images = by_list(tmp_path, "file,label,class_name\na,0,cat\nb,1,dog\nc,0,cat\n")
    (note,) = images.notes
    assert note.endswith("its label is the label, its class_name is not read")


@pytest.mark.parametrize(
    ("names", "words", "said"),
    [
        (["ILSVRC2012_val_01_n01751748.JPEG", "ILSVRC2012_val_02_n09193705.JPEG"],
         ["n01751748", "n09193705"], "classes by file name"),
        (["n01440764_1_n01440764.JPEG"], ["n01440764"], "classes by file name"),
        (["big_dog_1.png", "big_cat_1.png", "owl_1.png"], ["big", "big", "owl"],
         "big_dog and big_cat become one class, big"),
        (["0_cat.png", "1_cat.png", "2_dog.png", "3_dog.png"], None, "(or --labels FILE)"),
        (["cat.0.png", "cat.1.png", "dog.0.png"], None, "cat.0.png may tell classes"),
        (["cat (1).png", "cat (2).png", "dog (1).png"], None, "cat (1).png may tell classes"),
        (["IMG.0.png", "IMG.1.png", "DSC.0.png"], None, "no labels in folders or names"),
    ],
)  # fmt: skip
def test_what_names_tell(names: list[str], words: list[str] | None, said: str) -> None:
    found, note = guess_by_names(names)
    assert found == words
    assert said in note


@pytest.mark.parametrize("tops", [("fold1", "fold2"), ("part_a", "part_b"), ("2019", "2020")])
def test_folders_that_only_group_classes(tmp_path: Path, tops: tuple[str, str]) -> None:
    """What is said leads to the classes."""
    put(tmp_path, *(f"{top}/{name}/1.png" for top in tops for name in ("cat", "dog")))
    notes = " ".join(open_images([tmp_path]).notes)
    assert "holds folders cat, dog: if these are the classes, give those 2 folders" in notes
    assert open_images([tmp_path / top for top in tops]).classes == {0: "cat", 1: "dog"}
    put(tmp_path / "plain", "cat/x/1.png", "cat/y/1.png", "dog/x/1.png")
    assert not any("holds" in note for note in open_images([tmp_path / "plain"]).notes)


def test_what_systems_put_beside_pictures_is_no_class(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.png", "dog/1.png", "cat/@eaDir/1.png", "$RECYCLE.BIN/1.png",
        "lost+found/1.png", "System Volume Information/1.png", "#recycle/1.png")  # fmt: skip
    images = open_images([tmp_path])
    assert [p.name for p in images.pictures] == ["cat/1.png", "dog/1.png"]


@pytest.mark.parametrize("other", ["masks", "SegmentationClass_masks", "ground_truth", "LR", "gt"])
def test_masks_beside_pictures_are_doubted(tmp_path: Path, other: str) -> None:
    put(tmp_path, "JPEGImages/1.png", f"{other}/1.png")
    (note,) = open_images([tmp_path]).notes
    assert f"; {other} may hold no class, but masks or the like" in note
    put(tmp_path / "others", "cat/1.png", "lemur/1.png", "maskfish/1.png")
    assert "masks" not in open_images([tmp_path / "others"]).notes[0]


def test_arrays_of_labels_are_named(tmp_path: Path) -> None:
    (tmp_path / "l.npy").write_bytes(b"\x93NUMPY\x01\0")
    with pytest.raises(UsageError, match="is a NumPy array: save it as CSV"):
        open_images([put(tmp_path / "set", *THREE)], labels=str(tmp_path / "l.npy"))
