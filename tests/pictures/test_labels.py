"""Whose layouts are known, what is guessed, and that a guess is said."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adm_cli.errors import UsageError
from adm_cli.pictures.datasets import ImageSet, label_pictures, list_pictures, open_images
from tests.pictures.test_datasets import TWO, content, folder, ids, tar_of, zip_of

STORED = ["00000/img00000000.png", "00000/img00000001.png", "00001/img00001000.png"]


def with_file(path: Path, names: list[str], name: str, text: str | bytes) -> Path:
    """A folder of pictures and one more file."""
    folder(path, names)
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def zipped(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in files.items():
            file.writestr(name, data)
    return path


def says(images: ImageSet, text: str) -> bool:
    return any(text in note for note in images.notes)


# dataset.json and its relatives


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
@pytest.mark.parametrize("above", ["", "set/"])
@pytest.mark.parametrize(
    "labels",
    [
        [[STORED[0], 7], [STORED[1], 3], [STORED[2], 7]],
        {STORED[0]: 7, STORED[1]: "3", STORED[2]: 7.0},
        [[n, [int(i == k) for i in range(8)]] for n, k in zip(STORED, (7, 3, 7), strict=True)],
    ],
    ids=["pairs", "mapping", "one-hot"],
)
def test_labels_of_dataset_json(tmp_path: Path, kind: str, above: str, labels: Any) -> None:
    files = {above + name: content(name) for name in STORED}
    files[f"{above}dataset.json"] = json.dumps({"labels": labels}).encode()
    path = tmp_path / f"x.{kind}"
    if kind == "zip":
        zipped(path, files)
    elif kind == "tar":
        tar_of(path, files)
    else:
        for name, data in files.items():
            with_file(path, [], name, data)
    images = open_images([path])
    assert ids(images) == [7, 3, 7]
    assert (images.classes, images.num_classes) == ({3: "3", 7: "7"}, 8)
    assert says(images, "classes from dataset.json")
    assert open_images([path], labels="none").classes == {}


@pytest.mark.parametrize(
    "text", ['{"labels": null}', '{"labels": [["00000/img00000000.png", null]]}']
)
def test_no_labels_in_dataset_json(tmp_path: Path, text: str) -> None:
    images = open_images([with_file(tmp_path, STORED, "dataset.json", text)])
    assert ids(images) == [None] * 3
    assert says(images, "dataset.json says that there are no labels")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", r"cannot read .*dataset\.json as JSON"),
        ("[" * 90_000, r"cannot read .*dataset\.json as JSON"),
        (json.dumps({"labels": [[STORED[0], 1]]}), r"has no label for 2 of 3 pictures, e\.g\. 0"),
        (json.dumps({"labels": [[STORED[0], [0.5, 0.5]]]}), "a label must be a number or a word"),
        (json.dumps({"labels": [[STORED[0], 1], [STORED[0], 2]]}), "two labels, 1 and 2"),
    ],
)
def test_dataset_json_that_does_not_fit(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        open_images([with_file(tmp_path, STORED, "dataset.json", text)])


def test_two_sets_of_which_one_has_labels(tmp_path: Path) -> None:
    one = with_file(tmp_path / "a", ["1.png"], "dataset.json", '{"labels": [["1.png", 1]]}')
    with pytest.raises(UsageError, match=r"2\.png is below no dataset\.json, unlike others"):
        open_images([one, folder(tmp_path / "b", ["2.png"])])


@pytest.mark.parametrize(
    "names",
    [
        STORED,
        ["00000/00000.png", "01000/01234.png"],  # FFHQ
        ["00000/000000123.jpg", "00001/000010000.jpg"],  # img2dataset
    ],
)
def test_folders_that_number_files_are_no_classes(tmp_path: Path, names: list[str]) -> None:
    images = open_images([zip_of(tmp_path / "x.zip", names)])
    assert images.classes == {}
    assert says(images, "only number files")
    assert open_images([tmp_path / "x.zip"], labels="folders").classes


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "metadata.jsonl",
            '{"file_name": "a/1.png", "label": 4}\n{"file_name": "b/1.png", "label": 2}\n',
        ),
        ("metadata.csv", "file_name,label\na/1.png,4\nb/1.png,2\n"),
        ("a/metadata.jsonl", '\ufeff{"file_name": "1.png", "label": 4}\r\n'),
    ],
)
def test_hugging_face_s_metadata(tmp_path: Path, name: str, text: str) -> None:
    names = ["a/1.png"] if name.startswith("a/") else ["a/1.png", "b/1.png"]
    images = open_images([with_file(tmp_path, names, name, text)])
    assert ids(images) == [4, 2][: len(names)]
    assert says(images, f"classes from {name.rsplit('/', maxsplit=1)[-1]}")


def test_metadata_of_captions_is_no_label(tmp_path: Path) -> None:
    images = open_images(
        [with_file(tmp_path, TWO, "metadata.jsonl", '{"file_name": "cat/1.png", "text": "a cat"}')]
    )
    assert images.classes == {0: "cat", 1: "dog"}


TINY = "val_0.JPEG\tn01443537\t0\t32\t44\t62\nval_1.JPEG\tn02012849\t52\t55\t57\t59\n"


def test_tiny_imagenet(tmp_path: Path) -> None:
    names = [f"train/{w}/images/{w}_0.JPEG" for w in ("n01443537", "n02012849")]
    names += ["val/images/val_0.JPEG", "val/images/val_1.JPEG", "test/images/test_0.JPEG"]
    with_file(tmp_path, names, "val/val_annotations.txt", TINY)
    listing = list_pictures([tmp_path])
    training = label_pictures(listing, role="train")
    assert (ids(training), training.num_classes) == ([1, 134], 1000)
    assert ids(label_pictures(listing, role="validation", known=training)) == [1, 134]
    alone = open_images([tmp_path / "val"], labels=str(tmp_path / "val" / "val_annotations.txt"))
    assert ids(alone) == ids(open_images([tmp_path / "val"])) == [1, 134]
    assert says(alone, "the second is the label")


# splits


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize("above", ["", "my/data/"])
@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("Training", "VALIDATION", "Testing"),
        ("train2017", "val2017", "test2017"),
        ("training_set", "valid_set", "test_set"),
        ("TRAIN", "eval", "test"),
        ("seg_train", "dev", "seg_test"),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_splits(
    tmp_path: Path, kind: str, above: str, train: str, val: str, test: str, inside: bool
) -> None:
    layout = "{above}{c}/{split}/{i}.png" if inside else "{above}{split}/{c}/{i}.png"
    names = [
        layout.format(above=above, split=split, c=c, i=i)
        for split, count in ((train, 3), (val, 2), (test, 1))
        for c in ("cat", "dog")
        for i in range(count)
    ]
    make = zip_of if kind == "zip" else folder
    listing = list_pictures([make(tmp_path / f"x.{kind}", names)])
    assert listing.splits == {"train": {train: 6}, "validation": {val: 4}, "test": {test: 2}}
    for role, count in (("train", 3), ("validation", 2), ("test", 1)):
        images = label_pictures(listing, role=role)
        assert images.classes == {0: "cat", 1: "dog"}
        assert ids(images) == [0] * count + [1] * count
    together = label_pictures(listing)
    assert (together.classes, len(together)) == ({0: "cat", 1: "dog"}, 12)
    assert says(together, f"splits, used together: {train} (6)")


def test_splits_without_classes(tmp_path: Path) -> None:
    listing = list_pictures([folder(tmp_path, ["train/1.png", "train/2.png", "test/1.png"])])
    images = label_pictures(listing, role="train")
    assert (len(images), images.classes) == (2, {})
    assert open_images([tmp_path / "train"]).classes == {}
    assert open_images([folder(tmp_path / "x", ["train/1.png"])]).classes == {}


def test_folders_that_are_no_splits(tmp_path: Path) -> None:
    vehicles = open_images([folder(tmp_path / "a", ["bus/1.png", "car/1.png", "train/1.png"])])
    assert vehicles.classes == {0: "bus", 1: "car", 2: "train"}
    assert not says(vehicles, "splits")
    odd = open_images([folder(tmp_path / "b", ["figures/1.png", "train/a/1.png", "val/a/1.png"])])
    assert says(odd, "train and val look like splits, others beside them do not")


# what cameras write


@pytest.mark.parametrize(
    "names",
    [
        ["IMG_0001.jpg", "DSC_0001.jpg", "PXL_20230101_1.jpg"],
        ["frame_0001.png", "image_1.png"],
        ["DSC00012_2.jpg", "MVIMG_20200101_120000.jpg"],
        ["2023-01-01_120000.jpg", "2023-01-02_120000.jpg"],
        ["train_0001.png", "test_0001.png", "val_3.png"],
        ["Screenshot_20230101.png", "IMG_2.png"],
        ["d41d8cd98f00b204_1.png", "0cc175b9c0f1b6a8_1.png"],
        ["cat_1.png", "IMG_1.png"],
    ],
)
def test_camera_names_are_no_classes(tmp_path: Path, names: list[str]) -> None:
    images = open_images([folder(tmp_path, names)])
    assert images.classes == {}
    assert says(images, "are no classes: unlabelled (or --labels names)")
    assert open_images([tmp_path], labels="names").classes


@pytest.mark.parametrize("top", ["images", "IMG", "JPEGImages", "100_photos", "2023-01-01", "all"])
def test_folders_of_everything_are_no_class(tmp_path: Path, top: str) -> None:
    images = open_images([folder(tmp_path, [f"{top}/1.png", f"{top}/2.png"])])
    assert images.classes == {}


def test_several_folders_of_anything_are_no_classes(tmp_path: Path) -> None:
    images = open_images([folder(tmp_path, ["batch_1/a.png", "batch_2/b.png"])])
    assert images.classes == {}
    assert says(images, "folders such as batch_1, batch_2 are no classes (or --labels folders)")


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["cat_1.jpg", "dog_1.jpg"], "classes guessed: cat_1.jpg is cat (or pass --labels)"),
        (TWO, "classes by folder, e.g. cat"),
        (TWO[:2], "one class only, the folder cat"),
    ],
)
def test_guesses_are_said_and_answers_are_not(tmp_path: Path, names: list[str], text: str) -> None:
    path = folder(tmp_path, names)
    assert says(open_images([path]), text)
    kind = "names" if "guessed" in text else "folders"
    told = open_images([path], labels=kind)
    assert (told.classes, told.notes) == (open_images([path]).classes, ())


def test_a_file_of_labels_that_is_not_read_is_said(tmp_path: Path) -> None:
    images = open_images([with_file(tmp_path, ["1.png"], "train_labels.csv", "1.png,eel\n")])
    assert images.classes == {}
    assert says(images, "train_labels.csv is not read: pass its path to --labels")


# numbers among names


def test_numbers_among_names_keep_their_ids(tmp_path: Path) -> None:
    names = [f"{word}/1.png" for word in ("0", "1", "2", "10", "unknown", "other")]
    images = open_images([folder(tmp_path, names)])
    assert images.classes == {0: "0", 1: "1", 2: "2", 10: "10", 11: "other", 12: "unknown"}
    held = open_images([folder(tmp_path / "val", ["unknown/2.png", "10/2.png"])], known=images)
    assert ids(held) == [10, 12]


def test_whole_numbers_of_spreadsheets(tmp_path: Path) -> None:
    """7.0 is 7, if no other number has a part behind its point."""
    images = open_images([folder(tmp_path, ["7.0/1.png", "7/2.png", "12.0/1.png"])])
    assert images.classes == {7: "7", 12: "12"}
    held = open_images([folder(tmp_path / "val", ["12/2.png", "7.0/2.png"])], known=images)
    assert ids(held) == [12, 7]
    assert open_images([folder(tmp_path / "x", ["0.5/1.png", "1.0/1.png"])]).classes == {
        0: "0.5",
        1: "1.0",
    }


@pytest.mark.parametrize("number", ["747000", "-1"])
def test_numbers_that_cannot_be_ids_are_names(tmp_path: Path, number: str) -> None:
    images = open_images([folder(tmp_path, [f"{number}/1.png", "cat/1.png"])])
    assert images.classes == {0: number, 1: "cat"}


# labels beside pictures


@pytest.mark.parametrize("ending", ["cls", "json"])
def test_compound_names(tmp_path: Path, ending: str) -> None:
    files = {}
    for i, label in enumerate((5, 3)):
        files[f"{i:03}.input.jpg"] = content(str(i))
        text = str(label) if ending == "cls" else json.dumps({"label": label})
        files[f"{i:03}.output.{ending}"] = text.encode()
    images = open_images([tar_of(tmp_path / "x.tar", files)])
    assert ids(images) == [5, 3]
    assert says(images, f"classes from the .{ending} files")


def test_two_labels_of_one_picture(tmp_path: Path) -> None:
    path = with_file(tmp_path, ["0.input.png"], "0.a.cls", "1")
    (tmp_path / "0.b.cls").write_text("2")
    with pytest.raises(UsageError, match=r"0\.a\.cls and 0\.b\.cls are labels of one picture"):
        open_images([path])


def test_json_without_a_label_says_so(tmp_path: Path) -> None:
    folder(tmp_path, ["1.png", "2.png"])
    for i in (1, 2):
        (tmp_path / f"{i}.json").write_text('{"caption": "a cat"}')
    images = open_images([tmp_path])
    assert images.classes == {}
    assert says(images, "1.json and the like hold no label")


# files that are no pictures, and names that are no UTF-8


def test_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    names = ["a.jpg", "b.heic", "c.HEIC", "d.npy", "README", "notes.txt", "e"]
    images = open_images([folder(tmp_path, names)])
    assert len(images) == 1
    assert says(images, "not read as pictures: 2 .heic, 1 .npy, 1 without ending")
    with pytest.raises(UsageError, match=r"no pictures in .*; it holds 1 \.heic$"):
        open_images([folder(tmp_path / "x", ["1.heic"])])


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_arrays_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What is advised makes pictures of them."""
    monkeypatch.chdir(tmp_path)
    arrays = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    np.save(name, arrays) if name.endswith("y") else np.savez(name, arrays)
    with pytest.raises(UsageError, match=f"{name} holds arrays, expected a folder") as refusal:
        open_images([Path(name)])
    exec(str(refusal.value).split('"')[1], {})
    images = open_images([Path("pictures")])
    assert [np.asarray(images.decode(i)).tolist() for i in range(2)] == arrays.tolist()


