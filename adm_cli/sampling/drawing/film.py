"""Films of a run's first batch: made while it is drawn, and made again."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from adm_cli.files.disk import explained, sync_folder
from adm_cli.files.links import remove
from adm_cli.pictures.images import (
    Pixels,
    make_grid,
    read_description,
    save_animation,
    to_uint8,
)
from adm_cli.sampling.drawing.paint import DrawnBatch
from adm_cli.sampling.drawing.writer import record_file
from adm_cli.sampling.events import Event, FileMade, Step
from adm_cli.sampling.folder import RunFolder, Shard
from adm_cli.sampling.recipes.recipe import batch_sizes
from adm_cli.sampling.run import Run


class Film:
    """Frames of the first batch's denoising, at most 60; the file says what it is of."""

    MOST_FRAMES, MOST_IMAGES = 60, 64

    def __init__(self, path: Path, every: int, steps: int, shown: int) -> None:
        """Every ``every``-th of the last ``steps`` steps, of at most ``shown`` images."""
        self.path, self.every, self.steps = path, every, steps
        self.shown = min(shown, self.MOST_IMAGES)
        self.images: list[str] = []  # files of the batch, once it is done
        self.sizes: Mapping[str, int] = {}  # of batches, as in a line
        self.frames: list[Pixels] = []  # [N, H, W, 3] each
        self.left = 0

    @classmethod
    def spacing(cls, steps: int) -> int:
        """Of the frames of a process of so many steps."""
        return max(1, -(-steps // cls.MOST_FRAMES))

    @classmethod
    def again(cls, path: Path, facts: Mapping[str, Any]) -> Film:
        """One that is to become what its `facts` say."""
        return cls(path, facts["every"], facts["steps"], facts["shown"])

    def facts(self) -> dict[str, Any]:
        """What decides the film, beside the run's settings."""
        return {
            "frames": len(self.frames),
            "every": self.every,
            "steps": self.steps,
            "shown": self.shown,
            **self.sizes,
            "images": self.images,
        }

    def add(self, step: Step) -> None:
        """What a step of the batch made; its steps count down to 0."""
        i = step.left
        if i >= self.left:  # the batch starts, or starts over smaller, out of memory
            self.frames.clear()
        self.left = i
        if i < self.steps and i % self.every == 0:
            x = step.view()[: self.shown]
            self.frames.append(to_uint8(x).cpu().numpy())

    def end(self, run: Run, batch: DrawnBatch) -> None:
        """The batch is done: the film learns what it is of."""
        self.images = [done.image.file for done in batch]
        self.shown = min(self.shown, len(batch))  # the rest is padding
        self.sizes = batch_sizes(batch[0].recipe, len(run.stages))
        if any(done.pixels is None for done in batch):
            self.frames.clear()  # not finite: there is nothing to see

    def close(self) -> int:
        """Writes the film if it is whole; returns the number of frames."""
        if self.left or not self.frames or not self.images:  # interrupted
            return 0
        grids = [make_grid(frame[: self.shown]) for frame in self.frames]
        save_animation(self.path, grids, {"film": self.facts()})
        return len(self.frames)


def film_facts(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """`Film.facts` of a manifest's line or a film's description; None where they are no such."""
    names = ("frames", "every", "steps", "shown", "batch_size", "base_batch_size")
    facts = {name: found[name] for name in (*names, "images") if name in found} if found else {}
    images = facts.get("images")
    if not isinstance(images, list) or not images:
        return None
    if not all(isinstance(name, str) for name in images):
        return None
    numbers = [facts.get(name, 1) for name in names[4:]] + [facts.get(name) for name in names[:4]]
    return facts if all(type(n) is int and n > 0 for n in numbers) else None


def film_in(path: Path) -> dict[str, Any] | None:
    """The `Film.facts` that a file carries; None for one that is no film of ours."""
    found = (read_description(path) or {}).get("film")
    return film_facts(found) if isinstance(found, dict) else None


def remove_film(path: Path) -> None:
    """Removes a film, if there is one, for good; raises OutputError."""
    with explained(f"cannot remove {path}"):
        remove(path)
    sync_folder(path.parent)


def write_film(folder: RunFolder, film: Film, shard: Shard) -> Iterator[FileMade]:
    """Writes a film that is whole, and notes it if it lies in the run's folder."""
    frames = film.close()
    if not frames:
        return
    if _is_within(folder, film.path):
        record_file(folder, shard, film.path.name, film.facts())
    yield FileMade(film.path, {"frames": frames})


def shoot(
    film: Film, run: Run, painted: Iterable[Event | DrawnBatch]
) -> Generator[Event, None, None]:
    """Shows ``film`` the first batch of what is painted, and lets go of the rest."""
    for found in painted:
        if isinstance(found, list):
            film.end(run, found)
            return
        if isinstance(found, Step):
            film.add(found)
        yield found


def _is_within(folder: RunFolder, path: Path) -> bool:
    return path.parent.resolve() == folder.path.resolve()


def may_write_film(folder: RunFolder, run: Run, path: Path) -> bool:
    """Whether what is at ``path``, if anything, is this run's film; not before it has an image."""
    if not folder.drawn_any(run.images):
        return not path.exists()
    recorded = _is_within(folder, path) and path.name in folder.records()
    return recorded or not path.exists() or _film_at(path, run) is not None


def film_due(folder: RunFolder, run: Run, path: Path) -> bool:
    """Whether images are there and the film is not, which is made as the first ones are drawn.

    So where a run was killed before its film was written, or where none was asked for then.
    """
    if not folder.drawn_any(run.images):
        return False
    recorded = _is_within(folder, path) and path.name in folder.records()
    whole = not recorded or folder.has(path.name)
    return not whole or _film_at(path, run) is None


def recorded_film(folder: RunFolder, run: Run, path: Path) -> dict[str, Any] | None:
    """The facts of the film that a line says was at ``path``, if it shows images of the run."""
    if not _is_within(folder, path):
        return None
    return of_run(film_facts(folder.records().get(path.name)), run)


def of_run(facts: dict[str, Any] | None, run: Run) -> dict[str, Any] | None:
    """A film's facts, if it shows images of the run alone."""
    if facts and all(run.images.find(name) is not None for name in facts["images"]):
        return facts
    return None


def _film_at(path: Path, run: Run) -> dict[str, Any] | None:
    """The facts of the film at ``path`` if it shows images of the run."""
    return of_run(film_in(path), run)


def note_film(folder: RunFolder, run: Run, path: Path) -> None:
    """Writes the line of a film that is there, if a kill came before it."""
    if _is_within(folder, path) and path.name not in folder.records():
        facts = _film_at(path, run)
        if facts is not None:
            record_file(folder, Shard(), path.name, facts)
