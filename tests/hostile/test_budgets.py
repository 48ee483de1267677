"""What would take any time or memory is refused at once, whoever reads it; what is large and
usual is read.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import struct
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from adm_cli.checkpoints.format import load_original
from adm_cli.checkpoints.header import read_model_file
from adm_cli.checkpoints.loading import load_model
from adm_cli.checkpoints.originals import read_weights
from adm_cli.errors import AdmError, ConfigError
from adm_cli.files.disk import peek_classes
from adm_cli.files.manifests import render_line
from adm_cli.pictures.archives import FolderSource, TarSource, ZipSource
from adm_cli.pictures.datasets import open_images
from adm_cli.pictures.decode import BadPictureError, decode_picture
from adm_cli.pictures.images import recipe_in
from adm_cli.pictures.label_files import parse_labels
from adm_cli.sampling.choosing.images import Image as RunImage
from adm_cli.sampling.choosing.images import Images, row_from_json
from tests.conftest import Toys
from tests.hostile.files import npy, npz, png, png_chunk, weights
from tests.hostile.sandbox import Arguments, harmless, refused
from tests.hostile.test_fuzz import fuzz
from tests.hostile.test_pickles import in_zip, rezipped, saved
from tests.hostile.test_pictures import PNG, RECIPE, TRAIN, with_recipe
from tests.hostile.test_runs import run_of
from tests.hostile.test_weights import FLAGS

ANCHOR = "time_embed.0.weight"


def header(kind: bytes, size: int) -> bytes:
    """A tar's header that announces so many bytes of names or attributes."""
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def attributes(count: int) -> bytes:
    """A global header of so many, each of which every file after it would get."""
    rows = [f"{len(f'00 x{i:04d}=1') + 1} x{i:04d}=1\n".encode() for i in range(count)]
    data = b"".join(rows)
    return header(b"g", len(data)) + data.ljust(-(-len(data) // 512) * 512, b"\0")


def directory(count: int) -> bytes:
    """A zip of so many names of nothing."""
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, *[0] * 7, 1, *[0] * 6) + b"a"
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0, 0, count * len(entry), 0, 0)
    return entry * count + end


def test_archives(folder: Path) -> None:
    names = []
    for kind in (b"x", b"g", b"L", b"K"):
        with open(folder / f"{kind.decode()}.tar", "wb") as file:
            file.write(header(kind, 3 << 30))
            file.truncate(20_000)  # its rest would be sparse
        names.append(f"{kind.decode()}.tar")
    ends = header(b"L", 5) + b"abcd\0".ljust(512, b"\0")
    (folder / "chain.tar").write_bytes(ends * 5000 + bytes(1024))
    many = attributes(200) + tarfile.TarInfo("a/0.png").tobuf(tarfile.USTAR_FORMAT)
    (folder / "attributes.tar").write_bytes(many + bytes(1024))
    (folder / "many.zip").write_bytes(directory(1_600_000))
    commands: list[Arguments] = [
        [TRAIN[0], name, *TRAIN[2:], "--out", "run"]
        for name in (*names, "chain.tar", "attributes.tar", "many.zip")
    ]
    for done in refused(folder, *commands):
        assert "cannot read" in done.err


