"""Pictures of more than 8 bits: what is white in them, and that a guess is said."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from adm_cli.errors import AdmError, UsageError
from adm_cli.pictures.datasets import ImageSet, open_images
from adm_cli.pictures.decode import (
    EXTENSIONS,
    BadPictureError,
    decode_picture,
    peak_value,
    pixels_of,
)
from adm_cli.pictures.depth import ValueRange, parse_value_range
from adm_cli.pictures.ranges import with_value_range

Values = npt.NDArray[np.uint16]


def png16(values: Values) -> bytes:
    """A PNG of 16 bits a channel: [H, W] or [H, W, 2 to 4]."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    height, width = values.shape[:2]
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[1 if values.ndim == 2 else values.shape[2]]
    head = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff16(values: Values, order: str) -> bytes:
    """An uncompressed RGB TIFF of 16 bits a channel, in either byte order."""
    height, width, _ = values.shape
    data = values.astype(f"{order}u2").tobytes()
    start = 8 + 2 + 9 * 12 + 4
    tags = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, start), (259, 3, 1, 1),
        (262, 3, 1, 2), (273, 4, 1, start + 6), (277, 3, 1, 3), (278, 4, 1, height),
        (279, 4, 1, len(data)),
    ]  # fmt: skip
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    for tag, kind, count, value in tags:
        short = kind == 3 and count == 1
        packed = struct.pack(
            f"{order}HH" if short else f"{order}I", *((value, 0) if short else (value,))
        )
        out += struct.pack(f"{order}HHI", tag, kind, count) + packed
    return out + struct.pack(f"{order}I3H", 0, 16, 16, 16) + data


def tiff(values: npt.NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "TIFF")
    return file.getvalue()


def ppm16(values: Values) -> bytes:
    """A binary PGM or PPM: [H, W] or [H, W, 3]."""
    head = f"P{5 if values.ndim == 2 else 6}\n{values.shape[1]} {values.shape[0]}\n65535\n"
    return head.encode() + values.astype(">u2").tobytes()


def with_alpha(grey: Values) -> Values:
    return np.stack([grey, np.full_like(grey, 65535)], axis=-1)


def ramp(high: int, *shape: int) -> Values:
    return np.linspace(0, high, int(np.prod(shape))).round().astype(np.uint16).reshape(shape)


def set_of(path: Path, *files: bytes, ending: str = "png") -> ImageSet:
    for i, data in enumerate(files):
        (path / f"{i}.{ending}").write_bytes(data)
    return open_images([path], labels="none")


MAKERS = {
    "grey png": lambda high: png16(ramp(high, 4, 4)),
    "rgb png": lambda high: png16(ramp(high, 4, 4, 3)),
    "grey and alpha png": lambda high: png16(with_alpha(ramp(high, 4, 4))),
    "grey pgm": lambda high: ppm16(ramp(high, 4, 4)),
    "rgb ppm": lambda high: ppm16(ramp(high, 4, 4, 3)),
    "grey tiff": lambda high: tiff(ramp(high, 4, 4)),
    "little rgb tiff": lambda high: tiff16(ramp(high, 4, 4, 3), "<"),
    "big rgb tiff": lambda high: tiff16(ramp(high, 4, 4, 3), ">"),
}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("high", [1023, 4095, 16383])
def test_fewer_bits_in_files_of_sixteen(tmp_path: Path, kind: str, high: int) -> None:
    data = MAKERS[kind](high)
    ending = kind.rsplit(maxsplit=1)[-1].replace("tiff", "tif")
    assert peak_value(data) == high
    images = with_value_range(set_of(tmp_path, data, data, ending=ending), None)
    (note,) = images.notes
    assert note == f"16-bit files with values up to {high}: {high} is white (or --value-range)"
    shape = (4, 4, 3) if "rgb" in kind else (4, 4, 1)
    expected = np.broadcast_to((ramp(high, *shape) * (255 / high)).round(), (4, 4, 3))
    assert np.array_equal(np.asarray(images.decode(0)), expected)
    said = with_value_range(images, f"{high}")
    assert np.array_equal(np.asarray(said.decode(1)), expected)


