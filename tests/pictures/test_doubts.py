"""Sets whose names or lists give reason to look twice: it is said, once, and nothing is guessed."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adm_cli.errors import AdmError, UsageError
from adm_cli.files.foreign import START, describe_foreign, describe_zip
from adm_cli.files.manifests import render_line
from adm_cli.pictures.datasets import list_pictures, open_images
from adm_cli.pictures.doubts import alike, twice
from adm_cli.pictures.ranges import with_value_range
from adm_cli.pictures.splits import half_splits, split_role

_PNG = b"\x89PNG\r\n\x1a\n"


def put(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(_PNG)
    return root


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("7.jpg", "7.seg.png", "8.jpg", "8.seg.png"), "(2): 7.jpg and 7.seg.png"),
        (("x/1.jpg", "x/1.png", "y/1.jpg"), "(1): x/1.jpg and x/1.png"),
        (("cat.0.jpg", "cat.1.jpg", "dog.0.jpg"), ""),  # a number is no ending
        (("a.jpg", "a.1.jpg", "a.b.c/1.jpg", "a.b.c/2.jpg"), ""),
        (("1.jpg", "10.jpg", "2.jpg"), ""),
        (("x.y.014.jpg", "x.y.042.jpg"), ""),
        (("Shot at 3.04.05 PM.png", "Shot at 3.05.10 PM.png"), ""),
    ],
)
def test_pictures_of_one_name(names: tuple[str, ...], said: str) -> None:
    found = twice(sorted(names))
    assert [said in note for note in found] == ([True] if said else [])


def test_classes_of_nearly_one_name(tmp_path: Path) -> None:
    for names, said in (
        (("cat", "cat ", "dog"), "'cat' and 'cat '"),
        (("Cat", "cat"), "'Cat' and 'cat'"),
        (("cafe\u0301", "caf\u00e9"), r"'cafe\u0301' and 'caf\xe9'"),
    ):
        (note,) = alike(names)
        assert said in note
    assert not alike(("cat", "cats", "cat 2"))
    images = open_images([put(tmp_path, "cat/1.png", "Cat/2.png")])
    assert any("told apart (1), e.g. 'Cat' and 'cat'" in note for note in images.notes)


@pytest.mark.parametrize(
    ("role", "words"),
    [
        (
            "train",
            "x_train treinamento entraînement 训练集 訓練 обучение addestramento 学習",
        ),
        ("validation", "validación validação Validierung validazione 验证 検証"),
        ("test", "y_test prueba teste Testdaten private_test 测试集 テスト тест"),
        (None, "a x_y trainer 训 contest пёс"),
    ],
)
def test_splits_of_other_languages(role: str | None, words: str) -> None:
    assert {split_role(word) for word in words.split()} == {role}


def test_splits_of_most_classes() -> None:
    """One picture outside, and all of the test set would be trained on."""
    names = ["cat/train/1.png", "cat/test/2.png", "dog/train/3.png", "dog/test/4.png", "dog/5.png"]
    assert half_splits(names) == ["test", "train"]
    assert half_splits(["cat/test/1.png", "cat/2.png", "dog/3.png"]) == []


@pytest.mark.parametrize("word", ["照片", "写真", "사진", "снимок", "Bild", "imagen", "imagem"])
def test_what_cameras_elsewhere_call_pictures(tmp_path: Path, word: str) -> None:
    images = open_images([put(tmp_path, *(f"{word}_{i}.png" for i in range(3)), "foto_1.png")])
    assert not images.classes
    assert "unlabelled (or --labels names)" in images.notes[-1]


def test_a_set_without_labels_says_so(tmp_path: Path) -> None:
    images = open_images([put(tmp_path, "cat.0.png", "dog.0.png")])
    assert images.notes == ("no labels in folders or names: unlabelled (or --labels FILE)",)


def test_lists_that_hold_some_pictures_out(tmp_path: Path) -> None:
    """Names with their accents apart, as macOS stores them, are found by those in a list."""
    put(tmp_path / "set", "cafe\u0301.png", "b.png")
    table = "file_name,label,Split\ncaf\u00e9.png,x,train\nb.png,y,test\n"
    (tmp_path / "mine.csv").write_text(table, encoding="utf-8")
    for labels, name in ((str(tmp_path / "mine.csv"), "mine.csv"), ("auto", "metadata.csv")):
        (tmp_path / "set" / "metadata.csv").write_text(table, encoding="utf-8")
        images = open_images([tmp_path / "set"], labels=labels)
        assert images.classes == {0: "x", 1: "y"}
        assert any(f"{name}: its split is not read" in note for note in images.notes)
    lines = '{"file_name": "b.png", "label": "y", "is_train": 0}\n'
    (tmp_path / "l.jsonl").write_text(lines + '{"file_name": "caf\u00e9.png", "label": "x"}\n')
    images = open_images([tmp_path / "set"], labels=str(tmp_path / "l.jsonl"))
    assert "its is_train is not read" in images.notes[0]


def test_values_beyond_sixteen_bits(tmp_path: Path) -> None:
    """They were all white."""
    values = np.arange(16, dtype=np.int32).reshape(4, 4) * 2**16
    (tmp_path / "a").mkdir()
    Image.fromarray(values).save(tmp_path / "a" / "1.tiff")
    images = open_images([tmp_path])
    with pytest.raises(AdmError, match=r"more than 16 bits hold.*--value-range 983040"):
        with_value_range(images, None).decode(0)
    grey = np.asarray(with_value_range(images, "983040").decode(0))[..., 0]
    assert (grey.min(), grey.max()) == (0, 255)


def test_pictures_in_an_archive_are_not_to_be_unpacked(tmp_path: Path) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x/1.JPG"))
    assert "adm train-diffusion FILE --dry-run" in str(
        describe_foreign(data.getvalue()[:START], "a.tar")
    )
    assert "training takes it as it is" in str(describe_zip(["a/1.png"]))
    with pytest.raises(UsageError, match="no pictures"):
        list_pictures([put(tmp_path / "empty", "x/1.txt")])


def test_sheets_and_films_of_a_run_are_none_of_its_images(tmp_path: Path) -> None:
    """They were trained on with the images."""
    put(tmp_path, "a/0.png", "a/1.png", "a/grid.png", "a/film.gif", "b/grid.png")
    (tmp_path / "a/run.json").write_text("{}")
    lines = [{"file": f"{i}.png", "bytes": 8, "sha256": "0" * 64} for i in range(2)]
    (tmp_path / "a/manifest.jsonl").write_bytes(b"".join(map(render_line, lines)))
    listing = list_pictures([tmp_path])
    assert [named.name for named, _ in listing.pictures] == ["a/0.png", "a/1.png", "b/grid.png"]
    assert "passed over, no images of their run: a/film.gif, a/grid.png" in listing.notes
    (tmp_path / "a/manifest.jsonl").unlink()  # of another program
    assert len(list_pictures([tmp_path]).pictures) == 5


def test_the_sheet_of_a_sweep_is_no_picture_of_it(tmp_path: Path) -> None:
    put(tmp_path, "s/sheet.png", "s/sweep.png", "s/cell/1.png", "plain/sheet.png")
    (tmp_path / "s" / "sweep.json").write_text("{}")
    names = [named.name for named, _ in list_pictures([tmp_path]).pictures]
    assert names == ["plain/sheet.png", "s/cell/1.png"]
