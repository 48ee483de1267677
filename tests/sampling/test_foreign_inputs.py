"""What other tools make of a run's books, and pictures of 16 bits to enlarge."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adm_cli.checkpoints.fetched import zip_is_intact
from adm_cli.errors import CheckpointError
from adm_cli.sampling.choosing.inputs import open_inputs
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
    assert found.out.count("line ends or layout are not those written") == 2
    assert adm("verify", "run", "--repair").code == 0
    assert [book.read_bytes() for book in books[:2]] == before[:2]
    assert adm("verify", "run").code == 0


TEXT_TOOLS: dict[str, Callable[[bytes], bytes]] = {
    "old line ends": lambda data: data.replace(b"\n", b"\r"),
    "without its last line end": lambda data: data.rstrip(b"\n"),
    "empty lines more": lambda data: b"\n" + data.replace(b"\n", b"\n\n"),
    "blanks at line ends": lambda data: data.replace(b"\n", b" \n"),
    "UTF-16": lambda data: data.decode().encode("utf-16"),
    "indented by tabs": lambda data: json.dumps(json.loads(data), indent="\t").encode(),
    "on one line": lambda data: json.dumps(json.loads(data), separators=(",", ":")).encode(),
    "no escapes": lambda data: json.dumps(json.loads(data), ensure_ascii=False).encode(),
}


@pytest.mark.parametrize("tool", TEXT_TOOLS)
def test_books_that_a_tool_for_texts_has_changed(
    adm: Callable[..., Result], toys: Toys, tool: str
) -> None:
    """Both copies, as by an editor or formatter: what verify advises mends them."""
    draw = ("sample", "--model", toys.model, "--scale", 0, "--num", 2, "--steps", 1)
    assert adm(*draw, "--class", "0,3", "--out", "run", "--device", "cpu").code == 0
    books = [Path("run", n) for n in ("run.json", ".run.json.copy")]
    before = [book.read_bytes() for book in books]
    for book in books:
        book.write_bytes(TEXT_TOOLS[tool](book.read_bytes()))
    found = adm("verify", "run")
    assert found.code == 1
    assert found.out.count("line ends or layout are not those written") == 2
    assert adm("verify", "run", "--repair").code == 0
    assert [book.read_bytes() for book in books] == before
    for book in books:
        book.write_bytes(TEXT_TOOLS[tool](book.read_bytes()))
    assert adm(*draw, "--class", "0,3", "--out", "run", "--device", "cpu").code == 0
    assert [book.read_bytes() for book in books] == before


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b'"batch_size": ', b'"batch_size": 1'),
        lambda data: data.replace(b'"device": "cpu"', b'"device": "cuda"'),
        lambda data: data[: len(data) // 2],
        lambda data: data.replace(b'  "sha256"', b'  "more": 1,\n  "sha256"'),
        lambda data: b"[" + data + b"]",
    ],
)
def test_books_that_say_something_else(
    adm: Callable[..., Result], toys: Toys, change: Callable[[bytes], bytes]
) -> None:
    """In both copies: no repair is promised that there is none of."""
    draw = ("sample", "--model", toys.model, "--scale", 0, "--num", 2, "--steps", 1)
    assert adm(*draw, "--out", "run", "--device", "cpu").code == 0
    for name in ("run.json", ".run.json.copy"):
        book = Path("run", name)
        book.write_bytes(change(book.read_bytes()))
    for command in (("verify", "run"), ("verify", "run", "--repair"), (*draw, "--out", "run")):
        done = adm(*command)
        assert done.code == 1
        assert "run/run.json is damaged: its hash is not its content's, and its copy" in done.err
        assert "draws it anew with --overwrite" in done.err
    assert adm(*draw, "--out", "run", "--device", "cpu", "--overwrite").code == 0
    assert adm("verify", "run").code == 0


def test_a_sweep_that_a_tool_for_texts_has_changed(adm: Callable[..., Result], toys: Toys) -> None:
    sweep = ("sweep", "--model", toys.model, "--scale", 0, "--class", 1, "--num", 1, "--steps", "1",
             "--device", "cpu", "--out", "s")  # fmt: skip
    assert adm(*sweep).code == 0
    books = [Path("s", n) for n in ("sweep.json", ".sweep.json.copy")]
    before = [book.read_bytes() for book in books]
    for book in books:
        book.write_bytes(json.dumps(json.loads(book.read_bytes())).encode())
    assert "line ends or layout are not those written" in adm("verify", "s").out
    assert adm(*sweep).code == 0
    assert adm("verify", "s").code == 0
    assert [json.loads(book.read_bytes())["axes"] for book in books] == [
        json.loads(data)["axes"] for data in before
    ]


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
