"""Sets of pictures: what is found where, and which class it becomes."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import pickle
import random
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from adm_cli.errors import AdmError, UsageError
from adm_cli.pictures.archives import ZipSource
from adm_cli.pictures.datasets import (
    ImageSet,
    keep_classes,
    open_images,
    pictures_per_class,
    split_images,
)
from tests.golden_arrays import ROOT

GOLDFISH, SHARK, CRANE = "n01443537", "n01484850", "n02012849"  # of ImageNet: 1, 2, 134
TWO = ["cat/1.png", "cat/2.png", "dog/1.png"]


def content(name: str) -> bytes:
    return f"bytes of {name}".encode()


def folder(path: Path, names: Iterable[str]) -> Path:
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content(name))
    path.mkdir(exist_ok=True)
    return path


def zip_of(path: Path, names: Iterable[str], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name in names:
            file.writestr(name, content(name))
    return path


def tar_of(path: Path, files: Mapping[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            file.addfile(entry, io.BytesIO(data))
    return path


def listed(images: ImageSet) -> list[tuple[str, str | None]]:
    """Names and the names of their classes."""
    return [(p.name, None if p.label is None else images.classes[p.label]) for p in images.pictures]


def ids(images: ImageSet) -> list[int | None]:
    return [picture.label for picture in images.pictures]


# classes by folder


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    images = open_images([folder(tmp_path, ["dog/b.png", "cat/2.jpg", "cat/1.png", "readme.txt"])])
    assert listed(images) == [("cat/1.png", "cat"), ("cat/2.jpg", "cat"), ("dog/b.png", "dog")]
    assert (images.classes, images.num_classes, len(images)) == ({0: "cat", 1: "dog"}, 2, 3)
    assert images.labels().tolist() == [0, 0, 1]
    assert images.labels().dtype == "int64"
    assert pictures_per_class(images) == {0: 2, 1: 1}
    assert [images.read(i) for i in (0, 2)] == [content("cat/1.png"), content("dog/b.png")]
    assert images.name(1) == f"{tmp_path}/cat/2.jpg"


def test_the_present_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path, TWO)
    monkeypatch.chdir(tmp_path)
    assert [p.name for p in open_images([Path(".")]).pictures] == TWO
    assert open_images([Path("cat/../dog")]).read(0) == content("dog/1.png")


@pytest.mark.parametrize("above", ["train/", "a/b/c/"])
def test_leading_folders_name_no_class(tmp_path: Path, above: str) -> None:
    images = open_images([folder(tmp_path, [above + name for name in TWO])])
    assert listed(images) == [(above + name, name[:3]) for name in TWO]
    one = open_images([folder(tmp_path / "one", [above + TWO[0]])])
    assert listed(one) == [(above + TWO[0], "cat")]


def test_folders_below_a_class_are_of_the_class(tmp_path: Path) -> None:
    names = ["cat/indoors/1.png", "cat/outdoors/deep/1.png", "dog/indoors/1.png", "dog/2.png"]
    assert ids(open_images([folder(tmp_path, names)])) == [0, 0, 1, 1]


@pytest.mark.parametrize("layout", ["{}/x.JPEG", "{}/images/x.JPEG", "train/{}/images/x.JPEG"])
@pytest.mark.parametrize("wnids", [[GOLDFISH], [CRANE, SHARK, GOLDFISH]], ids=["one", "three"])
def test_wordnet_ids_are_imagenet_s_classes(tmp_path: Path, wnids: list[str], layout: str) -> None:
    images = open_images([folder(tmp_path, [layout.format(wnid) for wnid in wnids])])
    names = {1: "goldfish", 2: "great white shark", 134: "crane"}
    expected = {GOLDFISH: 1, SHARK: 2, CRANE: 134}
    assert ids(images) == [expected[wnid] for wnid in sorted(wnids)]
    assert images.classes == {expected[w]: names[expected[w]] for w in sorted(wnids)}
    assert images.num_classes == 1000


def test_a_strange_wordnet_id_makes_names_of_all(tmp_path: Path) -> None:
    images = open_images([folder(tmp_path, [f"{GOLDFISH}/1.png", "n99999999/1.png"])])
    assert (images.classes, images.num_classes) == ({0: GOLDFISH, 1: "n99999999"}, 2)


def test_whole_numbers_stay(tmp_path: Path) -> None:
    images = open_images([folder(tmp_path, ["10/a.png", "007/a.png", "2/a.png", "7/a.png"])])
    assert ids(images) == [7, 10, 2, 7]
    assert (images.classes, images.num_classes) == ({2: "2", 7: "7", 10: "10"}, 11)
    mixed = open_images([folder(tmp_path, ["x/a.png"])])
    assert (mixed.classes, mixed.num_classes) == ({2: "2", 7: "7", 10: "10", 11: "x"}, 12)


def test_one_class(tmp_path: Path) -> None:
    images = open_images([folder(tmp_path, ["cat/1.png", "cat/2.png"])])
    assert (ids(images), images.classes, images.num_classes) == ([0, 0], {0: "cat"}, 1)


@pytest.mark.parametrize("labels", ["auto", "folders"])
def test_pictures_outside_the_class_folders_are_refused(tmp_path: Path, labels: str) -> None:
    folder(tmp_path, [*TWO, "b_3.png", "c_4.png"])
    match = r"2 of 5 pictures are in no class folder, e\.g\. b_3\.png: .*--labels names or --la"
    with pytest.raises(UsageError, match=match):
        open_images([tmp_path], labels=labels)
    assert open_images([tmp_path], labels="none").classes == {}


def test_no_folders_where_they_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="1 of 1 pictures is in no class folder"):
        open_images([folder(tmp_path, ["cat_1.png"])], labels="folders")


# classes by name, or none


def test_names_with_labels(tmp_path: Path) -> None:
    images = open_images([folder(tmp_path, ["dog_1.jpg", "cat_2_3.jpg", "cat_1.jpg"])])
    assert ids(images) == [0, 0, 1]
    assert images.classes == {0: "cat", 1: "dog"}
    wnid = open_images([folder(tmp_path / "wnid", [f"{GOLDFISH}_10.JPEG"])])
    assert (ids(wnid), wnid.num_classes) == ([1], 1000)


def test_names_without_labels(tmp_path: Path) -> None:
    images = open_images([folder(tmp_path, ["cat_1.jpg", "2.jpg"])])
    assert ids(images) == [None, None]
    assert (images.classes, images.num_classes) == ({}, None)
    assert images.labels().tolist() == [-1, -1]
    assert pictures_per_class(images) == {}


def test_labels_by_name_pass_over_folders(tmp_path: Path) -> None:
    folder(tmp_path, ["a/dog_1.png", "b/cat_1.png", "b/cat_2.png", "plain.png"])
    images = open_images([tmp_path], labels="names")
    assert images.classes == {0: "cat", 1: "dog", 2: "plain.png"}
    assert ids(images) == [1, 0, 0, 2]
    assert ids(open_images([tmp_path], labels="none")) == [None] * 4


def test_listing_and_classes_are_the_original_s(tmp_path: Path) -> None:
    golden = json.loads((ROOT / "training" / "dataset_listing.json").read_text())
    # we read WebP too
    on_disk = [name for name in golden["files_on_disk"] if not name.endswith(".webp")]
    images = open_images([folder(tmp_path, on_disk)], labels="names")
    assert [picture.name for picture in images.pictures] == golden["listed_in_order"]
    assert ids(images) == golden["class_of_each"]
    assert {name: i for i, name in images.classes.items()} == golden["class_index"]


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_hidden_files_are_passed_over(tmp_path: Path, kind: str) -> None:
    hidden = ["cat/._1.png", ".git/a/1.png", "cat/.thumbnails/1.png", ".x.png"]
    names = [*TWO, *hidden, "__MACOSX/cat/1.png"]
    if kind == "folder":
        path = folder(tmp_path / "x", names)
    elif kind == "zip":
        path = zip_of(tmp_path / "x.zip", names)
    else:
        path = tar_of(tmp_path / "x.tar", dict.fromkeys(names, b""))
    assert [picture.name for picture in open_images([path]).pictures] == TWO


def test_extensions(tmp_path: Path) -> None:
    names = "a.BMP a.GIF a.JPEG a.JPG a.PNG a.PPM a.TIF a.TIFF a.WebP a.jpg.png".split()
    others = ["a.txt", "a.mp4", "jpg", "a.png.part", "a.svg"]
    images = open_images([folder(tmp_path, names + others)])
    assert [picture.name for picture in images.pictures] == names


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", TWO)
    elsewhere = folder(tmp_path / "elsewhere", ["1.png", "deep/2.png"])
    (data / "eel").symlink_to(elsewhere)
    (data / "fox").symlink_to(elsewhere)  # twice the same is nobody's circle
    (data / "cat" / "again").symlink_to(data)
    (elsewhere / "deep" / "back").symlink_to(data)
    names = [picture.name for picture in open_images([data]).pictures]
    found = [f"{name}/{n}" for name in ("eel", "fox") for n in ("1.png", "deep/2.png")]
    assert names == [*TWO, *found]


# archives


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_a_zip(tmp_path: Path, method: int) -> None:
    path = zip_of(tmp_path / "x.zip", reversed(TWO), method)
    images = open_images([path])
    assert listed(images) == [(name, name[:3]) for name in TWO]
    assert [images.read(i) for i in range(3)] == [content(name) for name in TWO]
    assert images.name(2) == f"{path}/dog/1.png"


def test_a_zip_by_another_name(tmp_path: Path) -> None:
    assert len(open_images([zip_of(tmp_path / "pictures.cbz", TWO)])) == 3


def test_several_zips(tmp_path: Path) -> None:
    one = zip_of(tmp_path / "1.zip", ["dog/1.png", "eel/1.png"])
    two = zip_of(tmp_path / "2.zip", ["cat/1.png", "dog/1.png"])
    images = open_images([one, two])
    assert images.classes == {0: "cat", 1: "dog", 2: "eel"}
    assert ids(images) == [1, 2, 0, 1]
    assert [picture.source for picture in images.pictures] == [0, 0, 1, 1]
    assert images.name(3) == f"{two}/dog/1.png"


def test_untidy_names_in_archives(tmp_path: Path) -> None:
    """As some tools write them: with a leading ./ or /, or with Windows's separators."""
    untidy = ["./cat/1.png", "/cat//2.png", "dog\\1.png"]
    tar = tar_of(tmp_path / "x.tar", {name: content(name) for name in untidy})
    for path in (zip_of(tmp_path / "x.zip", untidy), tar):
        images = open_images([path])
        assert listed(images) == [(name, name[:3]) for name in TWO]
        assert [images.read(i) for i in range(3)] == [content(name) for name in untidy]


