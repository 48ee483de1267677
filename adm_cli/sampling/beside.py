"""What is made of a run's images once they are safe: a contact sheet, an npz."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from adm_cli.pictures.images import make_grid, open_picture, save_image
from adm_cli.sampling.events import FileMade
from adm_cli.sampling.folder import RunFolder, Shard
from adm_cli.sampling.merge import merge_npz, open_runs
from adm_cli.sampling.run import Run
from adm_cli.sampling.writer import record_file

MOST_IN_GRID = 1024


def write_grid(path: Path, pictures: Sequence[Path]) -> int:
    """A contact sheet of the first pictures, read from their files; returns how many it shows."""
    shown = pictures[:MOST_IN_GRID]
    if shown:
        save_image(path, make_grid(np.stack([open_picture(picture)[0] for picture in shown])))
    return len(shown)


def draw_grid(folder: RunFolder, run: Run, shard: Shard) -> Iterator[FileMade]:
    """``grid.png``, a contact sheet of the first images that are there."""
    path, names = folder.path / "grid.png", []
    for record in folder.kept(run.images):
        names.append(record["file"])
        if len(names) == MOST_IN_GRID:
            break
    shown = write_grid(path, [folder.path / name for name in names])
    if shown:
        record_file(folder, shard, path.name, {"images": shown})
        yield FileMade(path, {"images": shown})


def write_npz(folder: RunFolder, run: Run, shard: Shard) -> Iterator[FileMade]:
    """All images of a finished run as the original's npz; nothing of an unfinished one."""
    if len(folder.survey(run.images).missing):
        return  # interrupted: the images are safe, and the same command goes on
    count, (height, width) = len(run.images), run.size
    path = folder.path / f"samples_{count}x{height}x{width}x3.npz"
    if not folder.has(path.name):
        merge_npz(path, *open_runs([folder.path]), lambda _done: None)
        record_file(folder, shard, path.name, {"images": count})
    yield FileMade(path, {"images": count})
