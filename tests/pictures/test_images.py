"""Pictures: exact values, and the recipe they carry."""

from __future__ import annotations

import json
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from adm_cli.errors import AdmError, OutputError
from adm_cli.pictures.images import (
    Pixels,
    encode_image,
    make_grid,
    open_picture,
    parameters_text,
    read_description,
    save_animation,
    save_image,
    to_model_range,
    to_uint8,
)

RECIPE: dict[str, Any] = {
    "adm": "1.2.3",
    "model": "tiny",
    "model_sha256": "0123456789abcdef" * 4,
    "class": 7,
    "class_name": "oiseau « doré » 金, 🦊",
    "scale": 2.5,
    "sampler": "ddim",
    "num_steps": 25,
    "seed": 2**64 - 1,
    "size": [8, 12],  # height, width
}


def noise(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_to_uint8_truncates_as_the_original_does() -> None:
    """The original's `((x + 1) * 127.5).clamp(0, 255).to(uint8)`: 127.99 becomes 127."""
    values = torch.tensor([-1, -0.99609, 0.0, 0.0039, 0.00393, 0.99999, 1.0, -3.0, 7.0])
    expected = [0, 0, 127, 127, 128, 254, 255, 0, 255]
    assert to_uint8(values.reshape(1, 1, 3, 3)).flatten().tolist() == expected


def test_to_uint8_layout() -> None:
    x = torch.zeros(2, 3, 4, 5)
    x[1, 2, 3, 0] = 1.0
    images = to_uint8(x)
    assert images.shape == (2, 4, 5, 3)
    assert images.dtype == torch.uint8
    assert images.is_contiguous()
    assert images[1, 3, 0].tolist() == [127, 127, 255]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_to_model_range_is_the_inverse(dtype: torch.dtype) -> None:
    values = torch.arange(256, dtype=torch.uint8)
    x = to_model_range(values.reshape(1, 16, 16, 1))
    assert (x.dtype, x.shape) == (torch.float32, (1, 1, 16, 16))
    assert (float(x.min()), float(x.max())) == (-1.0, 1.0)
    # truncation needs a hair of room, as the value itself may have been rounded down
    assert torch.equal(to_uint8(x.to(dtype) + 1e-6).flatten(), values)


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_pixels_and_recipe_round_trip(tmp_path: Path, suffix: str) -> None:
    path, pixels = tmp_path / f"x{suffix}", noise(8, 12, 3)
    data = save_image(path, pixels, RECIPE)
    assert path.read_bytes() == data
    read, recipe = open_picture(path)
    assert np.array_equal(read, pixels)
    assert recipe == RECIPE
    with Image.open(path) as image:
        assert image.format == suffix[1:].upper()
    save_image(path, pixels)
    assert open_picture(path)[1] is None


def test_equal_pictures_are_equal_bytes() -> None:
    for suffix in (".png", ".webp"):
        one, two = (encode_image(noise(8, 12, 3), suffix, RECIPE) for _ in range(2))
        assert one == two


def test_parameters_text(tmp_path: Path) -> None:
    expected = (
        "oiseau « doré » 金, 🦊 (class 7)\n"
        "Steps: 25, Sampler: ddim, CFG scale: 2.5, Seed: 18446744073709551615, Size: 12x8, "
        "Model hash: 0123456789, Model: tiny, Version: adm 1.2.3"
    )
    assert parameters_text(RECIPE) == expected
    save_image(tmp_path / "x.png", noise(8, 12, 3), RECIPE)
    with Image.open(tmp_path / "x.png") as image:
        assert isinstance(image, PngImagePlugin.PngImageFile)
        assert image.text["parameters"] == expected
        assert json.loads(image.text["adm"]) == RECIPE
    free = {**RECIPE, "class": None, "class_name": None}
    assert parameters_text(free).startswith("unconditional\nSteps: 25,")


def test_parameters_are_read_as_other_tools_read_them() -> None:
    """A list of names and values between commas, of which some are quoted."""
    name = 'my, "own": model'
    last = parameters_text({**RECIPE, "model": name}).splitlines()[-1]
    pair = re.compile(r"\s*(\w[\w \-/]+):\s*(\"(?:\\.|[^\\\"])+\"|[^,]*)(?:,|$)")
    found = dict(pair.findall(last))
    assert json.loads(found["Model"]) == name
    assert (found["Seed"], found["Version"]) == (str(RECIPE["seed"]), "adm 1.2.3")


@pytest.mark.parametrize("text", ["{", "[]", "3", "null", "[" * 100_000, '{"a": ' * 50_000, "\x00"])
def test_a_damaged_recipe_is_none(tmp_path: Path, text: str) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("adm", text)
    Image.fromarray(noise(2, 2, 3)).save(tmp_path / "x.png", pnginfo=info)
    assert open_picture(tmp_path / "x.png")[1] is None


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_damaged_pictures(tmp_path: Path, suffix: str) -> None:
    """Whatever is damaged is refused, or was not needed; nothing else is raised."""
    path, pixels = tmp_path / f"x{suffix}", noise(4, 4, 3)
    data = encode_image(pixels, suffix, RECIPE)
    refused = 0
    for at in range(0, len(data), 3):
        for damaged in (data[:at], data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]):
            path.write_bytes(damaged)
            try:
                open_picture(path)
            except AdmError:
                refused += 1
    assert refused > len(data) // 6