def test_a_zip_from_several_threads(tmp_path: Path) -> None:
    names = [f"cat/{i:03}.png" for i in range(100)]
    images = open_images([zip_of(tmp_path / "x.zip", names)])
    again: ImageSet = pickle.loads(pickle.dumps(images))  # not opened yet
    with ThreadPoolExecutor(8) as pool:
        for one in (images, again):
            assert list(pool.map(one.read, range(100))) == [content(name) for name in names]


def _read_all(images: ImageSet, to: Connection) -> None:
    to.send([images.read(i) for i in range(len(images))])
    to.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # libraries' idle threads
def test_a_zip_after_a_fork(tmp_path: Path) -> None:
    """Parent and children read at the same time: none moves another's position."""
    names = [f"cat/{i:03}.png" for i in range(300)]
    images = open_images([zip_of(tmp_path / "x.zip", names, zipfile.ZIP_STORED)])
    context = multiprocessing.get_context("fork")
    children = []
    for _ in range(2):
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=_read_all, args=(images, theirs))
        child.start()
        theirs.close()
        children.append((child, ours))
    expected = [content(name) for name in names]
    assert [images.read(i) for i in range(300)] == expected
    for child, ours in children:
        assert ours.recv() == expected
        child.join()
        ours.close()


def test_sets_can_be_pickled(tmp_path: Path) -> None:
    tar = tar_of(tmp_path / "x.tar", {name: content(name) for name in TWO})
    images = open_images([zip_of(tmp_path / "x.zip", TWO), tar, folder(tmp_path / "x", TWO)])
    again: ImageSet = pickle.loads(pickle.dumps(images))
    assert again.fingerprint() == images.fingerprint()
    assert [again.read(i) for i in range(9)] == [content(name) for name in TWO * 3]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_damaged_zips(tmp_path: Path, method: int) -> None:
    """Refused in one way, when opened or when read, or whole all the same."""
    data = zip_of(tmp_path / "x.zip", TWO, method).read_bytes()
    dice, refused = random.Random(0), 0
    for _ in range(40):
        damaged = bytearray(data)
        for _ in range(2):
            damaged[dice.randrange(len(data))] = dice.randrange(256)
        (tmp_path / "x.zip").write_bytes(damaged)
        try:
            images = open_images([tmp_path / "x.zip"])
            for i in range(len(images)):
                images.read(i)
        except AdmError:
            refused += 1
    assert refused > 12


