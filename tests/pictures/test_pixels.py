"""Finished images from folders, archives, npz and runs: the same pixels, or a refusal."""

from __future__ import annotations

import io
import pickle
import tarfile
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from adm_cli.errors import AdmError, UsageError
from adm_cli.files.manifests import render_line
from adm_cli.pictures.pixels import (
    PixelSet,
    holds_statistics,
    open_pixels,
    read_npz_statistics,
    statistics_only,
)

Pixels = npt.NDArray[np.uint8]


def pixels(count: int = 7, size: tuple[int, int] = (6, 9), seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def encode(image: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def save_folder(folder: Path, images: Pixels) -> Path:
    (folder / "deep").mkdir(parents=True)
    for i, image in enumerate(images):
        (folder / ("deep" if i % 2 else "") / f"{i}.png").write_bytes(encode(image))
    return folder


def read(images: PixelSet, batch: int = 3) -> Pixels:
    found = np.concatenate(list(images.batches(batch)))
    assert len(found) == len(images)
    assert found.shape[1:3] == images.size
    return found


def test_every_source_gives_the_same_pixels(tmp_path: Path) -> None:
    images = pixels()
    folder = save_folder(tmp_path / "folder", images)
    expected = images[[0, 2, 4, 6, 1, 3, 5]]  # a folder's own pictures come first
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        for i, image in enumerate(expected):
            zipped.writestr(f"{i}.png", encode(image))
    with tarfile.open(tmp_path / "a.tar", "w") as tarred:
        for path in sorted((tmp_path / "folder").rglob("*.png")):
            tarred.add(path, path.relative_to(tmp_path / "folder"))
    np.savez(tmp_path / "a.npz", arr_0=expected, arr_1=np.arange(7))
    np.savez_compressed(tmp_path / "b.npz", arr_0=expected)
    for path in (folder, *(tmp_path / name for name in ("a.zip", "a.tar", "a.npz", "b.npz"))):
        for batch in (1, 3, 100):
            assert np.array_equal(read(open_pixels(path), batch), expected)


def test_images_can_be_read_again_and_left_half_read(tmp_path: Path) -> None:
    folder, npz = save_folder(tmp_path / "folder", pixels(50)), tmp_path / "a.npz"
    np.savez(npz, arr_0=pixels(50))
    before = threading.active_count()
    for path in (folder, npz):
        images = open_pixels(path)
        batches = images.batches(2)
        next(batches)
        batches.close()  # type: ignore[attr-defined]
        assert np.array_equal(read(images), read(images))
    assert threading.active_count() <= before


def test_sizes_differ(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "folder", pixels())
    (folder / "z.png").write_bytes(encode(pixels(1, (5, 5))[0]))
    with pytest.raises(AdmError, match=r"z\.png is 5x5, .*0\.png is 9x6.*--resize SIZE"):
        read(open_pixels(folder))
    images = open_pixels(folder, resize=(4, 4))
    assert images.size == (4, 4)
    assert read(images).shape == (8, 4, 4, 3)


def test_an_npz_is_resized_as_pictures_are(tmp_path: Path) -> None:
    images = pixels(3, (16, 24))
    np.savez(tmp_path / "a.npz", arr_0=images)
    folder = tmp_path / "folder"
    folder.mkdir()
    for i, image in enumerate(images):
        (folder / f"{i}.png").write_bytes(encode(image))
    one, other = (read(open_pixels(p, resize=(8, 8))) for p in (tmp_path / "a.npz", folder))
    assert np.array_equal(one, other)


def test_other_modes_are_read_as_rgb(tmp_path: Path) -> None:
    grey = pixels(1)[0, :, :, 0]
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(pixels(1)[0]).save(tmp_path / "b.png")
    found = read(open_pixels(tmp_path))
    assert np.array_equal(found[0], np.repeat(grey[:, :, None], 3, axis=2))


def test_a_corrupt_picture_is_named(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "folder", pixels())
    whole = (folder / "2.png").read_bytes()
    (folder / "2.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AdmError, match=r"folder/2\.png"):
        read(open_pixels(folder))


def test_a_run_is_what_its_manifests_list(tmp_path: Path) -> None:
    images = pixels(4)
    for i, image in enumerate(images):
        (tmp_path / f"{i}.png").write_bytes(encode(image))
    (tmp_path / "grid.png").write_bytes(encode(pixels(1, (30, 30))[0]))
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UsageError, match="no finished images"):
        open_pixels(tmp_path)
    known = {"bytes": 1, "sha256": ""}
    lines = [render_line({"file": f"{i}.png", **known, "seed": i}) for i in (2, 0, 9)]
    lines += [render_line({"file": "grid.png", **known}), b"[1\n", b"7\n", b'{"file": "1.p']
    (tmp_path / "manifest.jsonl").write_bytes(b"".join(lines))
    assert np.array_equal(read(open_pixels(tmp_path)), images[[2, 0]])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": pixels()}, "no array arr_0"),
        ({"arr_0": pixels().astype(np.float32)}, "float32 .*expected uint8 images"),
        ({"arr_0": pixels()[..., 0]}, r"uint8 \[7, 6, 9\], expected"),
        ({"arr_0": pixels()[:0]}, r"uint8 \[0, 6, 9, 3\], expected"),
        ({"arr_0": np.asfortranarray(pixels())}, "column by column"),
        ({"arr_0": np.array([{}], dtype=object)}, "pickled objects: refused"),
    ],
    ids=["name", "dtype", "shape", "empty", "fortran", "objects"],
)
def test_an_npz_of_something_else(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(AdmError, match=message):
        open_pixels(tmp_path / "a.npz")


def test_a_pickle_is_never_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle, "load", lambda *_: pytest.fail("unpickled"))
    np.savez(tmp_path / "a.npz", arr_0=np.array([{}], dtype=object), mu=np.array([{}]))
    with pytest.raises(AdmError, match="refused"):
        open_pixels(tmp_path / "a.npz")
    with pytest.raises(AdmError, match="refused"):
        read_npz_statistics(tmp_path / "a.npz")