@pytest.mark.parametrize("high", [256, 1024, 4096, 16384])
def test_a_power_of_two_is_white_itself(tmp_path: Path, high: int) -> None:
    """Four times as much was: the pictures were nearly black."""
    images = with_value_range(set_of(tmp_path, png16(ramp(high, 4, 4)), png16(ramp(9, 4, 4))), None)
    (note,) = images.notes
    assert note == f"16-bit files with values up to {high}: {high} is white (or --value-range)"
    assert np.asarray(images.decode(0)).max() == 255
    images.decode(1)


@pytest.mark.parametrize(
    ("peak", "white"), [(100, 255), (300, 1023), (1500, 4095), (5000, 16383), (20000, 65535)]
)
def test_a_doubt_where_all_pictures_would_be_dark(tmp_path: Path, peak: int, white: int) -> None:
    images = with_value_range(set_of(tmp_path, png16(ramp(peak, 4, 4))), None)
    (note,) = images.notes
    assert note == (
        f"16-bit files with values up to {peak}: {white} is white, far above them all "
        f"(--value-range {peak} makes them brighter)"
    )
    assert np.asarray(images.decode(0)).max() == round(peak * 255 / white)
    assert np.asarray(with_value_range(images, f"{peak}").decode(0)).max() == 255


def test_black_pictures_are_no_doubt(tmp_path: Path) -> None:
    assert not with_value_range(set_of(tmp_path, png16(ramp(0, 4, 4))), None).notes


@pytest.mark.parametrize(("peak", "wider"), [(4096, 4096), (5000, 16383), (20_000, 65535)])
def test_what_a_wrong_guess_asks_for(peak: int, wider: int) -> None:
    """65535 was asked for, whatever the picture holds."""
    with pytest.raises(BadPictureError, match=rf"end at 4095: pass --value-range {wider}$"):
        decode_picture(png16(ramp(peak, 4, 4)), "x", ValueRange(0, 4095, given=False))


def test_all_sixteen_bits_are_no_guess(tmp_path: Path) -> None:
    images = with_value_range(
        set_of(tmp_path, MAKERS["rgb png"](65535), png16(ramp(9, 4, 4))), None
    )
    assert (images.values, images.notes) == (None, ())
    eight = io.BytesIO()
    Image.new("RGB", (4, 4), (9, 9, 9)).save(eight, "PNG")
    (tmp_path / "8").mkdir()
    assert with_value_range(set_of(tmp_path / "8", eight.getvalue(), b"none"), None).values is None


def test_a_guess_that_a_picture_belies(tmp_path: Path) -> None:
    """Not cut off without a word."""
    data = [png16(ramp(4095, 4, 4)) for _ in range(40)]
    data[1] = png16(ramp(30_000, 4, 4))  # which is not among those looked at
    images = with_value_range(set_of(tmp_path, *data), None)
    assert images.values == ValueRange(0, 4095, given=False)
    at = next(i for i, p in enumerate(images.pictures) if p.name == "1.png")
    with pytest.raises(
        BadPictureError, match=r"1\.png: values up to 30000, .* --value-range 65535"
    ):
        images.decode(at)
    asked = with_value_range(images, "4095")
    assert np.asarray(asked.decode(at)).max() == 255


def test_a_range_from_above_zero() -> None:
    values = np.array([[0, 100, 160, 200, 999]], dtype=np.uint16)
    found = decode_picture(png16(values), "x", parse_value_range("100,200"))
    assert np.asarray(found)[0, :, 0].tolist() == [0, 0, 153, 255, 255]


def test_transparency_has_all_its_bits() -> None:
    values = np.zeros((2, 2, 4), dtype=np.uint16)
    values[..., 0], values[..., 3] = 4095, 65535
    found = decode_picture(png16(values), "x", ValueRange(0, 4095, given=False))
    assert np.asarray(found)[0, 0].tolist() == [255, 0, 0]
    assert peak_value(png16(values)) == 4095


def test_floating_point_needs_a_range() -> None:
    data = tiff(np.array([[0, 0.5, 1, 2]], dtype=np.float32))
    with pytest.raises(BadPictureError, match="no known range: pass --value-range"):
        decode_picture(data, "x")
    found = decode_picture(data, "x", parse_value_range("1"))
    assert np.asarray(found)[0, :, 1].tolist() == [0, 128, 255, 255]
    bad = tiff(np.array([[np.nan, 1]], dtype=np.float32))
    with pytest.raises(BadPictureError, match="NaN"):
        decode_picture(bad, "x", parse_value_range("1"))


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "5,5", "9,1", "1,2,3", "nan", "0,inf", ","])
def test_no_range(text: str) -> None:
    with pytest.raises(UsageError, match="--value-range"):
        parse_value_range(text)