@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
def test_a_zip_cut_short(tmp_path: Path, part: float) -> None:
    path = zip_of(tmp_path / "x.zip", TWO)
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(
        UsageError, match=r"cannot read .*x\.zip: (it is no zip|its directory is damaged)"
    ):
        open_images([path])


def test_a_damaged_picture_in_a_zip(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "x.zip", TWO, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(content(TWO[1]), content(TWO[0]), 1))
    images = open_images([path])
    assert images.read(0) == content(TWO[0])
    with pytest.raises(AdmError, match=r"cannot read .*x\.zip/cat/2\.png: .*Bad CRC-32"):
        images.read(1)


def test_pictures_that_went_away(tmp_path: Path) -> None:
    images = open_images([folder(tmp_path, TWO)])
    (tmp_path / TWO[0]).unlink()
    with pytest.raises(AdmError, match=r"cannot read .*/cat/1\.png: .*No such file"):
        images.read(0)


# tars


def test_a_tar(tmp_path: Path) -> None:
    images = open_images([tar_of(tmp_path / "x.TAR", {name: content(name) for name in TWO})])
    assert listed(images) == [(name, name[:3]) for name in TWO]
    assert [images.read(i) for i in range(3)] == [content(name) for name in TWO]


@pytest.mark.parametrize("ending", ["cls", "json", "CLS"])
def test_webdataset_shards(tmp_path: Path, ending: str) -> None:
    def label(i: int) -> bytes:
        return b'{"label": %d, "x": []}' % i if ending == "json" else b"%d\n" % i

    shards = []
    for number, values in enumerate([(5, 3), (0, 5)]):
        files = {}
        for i, value in enumerate(values):
            files[f"{i:05}.jpg"] = content(f"{number} {i}")
            files[f"{i:05}.{ending}"] = label(value)
        shards.append(tar_of(tmp_path / f"{number}.tar", files))
    images = open_images(shards)
    assert ids(images) == [5, 3, 0, 5]
    assert (images.classes, images.num_classes) == ({0: "0", 3: "3", 5: "5"}, 6)
    assert images.read(2) == content("1 0")
    assert ids(open_images(shards, labels="none")) == [None] * 4


