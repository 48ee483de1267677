"""Films of a run's first batch: made while it is drawn, and made again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adm_cli.commands import console, signals
from adm_cli.commands.drawing import Draw, OnStep, Telling
from adm_cli.errors import RunError

if TYPE_CHECKING:
    from adm_cli.commands.jobs import Loaded
    from adm_cli.diffusion.steps import SampleStep
    from adm_cli.storage.outputs import Film
    from adm_cli.storage.plans import Item, Plan
    from adm_cli.storage.runs import RunFolder, Shard
    from adm_cli.storage.writing import Finished


def filmed(draw: Draw, film: Film, kind: str) -> Draw:
    """``draw``, its first batch shown to ``film``, which learns what it is of."""
    from adm_cli.recipes import batch_sizes

    def watched(missing: Sequence[Item], on_step: OnStep) -> Iterator[Sequence[Finished]]:
        def on_filmed_step(step: Any) -> None:
            if not film.images:
                film.add(step.i, step.x)
            on_step(step)

        for batch in draw(missing, on_filmed_step):
            if not film.images:
                film.images = [finished.item.file for finished in batch]
                film.sizes = batch_sizes(kind, batch[0].recipe)
                if any(finished.pixels is None for finished in batch):
                    film.frames.clear()  # not finite: there is nothing to see
            yield batch

    return watched


def write_film(run: RunFolder, film: Film, shard: Shard, tell: Telling) -> None:
    """Writes a film that is whole, and notes it if it lies in the run's folder."""
    from adm_cli.storage.writing import record_file

    frames = film.close()
    if not frames:
        return
    if _is_within(run, film.path):
        record_file(run, shard, film.path.name, film.facts())
    tell.result({"path": str(film.path), "frames": frames})


def _is_within(run: RunFolder, path: Path) -> bool:
    return path.parent.resolve() == run.path.resolve()


def may_write_film(run: RunFolder, plan: Plan, path: Path) -> bool:
    """Whether what is at ``path``, if anything, is this run's film; not before it has an image."""
    if not run.drawn_any(plan.items):
        return not path.exists()
    recorded = _is_within(run, path) and path.name in run.records()
    return recorded or not path.exists() or _film_at(path, plan) is not None


def film_due(run: RunFolder, plan: Plan, path: Path) -> bool:
    """Whether images are there and the film is not, which is made as the first ones are drawn.

    So where a run was killed before its film was written, or where none was asked for then.
    """
    if not run.drawn_any(plan.items):
        return False
    record = run.records().get(path.name) if _is_within(run, path) else None
    whole = record is None or run.fits(record)
    return not whole or _film_at(path, plan) is None


def _film_at(path: Path, plan: Plan) -> dict[str, Any] | None:
    """The facts of the film at ``path`` if it shows images of the run."""
    from adm_cli.storage.outputs import film_in

    facts = film_in(path)
    return facts if facts and {i.file for i in plan.items}.issuperset(facts["images"]) else None


def late_film(
    run: RunFolder, plan: Plan, path: Path, loaded: Loaded, tell: Telling, *, both: bool
) -> None:
    """Draws a `film_due`: as its line says, or else as if the run were begun now.

    ``both``: it is to show both stages of a stack. Raises RunError where these do not fit into
    memory together now, or where it would not be what its line says.
    """
    from adm_cli.commands.drawing import by_batch_size
    from adm_cli.storage.outputs import Film, film_facts
    from adm_cli.storage.runs import Shard

    tell.note(f"{path} is drawn now: its images were there before")
    facts = film_facts(run.records().get(path.name)) if _is_within(run, path) else None
    if facts and {i.file for i in plan.items}.issuperset(facts["images"]):
        drawn = film_again(run, plan, path, facts, loaded, tell)
    elif drawn := loaded.steps is None or not both:
        steps: int = plan.settings["num_steps"]
        film = Film(path, Film.spacing(steps), loaded.steps or steps, len(plan.items))
        items = run.sized(Shard(), plan.items)
        if loaded.steps is not None:  # all that are given get a small picture first
            (size,), items = next(by_batch_size(items, plan.settings["batch_size"], "batch_size"))
            items = items[:size]
        count = min(len(items), plan.settings["batch_size"])
        _draw_film(run, plan, film, items, count, loaded, tell)
        write_film(run, film, Shard(), tell)
    if not drawn:
        raise RunError(
            f"all images are in {run.path}, and {path} cannot be drawn as it would have been, for "
            f"lack of memory: give it more, leave out --animate, or pass --overwrite to start anew"
        )


def note_film(run: RunFolder, plan: Plan, path: Path) -> None:
    """Writes the line of a film that is there, if a kill came before it."""
    from adm_cli.storage.runs import Shard
    from adm_cli.storage.writing import record_file

    if _is_within(run, path) and path.name not in run.records():
        facts = _film_at(path, plan)
        if facts is not None:
            record_file(run, Shard(), path.name, facts)


def film_again(
    run: RunFolder, plan: Plan, path: Path, facts: Mapping[str, Any], loaded: Loaded, tell: Telling
) -> bool:
    """Draws a film's images once more, for the film alone.

    Writes nothing, and returns False, if it would not be what it was: where both stages of a stack
    were filmed and no longer fit into memory together, or not as many images as then.
    """
    from adm_cli.storage.outputs import Film
    from adm_cli.storage.runs import Shard

    film = Film.again(path, facts)
    sizes = {k: v for k, v in facts.items() if k.endswith("batch_size")}
    images = set(facts["images"])
    items = [item._replace(batch_sizes=sizes) for item in plan.items if item.file in images]
    _draw_film(run, plan, film, items, len(items), loaded, tell)
    same = film.facts() == facts
    if same:
        write_film(run, film, Shard(), tell)
    return same


def _draw_film(
    run: RunFolder, plan: Plan, film: Film, items: Sequence[Item], count: int, loaded: Loaded,
    tell: Telling,
) -> None:  # fmt: skip
    """Shows ``film`` the first batch of ``items``, which has ``count`` images at most."""
    draw = filmed(loaded.draw(run, plan, items), film, plan.kind)
    steps = plan.settings["num_steps"] if loaded.steps is None else loaded.steps
    progress = console.SamplingProgress(count, steps, quiet=tell.quiet)

    def on_step(step: SampleStep) -> None:
        signals.check()
        progress.advance(step.x.shape[0], step.i)

    with progress.show():
        next(draw(items, on_step))
