"""Pictures to train on: whatever people have is decoded, and crops are the original's."""

from __future__ import annotations

import io
import math
import random
import runpy
import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from adm_cli.errors import AdmError
from adm_cli.pictures import decode as pictures
from adm_cli.pictures.decode import (
    BadPictureError,
    center_crop,
    decode_picture,
    random_crop,
    shrink_for_crops,
)
from adm_cli.pictures.images import Pixels
from tests.golden_arrays import arrays

CROPS = "training/crops.safetensors"


def noise(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> Pixels:
    image = decode_picture(data, "x")
    assert image.mode == "RGB"
    return np.asarray(image)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG by hand: of a depth that Pillow does not write, or of a size that it is not."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


# the original's crops


def test_center_crops_are_the_original_s() -> None:
    golden = arrays(CROPS)
    images = [name for name in golden.names() if "." not in name]
    assert images
    for name in images:
        image = Image.fromarray(golden[name].numpy())
        for size in golden.meta["out_sizes"]:
            expected = golden[f"{name}.center{size}"].numpy()
            assert np.array_equal(center_crop(image, (size, size)), expected), (name, size)


def test_random_crops_are_the_original_s() -> None:
    golden = arrays(CROPS)
    compared = 0
    for crop in golden.meta["random_crops"]:
        name, size = f"img{crop['image']}", crop["size"]
        if name not in golden:
            continue
        dice = random.Random(crop["python_random_seed"])
        drawn: list[tuple[int, int]] = []

        def draw(n: int, dice: random.Random = dice, drawn: Any = drawn) -> int:
            drawn.append((n, dice.randrange(n)))
            return int(drawn[-1][1])

        ours = random_crop(Image.fromarray(golden[name].numpy()), (size, size), draw)
        assert np.array_equal(ours, golden[f"{name}.random{size}"].numpy()), (name, size)
        (low, high), (down,), (across,) = crop["randrange_args"]
        assert drawn == [
            (high - low, crop["smaller_dim_size"] - low),
            (down, crop["crop_y"]),
            (across, crop["crop_x"]),
        ]
        compared += 1
    assert compared == sum(".random" in name for name in golden.names())


SHAPES = [(200, 300), (40, 33), (16, 16), (5, 90), (161, 97), (64, 21), (7, 3)]
SIZES = [(16, 16), (12, 20), (20, 12), (8, 64), (7, 5)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", SHAPES)
def test_shrinking_first_changes_no_crop(shape: tuple[int, int], size: tuple[int, int]) -> None:
    image = Image.fromarray(noise(*shape, 3))
    small = shrink_for_crops(image, size)
    assert small.width <= image.width
    for seed in range(4):
        one, two = random.Random(seed), random.Random(seed)
        expected = random_crop(image, size, one.randrange)
        assert expected.shape == (*size, 3)
        assert np.array_equal(random_crop(small, size, two.randrange), expected)


def test_shrinking_shrinks() -> None:
    """To the last halving that every crop has in common: 20 is the most that 16 grows to."""
    assert shrink_for_crops(Image.new("RGB", (640, 330)), (16, 16)).size == (40, 20)
    assert shrink_for_crops(Image.new("RGB", (39, 500)), (16, 16)).size == (39, 500)
    assert shrink_for_crops(Image.new("RGB", (640, 330)), (16, 32)).size == (40, 20)


@pytest.mark.parametrize("least", [0.5, 0.9, 1.0])
def test_how_much_a_crop_takes_off(least: float) -> None:
    image = Image.fromarray(noise(48, 60, 3))
    asked: list[int] = []

    def largest(n: int) -> int:
        asked.append(n)
        return n - 1

    crop = random_crop(image, (16, 16), largest, least)
    assert crop.shape == (16, 16, 3)
    assert asked[0] - 1 == math.ceil(16 / least) - 16  # pixels the shorter side may grow by
    if least == 1:
        assert asked[1] == 1  # the whole height
    small = shrink_for_crops(image, (16, 16), least)
    assert np.array_equal(random_crop(small, (16, 16), lambda n: n - 1, least), crop)


@pytest.mark.parametrize("pick", [lambda n: 0, lambda n: n - 1], ids=["first", "last"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", [*SHAPES, (1, 1), (1, 150), (150, 1)])
def test_crops_of_any_shape(
    shape: tuple[int, int], size: tuple[int, int], pick: Callable[[int], int]
) -> None:
    image = Image.fromarray(noise(*shape, 3))
    for crop in (center_crop(image, size), random_crop(image, size, pick)):
        assert crop.shape == (*size, 3)
        assert crop.dtype == np.uint8


def test_center_crop_takes_the_middle() -> None:
    pixels = noise(8, 12, 3)
    assert np.array_equal(center_crop(Image.fromarray(pixels), (8, 8)), pixels[:, 2:10])
    assert np.array_equal(center_crop(Image.fromarray(pixels), (8, 12)), pixels)
    assert np.array_equal(center_crop(Image.fromarray(pixels[:, :7]), (5, 7)), pixels[1:6, :7])


# decoding


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF", "PPM"])
def test_lossless_formats(kind: str) -> None:
    pixels = noise(6, 9, 3)
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(decoded(encoded(Image.fromarray(pixels), kind, **options)), pixels)


def test_grey_becomes_rgb() -> None:
    grey = noise(6, 9)
    expected = np.stack([grey] * 3, axis=2)
    assert np.array_equal(decoded(encoded(Image.fromarray(grey), "PNG")), expected)
    assert np.array_equal(decoded(encoded(Image.fromarray(grey), "GIF")), expected)


def test_cmyk_jpeg() -> None:
    image = Image.new("RGB", (16, 8), (200, 40, 90))
    data = encoded(image.convert("CMYK"), "JPEG", quality=100)
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.mode == "CMYK"
    assert np.abs(decoded(data).astype(int) - [200, 40, 90]).max() <= 3


def test_palettes() -> None:
    image = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3) % 3, "P")
    image.putpalette([255, 0, 0, 0, 250, 0, 10, 20, 30])
    colours = np.array([[255, 0, 0], [0, 250, 0], [10, 20, 30]])
    expected = colours[np.arange(6).reshape(2, 3) % 3]
    assert np.array_equal(decoded(encoded(image, "PNG")), expected)
    expected[:, 1] = 255  # the second colour clear
    assert np.array_equal(decoded(encoded(image, "PNG", transparency=1)), expected)
    several = encoded(image, "PNG", transparency=bytes([255, 0, 255]))  # one opacity a colour
    assert np.array_equal(decoded(several), expected)
    assert np.array_equal(decoded(encoded(image, "GIF", transparency=1)), expected)


def test_transparent_is_laid_on_white() -> None:
    pixels = noise(5, 7, 4)
    pixels[0, :3, 3] = 0, 255, 128
    expected = 255 + (pixels[..., :3] - 255.0) * pixels[..., 3:] / 255
    result = decoded(encoded(Image.fromarray(pixels), "PNG"))
    assert np.abs(result - expected).max() <= 1
    assert result[0, 0].tolist() == [255, 255, 255]
    assert np.array_equal(result[0, 1], pixels[0, 1, :3])
    webp = encoded(Image.fromarray(pixels), "WEBP", lossless=True, exact=True)
    assert np.array_equal(decoded(webp), result)


def test_transparent_grey_is_laid_on_white() -> None:
    pixels = np.array([[[10, 0], [10, 255], [10, 128]]], dtype=np.uint8)
    result = decoded(encoded(Image.fromarray(pixels, "LA"), "PNG"))
    assert result[0, :2].tolist() == [[255] * 3, [10] * 3]
    assert np.abs(result[0, 2] - 132.0).max() <= 1


@pytest.mark.parametrize(("mode", "clear"), [("L", 7), ("RGB", (7, 7, 7))])
def test_a_transparent_colour_is_white(mode: str, clear: Any) -> None:
    image = Image.new(mode, (2, 1), clear)
    image.putpixel((1, 0), 9 if mode == "L" else (9, 9, 9))
    assert decoded(encoded(image, "PNG", transparency=clear)).tolist() == [[[255] * 3, [9] * 3]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_scaled(kind: str) -> None:
    values = np.array([[0, 128, 129, 257], [32768, 65279, 65406, 65535]], dtype=np.uint16)
    result = decoded(encoded(Image.fromarray(values), kind))
    assert result[..., 0].tolist() == [[0, 0, 1, 1], [128, 254, 254, 255]]
    assert np.array_equal(result, np.repeat(result[..., :1], 3, axis=2))


def test_sixteen_bit_grey_of_either_byte_order() -> None:
    values = np.array([[0, 257 * 3], [257 * 200, 65535]])
    for order in "<>":
        image = Image.fromarray(values.astype(f"{order}u2"))
        assert decoded(encoded(image, "TIFF"))[..., 2].tolist() == [[0, 3], [200, 255]]


def test_sixteen_bit_rgb() -> None:
    """Pillow keeps the upper byte of each value."""
    values = np.array([[[0, 257, 65535], [257 * 9, 257 * 200, 255]]], dtype=">u2")
    data = png(2, 1, 16, 2, b"\0" + values.tobytes())
    assert decoded(data).tolist() == [[[0, 1, 255], [9, 200, 0]]]


def test_one_bit() -> None:
    bits = noise(4, 11) > 127
    expected = np.stack([bits * 255] * 3, axis=2)
    image = Image.fromarray(bits)
    assert image.mode == "1"
    for kind in ("PNG", "BMP", "TIFF"):
        assert np.array_equal(decoded(encoded(image, kind)), expected)


def test_floating_point_is_refused() -> None:
    data = encoded(Image.fromarray(np.ones((2, 2), dtype=np.float32)), "TIFF")
    with pytest.raises(BadPictureError, match="x: floating-point pixels"):
        decode_picture(data, "x")


UPRIGHT = noise(3, 5, 3)
STORED = {  # what a camera held this way stores; by the EXIF standard's names of row 0 and column 0
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.transpose(1, 0, 2),
    6: UPRIGHT.transpose(1, 0, 2)[::-1],
    7: UPRIGHT.transpose(1, 0, 2)[::-1, ::-1],
    8: UPRIGHT.transpose(1, 0, 2)[:, ::-1],
}


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", STORED)
def test_turned_upright(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image = Image.fromarray(np.ascontiguousarray(STORED[orientation]))
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(decoded(encoded(image, kind, exif=exif, **options)), UPRIGHT)


def test_a_turned_jpeg_and_a_strange_orientation() -> None:
    for orientation, size in ((6, (8, 16)), (1, (16, 8)), (0, (16, 8)), (99, (16, 8))):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        data = encoded(Image.new("RGB", (16, 8)), "JPEG", exif=exif)
        assert decode_picture(data, "x").size == size


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "junk",
    [b"not a tiff", b"II*\0\xff\xff\xff\x7f", b"MM\0*\0\0\0\x08\0\x05\x01", b""],
    ids=["no header", "far offset", "cut short", "empty"],
)
def test_damaged_exif_does_no_harm(kind: str, junk: bytes) -> None:
    data = encoded(Image.new("RGB", (16, 8), (9, 9, 9)), kind, exif=b"Exif\0\0" + junk)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runpy.run_path(pictures.__file__)  # the filter it sets is not pytest's
        assert np.abs(decoded(data).astype(int) - 9).max() <= 2


def test_threads_leave_the_warning_filters_alone() -> None:
    data = encoded(Image.fromarray(noise(64, 64, 3)), "PNG")
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: decoded(data), range(40)))
    assert warnings.filters == before
    assert all(np.array_equal(result, results[0]) for result in results)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(data)) as image:
        assert getattr(image, "n_frames", 1) == 3
    assert np.array_equal(decoded(data), np.asarray(frames[0]))


