"""Lists and tables as Excel, Windows, pandas and shells write them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adm_cli.errors import UsageError
from adm_cli.files.lists import decode_text, read_rows
from adm_cli.pictures.datasets import open_images
from adm_cli.pictures.label_files import parse_labels
from tests.pictures.test_datasets import TWO, folder, listed, with_csv

ROWS = [["cat/1.png", "eel"], ["cat/2.png", "fox"], ["dog/1.png", "eel"]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";", "\t", " ", "   ", ", "])
def test_one_table(encoding: str, end: str, separator: str) -> None:
    data = end.join(separator.join(row) for row in ROWS).encode(encoding)
    assert read_rows(data) == ROWS
    assert read_rows(data + (end + end).encode(encoding)) == ROWS  # with another mark


def test_cells() -> None:
    assert read_rows(b'"a, b.png",fox\n"c ""d"".png", "e"\n') == [
        ["a, b.png", "fox"],
        ['c "d".png', '"e"'],
    ]
    assert read_rows(b"a b.png cat\n") == [["a b.png", "cat"]]
    assert read_rows(b"a,b.png;cat\nc,d.png;dog\n") == [["a,b.png", "cat"], ["c,d.png", "dog"]]


@pytest.mark.parametrize("data", [b"\x89PNG\r\n", "a,b".encode("utf-16-le"), b"a\0b"])
def test_no_text(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"not UTF-8|zero bytes"):
        decode_text(data)


# how a list names pictures


@pytest.mark.parametrize(
    "keys",
    [
        ["cat/1.png", "cat/2.png", "dog/1.png"],
        ["cat/1", "cat/2", "dog/1"],
        ["/home/b/set/cat/1.png", "/home/b/set/cat/2.png", "/home/b/set/dog/1.png"],
        [r"C:\set\cat\1.png", r"C:\set\cat\2.png", r"C:\set\dog\1.png"],
        ["./cat/1.jpeg", "./cat/2.jpeg", "./dog/1.jpeg"],
        ["set/cat/1", "set/cat/2", "set/dog/1"],
    ],
)
def test_names_of_a_list(tmp_path: Path, keys: list[str]) -> None:
    images = with_csv(tmp_path, "".join(f"{k},{v}\n" for k, v in zip(keys, "abc", strict=True)))
    assert [label for _, label in listed(images)] == ["a", "b", "c"]


def test_ids_of_pictures_in_folders(tmp_path: Path) -> None:
    images = with_csv(tmp_path, "id,breed\n0b1,eel\n0c2,fox\n", ["train/0b1.jpg", "train/0c2.jpg"])
    assert [label for _, label in listed(images)] == ["eel", "fox"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.jsonl", "".join(json.dumps({"file_name": n, "label": n[:3]}) + "\n" for n in TWO)),
        ("l.json", json.dumps([{"image": n, "category": n[:3]} for n in TWO])),
        ("l.json", json.dumps({n: n[:3] for n in TWO})),
        ("l.json", json.dumps({"labels": [[n, n[:3]] for n in TWO]})),
        ("l.txt", "".join(f"{n} {n[:3]}\n" for n in TWO)),
        ("l.tsv", "label\tfile\n" + "".join(f"{n[:3]}\t{n}\n" for n in TWO)),
        ("l.csv", "x;target;filename\r\n" + "".join(f"9;{n[:3]};{n}\r\n" for n in TWO)),
        ("l.csv", "\ufefffile,breed\n" + "".join(f"{n},{n[:3]}\n" for n in TWO)),
    ],
)
def test_files_of_labels(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, newline="")
    images = open_images([folder(tmp_path / "p", TWO)], labels=str(tmp_path / name))
    assert listed(images) == [(n, n[:3]) for n in TWO]
    assert images.notes == ()


def test_whole_numbers_as_pandas_writes_them(tmp_path: Path) -> None:
    images = with_csv(tmp_path, "file,label\ncat/1.png,3.0\ncat/2.png,1.0\ndog/1.png,3.0\n")
    assert images.labels().tolist() == [3, 1, 3]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (
            "a/1.png,eel\nb/2.png,fox\n",
            r"no label for 3 of 3 pictures, .*; it names e\.g\. a/1\.png",
        ),
        ("cat/1.png,eel\ncat/1.png,fox\n", "gives cat/1.png two labels, eel and fox"),
        ("file,width,breed\ncat/1.png,9,eel\n", "no column is called label: 'file, width, breed'"),
        ("width,label,picture\n9,eel,cat/1.png\n", "no column is called file"),
    ],
)
def test_the_reason_is_named(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        with_csv(tmp_path, text)


def test_a_name_that_ends_two_others_is_neither(tmp_path: Path) -> None:
    table = parse_labels(b"x/a/1.png,eel\nx/b/1.png,fox\n", "l.csv", "l.csv")
    assert table is not None
    assert (table.find("1.png"), table.find("a/1.png")) == (None, "eel")


def test_json_lines_that_are_none(tmp_path: Path) -> None:
    for text in ("{", "3\n", '{"file_name": "cat/1.png"}\n', ""):
        (tmp_path / "l.jsonl").write_text(text)
        with pytest.raises(UsageError, match=r"l\.jsonl"):
            open_images([folder(tmp_path / "p", TWO)], labels=str(tmp_path / "l.jsonl"))
