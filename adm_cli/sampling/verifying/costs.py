"""What mending a run would cost: known, or guessed from what is there."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from adm_cli.checkpoints.sources import Sources
from adm_cli.devices import choose_device
from adm_cli.diffusion.edit_steps import count_steps, ends
from adm_cli.sampling.events import Finding
from adm_cli.sampling.folder import RunFolder
from adm_cli.sampling.recipes.recorded import Whereabouts, run_sources
from adm_cli.sampling.run import Run, Stage
from adm_cli.sampling.settings import stage_bytes
from adm_cli.sampling.verifying.check import LOST


def repair_costs(
    folder: RunFolder, findings: Sequence[Finding], now: Whereabouts
) -> dict[str, Any]:
    """Images to draw, evaluations, seconds, bytes on disk and of memory.

    The seconds are guessed from when the images that are there were written; None without any.
    Raises UsageError or RunError where the weights are not found, as mending does.
    """
    run, records = folder.read(), folder.records()
    lost = {finding.file for finding in findings if finding.kind in LOST}
    images = [name for name in lost if run.images.find(name) is not None]
    pace = seconds_per_image(folder, run)
    known = [records[name]["bytes"] for name in images if name in records]
    mean = sum(known) / len(known) if known else 3 * run.size[0] * run.size[1]
    return {
        "folder": str(folder.path),
        "images": len(images),
        "made_of_images": len(lost) - len(images),  # grids, films, archives
        "evaluations": len(images) * evaluations(run),
        "seconds": None if pace is None else round(pace * len(images), 3),
        "output_bytes": round(mean * len(images)),
        "memory_bytes": memory_bytes(run, run_sources(run, folder, now)) if images else 0,
        "device": str(choose_device(now.device or run.device)),
    }


def drawing_costs(
    folder: RunFolder, run: Run, sources: Sequence[Sources], count: int
) -> dict[str, Any]:
    """Of drawing ``count`` images of a run, as `repair_costs`; the disk's bytes are at most."""
    pace = seconds_per_image(folder, run)
    return {
        "evaluations": count * evaluations(run),
        "seconds": None if pace is None else round(pace * count, 3),
        "output_bytes": 3 * run.size[0] * run.size[1] * count,
        "memory_bytes": memory_bytes(run, sources),
    }


def evaluations(run: Run) -> int:
    """Of networks, for an image; of several classes, and of one and none, one is enough."""
    return sum(
        passes(stage) + (passes(stage) - _inverted(stage)) * _besides(stage)
        for stage in run.stages
        if isinstance(stage, Stage)
    )


def passes(stage: Stage) -> int:
    """Evaluations of a stage's own model alone: heun takes two a step, but one of the last."""
    if stage.strength == 0:  # the picture itself
        return 0
    if stage.sampler != "heun":
        return stage.num_steps
    last = ends(_left(stage), resample=stage.resample, jump=stage.jump)
    return 2 * (stage.num_steps - _inverted(stage)) - last + _inverted(stage)


def _inverted(stage: Stage) -> int:
    """Steps of an inversion, by DDIM and without guidance."""
    return _left(stage) - 1 if stage.invert and stage.strength != 0 else 0


def _besides(stage: Stage) -> int:
    """Worse outputs at each of them, which are led away from."""
    return sum(scale != 1 for scale in (stage.sag_scale, stage.pag_scale, stage.weak_scale))


def _left(stage: Stage) -> int:
    """Steps of its sampler that a stage takes, each counted once."""
    return next(
        left
        for left in range(1, stage.num_steps + 1)
        if count_steps(left, invert=stage.invert, resample=stage.resample, jump=stage.jump)
        >= stage.num_steps
    )


def memory_bytes(run: Run, sources: Sequence[Sources]) -> int:
    """Weights, and the activations of a batch, about."""
    weights = 0
    costs: list[int] = []
    stages = [stage for stage in run.stages if isinstance(stage, Stage)]
    for stage, source in zip(stages, sources, strict=True):
        own, each = stage_bytes(stage, source, run.images)
        weights, costs = weights + own, costs + each
    return weights + run.batch_size * max(costs)


def seconds_per_image(folder: RunFolder, run: Run) -> float | None:
    """By when the files were written, a batch at a time; None where there is but one.

    Of several batches the longest wait is left out, which may be an interruption.
    """
    times = []
    for record in folder.kept(run.images):
        with suppress(OSError):
            times.append(os.stat(folder.path / record["file"]).st_mtime)
    times.sort()
    waits = sorted(after - before for before, after in itertools.pairwise(times))
    images = len(times) - run.batch_size  # the first batch's beginning is not known
    if images > 2 * run.batch_size:
        waits.pop()
        images -= run.batch_size
    return sum(waits) / images or None if images > 0 else None
