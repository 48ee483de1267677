"""The gallery's page: what it holds, what it may load, and how it looks to a browser."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from adm_cli.reports.gallery.page import EACH, Tile, gallery_page

HOSTILE = "</script><script>document.title='ran'</script>\"'><img src=x onerror=alert(1)>"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def picture(i: int, **facts: Any) -> Tile:
    image = Image.new("RGB", (8, 8), (i % 256, 0, 0))
    return Tile(f"out/{i}.png", facts, {"seed": i}, image)


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


class Elements(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)


def test_pictures_and_what_is_known_of_them() -> None:
    page = gallery_page("two", [picture(0, seed=7, scale=1.5), picture(1, seed=7)], side=4)
    data = data_of(page)
    assert data["names"] == ["seed", "scale"]
    assert data["values"] == [[7], [1.5, None]]
    assert [p["facts"] for p in data["pictures"]] == [[0, 0], [0, 1]]
    assert [p["file"] for p in data["pictures"]] == ["out/0.png", "out/1.png"]
    recipes = json.loads(zlib.decompress(base64.b64decode(data["recipes"][0])))
    assert recipes == [{"seed": 0}, {"seed": 1}]


def test_a_thumbnail_lies_at_its_number() -> None:
    """In the second sheet, too; a picture that is not square keeps its shape."""
    count = EACH + 40
    pictures = [picture(i) for i in range(count)]
    pictures[-1] = Tile("wide.png", {}, None, Image.new("RGB", (16, 4), (0, 255, 0)))
    data = data_of(gallery_page("many", pictures, side=8))
    sheets = [Image.open(io.BytesIO(base64.b64decode(s))).convert("RGB") for s in data["sheets"]]
    assert len(sheets) == 2
    for i in (0, 33, 255, EACH + 3):
        sheet, place = sheets[i // EACH], i % EACH
        x, y = place % data["across"] * 8 + 4, place // data["across"] * 8 + 4
        red = sheet.getpixel((x, y))
        assert isinstance(red, tuple)
        assert abs(red[0] - i % 256) <= 12  # WebP loses a little
    x, y = 39 % data["across"] * 8, 39 // data["across"] * 8
    grey, green = sheets[1].getpixel((x + 4, y)), sheets[1].getpixel((x + 4, y + 4))
    assert isinstance(grey, tuple)
    assert isinstance(green, tuple)
    assert abs(grey[0] - 128) < 40
    assert green[1] > 180


def test_names_are_no_markup() -> None:
    hostile = Tile(f"out/{HOSTILE}.png", {"class": HOSTILE, HOSTILE: 1}, {"model": HOSTILE},
                      Image.new("RGB", (4, 4)))  # fmt: skip
    plain, page = gallery_page("t", [picture(0)]), gallery_page(HOSTILE, [hostile])
    assert Elements(page).tags == Elements(plain).tags
    assert data_of(page)["pictures"][0]["file"] == f"out/{HOSTILE}.png"


def test_only_its_own_script_may_run() -> None:
    page = gallery_page("t", [picture(0)])
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert "default-src &#x27;none&#x27;" in policy[1]
    assert "http" not in policy[1]
    for tag, name in (("style", "style"), ("script", "script")):
        (body,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.S)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{name}-src &#x27;sha256-{digest}&#x27;" in policy[1]


def look(page: str, folder: Path, where: str = "") -> tuple[str, str]:
    """The page's elements after its script ran, and what the browser's console said."""
    file = folder / "gallery.html"
    file.write_text(page, encoding="utf-8")
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=900,700",
         f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--v=0",
         "--virtual-time-budget=3000", "--dump-dom", f"{file.as_uri()}{where}"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout, "\n".join(x for x in done.stderr.splitlines() if ":CONSOLE" in x)


needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium to look with")


@needs_browser
def test_a_browser_shows_only_what_is_in_sight(tmp_path: Path) -> None:
    pictures = [picture(i, **{"class": f"c{i % 10}", "seed": i // 10}) for i in range(5000)]
    dom, console = look(gallery_page("five thousand", pictures, side=8), tmp_path)
    assert console == ""
    assert "5000 of 5000 pictures" in dom
    assert "class c0 · 500" in dom
    assert 100 < dom.count('class="tile"') < 5000
    assert 'aria-label="class c0, seed 0"' in dom


@needs_browser
def test_a_browser_finds_compares_and_opens(tmp_path: Path) -> None:
    pictures = [
        picture(i, **{"class": f"c{i // 4}", "seed": i % 2, "scale": float(i // 2 % 2)})
        for i in range(40)
    ]
    page = gallery_page("forty", pictures)
    dom, console = look(page, tmp_path, "#rows=class&columns=scale&find=class%3Dc3&show=13")
    assert console == ""
    assert "4 of 40 pictures" in dom
    assert re.search(r'class="head column"[^>]*>scale 0<', dom)
    left = [int(x) for x in re.findall(r'class="tile"[^>]*left: (\d+)px', dom)]
    top = [int(x) for x in re.findall(r'class="tile"[^>]*top: (\d+)px', dom)]
    assert len(set(left)) == len(set(top)) == 2  # two scales beside, two seeds below each other
    assert "adm repro out/13.png" in dom
    assert '"seed": 13' in dom  # the recipe, unpacked


@needs_browser
def test_a_browser_runs_nothing_from_names(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 4))
    hostile = Tile(f"{HOSTILE}.png", {"class": HOSTILE}, {"model": HOSTILE}, image)
    dom, console = look(gallery_page(HOSTILE, [hostile, picture(1)]), tmp_path, "#show=0")
    assert "Content Security Policy" not in console.replace("ERR_FILE_NOT_FOUND", "")
    assert "<title>ran" not in dom
    assert Elements(dom).tags.count("script") == 2