def test_words_beside_pictures(tmp_path: Path) -> None:
    folder(tmp_path, ["1.png", "2.png"])
    (tmp_path / "1.cls").write_text("dog")
    (tmp_path / "2.json").write_text('{"cls": "cat"}')
    assert listed(open_images([tmp_path])) == [("1.png", "dog"), ("2.png", "cat")]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("2.cls", b" \n"),
        ("2.json", b"{"),
        ("2.json", b"[" * 90_000),
        ("2.json", b"1.5"),
        ("2.json", b"{}"),
        ("2.json", b'{"label": null}'),
        ("2.json", b'{"label": NaN}'),
        ("2.json", b'{"label": [1, 2]}'),
        ("2.json", b'{"label": ""}'),
        ("2.json", b"\xff\xfe"),
    ],
)
def test_no_label_in_the_file_beside(tmp_path: Path, name: str, data: bytes) -> None:
    folder(tmp_path, ["1.png", "2.png"])
    (tmp_path / "1.cls").write_text("dog")
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UsageError, match=rf"/{name}: expected a label: mend it, or pass --labels"):
        open_images([tmp_path])


def test_labels_beside_some_pictures_only(tmp_path: Path) -> None:
    folder(tmp_path, ["1.png", "2.png"])
    (tmp_path / "2.cls").write_text("dog")
    with pytest.raises(UsageError, match=r"/1\.png has no label beside it, unlike others"):
        open_images([tmp_path])
    (tmp_path / "2.cls").rename(tmp_path / "3.cls")
    assert open_images([tmp_path]).classes == {}


