"""Whoever has several damaged pictures hears of all of them at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adm_cli.errors import AdmError
from adm_cli.pictures.datasets import open_images
from adm_cli.pictures.pixels import open_pixels
from adm_cli.pictures.unreadable import name_bad, refuse_any, refuse_unreadable
from adm_cli.sampling.choosing.inputs import open_inputs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures, of which the third and the eleventh are cut short."""
    place = tmp_path / "pictures"
    place.mkdir()
    noise = np.random.default_rng(0)
    for i in range(12):
        file = place / f"{i:02d}.png"
        Image.fromarray(noise.integers(256, size=(8, 8, 3), dtype=np.uint8)).save(file)
        if i in (3, 11):
            file.write_bytes(file.read_bytes()[:60])
    return place


def read_as_a_set(folder: Path) -> None:
    refuse_unreadable(open_images([folder], labels="none"))


def read_to_measure(folder: Path) -> None:
    list(open_pixels(folder).batches(2))


def read_to_enlarge(folder: Path) -> None:
    open_inputs([folder])


def read_to_enlarge_by_name(folder: Path) -> None:
    open_inputs(sorted(folder.iterdir()))


@pytest.mark.parametrize(
    "read", [read_as_a_set, read_to_measure, read_to_enlarge, read_to_enlarge_by_name]
)
def test_all_damaged_pictures_are_named(folder: Path, read: Callable[[Path], None]) -> None:
    with pytest.raises(AdmError) as caught:
        read(folder)
    text = str(caught.value)
    assert text.startswith("2 of 12 pictures cannot be read: ")
    assert "03.png" in text
    assert "11.png" in text
    assert text.endswith("; remove them")
    for name in ("03.png", "11.png"):
        (folder / name).unlink()
    read(folder)


def test_the_first_of_a_set_may_be_the_damaged_one(folder: Path) -> None:
    (folder / "00.png").write_bytes(b"none")
    with pytest.raises(AdmError, match=r"3 of 12 .*00\.png.*03\.png.*11\.png"):
        open_pixels(folder)


def test_a_picture_of_another_size_is_told_as_such(folder: Path) -> None:
    for name in ("03.png", "11.png"):
        (folder / name).unlink()
    Image.new("RGB", (9, 9)).save(folder / "05.png")
    with pytest.raises(AdmError, match=r"05\.png is 9x9, .* --resize SIZE"):
        read_to_measure(folder)


def test_checking_tells_how_far_it_is(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    with pytest.raises(AdmError, match="or pass --skip-bad"):
        refuse_unreadable(
            open_images([folder], labels="none"),
            skippable=True,
            on_checked=lambda done, total: seen.append((done, total)),
        )
    assert seen == [(i + 1, 12) for i in range(12)]


def test_words_for_one_and_for_many() -> None:
    refuse_any([], 3)
    with pytest.raises(AdmError, match=r"^a\.png: damaged; remove it$"):
        refuse_any(["a.png: damaged"], 1)
    with pytest.raises(AdmError, match=r"^1 of 3 pictures cannot be read: a: damaged; remove it$"):
        refuse_any(["a: damaged"], 3)
    many = [f"cannot read {i}: no permission" for i in range(12)]
    assert name_bad(many).startswith("0: no permission; 1: no permission; ")
    assert name_bad(many).endswith("9: no permission; and 2 more")