def _zip_with_raw_name(path: Path, raw: bytes) -> Path:
    """A zip as old tools write it: a name in their code page, and no word about it."""
    zip_of(path, ["caQQ/1.png"])
    path.write_bytes(path.read_bytes().replace(b"caQQ", raw))
    return path


def test_a_zip_in_another_code_page(tmp_path: Path) -> None:
    latin = open_images([_zip_with_raw_name(tmp_path / "latin.zip", b"ca\xe9\xe8")])
    assert says(latin, "latin.zip: 1 name is not in UTF-8 and may be garbled")
    assert len(latin.read(0)) > 0
    utf8 = open_images([_zip_with_raw_name(tmp_path / "utf8.zip", "ca\u00e9".encode())])
    assert utf8.classes == {0: "caé"}
    assert not says(utf8, "garbled")
    flagged = open_images([zip_of(tmp_path / "x.zip", ["é/1.png", "山猫/1.png"])])
    assert not says(flagged, "garbled")


def test_names_of_a_folder_that_are_no_utf8(tmp_path: Path) -> None:
    (tmp_path / "caf\udce9.png").write_bytes(b"")
    assert says(
        open_images([tmp_path]), "1 name is not in UTF-8 and may be garbled, e.g. caf\\udce9"
    )


def test_labels_beside_pictures_in_two_files(tmp_path: Path) -> None:
    """A .cls is a label and nothing else; JSON may be of anything, and numbers may have a point."""
    for i in range(2):
        (tmp_path / f"{i}.jpg").write_bytes(b"")
        (tmp_path / f"{i}.json").write_text('{"label": 7.0}')
    assert open_images([tmp_path]).labels().tolist() == [7, 7]
    for i in range(2):
        (tmp_path / f"{i}.cls").write_text(f"{i}")
    assert open_images([tmp_path]).labels().tolist() == [0, 1]