@pytest.mark.parametrize(
    ("ending", "method"),
    [("tar.gz", "gz"), ("tgz", "gz"), ("TAR.GZ", "gz"), ("tar.xz", "xz"), ("tar.bz2", "bz2")],
)
def test_compressed_tars_are_refused(tmp_path: Path, ending: str, method: str) -> None:
    path = tar_of(tmp_path / f"x.{ending}", {TWO[0]: b""}, f"w:{method}")
    with pytest.raises(UsageError, match=r"compressed as a whole, .*: unpack it, or make a plain"):
        open_images([path])


def test_damaged_tars(tmp_path: Path) -> None:
    """A damaged entry is not the end, as it is to tarfile."""
    path = tar_of(tmp_path / "x.tar", {name: bytes(600) for name in TWO})
    data = path.read_bytes()
    images = open_images([path])
    path.write_bytes(data[:1800])
    assert len(images.read(0)) == 600
    with pytest.raises(AdmError, match=r"cannot read .*/cat/2\.png: .*is cut short"):
        images.read(1)
    for at in (0, 1536, 3072):  # the three headers
        path.write_bytes(data[: at + 5] + b"\xff" + data[at + 6 :])
        with pytest.raises(UsageError, match=r"cannot read .*x\.tar"):
            open_images([path])
    for length in (0, 100, 1000, 1700, 4000):
        path.write_bytes(data[:length])
        with pytest.raises(UsageError, match=r"cannot read .*x\.tar"):
            open_images([path])
    path.write_bytes(data[: 3 * 1536])  # without the zeros at the end, as tar itself accepts
    assert len(open_images([path])) == 3


def test_links_in_tars_are_passed_over(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as file:
        file.addfile(tarfile.TarInfo("cat/1.png"))
        link = tarfile.TarInfo("cat/2.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    images = open_images([tmp_path / "x.tar"])
    assert [p.name for p in images.pictures] == ["cat/1.png"]
    assert "passed over 1 link in place of pictures, e.g. cat/2.png" in images.notes[0]


# nothing to read


def test_nothing_to_read(tmp_path: Path) -> None:
    for path in (folder(tmp_path / "a", []), zip_of(tmp_path / "a.zip", [])):
        with pytest.raises(UsageError, match=r"no pictures in .*: expected \.jpg, "):
            open_images([path])
    with pytest.raises(UsageError, match="no pictures in"):
        open_images([folder(tmp_path / "b", ["cat/readme.txt", ".x.png"])])
    with pytest.raises(UsageError, match="no such folder or file of pictures: nowhere"):
        open_images([Path("nowhere")])
    with pytest.raises(UsageError, match="no such folder or file of pictures: aaaa"):
        open_images([Path("a" * 5000)])


def test_a_file_that_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"\x89PNG")
    with pytest.raises(UsageError, match=r"x\.png: expected a folder, a \.zip or an uncompressed"):
        open_images([tmp_path / "x.png"])


def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path, TWO)

    def scandir(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UsageError, match=r"cannot read the folder .*: Permission denied"):
        open_images([tmp_path])


# labels from a CSV file


