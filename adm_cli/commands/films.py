"""Films of a run's first batch: made while it is drawn, and made again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adm_cli.commands import console
from adm_cli.commands.drawing import Draw, OnStep, Telling

if TYPE_CHECKING:
    from adm_cli.commands.jobs import Loaded
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
    if film.path.parent.resolve() == run.path.resolve():
        record_file(run, shard, film.path.name, film.facts())
    tell.result({"path": str(film.path), "frames": frames})


def film_again(
    run: RunFolder, plan: Plan, name: str, facts: Mapping[str, Any], loaded: Loaded, tell: Telling
) -> None:
    """Draws a film's images once more, for the film alone.

    Writes nothing if it would not be what it was: where both stages of a stack were filmed and no
    longer fit into memory together.
    """
    from adm_cli.storage.outputs import Film
    from adm_cli.storage.runs import Shard

    film = Film.again(run.path / name, facts)
    sizes = {k: v for k, v in facts.items() if k.endswith("batch_size")}
    images = set(facts["images"])
    items = [item._replace(batch_sizes=sizes) for item in plan.items if item.file in images]
    draw = filmed(loaded.draw(run, plan, items), film, plan.kind)
    steps = plan.settings["num_steps"] if loaded.steps is None else loaded.steps
    progress = console.SamplingProgress(len(items), steps, quiet=tell.quiet)
    with progress.show():
        next(draw(items, lambda step: progress.advance(step.x.shape[0], step.i)))
    if film.facts() == facts:
        write_film(run, film, Shard(), tell)
