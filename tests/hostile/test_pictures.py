"""Hostile pictures, archives and label files, through training and `adm info`, `adm repro`."""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from tests.conftest import Toys
from tests.hostile.files import png, png_chunk, zeros_deflated
from tests.hostile.sandbox import Arguments, harmless, in_groups, refused, slug

TRAIN: Arguments = [
    "train-classifier",
    "set",
    "--size",
    8,
    "--channels",
    32,
    "--device",
    "cpu",
    "--steps",
    1,
    "--val-split",
    0,
    "--quiet",
]


def saved(kind: str, size: tuple[int, int] = (16, 16), **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 10, 10)).save(buffer, kind, **options)
    return buffer.getvalue()


def patched(data: bytes, place: int, value: bytes) -> bytes:
    return data[:place] + value + data[place + len(value) :]


def zip_of(members: dict[str, bytes], level: int = 6) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


def ppm(header: bytes) -> bytes:
    return header + bytes(300)


def ifd(entries: int, following: int) -> bytes:
    """A TIFF whose directory lies."""
    rows = b"".join(
        struct.pack("<HHII", 256 + i % 100, 4, 2**31, 8) for i in range(min(entries, 200))
    )
    return b"II*\0" + struct.pack("<IH", 8, entries) + rows + struct.pack("<I", following)


def film() -> bytes:
    """A WebP of two frames."""
    file, frames = io.BytesIO(), [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:])
    return file.getvalue()