def with_csv(path: Path, text: str | bytes, names: Iterable[str] = TWO) -> ImageSet:
    """The pictures ``names`` with a CSV file as their labels."""
    table = path / "labels.csv"
    table.write_bytes(text.encode() if isinstance(text, str) else text)
    return open_images([folder(path / "pictures", names)], labels=str(table))


@pytest.mark.parametrize("heading", ["", "file,label\n", "File , CLASS \n", "x,y\n", "\n,\n"])
def test_csv(tmp_path: Path, heading: str) -> None:
    text = heading + "cat/2.png,eel\ncat/1.png, fox \n\ndog/1.png,eel\nno/such.png,gnu\n"
    images = with_csv(tmp_path, text)
    assert [label for _, label in listed(images)] == ["fox", "eel", "eel"]
    assert (images.classes, images.num_classes) == ({0: "eel", 1: "fox"}, 2)


@pytest.mark.parametrize("column", ["label", "class", "class_name", "class_id", "category"])
@pytest.mark.parametrize("file", ["file", "filename", "file_name", "path", "image", "name"])
def test_csv_columns(tmp_path: Path, file: str, column: str) -> None:
    text = f"width,{column},height,{file}\n9,eel,8,1.png\n9,fox,8,2.png\n"
    images = with_csv(tmp_path, text, ["1.png", "2.png"])
    assert [label for _, label in listed(images)] == ["eel", "fox"]


def test_csv_with_and_without_folders(tmp_path: Path) -> None:
    text = '1.png,eel\n"./cat/2.png",fox\ndog\\3.png,gnu\ncat/1.png,hen\n'
    images = with_csv(tmp_path, text, ["cat/1.png", "cat/2.png", "dog/1.png", "dog/3.png"])
    # the whole name comes before the bare one
    assert [label for _, label in listed(images)] == ["hen", "fox", "eel", "gnu"]


@pytest.mark.parametrize("text", ["cat/1.png,eel\n", "cat/1.png,eel\ncat/2.png, \ndog/1.png,\n"])
def test_csv_without_a_label(tmp_path: Path, text: str) -> None:
    match = r"labels\.csv has no label for 2 of 3 pictures, e\.g\. cat/2\.png"
    with pytest.raises(UsageError, match=match):
        with_csv(tmp_path, text)


def test_csv_of_numbers(tmp_path: Path) -> None:
    images = with_csv(tmp_path, "cat/1.png,12\ncat/2.png,3\ndog/1.png,003\n")
    assert ids(images) == [12, 3, 3]
    assert (images.classes, images.num_classes) == ({3: "3", 12: "12"}, 13)
    wnids = with_csv(tmp_path, f"cat/1.png,{CRANE}\ncat/2.png,{SHARK}\ndog/1.png,{SHARK}\n")
    assert (ids(wnids), wnids.num_classes) == ([134, 2, 2], 1000)


@pytest.mark.parametrize("label", ["-1", "1000000", str(10**30)])
def test_impossible_numbers(tmp_path: Path, label: str) -> None:
    with pytest.raises(
        UsageError, match=f"labels must be from 0 to 999999, got {label}: name that"
    ):
        with_csv(tmp_path, f"1.png,{label}\n2.png,5\n")
    assert with_csv(tmp_path, "1.png,999999\n2.png,0\n").num_classes == 10**6


def test_class_names_can_be_printed(tmp_path: Path) -> None:
    assert with_csv(tmp_path, "1.png,loup-cervier\n2.png,山猫 🐈\n").classes[1] == "山猫 🐈"
    with pytest.raises(UsageError, match=r"the class name 'a\\x1b\[2J' has characters that can"):
        with_csv(tmp_path, "1.png,a\x1b[2J\n2.png,b\n")


