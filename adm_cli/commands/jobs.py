"""A run from its settings to its folder: what `adm sample` and `adm upsample` have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from adm_cli.commands.drawing import Draw, Telling, draw_into, nothing, sampled
from adm_cli.commands.films import film_due, late_film, note_film
from adm_cli.commands.sample_outputs import Outputs, automatic, extras, prepare

if TYPE_CHECKING:
    from adm_cli.config import SamplingConfig
    from adm_cli.sources import Sources
    from adm_cli.storage.plans import Item, Plan
    from adm_cli.storage.runs import RunFolder


@dataclass(frozen=True)
class Loaded:
    """Weights in memory, and what is to be done with them: ``draw`` some items of a run."""

    batch_size: int
    draw: Callable[[RunFolder, Plan, Sequence[Item]], Draw]
    steps: int | None = None  # that a `Draw` makes for a batch; None: all that the plan has


@dataclass(frozen=True)
class Job:
    """A run that is asked for; ``load`` is called only where images are missing."""

    plan: Plan
    outputs: Outputs
    tell: Telling
    load: Callable[[], Loaded]
    finish: Callable[[RunFolder, Plan], None] = lambda _run, _plan: None


def run_job(job: Job) -> None:
    """Begins or goes on with a run: all that could go wrong first, then weights, then images."""
    from adm_cli.storage.outputs import remove_film
    from adm_cli.storage.runs import RunFolder

    fresh, chosen = job.outputs.out is None, automatic(job.plan)
    outputs, plan = prepare(job.outputs, job.plan), job.plan
    run = RunFolder(outputs.folder)
    film = outputs.animation
    try:
        loaded = None
        mine = outputs.shard.share(plan.items)
        there, late = len(run.kept(mine)), False
        if film is not None and not outputs.overwrite:
            late = film_due(run, plan, film)
        if outputs.overwrite or there < len(mine) or late:  # else there is nothing to load
            loaded = job.load()
            plan = replace(plan, settings={**plan.settings, "batch_size": loaded.batch_size})
        plan, changes = run.begin(plan, automatic=chosen, overwrite=outputs.overwrite)
        if changes:
            job.tell.note(f"since {run.path} was begun, this has changed: {', '.join(changes)}")
        if loaded is not None:
            take_threads(run, plan, job.tell)
        if film is not None and outputs.overwrite:
            remove_film(film)  # of other images, which are gone
        # Small pictures that come first have a folder until all images are there.
        both = plan.kind == "stack" and there < len(mine) and not run.bases()
        draw_images(loaded, run, plan, plan.items, outputs, job.tell)
        try:
            if film is not None and late:
                assert loaded is not None
                late_film(run, plan, film, loaded, job.tell, both=both)
            elif film is not None:
                note_film(run, plan, film)
        finally:
            job.finish(run, plan)
    finally:
        if fresh and not run.bases():
            run.discard_if_empty()


def take_threads(run: RunFolder, plan: Plan, tell: Telling) -> None:
    """From here on the number of CPU threads computes with which the run was begun."""
    import torch

    from adm_cli.devices import use_threads

    threads, mine = plan.settings["threads"], torch.get_num_threads()
    if not use_threads(threads):
        tell.note(
            f"since {run.path} was begun, this has changed: threads {threads!r:.20} -> {mine}"
        )
    elif threads not in (None, mine):
        tell.note(f"computing with {threads} CPU threads, as {run.path} was begun")


def draw_images(
    loaded: Loaded | None,
    run: RunFolder,
    plan: Plan,
    items: Sequence[Item],
    outputs: Outputs,
    tell: Telling,
) -> None:
    """Draws those of a run's ``items`` that are missing, and what goes beside them."""
    steps: int = plan.settings["num_steps"]
    draw: Draw = nothing
    if loaded is not None:
        steps = steps if loaded.steps is None else loaded.steps
        missing = run.missing(outputs.shard, outputs.shard.share(items))
        if missing:
            draw = loaded.draw(run, plan, missing)
    draw, closing = extras(outputs, run, plan, draw, steps, tell)
    height, width = plan.settings["size"]
    draw_into(
        run,
        outputs.shard,
        items,
        draw,
        steps=steps,
        tell=tell,
        image_bytes=height * width * 3 // 2,  # a PNG seldom has less
        closing=closing,
    )


def load_sampling(
    sources: Sources, config: SamplingConfig, tell: Telling, *, device: str, dtype: str
) -> Loaded:
    """A diffusion model, and its classifier where any image is guided."""
    from adm_cli.pipeline import choose_batch_size, load_pipeline

    pipeline = load_pipeline(sources, guided=config.guided, device=device, dtype=dtype)
    return Loaded(
        choose_batch_size(pipeline, config),
        lambda _run, plan, _items: sampled(pipeline, planned(config, plan), tell),
    )


def planned(config: SamplingConfig, plan: Plan) -> SamplingConfig:
    """``config`` with the batch size of a plan."""
    return replace(config, batch_size=plan.settings["batch_size"])