BOMB = zeros_deflated(300 << 20)
FILM = film()
GIF, JPEG, BMP, TIFF, WEBP = (saved(kind) for kind in ("GIF", "JPEG", "BMP", "TIFF", "WEBP"))
PICTURES: dict[str, bytes] = {
    "nothing": b"",
    "text": b"this is no picture",
    "zeros": bytes(4096),
    "PNG of 2^31 squared": png(2**31 - 1, 2**31 - 1, pixels=b""),
    "PNG of 65,535 squared": png(65535, 65535, pixels=b""),
    "PNG of 9,500 squared": png(9500, 9500, pixels=b""),
    "PNG of no size": png(0, 0, pixels=b""),
    "PNG of a hair": png(30000, 1),
    "PNG of depth 0": png(depth=0),
    "PNG of colour 255": png(colour=255),
    "PNG without pixels": png(pixels=b""),
    "PNG with few pixels": png(pixels=bytes(5)),
    "PNG with 300 MB of text": png(
        extra=png_chunk(b"zTXt", b"adm\0\0" + BOMB), pixels=b""),
    "PNG with 300 MB of iTXt": png(
        extra=png_chunk(b"iTXt", b"adm\0\1\0\0\0" + BOMB), pixels=b""),
    "PNG with 300 MB of profile": png(
        extra=png_chunk(b"iCCP", b"x\0\0" + BOMB), pixels=b""),
    "PNG with 50,000 texts": png(extra=png_chunk(b"tEXt", b"a\0" + b"x" * 2000) * 50_000),
    "PNG with a wrong sum": patched(png(), 29, b"\0\0\0\0"),
    "PNG with a chunk of 2 GB": png()[:33] + struct.pack(">I", 2**31 - 1) + b"IDAT",
    "PNG without an end": png()[:-30],
    "PNG of a million frames": png(
        extra=png_chunk(b"acTL", struct.pack(">II", 10**6, 0)), pixels=b""),
    "GIF of 65,535 squared": patched(GIF, 6, b"\xff\xff\xff\xff"),
    "GIF with a wild code": GIF[:-20] + b"\x0c" + b"\xff" * 300,
    "GIF head": GIF[:12],
    "JPEG of 65,500 squared": JPEG.replace(
        b"\x00\x11\x08\x00\x10\x00\x10", b"\x00\x11\x08\xff\xdc\xff\xdc"),
    "JPEG of no size": JPEG.replace(
        b"\x00\x11\x08\x00\x10\x00\x10", b"\x00\x11\x08\x00\x00\x00\x00"),
    "JPEG half": JPEG[: len(JPEG) // 2],
    "JPEG without tables": JPEG.replace(b"\xff\xdb", b"\xff\xfe"),
    "BMP of 2^31": patched(BMP, 18, struct.pack("<ii", 2**31 - 1, 2**31 - 1)),
    "BMP upside down by 2^31": patched(BMP, 18, struct.pack("<ii", 16, -(2**31))),
    "BMP of depth 77": patched(BMP, 28, b"\x4d\0"),
    "TIFF of a circle": ifd(3, 8),
    "TIFF of 65,535 entries": ifd(65535, 0),
    "TIFF half": TIFF[: len(TIFF) // 2],
    "TIFF of a tag of 4 GB": TIFF[:4] + struct.pack("<I", 8) + ifd(5, 0)[8:],
    "WebP half": WEBP[: len(WEBP) // 2],
    "WebP of a wide canvas": patched(FILM, 24, b"\xff\xff\x69"),
    "WebP of a large canvas": patched(FILM, 24, b"\xfe\x3f\0\xfe\x3f\0"),
    "WebP of 4 GB": patched(WEBP, 4, b"\xff\xff\xff\xff"),
    "WebP of 16,384": patched(WEBP, 24, b"\xff\xff\xff\xff"),
    "PPM of 10^12": ppm(b"P6 1000000 1000000 255\n"),
    "PPM of a long number": ppm(b"P6 " + b"9" * 5000 + b" 1 255\n"),
    "PPM of depth 2^31": ppm(b"P6 8 8 2147483647\n"),
    "PPM of no size": ppm(b"P6 0 0 255\n"),
    "PPM of comments": ppm(b"P6 " + b"#x\n" * 10**5),
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(canary) (w) file\n",
    "PDF": b"%PDF-1.7\n1 0 obj<</S/JavaScript>>",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><script>x()</script></svg>',
    "PSD": b"8BPS\0\1" + bytes(60),
    "ICO": b"\0\0\1\0\1\0" + bytes(60),
    "ICNS": b"icns\0\0\0\x10" + bytes(60),
    "TGA": bytes([0, 0, 2]) + bytes(9) + b"\x08\0\x08\0\x18\0" + bytes(192),
    "SGI": b"\x01\xda\0\1\0\3" + bytes(600),
    "FLI": b"\0\0\0\0\x11\xaf" + bytes(600),
    "DDS": b"DDS \x7c\0\0\0" + bytes(200),
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(60),
    "XBM": b"#define x_width 8\n#define x_height 8\nstatic char x_bits[] = {0};",
    "WMF": b"\xd7\xcd\xc6\x9a" + bytes(60),
    "FITS": b"SIMPLE  =                    T" + bytes(200),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(60),
    "MPEG": b"\0\0\1\xb3" + bytes(60),
    "a zip": zip_of({"a": b"x"}),
    "a pickle": b"\x80\x02cos\nsystem\n(X\x0c\0\0\0touch canarytR.",
    **{f"PNG cut at {i}": saved("PNG")[:i] for i in range(1, len(saved("PNG")) - 30, 9)},
    **{f"JPEG cut at {i}": JPEG[:i] for i in range(1, len(JPEG) - 40, 60)},
    **{f"WebP cut at {i}": WEBP[:i] for i in range(1, len(WEBP) - 2, 9)},
    **{f"GIF cut at {i}": GIF[:i] for i in range(1, len(GIF) - 40, 70)},
}  # fmt: skip


def labelled(folder: Path) -> Path:
    """Two classes of good pictures."""
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i in range(2):
            (folder / name / f"{i}.png").write_bytes(saved("PNG", (12, 12)))
    return folder


@pytest.mark.parametrize("names", in_groups(PICTURES), ids=lambda names: slug(names[0]))
def test_pictures(folder: Path, names: list[str]) -> None:
    """Each beside good ones in a training set of its own, and as the picture to tell of."""
    commands: list[Arguments] = []
    for i, name in enumerate(names):
        data = labelled(folder / str(i))
        for suffix in (".png", ".webp"):
            (data / "cat" / f"bad{suffix}").write_bytes(PICTURES[name])
            commands += [[c, data / "cat" / f"bad{suffix}"] for c in ("info", "repro")]
        commands.append([TRAIN[0], data, *TRAIN[2:], "--out", "run"])
    refused(folder, *commands)
    assert not (folder / "canary").exists()


def member(name: str, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def tar_of(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as file:
        for info, data in members:
            info.size = info.size or len(data)
            file.addfile(info, io.BytesIO(data) if data else None)
    return buffer.getvalue()


PNG = saved("PNG", (12, 12))
TWO = {"cat/0.png": PNG, "dog/0.png": PNG}
GOOD_ZIP, GOOD_TAR = zip_of(TWO), tar_of(*((member(n), d) for n, d in TWO.items()))
ARCHIVES: dict[str, bytes] = {
    "empty.zip": zip_of({}),
    "nothing.zip": b"",
    "climbs.zip": zip_of({"../../cat/0.png": PNG, "../../dog/0.png": PNG}),
    "absolute.zip": zip_of({"/../etc/x.png": PNG}),
    "bomb.zip": zip_of({"cat/big.png": bytes(540 << 20), **TWO}, level=1),
    "picture of text.zip": zip_of({"cat/0.png": b"x" * 10**6, "dog/0.png": PNG}),
    "encrypted.zip": GOOD_ZIP.replace(b"PK\x03\x04\x14\0\0", b"PK\x03\x04\x14\0\1").replace(
        b"PK\x01\x02\x14\x03\x14\0\0", b"PK\x01\x02\x14\x03\x14\0\1"),
    "method.zip": GOOD_ZIP.replace(b"\x14\0\0\0\x08\0", b"\x14\0\0\0\x63\0"),
    "half.zip": GOOD_ZIP[: len(GOOD_ZIP) // 2],
    "end.zip": b"PK\x05\x06" + bytes(18),
    "entries.zip": GOOD_ZIP[:-22] + b"PK\x05\x06" + b"\xff" * 18,
    "control.zip": zip_of({"c\x1b[2Jat/0.png": PNG, "dog/0.png": PNG}),
    "lines.zip": zip_of({"cat\nadm: fine/0.png": PNG, "dog/0.png": PNG}),
    "right to left.zip": zip_of({"\u202ecat/0.png": PNG, "dog/0.png": PNG}),
    "long class.zip": zip_of({"c" * 60_000 + "/0.png": b"", "dog/0.png": PNG}),
    "labels.zip": zip_of({"0.png": PNG, "0.json": b"[" * 10**6, "1.png": PNG, "1.json": b"{}"}),
    "label 10^30.zip": zip_of({"0.png": PNG, "0.cls": b"9" * 31, "1.png": PNG, "1.cls": b"1"}),
    "label -1.zip": zip_of({"0.png": PNG, "0.cls": b"-1", "1.png": PNG, "1.cls": b"1"}),
    "label bomb.zip": zip_of({"0.png": PNG, "0.cls": bytes(50 << 20), "1.png": PNG, "1.cls": b"1"}),
    "empty.tar": bytes(10240),
    "nothing.tar": b"",
    "text.tar": b"no tar at all" * 100,
    "climbs.tar": tar_of((member("../../cat/0.png"), PNG), (member("../dog/0.png"), PNG)),
    "absolute.tar": tar_of((member("/../etc/x.png"), PNG)),
    "half.tar": GOOD_TAR[:700],
    "sum.tar": patched(GOOD_TAR, 150, b"x"),
    "size.tar": tar_of((member("cat/0.png", size=10**12), b""), (member("dog/0.png"), PNG)),
    "negative.tar": patched(GOOD_TAR, 124, b"\xff" * 12),
    "link.tar": tar_of((member("cat/0.png", type=tarfile.SYMTYPE, linkname="/etc/passwd"), b"")),
    "hard link.tar": tar_of((member("cat/0.png", type=tarfile.LNKTYPE, linkname="../x"), b"")),
    "device.tar": tar_of((member("cat/0.png", type=tarfile.CHRTYPE, devmajor=1, devminor=5), b"")),
    "pipe.tar": tar_of((member("cat/0.png", type=tarfile.FIFOTYPE), b"")),
    "pax size.tar": tar_of((member("cat/0.png", pax_headers={"size": "99999999999"}), b"")),
    "pax number.tar": tar_of((member("cat/0.png", pax_headers={"size": "many"}), PNG)),
    "long name.tar": tar_of((member("x" * 10**6), PNG), form=tarfile.GNU_FORMAT),
    "control.tar": tar_of((member("\x1b[2J/0.png"), PNG), (member("dog/0.png"), PNG)),
    "compressed.tar.gz": b"\x1f\x8b\x08" + bytes(200),
    "compressed.tgz": b"\x1f\x8b\x08" + bytes(200),
    "rar.rar": b"Rar!\x1a\x07" + bytes(200),
    "picture.png": PNG,
    "weights.safetensors": bytes(2000),
    **{f"cut {i}.zip": GOOD_ZIP[:i] for i in range(30, len(GOOD_ZIP) - 1, 50)},
    **{f"cut {i}.tar": GOOD_TAR[:i] for i in (1, 511, 512, 513, 600, 1023, 1024, 1500)},
}  # fmt: skip


@pytest.mark.parametrize("names", in_groups(ARCHIVES), ids=lambda names: slug(names[0]))
def test_archives(folder: Path, names: list[str]) -> None:
    commands: list[Arguments] = []
    for name in names:
        (folder / name).write_bytes(ARCHIVES[name])
        commands.append([TRAIN[0], name, *TRAIN[2:], "--out", "run"])
    refused(folder, *commands)


TABLES: dict[str, bytes] = {
    "nothing": b"",
    "one column": b"a\nb\n",
    "binary": bytes(range(256)) * 20,
    "UTF-16": "cat/0.png,cat\n".encode("utf-16"),
    "an open quote": b'cat/0.png,"cat\n' * 3,
    "a field of 1 MB": b"cat/0.png," + b"x" * 10**6 + b"\n",
    "NUL bytes": b"cat/0.png,\0\n",
    "a label that clears": b"".join(
        f"{c}/{i}.png,\x1b[2J{c}\n".encode() for c in ("cat", "dog") for i in range(2)),
    "label 10^30": b"".join(
        f"{c}/{i}.png,{'9' * 30}\n".encode() for c in ("cat", "dog") for i in range(2)),
    "label of 5,000 digits": b"".join(
        f"{c}/{i}.png,{'9' * 5000}{i}\n".encode() for c in ("cat", "dog") for i in range(2)),
    "other names": b"../../etc/passwd,cat\n/dev/zero,dog\n",
    "short rows": b"file,label\ncat/0.png\n",
}  # fmt: skip


def test_tables_of_labels(folder: Path) -> None:
    labelled(folder / "set")
    (folder / "folder.csv").mkdir()
    (folder / "zero.csv").symlink_to("/dev/zero")
    for name, data in TABLES.items():
        (folder / f"{slug(name)}.csv").write_bytes(data)
    train = [*TRAIN, "--dry-run", "--labels"]
    done = harmless(folder, *([*train, path] for path in sorted(folder.glob("*.csv"))))
    assert [d.code for d in done].count(0) <= 1  # a label of many digits is a name
    assert all(len(d.err.splitlines()) == bool(d.code) for d in done)


def test_folders(folder: Path) -> None:
    """Pipes, devices and links where pictures should be: none is waited for or read without end."""
    makers: dict[str, Callable[[Path], None]] = {
        "pipe": os.mkfifo,
        "zero": lambda path: path.symlink_to("/dev/zero"),
        "memory": lambda path: path.symlink_to("/proc/self/mem"),
        "nowhere": lambda path: path.symlink_to("nowhere"),
        "circle": lambda path: path.symlink_to(path.name),
    }
    commands: list[Arguments] = []
    for name, make in makers.items():
        data = labelled(folder / name)
        make(data / "cat" / "x.png")
        commands.append([TRAIN[0], data, *TRAIN[2:]])
    refused(folder, *([*command, "--out", "run"] for command in commands))


RECIPE: dict[str, Any] = {
    "adm": "0.1.0", "model": "tiny", "model_sha256": "0" * 64, "classifier": None,
    "classifier_sha256": None, "scale": 0.0, "sampler": "ddim", "steps": "2", "num_steps": 2,
    "eta": None, "clip_denoised": True, "size": [32, 32], "device": "cpu", "dtype": "float32",
    "threads": 1, "torch": "2", "class": 207, "class_name": "x", "seed": 0, "batch_size": 1,
}  # fmt: skip
LIES: dict[str, Any] = {
    "model": ["../../etc/passwd", "x.pt", "/dev/zero", "", 7, None, ["tiny"], "\x1b[2J", "-h"],
    "classifier": ["x.pt", 7, ["a"]],
    "class": [10**30, -1, "207", True, 1.5, 340],
    "seed": [-1, 2**64, 10**30, "0", None, True, 0.5],
    "scale": ["4", None, float("nan"), float("inf"), True],
    "steps": ["0", "9" * 6000, "1," * 10**5 + "1", "ddim0", "-1", 25, None, "1e9", "\x1b]0;x\x07"],
    "sampler": ["exec", "__class__", "", None, 5],
    "eta": [5, -1, "0.5", float("nan")],
    "batch_size": [0, -1, 10**9, "1", None, True],
    "clip_denoised": [1, "True", None],
    "device": ["meta", "cuda:99", "xla", "cpu:-1", "", None, "fpga\x1b[2J", "privateuseone"],
    "dtype": ["int8", "complex64", "", None, "__class__"],
}
TEXTS: dict[str, str] = {
    "no JSON": "{",
    "a list": "[]",
    "a number": "7",
    "nothing": "",
    "empty": "{}",
    "deep": "[" * 10**5,
    "5,000 digits": '{"seed": ' + "9" * 5000 + "}",
    "NUL": "\0",
}


def with_recipe(path: Path, text: str) -> Path:
    """A good picture that says this of itself."""
    image = Image.new("RGB", (32, 32))
    if path.suffix == ".webp":
        exif = Image.Exif()
        exif[0x010E] = text
        image.save(path, "WEBP", lossless=True, exif=exif)
    else:
        info = PngImagePlugin.PngInfo()
        info.add_itxt("adm", text)
        image.save(path, "PNG", pnginfo=info)
    return path


@pytest.mark.parametrize("field", [*LIES, "text"])
def test_recipes_that_lie(folder: Path, field: str) -> None:
    texts = list(TEXTS.values())
    if field != "text":
        texts = [json.dumps({**RECIPE, field: value}) for value in LIES[field]]
        if field == "classifier":
            texts = [json.dumps({**json.loads(text), "scale": 1.0}) for text in texts]
    paths = [
        with_recipe(folder / f"{i}{suffix}", text)
        for i, text in enumerate(texts)
        for suffix in (".png", ".webp")
    ]
    refused(folder, *(["repro", path] for path in paths))
    harmless(folder, *(["info", path, *extra] for path in paths for extra in ([], ["--json"])))


def test_a_recipe_s_names_are_shown_as_text(folder: Path, toys: Toys) -> None:
    for key in ("\x1b[2J", "a\nb", "\u202e", "x" * 10**6):
        path = with_recipe(folder / "x.png", json.dumps({**RECIPE, key: key}))
        harmless(folder, ["info", path], ["info", path, "--json"])
