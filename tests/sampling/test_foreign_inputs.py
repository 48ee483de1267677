"""What other tools make of a run's books, and pictures of 16 bits to enlarge."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adm_cli.checkpoints.fetched import zip_is_intact
from adm_cli.errors import CheckpointError
from adm_cli.sampling.inputs import open_inputs
from tests.conftest import Result, Toys


def test_books_whose_line_ends_were_changed(adm: Callable[..., Result], toys: Toys) -> None:
    """All of them, as by `unix2dos *`: verify says so, and what it advises mends it."""
    draw = ("sample", "--model", toys.model, "--scale", 0, "--num", 2, "--steps", 1)
    assert adm(*draw, "--out", "run", "--device", "cpu").code == 0
    books = [Path("run", n) for n in ("run.json", ".run.json.copy", "manifest.jsonl")]
    before = [book.read_bytes() for book in books]
    for book in books:
        book.write_bytes(b"\xef\xbb\xbf" * (book.suffix == ".json") + book.read_bytes())
        book.write_bytes(book.read_bytes().replace(b"\n", b"\r\n"))
    found = adm("verify", "run")
    assert found.code == 1
    assert found.out.count("line ends are not those written") == 2
    assert adm("verify", "run", "--repair").code == 0
    assert [book.read_bytes() for book in books[:2]] == before[:2]
    assert adm("verify", "run").code == 0


def test_pictures_of_twelve_bits(adm: Callable[..., Result], toys: Toys) -> None:
    """Their white is guessed and said, or given; and a repair reads them as they were read."""
    values = np.linspace(0, 4095, 64).reshape(8, 8).astype(np.uint16)
    Image.fromarray(values).save("deep.png")
    guessed = open_inputs([Path("deep.png")])
    assert guessed.values is not None
    assert guessed.values[:2] == (0, 4095)
    assert guessed[0].max() == 255
    assert open_inputs([Path("deep.png")], values="65535")[0].max() == 16
    large = ("upsample", "deep.png", "--model", toys.plain_upsampler, "--steps", 1)
    told = adm(*large, "--out", "run", "--device", "cpu", "--value-range", "100,4000")
    assert told.code == 0
    assert "4095 is white" in adm(*large, "--out", "other", "--device", "cpu").err
    (picture,) = Path("run").glob("*.png")
    same = adm("repro", picture, "--input", "deep.png", "--upsampler", toys.plain_upsampler)
    assert (same.code, "identical" in same.out + same.err) == (0, True), same.err
    before = picture.read_bytes()
    picture.unlink()
    assert adm("verify", "run", "--repair", "--model", toys.plain_upsampler).code == 0
    assert picture.read_bytes() == before


def test_a_compressed_checkpoint_of_a_mirror_is_not_unfolded(tmp_path: Path) -> None:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / f"{method}.pt", "w", method) as file:
            file.writestr("archive/data/0", bytes(10**6))
    assert zip_is_intact(tmp_path / "0.pt")
    with pytest.raises(CheckpointError, match="is compressed, and could unfold to any size"):
        zip_is_intact(tmp_path / "8.pt")
