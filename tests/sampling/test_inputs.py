"""Pictures to enlarge: every kind of input, in order, and what is refused."""

from __future__ import annotations

import io
import json
import os
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from adm_cli.errors import AdmError, UsageError
from adm_cli.events import Count
from adm_cli.pictures.decode import fit_picture
from adm_cli.pictures.images import Pixels, save_image
from adm_cli.sampling.choosing.inputs import open_inputs, pixels_sha256

RECIPE = {
    "adm": "0", "model": "m", "model_sha256": "0" * 64, "sampler": "ddpm", "scale": 1.0,
    "num_steps": 2, "size": [8, 8], "class": 3, "class_name": "star", "seed": 7,
}  # fmt: skip


def some(count: int, side: int = 8, seed: int = 0) -> Pixels:
    shape = (count, side, side, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_a_file_a_folder_and_an_npz_one_after_the_other(tmp_path: Path) -> None:
    images = some(5)
    folder = tmp_path / "folder"
    save_image(folder / "b.png", images[1])
    save_image(folder / "a.webp", images[0], RECIPE)
    save_image(folder / ".hidden.png", images[4])
    (folder / "notes.txt").write_text("no picture")
    save_image(tmp_path / "single.png", images[2], RECIPE)
    np.savez(tmp_path / "x.npz", images[3:], np.array([4, 1]))
    found = open_inputs([tmp_path / "single.png", folder, tmp_path / "x.npz"])
    assert [item.stem for item in found.items] == ["single", "a", "b", "000000", "000001"]
    assert [item.label for item in found.items] == [None, None, None, 4, 1]
    assert [bool(item.recipe) for item in found.items] == [True, True, False, False, False]
    assert found.items[0].recipe == RECIPE
    assert all(item.size == (8, 8) for item in found.items)
    for i, j in enumerate([2, 0, 1, 3, 4]):
        assert np.array_equal(found[i], images[j])
        assert found.items[i].pixels_sha256 == pixels_sha256(images[j])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_of_the_original_and_of_ours(tmp_path: Path, save: Any) -> None:
    images = some(3)
    save(tmp_path / "theirs.npz", images)
    (tmp_path / "theirs.npz").rename(tmp_path / "theirs")  # known by its content too
    plain = open_inputs([tmp_path / "theirs"])
    assert [item.seed for item in plain.items] == [None] * 3
    assert np.array_equal([plain[i] for i in range(3)], images)
    seeds = np.array([7, 2**64 - 1, 0], np.uint64)
    ours_too = {"arr_1": np.array([1, 2, 2]), "seeds": seeds, "adm": np.array(json.dumps(RECIPE))}
    save(tmp_path / "ours.npz", arr_0=images, **ours_too)
    ours = open_inputs([tmp_path / "ours.npz"])
    assert [(item.label, item.seed) for item in ours.items] == [(1, 7), (2, 2**64 - 1), (2, 0)]
    assert ours.items[1].recipe == {**RECIPE, "class": 2, "seed": 2**64 - 1}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_large_npz_stay_in_their_file(tmp_path: Path, save: Any) -> None:
    """Whatever is asked for next: their pictures are read one at a time."""
    save(tmp_path / "x.npz", arr_1=np.arange(9), arr_0=some(9))
    found = open_inputs([tmp_path / "x.npz"])
    for i in (0, 1, 5, 5, 8, 2, 0):
        assert np.array_equal(found[i], some(9)[i])
    tracemalloc.start()
    save(tmp_path / "y.npz", arr_0=np.zeros((400, 128, 128, 3), np.uint8))
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    assert len(open_inputs([tmp_path / "y.npz"])) == 400
    assert tracemalloc.get_traced_memory()[1] - before < 4_000_000  # of 20
    tracemalloc.stop()


def as_bytes(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_whatever_people_have(tmp_path: Path) -> None:
    """16 bits, palettes, transparency, animation, CMYK: as in training."""
    grey = Image.new("L", (8, 8), 100)
    files = {
        "deep.png": as_bytes(Image.fromarray(np.full((8, 8), 25700, np.uint16)), "PNG"),
        "palette.gif": as_bytes(grey.convert("P"), "GIF"),
        "clear.png": as_bytes(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), "PNG"),
        "moving.gif": as_bytes(grey, "GIF", save_all=True, append_images=[Image.new("L", (8, 8))]),
        "print.jpg": as_bytes(Image.new("CMYK", (8, 8), (0, 0, 0, 155)), "JPEG"),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    values = {item.stem: item.read()[0, 0].tolist() for item in open_inputs([tmp_path]).items}
    assert values["deep"] == values["palette"] == values["moving"] == [100] * 3
    assert values["clear"] == [255] * 3
    assert all(abs(v - 100) <= 2 for v in values["print"])


@pytest.mark.parametrize("spoil", [lambda d: d[: len(d) // 2], lambda _: b"", lambda _: b"GIF8"])
def test_damaged_pictures_are_named(tmp_path: Path, spoil: Any) -> None:
    path = tmp_path / "bad.png"
    save_image(path, some(1, 64)[0])
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(AdmError, match=r"bad\.png"):
        open_inputs([path])


def test_a_picture_that_changes_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    save_image(path, some(1)[0])
    found = open_inputs([path])
    save_image(path, some(1, seed=1)[0])
    with pytest.raises(AdmError, match="has changed since the start"):
        found[0]


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such picture"):
        open_inputs([tmp_path / "gone"])
    with pytest.raises(UsageError, match=r"no pictures in .*: expected \.jpg"):
        open_inputs([tmp_path])
    (tmp_path / "below").mkdir()
    with pytest.raises(UsageError, match=r"name the folders in it, e\.g\. .*below"):
        open_inputs([tmp_path])
    with pytest.raises(UsageError, match="no such picture"):
        open_inputs([tmp_path / ("x" * 5000)])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": some(1)}, "no array arr_0: it holds images"),
        ({"arr_0": some(1).astype(float)}, r"arr_0 is float64 \[1, 8, 8, 3\], expected uint8"),
        ({"arr_0": some(1)[0]}, r"arr_0 is uint8 \[8, 8, 3\]"),
        ({"arr_0": some(1)[:0]}, r"arr_0 is uint8 \[0, 8, 8, 3\]"),
        ({"arr_0": some(2), "arr_1": np.zeros(3, int)}, "a whole number for each of 2 pictures"),
        ({"arr_0": some(2), "arr_1": np.zeros(2)}, "arr_1 is float64"),
        ({"arr_0": np.array([some(1), None], object)}, "pickled objects: refused"),
    ],
)
def test_npz_of_something_else(tmp_path: Path, arrays: Any, message: str) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(AdmError, match=message):
        open_inputs([tmp_path / "x.npz"])


def test_damaged_npz(tmp_path: Path) -> None:
    """Cut anywhere, or any byte of a picture flipped: refused, and nothing is unpickled."""
    path = tmp_path / "x.npz"
    np.savez(path, some(2))
    whole = path.read_bytes()
    for end in range(0, len(whole), 37):
        path.write_bytes(whole[:end])
        with pytest.raises(AdmError):
            open_inputs([path])
    for place in range(64, 128 + 2 * 192, 11):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(AdmError):
            open_inputs([path])


def test_an_npz_that_claims_more_than_it_holds(tmp_path: Path) -> None:
    """Refused before anything of that size is made."""
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (10000000, 512, 512, 3), }"
    header = header.ljust(117) + b"\n"
    body = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 100
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "x.npz", "w", method) as archive:
            archive.writestr("arr_0.npy", body)
        with pytest.raises(AdmError, match=r"arr_0 is .*\[10000000, 512, 512, 3\] in 100 bytes"):
            open_inputs([tmp_path / "x.npz"])


@pytest.mark.parametrize("text", ["{", "[1]", "7", "[" * 10**5])
def test_a_recipe_that_is_none(tmp_path: Path, text: str) -> None:
    np.savez(tmp_path / "x.npz", arr_0=some(1), adm=np.array(text))
    assert open_inputs([tmp_path / "x.npz"]).items[0].recipe is None


def test_fitting_shrinks_by_area_as_in_training() -> None:
    large = some(1, 16)[0]
    exact = F.interpolate(torch.tensor(large).permute(2, 0, 1)[None].double(), (8, 8), mode="area")
    ours = fit_picture(large, (8, 8)).astype(float)
    assert np.abs(ours - exact[0].permute(1, 2, 0).numpy()).max() <= 0.5 + 1e-9
    assert np.array_equal(fit_picture(large, (16, 16)), large)


def test_fitting_cuts_the_middle() -> None:
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    assert (fit_picture(wide, (5, 5)) == 200).all()
    assert (fit_picture(wide.transpose(1, 0, 2), (5, 5)) == 200).all()
    assert fit_picture(wide, (20, 40)).shape == (20, 40, 3)  # enlarged
    assert (fit_picture(wide, (10, 20))[:, 5:15] == 200).all()


def test_resized_inputs(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", some(1, 16)[0])
    found = open_inputs([tmp_path / "a.png"], resize=(8, 8))
    assert found.items[0].size == (16, 16)
    assert np.array_equal(found[0], fit_picture(some(1, 16)[0], (8, 8)))


def test_reading_is_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", some(3))
    told: list[object] = []
    open_inputs([tmp_path / "x.npz", tmp_path / "x.npz"], told.append)
    assert told == [Count("pictures read", i, None) for i in range(1, 7)]


def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(UsageError, match=r"cannot read the folder .*: Permission denied"):
        open_inputs([tmp_path])
