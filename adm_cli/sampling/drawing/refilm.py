"""Films whose images are there: these are drawn once more, for the film alone."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from adm_cli.errors import RunError
from adm_cli.events import Note
from adm_cli.sampling.drawing.easel import Easel, Events
from adm_cli.sampling.drawing.film import Film, recorded_film, shoot, write_film
from adm_cli.sampling.drawing.paint import ImageTask
from adm_cli.sampling.events import Ended, Event, Started
from adm_cli.sampling.folder import BATCH_SIZES, Shard


def late_film(easel: Easel, path: Path, tasks: list[ImageTask], *, both: bool) -> Events:
    """Draws a film of images that are there: as its line says, or as if the run were begun now.

    ``tasks`` are the first of the run's images, ``both``: it is to show both stages of a stack.
    Raises RunError where these do not fit into memory together now, or where it would not be what
    its line says.
    """
    run, folder = easel.run, easel.folder
    yield Note(f"{path} is drawn now: its images were there before")
    facts = recorded_film(folder, run, path)
    if facts is not None:
        drawn = yield from film_again(easel, path, facts)
    elif drawn := not easel.models.apart or not both:
        film = Film(path, Film.spacing(run.num_steps), easel.steps, len(run.images))
        if easel.models.apart:  # all that are given get a small picture first
            sizes = [task.batch_sizes.get("batch_size", run.batch_size) for task in tasks]
            most = max(sizes)
            tasks = [task for task, size in zip(tasks, sizes, strict=True) if size == most][:most]
        yield from _shoot(easel, film, tasks, min(len(tasks), run.batch_size))
        yield from write_film(folder, film, Shard())
    if not drawn:
        raise RunError(
            f"all images are in {folder.path}, and {path} cannot be drawn as it would have been, "
            f"for lack of memory: give it more, leave out --animate, or pass --overwrite to start "
            f"anew"
        )


def film_again(easel: Easel, path: Path, facts: Mapping[str, Any]) -> Generator[Event, None, bool]:
    """Likewise, of a film whose ``facts`` are known; returns whether it is what they say."""
    film, run = Film.again(path, facts), easel.run
    sizes = {name: value for name, value in facts.items() if name in BATCH_SIZES}
    places = sorted(place for name in set(facts["images"])
                    if (place := run.images.find(name)) is not None)  # fmt: skip
    tasks = [ImageTask(run.images[place], sizes) for place in places]
    yield from _shoot(easel, film, tasks, len(tasks))
    same = film.facts() == facts
    if same:
        yield from write_film(easel.folder, film, Shard())
    return same


def _shoot(easel: Easel, film: Film, tasks: list[ImageTask], count: int) -> Events:
    """Shows ``film`` the first batch of some images, which has ``count`` at most."""
    yield from easel.begin(iter([tasks]))
    yield Started(None, count, 0, easel.steps)
    yield from shoot(film, easel.run, easel.paint(tasks))
    yield Ended(None, count, 0, count, 0.0)