def sparse(kind: str) -> bytes:
    """A tar whose file of ten bytes has a hundred thousand gaps."""
    if kind == "old":  # blocks of 21 gaps, each of which says that another follows
        info = bytearray(header(tarfile.GNUTYPE_SPARSE, 0))
        info[482], info[148:156] = 1, b" " * 8
        info[148:156] = b"%06o\0 " % sum(info)
        block = (b"%011o\0" % 1 * 42).ljust(504, b"\0") + b"\1" + bytes(7)
        return bytes(info) + block * 5000
    rows = ("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=a.png")
    text = b"".join(f"{len(row) + 4} {row}\n".encode() for row in rows)
    text += b"27 GNU.sparse.realsize=10\n"
    gaps = b"900000\n" + b"1\n" * 200_000
    padded = gaps.ljust(-(-len(gaps) // 512) * 512, b"\0")
    return header(b"x", len(text)) + text.ljust(512, b"\0") + header(b"0", len(gaps)) + padded


def test_tars_of_many_gaps(folder: Path) -> None:
    """Of 60 MB, they took minutes."""
    for kind in ("old", "new"):
        (folder / f"{kind}.tar").write_bytes(sparse(kind) + bytes(1024))
        (done,) = refused(folder, [TRAIN[0], f"{kind}.tar", *TRAIN[2:], "--out", "run"])
        assert "over 262,144 bytes are too many" in done.err, done.err


def many_parts() -> dict[str, bytes]:
    """Pictures with so many empty parts that reading them takes a minute."""
    files = {}
    for kind in ("JPEG", "GIF"):
        buffer = io.BytesIO()
        Image.new("L", (8, 8)).save(buffer, kind)
        files[kind] = buffer.getvalue()
    jpeg, gif, at = files["JPEG"], files["GIF"], PNG.index(b"IDAT") - 4
    middle = gif.index(b"\x2c")
    return {
        "x.png": PNG[:at] + png_chunk(b"prIv", b"") * 400_000 + PNG[at:],
        "x.jpg": jpeg[:2] + b"\xff\xfe\0\2" * 600_000 + jpeg[2:],
        "x.gif": gif[:middle] + b"\x21\xfe\1a\0" * 400_000 + gif[middle:],
    }


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.gif"])
def test_pictures_of_many_parts(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    data = many_parts()[name]
    monkeypatch.setattr("adm_cli.files.budget.MOST_READS", 1000)
    with pytest.raises(BadPictureError, match="over 1,000 parts"):
        decode_picture(data, name)
    assert recipe_in(data) is None


def test_ids_that_collide(folder: Path, toys: Toys) -> None:
    """As keys, all multiples of 2^61 - 1 are one: a dictionary of them takes any time."""
    ids = [(2**61 - 1) * i for i in range(1, 100_000)]
    info = read_model_file(toys.model).info
    tensors = load_model(toys.model).state_dict()
    classes = json.dumps({str(i): "x" for i in ids})
    weights(folder / "x.safetensors", info, tensors, classes=classes)
    (folder / "list").write_text("".join(f"{i} x\n" for i in ids))
    refused(
        folder,
        ["info", "x.safetensors"],
        ["sample", "--model", "x.safetensors", "--scale", 0],
        ["convert", toys.model, "--flags", FLAGS, "--classes", "@list", "-o", "new.safetensors"],
    )
    assert peek_classes(folder / "x.safetensors") == {}


def test_seeds_of_any_length() -> None:
    row = {"file": "seed*.png", "class": None, "seeds": f"0-{'9' * 5000}"}
    with pytest.raises(ValueError, match="a number of 20 digits at most"):
        row_from_json(row)
    with pytest.raises(ConfigError) as caught:
        Images.of([RunImage("x.png", None, 10**400)])
    assert len(str(caught.value)) < 120


def test_folders_that_link_to_each_other(tmp_path: Path) -> None:
    """Twelve of them have 12! paths."""
    for i in range(12):
        (tmp_path / f"d{i}").mkdir()
        (tmp_path / f"d{i}" / "0.png").write_bytes(PNG)
        for j in set(range(12)) - {i}:
            (tmp_path / f"d{i}" / f"l{j}").symlink_to(f"../d{j}")
    names = FolderSource(tmp_path).names()
    assert {f"d{i}/0.png" for i in range(12)} <= set(names)
    assert len(names) <= 12 * 9


def test_names_of_any_length_are_read(tmp_path: Path) -> None:
    """Of more than a tar's 100 bytes, as PAX and GNU write them."""
    name = "ä" * 90 + "/" + "x" * 200 + ".png"
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with tarfile.open(tmp_path / "x.tar", "w", format=form) as file:
            info = tarfile.TarInfo(name)
            info.size = len(PNG)
            file.addfile(info, io.BytesIO(PNG))
        source = TarSource(tmp_path / "x.tar")
        assert source.names() == [name]
        assert source.read(name, 10**6) == PNG


def colliding(count: int) -> bytes:
    """Keys that are different and all hash to 0."""
    keys = (i * (2**61 - 1) for i in range(1, count))
    pairs = (b"\x8a\x0c" + key.to_bytes(12, "little", signed=True) + b"K\1" for key in keys)
    return b"\x80\2}(" + b"".join(pairs) + b"u."


def replaced(entries: dict[str, Any]) -> bytes:
    """A tensor whose attributes a pickle sets."""
    state = pickle.dumps(entries, 2)[2:-1]  # without protocol and stop

    def change(name: str, data: bytes) -> tuple[str, bytes]:
        return name, data[:-2] + state + b"b" + data[-2:] if name.endswith("data.pkl") else data

    return rezipped(saved({ANCHOR: torch.zeros(4)}), change)


def pickles() -> dict[str, bytes]:
    tensor = torch.zeros(1 << 14)
    return {
        "keys that collide": in_zip(colliding(30_000)),
        "50,000 names of one tensor": saved(dict.fromkeys(map(str, range(50_000)), tensor)),
        "an opener replaced": in_zip(b"\x80\2ccollections\nOrderedDict\n)R}X\5\0\0\0itemsK\1sb."),
        "millions of nothing": in_zip(b"\x80\2" + b"N0" * 2_000_000 + b"}."),
        **{f"{name} replaced": replaced({name: 1}) for name in ("detach", "numel", "shape")},
    }


def test_pickles(folder: Path, toys: Toys) -> None:
    for i, data in enumerate(pickles().values()):
        (folder / f"{i}.pt").write_bytes(data)
    commands: list[Arguments] = [
        ["convert", path.name, "--flags", FLAGS, "-o", "new.safetensors"]
        for path in sorted(folder.glob("*.pt"))
    ]
    refused(folder, *commands)


def test_negated_views_are_read(tmp_path: Path) -> None:
    """And have the values that they show."""
    values = torch.complex(torch.zeros(4), torch.arange(4.0))
    torch.save({ANCHOR: values.conj().imag}, tmp_path / "x.pt")
    read = read_weights(tmp_path / "x.pt").tensors[ANCHOR]
    assert read.tolist() == [0, -1, -2, -3]
    assert not read.is_neg()


@fuzz
@given(st.data())
def test_pickles_that_are_changed(tmp_path_factory: Any, data: st.DataObject) -> None:
    """Plain containers and tensors, or one error."""
    good = bytearray(colliding(3)[:-1] + b"X\1\0\0\0aK\5s.")
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(2, len(good) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "changed.pt"
    path.write_bytes(in_zip(bytes(good)))
    with suppress(AdmError):
        load_original(path)


def test_arrays(folder: Path, toys: Toys) -> None:
    cases = {
        "many": npz(("arr_0.npy", npy(bytes(3 * 700_000), shape=(700_000, 1, 1, 3))), method=8),
        "nothing": npz(("arr_0.npy", npy(shape=(700_000, 8, 0, 3)))),
        "no type": npz(("arr_0.npy", npy(descr="|S0", shape=(700_000, 8, 8, 3)))),
        "no label": npz(
            ("arr_0.npy", npy(bytes(192), shape=(1, 8, 8, 3))),
            ("arr_1.npy", npy(descr="<U0", shape=(1,))),
        ),
        "bare": npy(descr="|O", shape=(1, 8, 8, 3)),
    }
    commands: list[Arguments] = []
    for name, data in cases.items():
        file = f"{name}.npy" if name == "bare" else f"{name}.npz"
        (folder / file).write_bytes(data)
        commands.append(["upsample", file, "--model", toys.plain_upsampler, "--resize"])
    refused(folder, *commands)


NESTED = "[" * 1000 + "]" * 1000


def test_nesting_and_numbers(folder: Path, toys: Toys) -> None:
    """In a picture's recipe, and in flags."""
    texts = [
        json.dumps({**RECIPE, "model": "@"}).replace('"@"', NESTED),
        *(json.dumps({**RECIPE, name: 10**400}) for name in ("scale", "seed", "batch_size")),
        json.dumps({**RECIPE, "guide_interval": [0, 10**400]}),
    ]
    paths = [with_recipe(folder / f"{i}.png", text) for i, text in enumerate(texts)]
    commands: list[Arguments] = [["repro", path] for path in paths]
    refused(folder, *commands)
    torch.save({"a": torch.zeros(1)}, folder / "x.pt")
    flags = [f'{{"image_size": {NESTED}}}', "dict(a=" * 150 + "1" + ")" * 150, "-" * 999 + "1"]
    for given_flags in flags:
        refused(folder, ["convert", "x.pt", "--flags", given_flags, "-o", "y.safetensors"])


def finished(folder: Path, name: str, data: bytes, **facts: Any) -> None:
    """A run of one image, whose line says these facts."""
    folder.mkdir()
    (folder / "run.json").write_bytes(run_of({"file": name, "class": None, "seed": 0}))
    (folder / name).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    record = {"file": name, "bytes": len(data), "sha256": digest, **facts}
    (folder / "manifest.jsonl").write_bytes(render_line(record))


def test_merging_what_is_wrong(folder: Path) -> None:
    finished(folder / "bomb", "seed0.png", png(12_000, 12_000, pixels=b""))
    finished(folder / "text", "seed0.png", b"no picture")
    wrong = [(2**63, 0), (0, 2**64), (0, -1), ("a", 0), (0, [1]), (True, 0)]
    for i, (label, seed) in enumerate(wrong):
        finished(folder / f"{i}", "seed0.png", PNG, **{"class": label, "seed": seed})
    finished(folder / "good", "seed0.png", PNG)
    runs = ["bomb", "text", *map(str, range(len(wrong)))]
    harmless(folder, ["merge", "good", "-o", "y.npz", "--quiet"], codes=(0,))  # names no version
    (folder / "y.npz").unlink()
    wide = ["x%0999999999d.tar", "x%d%d.tar", "x%s.tar", "x%.99999d.tar", "x%(a)d.tar"]
    commands: list[Arguments] = [["merge", run, "-o", "x.npz"] for run in runs]
    commands += [["merge", "good", "--shard-size", 1, "-o", pattern] for pattern in wide]
    refused(folder, *commands)


def test_merging_long_names(folder: Path) -> None:
    for i, name in enumerate(("x" * 200 + ".png", "ü" * 100 + ".png")):
        finished(folder / f"{i}", name, PNG)
        harmless(folder, ["merge", f"{i}", "-o", f"{i}.tar", "--quiet"], codes=(0,))
        with tarfile.open(folder / f"{i}.tar") as file:
            assert file.getnames()[0] == name


def test_a_large_picture_is_fitted(folder: Path, toys: Toys) -> None:
    Image.new("L", (6000, 6000)).save(folder / "x.png", compress_level=1)
    command: Arguments = ["upsample", "x.png", "--model", toys.plain_upsampler, "--resize"]
    harmless(folder, [*command, "--dry-run", "--quiet"], codes=(0,))  # within the sandbox's memory


@fuzz
@given(st.binary(max_size=60), st.sampled_from(["x.csv", "x.json", "x.jsonl", "x.txt"]))
def test_labels_of_anything(data: bytes, name: str) -> None:
    with suppress(AdmError):
        parse_labels(data, name, name)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@fuzz
@given(JSON)
def test_labels_of_any_json(value: Any) -> None:
    for whole in (
        value,
        {"labels": value},
        [["0.png", value]],
        [{"file": "0.png", "label": value}],
    ):
        with suppress(AdmError):
            parse_labels(json.dumps(whole).encode(), "x.json", "x.json")


def test_tables_of_too_much(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "0.png").write_bytes(PNG)
    tables = {
        "lines.csv": b"\n" * 3_000_001,
        "one line.csv": b"a," * 600_000,
        "deep.json": b"[" * 10**6,
        "entries.json": b"[" + b"[]," * 2_500_000 + b"1]",
        "numbers.json": b'{"labels": [["0.png", ' + b"9" * 5000 + b"]]}",
    }
    for name, data in tables.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(AdmError, match=r"over|too large"):
            open_images([tmp_path / "set"], labels=str(tmp_path / name))


def test_a_name_too_long_for_any_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr("a/" * 3000 + "0.png", PNG)
    assert ZipSource(tmp_path / "x.zip").names()
    with pytest.raises(AdmError, match="a name of 6,005 characters"):
        open_images([tmp_path / "x.zip"])


def test_bare_arrays_are_read_as_npz(folder: Path, toys: Toys) -> None:
    np.save(folder / "x.npy", np.zeros((9, 8, 8, 3), np.uint8))
    np.save(folder / "y.npy", np.zeros((9, 3, 8, 8), np.float32))
    command: Arguments = ["upsample", "--model", toys.plain_upsampler, "--dry-run"]
    harmless(folder, [*command, "x.npy"], codes=(0,))
    (done,) = refused(folder, [*command, "y.npy"])
    assert "x.transpose(0, 2, 3, 1)" in done.err
    assert "astype('uint8')" in done.err


def test_a_gallery_of_traps(folder: Path) -> None:
    (folder / "set").mkdir()
    (folder / "set" / "bomb.png").write_bytes(png(12_000, 12_000, pixels=b""))
    (folder / "set" / "text.png").write_bytes(b"no picture")
    (folder / "set" / "zero.png").symlink_to("/dev/zero")
    deep = json.dumps({**RECIPE, "model": "@"}).replace('"@"', NESTED)
    with_recipe(folder / "set" / "deep.png", deep)
    harmless(folder, ["gallery", "set", "-o", "x.html", "--quiet"])