@pytest.mark.parametrize("kind", ["EPS", "TIFF", "GIF", "BMP", "JPEG"])
def test_other_formats_in_disguise(tmp_path: Path, kind: str) -> None:
    """Only two decoders are ever tried: EPS would start a program."""
    Image.fromarray(noise(8, 8, 3)).save(tmp_path / "x.png", kind)
    with pytest.raises(AdmError, match=r"cannot read .*x\.png as PNG or WebP"):
        open_picture(tmp_path / "x.png")


@pytest.mark.parametrize("data", [b"", b"hello\n" * 50, b"\x89PNG\r\n\x1a\n"])
def test_no_picture_at_all(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(AdmError, match=r"cannot read .*x\.png as PNG or WebP"):
        open_picture(tmp_path / "x.png")


def test_missing_pictures_and_folders(tmp_path: Path) -> None:
    with pytest.raises(AdmError, match="No such file"):
        open_picture(tmp_path / "none.png")
    with pytest.raises(AdmError, match="Is a directory"):
        open_picture(tmp_path)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_bombs(tmp_path: Path, side: int) -> None:
    """A small file of a huge picture is refused before it is unpacked."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(3 * side + 1))
    (tmp_path / "x.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )
    with pytest.raises(AdmError, match="of too many pixels"):
        open_picture(tmp_path / "x.png")


def test_text_bombs(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("adm", json.dumps({"x": "0" * 5_000_000}), zip=True)
    Image.fromarray(noise(2, 2, 3)).save(tmp_path / "x.png", pnginfo=info)
    assert (tmp_path / "x.png").stat().st_size < 20_000
    with pytest.raises(AdmError, match=r"(?i)too large"):  # Pillow 10 writes capitals
        open_picture(tmp_path / "x.png")


@pytest.mark.parametrize(
    ("count", "columns", "shape"),
    [
        (1, None, (1, 1)),
        (2, None, (1, 2)),
        (5, None, (2, 3)),
        (9, None, (3, 3)),
        (3, 1, (3, 1)),
        (3, 5, (1, 5)),
    ],
)
def test_grid(count: int, columns: int | None, shape: tuple[int, int]) -> None:
    images = noise(count, 4, 6, 3)
    grid = make_grid(images, columns)
    rows, across = shape
    assert grid.shape == (rows * 6 + 2, across * 8 + 2, 3)
    rest = np.ones(grid.shape[:2], dtype=bool)
    for i, image in enumerate(images):
        top, left = 2 + i // across * 6, 2 + i % across * 8
        assert np.array_equal(grid[top : top + 4, left : left + 6], image)
        rest[top : top + 4, left : left + 6] = False
    assert (grid[rest] == 255).all()


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".WEBP"])
@pytest.mark.parametrize("count", [1, 7])
def test_animation(tmp_path: Path, suffix: str, count: int) -> None:
    frames = [noise(10, 14, 3, seed=i) for i in range(count)]
    path = tmp_path / f"x{suffix}"
    facts = {"film": {"images": ["x.png"] * 100}}  # longer than a block of a GIF
    save_animation(path, frames, facts)
    assert read_description(path) == facts
    with Image.open(path) as image:
        assert image.format == suffix[1:].upper()
        assert getattr(image, "n_frames", 1) == count
        assert image.size == (14, 10)
        image.seek(count - 1)
        last = np.asarray(image.convert("RGB"))
        if image.format == "WEBP":
            assert np.array_equal(last, frames[-1])
        if count > 1:
            image.load()
            assert image.info["duration"] == 2000  # rests on the last one


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "x.png").mkdir()
    with pytest.raises(OutputError, match="Is a directory"):
        save_image(tmp_path / "x.png", noise(2, 2, 3))
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]
