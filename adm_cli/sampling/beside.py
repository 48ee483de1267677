"""What is made of a run's images once they are safe: a contact sheet, an npz, a page, a film."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from adm_cli.events import Note
from adm_cli.files.own import refuse_foreign
from adm_cli.pictures.images import open_picture, save_animation, save_image
from adm_cli.pictures.sheets import class_sheet
from adm_cli.reports.gallery.build import gallery
from adm_cli.sampling.choosing.image_names import class_word
from adm_cli.sampling.choosing.images import Images
from adm_cli.sampling.drawing.writer import record_file
from adm_cli.sampling.events import FileMade
from adm_cli.sampling.folder import RunFolder, Shard
from adm_cli.sampling.merge import merge_npz, open_runs
from adm_cli.sampling.outputs import PAGE, SEQUENCE, Extras
from adm_cli.sampling.recipes.recipe import drawn_recipe, whole_recipe
from adm_cli.sampling.run import Run

GRID = "grid.png"
MOST_IN_GRID = 1024
MOST_BY_DEFAULT = 100
_LONGEST = 100  # of a label, in characters
_A_SECOND = 8  # frames


def write_grid(path: Path, pictures: Sequence[Path], images: Images | None = None) -> int:
    """A contact sheet of the first pictures, read from their files; returns how many it shows.

    Rows are classes, called as the pictures' recipes say, else as files that are of ``images``.
    """
    pictures = pictures[:MOST_IN_GRID]
    found = [open_picture(picture) for picture in pictures]
    if found:
        recipes = [recipe for _, recipe in found]
        facts = [one or _named(p, images) for p, one in zip(pictures, recipes, strict=True)]
        classes = [str(one.get("class_name") or "")[:_LONGEST] for one in facts]
        drawn = [drawn_recipe(one) if whole_recipe(one) else one for one in facts]
        seeds = [str(one.get("seed", ""))[:_LONGEST] for one in drawn]
        save_image(path, class_sheet([pixels for pixels, _ in found], classes, seeds))
    return len(found)


def _named(picture: Path, images: Images | None) -> dict[str, Any]:
    """What a sheet says of a picture that carries no recipe."""
    place = None if images is None else images.find(picture.name)
    if images is None or place is None:
        return {}
    image = images[place]
    word = class_word(picture.name) if image.input is None else ""
    return {"class_name": word, "seed": image.seed}


def _npz_of(folder: RunFolder, run: Run) -> Path:
    height, width = run.size
    return folder.path / f"samples_{len(run.images)}x{height}x{width}x3.npz"


def check_beside(folder: RunFolder, run: Run, beside: Extras) -> None:
    """Raises OutputError where what is made beside the images would replace a file of others."""
    made = {
        "--grid": folder.path / GRID if beside.grid else None,
        "--gallery": folder.path / PAGE if beside.gallery else None,
        "--format npz": _npz_of(folder, run) if beside.npz else None,
        "the film": folder.path / SEQUENCE if beside.sequence else None,
    }
    there = {how: path for how, path in made.items() if path is not None and path.exists()}
    records = folder.records() if there else {}
    for how, path in there.items():
        if path.name not in records:
            refuse_foreign([path], f"choose another --out, leave out {how}")


def make_beside(
    folder: RunFolder, run: Run, shard: Shard, beside: Extras
) -> Iterator[Note | FileMade]:
    """All of ``beside`` but the film, which is made as images are drawn."""
    for asked, make in (
        (beside.npz, write_npz),
        (beside.grid, draw_grid),
        (beside.sequence, draw_sequence),
        (beside.gallery, draw_gallery),
    ):
        if asked:
            yield from make(folder, run, shard)


def draw_grid(folder: RunFolder, run: Run, shard: Shard) -> Iterator[FileMade]:
    """``grid.png``, a contact sheet of the first images that are there."""
    path = folder.path / GRID
    records = itertools.islice(folder.kept(run.images), MOST_IN_GRID)
    shown = write_grid(path, [folder.path / record["file"] for record in records], run.images)
    if shown:
        record_file(folder, shard, path.name, {"images": shown})
        yield FileMade(path, {"images": shown})


def write_npz(folder: RunFolder, run: Run, shard: Shard) -> Iterator[FileMade]:
    """All images of a finished run as the original's npz; nothing of an unfinished one."""
    if len(folder.survey(run.images).missing):
        return  # interrupted: the images are safe, and the same command goes on
    count, path = len(run.images), _npz_of(folder, run)
    if not folder.has(path.name):
        merge_npz(path, *open_runs([folder.path]), lambda _done: None)
        record_file(folder, shard, path.name, {"images": count})
    yield FileMade(path, {"images": count})


def draw_sequence(folder: RunFolder, run: Run, shard: Shard) -> Iterator[FileMade]:
    """A film of a finished run's images, in their order; nothing of an unfinished one."""
    if len(folder.survey(run.images).missing):
        return
    path = folder.path / SEQUENCE
    count = len(run.images)
    if not folder.has(path.name):
        records = folder.kept(run.images)
        frames = [open_picture(folder.path / record["file"])[0] for record in records]
        save_animation(path, frames, {"sequence": count}, seconds=count / _A_SECOND)
        record_file(folder, shard, path.name, {"frames": count})
    yield FileMade(path, {"frames": count})


def add_grid(folder: RunFolder, run: Run) -> FileMade | None:
    """The grid of a run that is over, where nobody asked for one: of 2 to 100 images.

    None where that is not so, or a picture of that name is there that is none of the run's.
    """
    if not 2 <= len(run.images) <= MOST_BY_DEFAULT:
        return None
    if (folder.path / GRID).exists() and GRID not in folder.records():
        return None
    return next(draw_grid(folder, run, Shard()), None)


def draw_gallery(folder: RunFolder, run: Run, shard: Shard) -> Iterator[Note | FileMade]:
    """``gallery.html``, a page with the images that are there, as ``adm gallery`` makes it."""
    if not folder.drawn_any(run.images):
        return
    notes: list[Note] = []
    path = folder.path / PAGE
    made = gallery(
        folder.path, path, folder.path.resolve().name, overwrite=True,
        on_event=lambda event: notes.append(event) if isinstance(event, Note) else None,
    )  # fmt: skip
    yield from notes
    record_file(folder, shard, path.name, {"images": made.pictures})
    yield FileMade(path, {"images": made.pictures})