# refused


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_cut_short(kind: str) -> None:
    data = encoded(Image.fromarray(noise(16, 24, 3)), kind)
    assert decode_picture(data, "x").size == (24, 16)
    for part in (0.05, 0.3, 0.6, 0.95):
        with pytest.raises(BadPictureError, match=r"^cat/7\.x: ."):
            decode_picture(data[: int(part * len(data))], "cat/7.x")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_damaged(kind: str) -> None:
    """Whatever is damaged is refused in one way, or decoded all the same."""
    data, dice = encoded(Image.fromarray(noise(8, 8, 3)), kind), random.Random(0)
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(3):
            damaged[dice.randrange(len(data))] = dice.randrange(256)
        try:
            outcome = decode_picture(bytes(damaged), "x").mode
        except BadPictureError as error:
            outcome = str(error)
        assert outcome == "RGB" or outcome.startswith("x: ")


@pytest.mark.parametrize(
    "data",
    [b"", b"hello\n" * 99, b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n"],
    ids=["empty", "text", "jpeg", "png", "eps"],
)
def test_no_picture_at_all(data: bytes) -> None:
    with pytest.raises(BadPictureError, match=r"^a\.jpg: ."):
        decode_picture(data, "a.jpg")


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("side", [9_500, 60_000])
def test_bombs(side: int, strict: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file of a huge picture is refused before it is unpacked."""

    def load(*_: object) -> None:
        raise AssertionError("unpacked")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    with warnings.catch_warnings():
        warnings.simplefilter("error" if strict else "ignore")
        with pytest.raises(BadPictureError, match=r"^a\.png: .*(too many|decompression bomb)"):
            decode_picture(png(side, side, 8, 2, bytes(100)), "a.png")


def test_hairs_are_refused() -> None:
    """To crop 256 x 256 of it, a row of a million pixels would be enlarged to 200 GB."""
    with pytest.raises(BadPictureError, match="x: 1000000x1 pixels are too narrow"):
        decode_picture(encoded(Image.new("1", (1_000_000, 1)), "PNG"), "x")
    assert decode_picture(encoded(Image.new("L", (3, 600)), "PNG"), "x").size == (3, 600)


def test_too_large_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.new("RGB", (8, 8)), "PNG")
    monkeypatch.setattr(pictures, "MOST_BYTES", len(data))
    assert decode_picture(data, "x").size == (8, 8)
    with pytest.raises(BadPictureError, match="x: over 0 MB is too large"):
        decode_picture(data + b"\0", "x")
    assert issubclass(BadPictureError, AdmError)
