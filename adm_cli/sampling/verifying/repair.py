"""What of a run is lost, and making it again, by the run's own settings."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from adm_cli.devices import choose_device
from adm_cli.errors import NotFiniteError
from adm_cli.events import Note
from adm_cli.files.manifests import Record
from adm_cli.pictures.images import read_description
from adm_cli.sampling.beside import GRID, make_beside
from adm_cli.sampling.drawing.draw import Only, draw, draw_film
from adm_cli.sampling.drawing.film import film_facts, film_in, of_run
from adm_cli.sampling.drawing.models import Models
from adm_cli.sampling.events import Event, Finding
from adm_cli.sampling.folder import BASE, RunFolder, Shard
from adm_cli.sampling.outputs import PAGE, SEQUENCE, Extras
from adm_cli.sampling.recipes.recipe import batch_sizes
from adm_cli.sampling.recipes.recorded import (
    Whereabouts,
    recorded_photos,
    recorded_pictures,
    run_sources,
)
from adm_cli.sampling.run import Run
from adm_cli.sampling.settings import current_versions
from adm_cli.sampling.verifying.check import LOST, forget, repair_run


@dataclass(frozen=True)
class Losses:
    """What is to be made again, and all that must be known of it before it is removed."""

    names: set[str]
    images: Only  # with the batch sizes of those whose line is lost too
    films: Mapping[str, Mapping[str, Any] | None]  # None: not known how it was made
    records: Mapping[str, Record] = field(default_factory=dict)  # of all of them, as they were

    def drawn(self) -> list[str]:
        """Files of the images to draw, those for films included."""
        films = [name for film in self.films.values() if film for name in film["images"]]
        return list(dict.fromkeys([*self.images, *films]))


def mend(
    folder: RunFolder, findings: Sequence[Finding], now: Whereabouts
) -> Generator[Event, None, list[Finding]]:
    """Removes what is wrong and makes it again; returns what is gone for good.

    Images that cannot be made again stay as they are. Raises UsageError or RunError where the
    weights of the run are not found, before anything is removed.
    """
    run = folder.read()
    losses, models = _find_losses(folder, run, findings), None
    if losses.drawn():
        models, without = find_models(folder, run, losses.drawn(), now)
        if without:
            name, where = next(iter(without.items()))
            what = "enlarged" if run.first.strength is None else "edited"
            yield Note(
                f"{name}{_and_more(without)} cannot be made again: {where}, which was {what}, "
                f"is gone or has changed: pass what holds that picture with --input"
            )
            findings = [
                finding
                for finding in findings
                if finding.kind not in LOST
                or (run.images.find(finding.file) is not None and finding.file not in without)
            ]
            losses = _find_losses(folder, run, findings)
    repair_run(folder, findings)
    if models is not None and losses.drawn():
        yield from _draw_again(folder, losses, models)
    gone = yield from _make_again(folder, losses)
    yield from _compare(folder, losses)
    return gone


def _find_losses(folder: RunFolder, run: Run, findings: Iterable[Finding]) -> Losses:
    """Looks at what was found to be wrong, while it is there."""
    names = {finding.file for finding in findings if finding.kind in LOST}
    records = folder.records()
    images: dict[str, Mapping[str, int]] = {}
    films: dict[str, Mapping[str, Any] | None] = {}
    for name in sorted(names):
        if run.images.find(name) is not None:
            sizes: Mapping[str, int] = {}
            if name not in records:  # if it is whole, it says itself
                sizes = batch_sizes(read_description(folder.path / name), len(run.stages))
            images[name] = sizes
        elif Path(name).suffix.lower() in (".gif", ".webp") and name != SEQUENCE:
            facts = film_facts(records.get(name)) or film_in(folder.path / name)
            films[name] = of_run(facts, run)
    known = {name: records[name] for name in names if name in records}
    return Losses(names, images, films, known)


def find_models(
    folder: RunFolder, run: Run, names: Iterable[str], now: Whereabouts
) -> tuple[Models, dict[str, str]]:
    """What draws these images of a run again, and which of them have no small picture now."""
    sources = run_sources(run, folder, now)
    models = Models(sources, choose_device(now.device or run.device))
    places = [run.images.find(name) for name in names]
    images = [run.images[place] for place in places if place is not None]
    if run.first.strength is not None:
        photos, without = recorded_photos(images, folder.path, now, run.value_range)
        return replace(models, photos=photos), without
    if not run.first.upsampler:
        return models, {}
    pictures = recorded_pictures(images, folder, sources[0], now)
    return replace(models, pictures=pictures.found, resize=pictures.size), pictures.without


def _draw_again(folder: RunFolder, losses: Losses, models: Models) -> Generator[Event, None, None]:
    """Images and films."""
    run, keep_base = folder.read(), folder.inner(BASE).exists()
    run = replace(run, versions=current_versions(run.stages))
    if losses.images:
        try:
            yield from draw(run, folder, models, only=losses.images, keep_base=keep_base)
        except NotFiniteError as error:  # all others are there; these will be found missing
            yield Note(str(error))
    for name, facts in losses.films.items():
        if facts is not None:
            path = folder.path / name
            yield from draw_film(run, folder, models, path, facts, keep_base=keep_base)


def _make_again(folder: RunFolder, losses: Losses) -> Generator[Event, None, list[Finding]]:
    """What is made of the images; returns what cannot be.

    It is forgotten, but for a film whose line says how to draw it, on a larger machine.
    """
    run = folder.read()
    beside = {name for name in losses.names if run.images.find(name) is None}
    npz = any(name.endswith(".npz") for name in beside)
    made = Extras(npz, GRID in beside, gallery=PAGE in beside, sequence=SEQUENCE in beside)
    yield from make_beside(folder, run, Shard(), made)
    gone = {name for name in beside if not folder.has(name)}
    found = []
    for name in sorted(gone):
        how = "the command that began the run makes it"
        if losses.films.get(name):
            how = "its images do not fit into memory together now, as they did"
        elif name in losses.films:
            how += " with --overwrite"
        found.append(Finding("missing", name, f"{name} cannot be made again: {how}"))
        yield Note(found[-1].text)
    gone -= {name for name, film in losses.films.items() if film}
    if gone:
        forget(folder, gone)
    return found


def _compare(folder: RunFolder, losses: Losses) -> Generator[Event, None, None]:
    """Says so where what was made again is not what it was."""
    before, now = losses.records, folder.records()
    both = [name for name in sorted(losses.names) if name in before and name in now]
    other = [name for name in both if before[name]["sha256"] != now[name]["sha256"]]
    if other:
        yield Note(
            f"{other[0]}{_and_more(other)} is not byte for byte what it was: another version of "
            f"adm or torch, or another machine, made it"
        )


def _and_more(names: Sized) -> str:
    return f" (and {len(names) - 1:,} more)" if len(names) > 1 else ""