def test_splits_that_are_there_twice(tmp_path: Path) -> None:
    for name in ("seg_train", "seg_test"):
        for label in ("forest", "sea"):
            folder = tmp_path / name / name / label
            folder.mkdir(parents=True)
            (folder / "1.jpg").write_bytes(b"")
    found = list_pictures([tmp_path])
    assert set(found.splits) == {"train", "test"}
    assert label_pictures(found, role="train").classes == {0: "forest", 1: "sea"}


COCO = {
    "images": [{"id": 5, "file_name": "a.jpg"}, {"id": 6, "file_name": "b.jpg"}],
    "annotations": [
        {"image_id": 5, "category_id": 1}, {"image_id": 5, "category_id": 1},
        {"image_id": 6, "category_id": 2},
    ],
    "categories": [{"id": 1, "name": "sea"}, {"id": 2, "name": "forest"}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("coco.json", json.dumps(COCO)),
        ("labels.yaml", "a.jpg: sea\nb.jpg: forest  # said twice\n"),
        ("labels.yml", "sea:\n  - a.jpg\nforest: [b.jpg]\n"),
        ("pairs.yaml", "labels:\n- file: a.jpg\n  label: sea\n- file: b.jpg\n  label: forest\n"),
    ],
)
def test_labels_of_coco_and_yaml(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "set").mkdir()
    for picture in ("a.jpg", "b.jpg"):
        (tmp_path / "set" / picture).write_bytes(b"")
    (tmp_path / name).write_text(text)
    images = open_images([tmp_path / "set"], labels=str(tmp_path / name))
    assert [images.classes[i] for i in images.labels().tolist()] == ["sea", "forest"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", json.dumps({**COCO, "annotations": [
            {"image_id": 5, "category_id": 1}, {"image_id": 5, "category_id": 2}]}),
         r"'a\.jpg' shows several categories, expected one a picture: write a CSV"),
        ("a.json", json.dumps({**COCO, "annotations": [{"image_id": 5, "caption": "x"}]}),
         "COCO without categories"),
        ("a.yaml", "train: images/train\nnames: [cat, dog]\n", "expected|no label"),
        ("a.yaml", "&x a: 1", "as YAML: the line .* is no plain YAML"),
    ],
)  # fmt: skip
def test_coco_and_yaml_of_something_else(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=message):
        open_images([tmp_path], labels=str(tmp_path / name))