def test_a_damaged_npz(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, arr_0=pixels(200))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AdmError, match=r"cannot read .*a\.npz"):
        open_pixels(path)
    path.write_bytes(whole[:5000] + bytes(500) + whole[5500:])  # the zip's checksum sees it
    with pytest.raises(AdmError, match=r"cannot read .*a\.npz"):
        read(open_pixels(path))
    with pytest.raises(UsageError, match="no such file"):
        open_pixels(tmp_path / "b.npz")


def test_an_npz_whose_names_have_no_ending(tmp_path: Path) -> None:
    """As numpy reads them, though it never writes them so."""
    values, buffer = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3), io.BytesIO()
    np.save(buffer, values)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        file.writestr("arr_0", buffer.getvalue())
    (batch,) = open_pixels(tmp_path / "x.npz").batches(2)
    assert np.array_equal(batch, values)


def test_an_npz_that_promises_more_than_it_holds(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 64, 64, 3)}
    )
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("arr_0.npy", buffer.getvalue() + bytes(100))
    with pytest.raises(AdmError, match="its size is not what its header says"):
        open_pixels(tmp_path / "a.npz")


def test_the_statistics_of_a_reference_batch(tmp_path: Path) -> None:
    path = tmp_path / "VIRTUAL_a.npz"
    rng = np.random.default_rng(0)
    mu, sigma = rng.normal(size=5).astype(np.float32), np.cov(rng.normal(size=(5, 9)))
    np.savez(path, arr_0=pixels(), mu=mu, sigma=sigma, mu_s=mu[:3], sigma_s=sigma[:3, :3])
    found = read_npz_statistics(path)
    assert found is not None
    assert np.array_equal(found["mu"], mu.astype(np.float64))
    assert np.array_equal(found["sigma"], sigma)
    assert found["sigma_s"].shape == (3, 3)
    assert holds_statistics(path)
    np.savez(tmp_path / "b.npz", arr_0=pixels())
    assert read_npz_statistics(tmp_path / "b.npz") is None
    assert not holds_statistics(tmp_path / "b.npz")
    assert not holds_statistics(tmp_path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": np.zeros(5), "sigma": np.zeros((4, 4))}, "do not belong together"),
        ({"mu": np.zeros(5)}, "do not belong together"),
        ({"mu": np.full(5, np.nan), "sigma": np.zeros((5, 5))}, "mu holds NaN"),
        ({"mu": np.zeros(5, dtype=np.int64), "sigma": np.zeros((5, 5))}, "expected statistics"),
        ({"mu": np.zeros(9000), "sigma": np.zeros((5, 5))}, "expected statistics"),
        ({"mu": np.float64(1), "sigma": np.zeros((5, 5))}, "expected statistics"),
    ],
    ids=["sizes", "half", "nan", "integers", "large", "scalar"],
)
def test_statistics_that_make_no_sense(
    tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    np.savez(tmp_path / "a.npz", arr_0=pixels(), **arrays)
    with pytest.raises(AdmError, match=message):
        read_npz_statistics(tmp_path / "a.npz")


@pytest.mark.parametrize("names", [("mean", "cov"), ("m", "s"), ("mu", "covariance")])
def test_statistics_by_other_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, str]
) -> None:
    """The advice, run, makes a file whose statistics are found."""
    monkeypatch.chdir(tmp_path)
    np.savez("theirs.npz", **{names[0]: np.zeros(5), names[1]: np.eye(5)})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"no arrays mu and sigma: .* mends it$") as told:
        open_pixels(Path("theirs.npz"))
    advice = str(told.value).removesuffix(" mends it").partition(": x = ")[2]
    exec(f"x = {advice}", {"numpy": np})
    assert statistics_only(Path("statistics.npz")) == ("mu", "sigma")