def test_csv_with_a_byte_order_mark(tmp_path: Path) -> None:
    images = with_csv(tmp_path, "1.png,eel\r\n2.png,fox\r\n".encode("utf-8-sig"))
    assert images.classes == {0: "eel", 1: "fox"}
    images = with_csv(tmp_path, "label,file\neel,1.png\nfox,2.png\n".encode("utf-8-sig"))
    assert images.classes == {0: "eel", 1: "fox"}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "expected at least two columns"),
        ("1.png\n2.png\n", "expected at least two columns"),
        ("x,label,file\n9,eel,1.png\n9,eel\n", "the row '9,eel' has too few columns"),
        (b"\x89PNG\r\n\x1a\n\0\0", r"cannot read .*labels\.csv as CSV"),
        ("1.png,eel\n".encode("utf-16-le"), r"cannot read .*labels\.csv as CSV"),
        ("1.png," + "e" * 200_000, r"cannot read .*labels\.csv as CSV: field larger"),
    ],
)
def test_no_csv(tmp_path: Path, text: str | bytes, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        with_csv(tmp_path, text)


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        ("folder", r"--labels folder: expected auto, .* or a CSV file; did you mean folders\?"),
        ("Names", r"did you mean names"),
        ("quite/else.csv", r"or a CSV file$"),
        ("", r"or a CSV file$"),
        ("n" * 5000, r"or a CSV file$"),
    ],
)
def test_no_such_csv(tmp_path: Path, labels: str, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        open_images([folder(tmp_path, TWO)], labels=labels)


# another set's classes


def test_validation_takes_the_training_set_s_ids(tmp_path: Path) -> None:
    training = open_images([folder(tmp_path / "a", [*TWO, "ant/1.png"])])
    held = folder(tmp_path / "b", ["dog/8.png", "cat/8.png"])
    assert ids(open_images([held])) == [0, 1]
    validation = open_images([held], known=training)
    assert ids(validation) == [1, 2]
    assert (validation.classes, validation.num_classes) == (training.classes, 3)
    folder(held, ["eel/8.png", "fox/8.png"])
    match = r"have 2 classes that the training pictures have not, e\.g\. eel"
    with pytest.raises(UsageError, match=match):
        open_images([held], known=training)


def test_validation_of_wordnet_ids(tmp_path: Path) -> None:
    crane = "n03126707"  # the machine, 517: a namesake of the bird
    training = open_images([folder(tmp_path / "a", [f"{w}/1.png" for w in (SHARK, CRANE, crane)])])
    assert training.classes[517] == training.classes[134] == "crane"
    held = folder(tmp_path / "b", [f"{w}/1.png" for w in (CRANE, SHARK, crane)])
    validation = open_images([held], known=training)
    assert ids(validation) == [2, 134, 517]
    assert validation.num_classes == 1000
    with pytest.raises(UsageError, match=rf"1 class that .*e\.g\. {GOLDFISH}"):
        open_images([folder(held, [f"{GOLDFISH}/1.png"])], known=training)


def test_validation_of_wordnet_ids_only_where_they_mean_the_same(tmp_path: Path) -> None:
    training = open_images([folder(tmp_path / "a", [f"{i}/1.png" for i in (1, 999)])])
    assert training.num_classes == 1000
    with pytest.raises(UsageError, match=rf"e\.g\. {GOLDFISH}"):
        open_images([folder(tmp_path / "b", [f"{GOLDFISH}/1.png"])], known=training)


def test_validation_of_numbers(tmp_path: Path) -> None:
    training = open_images([folder(tmp_path / "a", ["003/1.png", "012/1.png"])])
    validation = open_images([folder(tmp_path / "b", ["012/2.png", "3/2.png"])], known=training)
    assert ids(validation) == [12, 3]
    with pytest.raises(UsageError, match=r"e\.g\. 4"):
        open_images([folder(tmp_path / "c", ["4/2.png"])], known=training)


def test_validation_with_labels_on_one_side(tmp_path: Path) -> None:
    labelled = folder(tmp_path / "a", TWO)
    plain = folder(tmp_path / "b", ["1.png"])
    assert ids(open_images([labelled], known=open_images([plain]))) == [None] * 3
    with pytest.raises(UsageError, match="the validation pictures have no labels"):
        open_images([plain], known=open_images([labelled]))


# parts of a set


def many(path: Path, **counts: int) -> ImageSet:
    return open_images(
        [folder(path, [f"{c}/{i}.png" for c, n in counts.items() for i in range(n)])]
    )


def test_keep_classes(tmp_path: Path) -> None:
    images = many(tmp_path, ant=2, bee=1, cat=3)
    kept = keep_classes(images, [2, 0, 7])
    assert ids(kept) == [0, 0, 2, 2, 2]
    assert (kept.classes, kept.num_classes) == ({0: "ant", 2: "cat"}, 3)
    assert kept.read(2) == content("cat/0.png")
    assert len(keep_classes(images, [])) == 0
    plain = open_images([folder(tmp_path / "plain", ["1.png"])])
    assert keep_classes(plain, [0]) is plain


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.3, 0.5, 0.99])
def test_split(tmp_path: Path, fraction: float) -> None:
    images = many(tmp_path, ant=20, bee=1, cat=10, dog=2)
    training, validation = split_images(images, fraction, 0)
    both = {*training.pictures, *validation.pictures}
    assert both == set(images.pictures)
    assert len(training) + len(validation) == len(images)
    for part in (training, validation):
        assert part.classes == images.classes
        assert list(part.pictures) == [p for p in images.pictures if p in part.pictures]
    held = {0.0: {}, 0.1: {0: 2, 2: 1}, 0.3: {0: 6, 2: 3, 3: 1}, 0.5: {0: 10, 2: 5, 3: 1}}
    assert pictures_per_class(validation) == held.get(fraction, {0: 19, 2: 9, 3: 1})


