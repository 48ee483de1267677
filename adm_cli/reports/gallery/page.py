"""The page: thumbnails in sheets, facts in tables, and a script that shows what is in sight.

It loads nothing from a network and runs no script but its own (a Content-Security-Policy with
their hashes); pictures are opened by their paths relative to the page.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from PIL import Image

EACH = 1024  # thumbnails a sheet, and recipes a chunk
_ACROSS = 32  # of them
_QUALITY = 85

Fact = str | int | float | None


@dataclass(frozen=True)
class Tile:
    """What the page knows of one picture."""

    file: str  # relative to the page, with slashes
    facts: Mapping[str, Fact]  # class, seed, scale ...; any names
    recipe: Mapping[str, Any] | None
    thumbnail: Image.Image  # RGB


def gallery_page(title: str, pictures: Iterable[Tile], *, side: int = 64) -> str:
    """The HTML of a page with ``pictures``, which are consumed one by one.

    ``side``: thumbnails are at most so many pixels wide and high; smaller pictures are enlarged
    by the browser, pixel by pixel.
    """
    sheets, recipes, rows, facts = [], [], [], []
    for chunk in _chunks(pictures, EACH):
        sheets.append(_text(_sheet([p.thumbnail for p in chunk], side)))
        plain = json.dumps([p.recipe for p in chunk], allow_nan=False).encode()
        recipes.append(_text(zlib.compress(plain, 9)))
        rows += [p.file for p in chunk]
        facts += [dict(p.facts) for p in chunk]
    names, values, indices = _tables(facts)
    data = {
        "side": side,
        "each": EACH,
        "across": _ACROSS,
        "names": names,
        "values": values,
        "pictures": [{"file": f, "facts": i} for f, i in zip(rows, indices, strict=True)],
        "sheets": sheets,
        "recipes": recipes,
    }
    return _filled(title, data)


def _chunks(pictures: Iterable[Tile], size: int) -> Iterator[list[Tile]]:
    chunk: list[Tile] = []
    for picture in pictures:
        chunk.append(picture)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _sheet(thumbnails: Sequence[Image.Image], side: int) -> bytes:
    """All of them on one WebP picture, `_ACROSS` a row, each in a square of ``side``."""
    rows = -(-len(thumbnails) // _ACROSS)
    sheet = Image.new("RGB", (_ACROSS * side, rows * side), (128, 128, 128))
    for nth, image in enumerate(thumbnails):
        fitted = _fitted(image, side)
        x, y = nth % _ACROSS * side, nth // _ACROSS * side
        sheet.paste(fitted, (x + (side - fitted.width) // 2, y + (side - fitted.height) // 2))
    buffer = io.BytesIO()
    sheet.save(buffer, "webp", quality=_QUALITY)
    return buffer.getvalue()


def _fitted(image: Image.Image, side: int) -> Image.Image:
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    if size == image.size:
        return image
    kind = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX
    return image.resize(size, kind)


def _tables(
    facts: Sequence[Mapping[str, Fact]],
) -> tuple[list[str], list[list[Fact]], list[list[int]]]:
    """Names, for each its different values, and for each picture an index into each of these."""
    names = list(dict.fromkeys(name for row in facts for name in row))
    places: list[dict[Fact, int]] = [{} for _ in names]
    indices = [
        [
            place.setdefault(row.get(name), len(place))
            for name, place in zip(names, places, strict=True)
        ]
        for row in facts
    ]
    return names, [list(place) for place in places], indices


def _filled(title: str, data: Mapping[str, Any]) -> str:
    style, script = (_part(name) for name in ("page.css", "page.js"))
    policy = (
        "default-src 'none'; img-src 'self' file: blob:; "
        f"style-src 'sha256-{_hash(style)}'; script-src 'sha256-{_hash(script)}'"
    )
    # "<" cannot end the element, whatever is in a name
    plain = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    parts = {
        "policy": html.escape(policy),
        "title": html.escape(title),
        "style": style,
        "script": script,
        "data": plain,
    }
    page = _part("page.html")
    before, *rest = page.split("{{")
    filled = [before]
    for piece in rest:
        name, _, after = piece.partition("}}")
        filled += [parts[name], after]
    return "".join(filled)


def _part(name: str) -> str:
    return (files("adm_cli.reports.gallery") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return _text(hashlib.sha256(text.encode()).digest())


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
