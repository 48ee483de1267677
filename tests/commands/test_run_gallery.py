"""`adm sample --gallery`: a page in the run's folder, kept and mended like the rest of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Result, Toys

Run = Callable[..., Result]


def test_a_page_beside_the_images(draw: Run, adm: Run, toys: Toys) -> None:
    asked = ("--class", "0,3", "--num", 1, "--out", "o", "--gallery", "--grid")
    done = draw(*asked, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out.splitlines()[-1]) == {"path": "o/gallery.html", "images": 2}
    page = Path("o/gallery.html")
    text = page.read_text()
    assert "<h1>o</h1>" in text
    assert text.count('"file":"000') == 2  # the grid is no picture of the run
    assert adm("verify", "o").code == 0
    assert draw(*asked).code == 0  # gone on with: there already
    assert page.read_text() == text
    page.write_text(text + " ")
    found = adm("verify", "o", "--json")
    assert (found.code, json.loads(found.out)["file"]) == (1, "gallery.html")
    weights = ("--model", toys.model, "--classifier", toys.classifier)
    assert adm("verify", "o", "--repair", *weights).code == 0
    assert page.read_text() == text


def test_a_page_of_another_is_not_replaced(draw: Run) -> None:
    Path("o").mkdir()
    Path("o/gallery.html").write_text("mine")
    done = draw("--class", 0, "--num", 1, "--out", "o", "--gallery")
    assert (done.code, done.out) == (1, "")
    assert "o/gallery.html is there, and nothing in it says that adm wrote it" in done.err
    assert "without --grid, --gallery" in draw("--shard", "1/2", "--out", "s", "--gallery").err