def test_a_class_of_ten_spares_one(tmp_path: Path) -> None:
    images = many(tmp_path, ant=10, bee=9, cat=30)
    assert pictures_per_class(split_images(images, 0.02, 0)[1]) == {0: 1, 2: 1}
    assert len(split_images(images, 0.0, 0)[1]) == 0


def test_split_is_a_function_of_the_seed_and_the_class(tmp_path: Path) -> None:
    images = many(tmp_path / "a", ant=20, cat=10)
    one, two = (split_images(images, 0.3, seed)[1] for seed in (1, 1))
    assert one.fingerprint() == two.fingerprint()
    other = split_images(images, 0.3, 2)[1]
    assert set(other.pictures) != set(one.pictures)
    more = split_images(many(tmp_path / "b", ant=20, cat=10, dog=5), 0.3, 1)[1]
    assert set(one.pictures) < set(more.pictures)


def test_split_without_labels(tmp_path: Path) -> None:
    images = open_images([folder(tmp_path, [f"{i}.png" for i in range(10)])])
    training, validation = split_images(images, 0.2, 0)
    assert (len(training), len(validation)) == (8, 2)
    single = open_images([folder(tmp_path / "one", ["1.png"])])
    assert [len(part) for part in split_images(single, 0.9, 0)] == [1, 0]


def test_fingerprint(tmp_path: Path) -> None:
    images = many(tmp_path / "a", ant=2, bee=2)
    assert many(tmp_path / "elsewhere", ant=2, bee=2).fingerprint() == images.fingerprint()
    first, *rest = images.pictures
    changed = [
        replace(images, pictures=(replace(first, name="ant/9.png"), *rest)),
        replace(images, pictures=(replace(first, label=1), *rest)),
        replace(images, pictures=(replace(first, label=None), *rest)),
        replace(images, pictures=(replace(first, source=1), *rest)),
        images.part([1, 0, 2, 3]),
        images.part([0, 1, 2]),
        images.part([0, 1, 2, 3, 3]),
        images.part([]),
    ]
    prints = {one.fingerprint() for one in (images, *changed)}
    assert len(prints) == 1 + len(changed)


def test_a_name_cannot_pass_for_two(tmp_path: Path) -> None:
    images = open_images([folder(tmp_path, ["a.png", "b.png"])])
    trick = replace(images.pictures[0], name="a.png' None\n0 'b.png")
    assert replace(images, pictures=(trick,)).fingerprint() != images.fingerprint()


def test_zip_source_lists_no_folders(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr("cat.png/", b"")
        file.writestr("cat.png/1.png", b"")
    assert ZipSource(tmp_path / "x.zip").names() == ["cat.png/1.png"]
