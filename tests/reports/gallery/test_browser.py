"""The gallery in a real browser, driven as a person would: keys, clicks, scrolling, copying."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from adm_cli.reports.gallery.page import Tile, gallery_page
from tests.reports.gallery.test_page import HOSTILE, picture

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# No look-ups of its own, and no sandbox, which root may not have.
QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


class Look:
    """A page of the browser, with what went wrong in it."""

    def __init__(self, page: Any, folder: Path) -> None:
        self.page, self.folder = page, folder
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("dialog", self._dialog)
        page.on("request", lambda request: self.asked.append(request.url))

    def _dialog(self, dialog: Any) -> None:
        self.said.append("a dialog")
        dialog.dismiss()

    def open(self, html: str, where: str = "") -> Any:
        file = self.folder / "gallery.html"
        file.write_text(html, encoding="utf-8")
        self.page.goto(f"{file.as_uri()}{where}")
        return self.page


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no chromium to look with")
    driver = pytest.importorskip("playwright.sync_api", reason="the extra browser is not installed")
    with driver.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield running
        running.close()


@pytest.fixture
def look(browser: Any, tmp_path: Path) -> Iterator[Look]:
    context = browser.new_context(viewport={"width": 900, "height": 700})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    found = Look(context.new_page(), tmp_path)
    yield found
    context.close()


def wall(count: int) -> str:
    facts = [{"class": f"c{i % 10}", "seed": i // 10, "scale": float(i % 2)} for i in range(count)]
    return gallery_page("wall", [picture(i, **row) for i, row in enumerate(facts)], side=32)


def test_it_scrolls_and_filters(look: Look) -> None:
    page = look.open(wall(3000), "#rows=all together")
    first = page.locator(".tile").first.get_attribute("aria-label")
    assert page.locator(".tile").count() < 1500
    page.mouse.move(400, 400)
    page.mouse.wheel(0, 100_000)
    page.wait_for_function(
        "first => document.querySelector('.tile').ariaLabel !== first", arg=first
    )
    page.locator("[aria-label='class c9, seed 299, scale 1']").wait_for()
    page.keyboard.press("/")
    page.keyboard.type("class=c3 seed=7")
    assert page.locator("#count").inner_text() == "11 of 3000 pictures"  # 7, and 70 to 79
    assert page.locator(".tile").count() == 11
    assert look.said == []
    assert all(url.startswith(("file:", "blob:", "data:")) for url in look.asked)


def test_keys_and_clicks_open_and_copy(look: Look) -> None:
    page = look.open(wall(40))
    Image.new("RGB", (8, 8)).save(look.folder / "picture.png")
    page.locator(".tile").nth(1).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.ariaLabel") == "class c1, seed 2, scale 1"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")  # none is above
    assert page.evaluate("document.activeElement.ariaLabel") == "class c0, seed 2, scale 0"
    page.keyboard.press("Enter")
    assert page.locator("#one").is_visible()
    assert page.locator("#picture").get_attribute("alt") == "class c0, seed 2, scale 0"
    page.keyboard.press("ArrowRight")
    assert page.locator("#name").inner_text() == "out/30.png"
    page.get_by_role("button", name="Copy: adm repro out/30.png").click()
    page.get_by_text("Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "adm repro out/30.png"
    page.get_by_text("Recipe").click()
    page.locator("#recipe").get_by_text('"seed": 30').wait_for()
    page.keyboard.press("Escape")
    assert not page.locator("#one").is_visible()
    assert all("ERR_FILE_NOT_FOUND" in text for text in look.said)  # out/ holds no pictures here


def test_it_is_light_and_dark(look: Look) -> None:
    page = look.open(wall(4))
    colours = set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colours.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(colours) == 2


def test_cells_stand_side_by_side(look: Look) -> None:
    page = look.open(wall(40), "#rows=class&columns=scale&find=class%3Dc3")
    assert page.locator(".column").all_inner_texts() == ["scale 1"]  # c3 has that one alone
    page.locator("#find").fill("")
    page.locator("#rows").select_option("all together")
    page.locator("#columns").select_option("scale")
    assert page.locator(".column").all_inner_texts() == ["scale 0", "scale 1"]


def test_hostile_names_stay_names(look: Look) -> None:
    image = Image.new("RGB", (4, 4))
    hostile = Tile(f"{HOSTILE}.png", {"class": HOSTILE, HOSTILE: 1}, {"model": HOSTILE}, image)
    page = look.open(gallery_page(HOSTILE, [hostile, picture(1)]))
    page.locator(".tile").first.click()
    page.get_by_text("Recipe").click()
    page.locator("#find").evaluate("(box, words) => { box.value = words; }", HOSTILE)
    assert page.title() == HOSTILE
    assert page.locator("script").count() == 2
    assert page.locator("img").count() == 1
    assert not [text for text in look.said if "ERR_FILE_NOT_FOUND" not in text]