WHOLE = pixels(4, (5, 6))
OTHERS: dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]] = {  # and what they are as pictures
    "from -1 to 1": ((WHOLE / 127.5 - 1).astype(np.float32), WHOLE),
    "from 0 to 1": (WHOLE / 255, WHOLE),
    "from 0 to 255": (WHOLE.astype(np.float64), WHOLE),
    "channels first": (WHOLE.transpose(0, 3, 1, 2), WHOLE),
    "channels first, floats": ((WHOLE / 255).transpose(0, 3, 1, 2), WHOLE),
    "16 bits": (WHOLE.astype(np.uint16) * 257, WHOLE),
    "whole numbers": (WHOLE.astype(np.int64), WHOLE),
    "masks": (WHOLE > 127, (WHOLE > 127) * np.uint8(255)),
    "one": (WHOLE[0], WHOLE[:1]),
    "one, channels first": (WHOLE[0].transpose(2, 0, 1), WHOLE[:1]),
    "grey": (WHOLE[..., 0], np.stack([WHOLE[..., 0]] * 3, -1)),
    "grey, one channel": (WHOLE[..., :1], np.stack([WHOLE[..., 0]] * 3, -1)),
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_what_is_advised_for_other_arrays_makes_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    """The lines of the message are run: what they write is read, and shows the same."""
    monkeypatch.chdir(tmp_path)
    array, expected = OTHERS[kind]
    np.save(name, array) if name == "a.npy" else np.savez(name, array)
    with pytest.raises(UsageError) as refusal:
        open_pixels(Path(name))
    lines = str(refusal.value).partition("[N, H, W, 3]: ")[2].removesuffix(" mends it")
    exec(lines, {"numpy": np})
    (mended,) = open_pixels(Path("pictures.npy")).batches(len(expected))
    assert np.array_equal(mended, expected)


def test_pictures_under_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", y=np.arange(4), images=WHOLE)
    with pytest.raises(UsageError, match=r"no array arr_0: it holds y, images: ") as refusal:
        open_pixels(Path("a.npz"))
    exec(str(refusal.value).partition("images: ")[2].removesuffix(" mends it"), {"numpy": np})
    assert np.array_equal(np.load("pictures.npy"), WHOLE)
