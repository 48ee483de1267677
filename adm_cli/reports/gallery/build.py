"""Pictures of runs, sweeps and folders, gathered into one page."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from adm_cli.errors import AdmError, UsageError, told_of, why_unread
from adm_cli.events import AnyPath, Count, Note, OnEvent, as_paths, ignore
from adm_cli.files.budget import MOST_FILES, counted
from adm_cli.files.disk import atomic_write, check_writable, read_file, refuse_existing
from adm_cli.files.manifests import Manifests
from adm_cli.files.strict import type_checked
from adm_cli.pictures.decode import MOST_BYTES, BadPictureError, decode_picture
from adm_cli.pictures.images import MOST_STAGES, recipe_in
from adm_cli.reports.gallery.page import Fact, Tile, gallery_page

ENDINGS = (".png", ".webp", ".jpg", ".jpeg")  # what a browser shows, too
THUMBNAIL = 64
_TRIED = 100  # pictures, to guess by
_RUN = "run.json"


@dataclass(frozen=True)
class Gallery:
    """The page that was written."""

    path: Path
    pictures: int
    bytes: int


@type_checked
def gallery(
    paths: AnyPath | Sequence[AnyPath],
    output: AnyPath = Path("gallery.html"),
    title: str | None = None,
    thumbnail: int = THUMBNAIL,
    overwrite: bool = False,
    dry_run: bool = False,
    *,
    on_event: OnEvent | None = None,
) -> Gallery:
    """Writes one self-contained HTML page that shows pictures by what made them.

    As ``adm gallery``, whose options these are: ``paths`` are runs, sweeps, folders or pictures;
    thumbnails are ``thumbnail`` pixels a side, and a click opens the picture itself, which the
    page finds by its path relative to the page. With ``dry_run`` nothing is written, and the size
    is guessed by a page of 100 of them. Raises UsageError where there is no picture,
    OutputError where ``output`` is there already.
    """
    out, tell = Path(output), on_event or ignore
    folders = as_paths(paths)
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--output {out}: expected a name that ends in .html")
    check_writable(out.parent)
    if not overwrite:
        refuse_existing([out])
    listed = counted(_files(folders), "pictures", MOST_FILES)
    files = list({os.path.abspath(path): (path, source) for path, source in listed}.values())
    if not files:
        raise UsageError(
            f"no {', '.join(e[1:] for e in ENDINGS)} pictures in {' '.join(map(str, folders))}"
        )
    bad: list[str] = []
    made = 0

    def pictures() -> Iterator[Tile]:
        nonlocal made
        for done, (path, source) in enumerate(files, 1):
            tell(Count("pictures", done, len(files)))
            try:
                found = _picture(path, source if len(folders) > 1 else None, out.parent)
            except (AdmError, OSError) as error:
                bad.append(told_of(path, why_unread(error)))
                continue
            if found is not None:
                made += 1
                yield found

    count = len(files)
    if dry_run:
        files = [files[i * count // _TRIED] for i in range(_TRIED)] if count > _TRIED else files
    page = gallery_page(title or out.stem, pictures(), side=thumbnail).encode()
    if not made:
        raise UsageError(f"no picture that can be shown: {bad[0] if bad else folders[0]}")
    for text in bad[:3]:
        tell(Note(f"left out: {text}"))
    if len(bad) > 3:
        tell(Note(f"left out: {len(bad) - 3:,} more"))
    if dry_run:
        alone = len(gallery_page(title or out.stem, iter(()), side=thumbnail).encode())
        share = count / len(files)
        return Gallery(out, round(made * share), alone + round((len(page) - alone) * share))
    with atomic_write(out) as file:
        file.write(page)
    return Gallery(out, made, len(page))


def _files(paths: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Pictures, each with the path that it was asked for by; hidden folders are none of ours."""
    for path in paths:
        if path.is_file():
            if path.name.lower().endswith(ENDINGS):
                yield path, path.parent
        elif not path.is_dir():
            raise UsageError(f"{path} is no folder and no picture")
        for folder, inner, names in os.walk(path):
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            for name in sorted(names):
                if name.lower().endswith(ENDINGS) and not name.startswith("."):
                    yield Path(folder, name), path


def _picture(path: Path, source: Path | None, beside: Path) -> Tile | None:
    """None for what lies in a run's folder and is none of its images: grids and sheets."""
    data = read_file(path, MOST_BYTES)
    recipe = recipe_in(data)
    facts = recipe_facts(recipe) if recipe else _recorded_facts(path)
    if not facts and ((path.parent / _RUN).exists() or path.name == "sheet.png"):
        return None
    try:
        image = decode_picture(data, str(path))
    except BadPictureError as error:
        raise AdmError(str(error).removeprefix(f"{path}: ")) from None
    if source is not None:
        facts = {"folder": str(source), **facts}
    where = os.path.relpath(path, beside).replace(os.sep, "/")
    return Tile(where, facts, recipe, image)


def recipe_facts(recipe: Mapping[str, Any] | None) -> dict[str, Fact]:
    """What pictures are told apart by: of the stage that drew one, whatever enlarged it since."""
    if recipe is None:
        return {}
    drawn: Mapping[str, Any] = recipe
    for _ in range(MOST_STAGES):
        base = drawn.get("base")
        if not isinstance(base, Mapping):
            break
        drawn = base
    named = " ".join(str(drawn[k]) for k in ("class", "class_name") if drawn.get(k) is not None)
    facts: dict[str, Fact] = {"class": named or None}
    for name, key in (
        ("seed", "seed"), ("scale", "scale"), ("cfg", "cfg"), ("sampler", "sampler"),
        ("steps", "num_steps"), ("eta", "eta"), ("model", "model"),
    ):  # fmt: skip
        value = drawn.get(key, 1.0 if key == "cfg" else None)
        facts[name] = value if isinstance(value, (str, int, float)) else None
    if drawn is not recipe:
        facts["upsampler"] = str(recipe.get("model"))
    return facts


def _recorded_facts(path: Path) -> dict[str, Fact]:
    """Of a picture without a recipe, what its run's manifest says; nothing of what is no image."""
    records = _manifests(path.parent).records(lambda name: os.path.lexists(path.parent / name))
    record = records.get(path.name, {})
    if "seed" not in record:
        return {}
    facts: dict[str, Fact] = {
        "class": None if record.get("class") is None else str(record["class"])
    }
    for name in ("seed", "scale", "cfg"):
        if isinstance(value := record.get(name), (int, float)):
            facts[name] = value
    return facts


@lru_cache(maxsize=1)
def _manifests(folder: Path) -> Manifests:
    return Manifests(folder)