@pytest.mark.parametrize("ending", ["jfif", "jpe", "JIF", "avif", "jp2", "j2k", "pgm", "apng"])
def test_other_endings(tmp_path: Path, ending: str) -> None:
    if f".{ending.lower()}" not in EXTENSIONS:
        pytest.skip("this Pillow does not read it")
    kinds = {"avif": "AVIF", "jp2": "JPEG2000", "j2k": "JPEG2000", "pgm": "PPM", "apng": "PNG"}
    file = io.BytesIO()
    mode = "L" if ending == "pgm" else "RGB"
    Image.new(mode, (16, 16), 200 if mode == "L" else (200, 40, 90)).save(
        file, kinds.get(ending, "JPEG")
    )
    images = set_of(tmp_path, file.getvalue(), ending=ending)
    assert images.decode(0).size == (16, 16)
    with pytest.raises(AdmError):
        decode_picture(file.getvalue()[:20], "x")


@pytest.mark.parametrize("high", [3000, 30000])
def test_values_below_zero_need_a_range(tmp_path: Path, high: int) -> None:
    """As scans have them: cut off at 0, half of what they show would be gone without a word."""
    values = np.linspace(-1000, high, 16).astype(np.int32).reshape(4, 4)
    images = with_value_range(set_of(tmp_path, tiff(values), ending="tif"), None)
    with pytest.raises(BadPictureError, match=rf"pass --value-range=-1000,{high}"):
        images.decode(0)
    given = with_value_range(images, f"-1000,{high}")
    grey = np.asarray(given.decode(0))[..., 0].ravel()
    assert (grey[0], grey[-1]) == (0, 255)


def test_a_ppm_of_twelve_bits_says_so_itself() -> None:
    data = ppm16(ramp(4095, 4, 4, 3)).replace(b"65535", b"4095", 1)
    assert peak_value(data) == 65535


@pytest.mark.parametrize("kind", ["rgba", "la", "palette", "deep grey", "deep colour"])
def test_parts_make_the_same_picture(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Large pictures are read some rows at a time; small ones here, one row."""
    generator = np.random.default_rng(0)
    if kind.startswith("deep"):
        shape = (7, 5) if kind == "deep grey" else (7, 5, 4)
        data = png16(generator.integers(0, 4096, shape).astype(np.uint16))
    else:
        rgba = Image.fromarray(generator.integers(0, 256, (7, 5, 4), dtype=np.uint8))
        file = io.BytesIO()
        image = rgba.convert("LA") if kind == "la" else rgba
        image = rgba.convert("P") if kind == "palette" else image
        image.save(file, "PNG", **({"transparency": 3} if kind == "palette" else {}))
        data = file.getvalue()
    within = ValueRange(0, 4095, given=True)
    whole = np.asarray(decode_picture(data, "x", within))
    monkeypatch.setattr("adm_cli.pictures.depth._AT_ONCE", 1)
    parts = decode_picture(data, "x", within)
    assert np.array_equal(pixels_of(parts), whole)
    if kind.startswith("deep"):
        assert (peak_value(data) or 0) > 3000


def _with_tag(data: bytes, number: int, old: int, new: int) -> bytes:
    before, after = (struct.pack("<HHIH", number, 3, 1, value) for value in (old, new))
    assert before in data
    return data.replace(before, after)


@pytest.mark.parametrize("high", [65535, 4095])
def test_a_tiff_whose_white_is_0(tmp_path: Path, high: int) -> None:
    """As scanners and X-rays have it: it was a negative."""
    values = ramp(high, 4, 4)
    for name, data in (("a", tiff(values)), ("b", _with_tag(tiff(values), 262, 1, 0))):
        (tmp_path / f"{name}.tif").write_bytes(data)
    images = with_value_range(open_images([tmp_path]), None)
    usual, negative = (np.asarray(images.decode(i), dtype=int) for i in range(2))
    assert usual.max() == 255
    assert (usual + negative == 255).all()


def test_a_tiff_of_8_bits_with_a_sign() -> None:
    """100 above zero was black, 100 below it white."""
    data = _with_tag(tiff(np.zeros((4, 4), dtype=np.int32)), 258, 32, 8)
    with pytest.raises(BadPictureError, match="8 bits have a sign"):
        decode_picture(data, "x.tif")
