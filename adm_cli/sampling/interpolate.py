"""`adm_cli.interpolate`: images on the way between seeds or classes, and a film, into a folder."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from adm_cli.checkpoints.sources import Sources
from adm_cli.checkpoints.supplying import supplied
from adm_cli.classes.mixtures import heaviest, mixture_text
from adm_cli.devices import choose_device
from adm_cli.diffusion.modifiers import UNASKED, Changes
from adm_cli.errors import UsageError
from adm_cli.events import AnyPath, OnEvent, as_words
from adm_cli.files.strict import type_checked
from adm_cli.sampling.arguments import Classes, Seeds, comma_list, path_or_none, spelled_out
from adm_cli.sampling.asked import asked_stage
from adm_cli.sampling.choosing.image_names import chosen_class, image_name
from adm_cli.sampling.choosing.images import Image, Images
from adm_cli.sampling.choosing.select import choice_name, parse_seeds, wanted_classes
from adm_cli.sampling.job import RunResult, check_workers, find_part
from adm_cli.sampling.outputs import choose_outputs
from adm_cli.sampling.sample import choose_upsampling, sampling_job
from adm_cli.sampling.settings import (
    Interval,
    Machine,
    StageOptions,
    check_modifiers,
    distinct_kinds,
    sampling_config,
)
from adm_cli.sampling.start import machine_line

if TYPE_CHECKING:
    from typing_extensions import Unpack

FRAMES = 16
SEEDS = "0,1"
_MOST_FRAMES = 9999


@type_checked
@supplied
@spelled_out(Changes, UNASKED)
def interpolate(
    model: AnyPath | None = None,
    classifier: AnyPath | None = None,
    class_: Classes | None = None,
    seeds: Seeds | None = None,
    frames: int = FRAMES,
    scale: float | None = None,
    cfg: float | None = None,
    guide_interval: str | Interval | None = None,
    cfg_interval: str | Interval | None = None,
    entropy_scaling: bool = False,
    weak_model: AnyPath | None = None,
    sampler: str | None = None,
    steps: str | int | None = None,
    eta: float | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
    plain: bool = False,
    clip: bool = True,
    upsampler: AnyPath | None = None,
    no_upsample: bool = False,
    keep_base: bool = False,
    workers: int = 1,
    out: AnyPath | None = None,
    format: str = "png",
    grid: bool | None = None,
    gallery: bool = False,
    no_metadata: bool = False,
    overwrite: bool = False,
    fetch: bool = False,
    dry_run: bool = False,
    *,
    on_event: OnEvent | None = None,
    **changes: Unpack[Changes],
) -> RunResult:
    """Draws ``frames`` images on the way through ``seeds``, and a film; goes on with a run there.

    With several classes the way is through them, of one seed, by mixtures of two with falling and
    rising shares. As ``adm interpolate``, whose options these are. The first frame is what `sample`
    draws of where the way begins, the last one of where it ends. ``on_event`` sees every
    `events.Event`. Raises AdmError where the command would print an error: UsageError for arguments
    that cannot be.
    """
    given = {**locals(), **changes}
    part = find_part(None, device, path_or_none(out))
    sources, options = asked_stage(given, guided=scale != 0)
    outputs = choose_outputs(
        path_or_none(out), format, grid, None, gallery, overwrite, part.shard,
        metadata=not no_metadata,
    )  # fmt: skip
    outputs = replace(outputs, beside=replace(outputs.beside, sequence=True))
    images = Images.of(
        _frames(sources, as_words(class_), comma_list(seeds), frames, outputs.suffix)
    )
    config = sampling_config(sources, distinct_kinds(images), options)
    check_modifiers(options, [config])
    where = Machine(choose_device(part.device), dtype, batch_size, plain, workers)
    check_workers(workers, where.device)
    upsampling = choose_upsampling(
        sources, images, upsampler, StageOptions(clip=clip), where, none=no_upsample,
        used=keep_base,
    )  # fmt: skip
    job = sampling_job(sources, config, options, images, upsampling, where, outputs, keep_base)
    job = replace(job, hints=[machine_line(job.run, part.device, where)])
    return job.preview() if dry_run else job.carry_out(on_event)


def _frames(
    sources: Sources, classes: list[str] | None, seeds: str | None, count: int, suffix: str
) -> Iterator[Image]:
    """The images, evenly on the whole way; raises UsageError for what is none."""
    if not 2 <= count <= _MOST_FRAMES:
        raise UsageError(f"--frames must be from 2 to {_MOST_FRAMES}, got {count}")
    wanted = wanted_classes(classes, sources)
    text = seeds if seeds is not None else "0" if len(wanted) > 1 else SEEDS
    parts = [part for one in text.split(",") for part in parse_seeds(one)]
    places = list(itertools.chain(*parts))  # a way may lead back
    if len(wanted) > 1:
        return _through_classes(wanted, places, count, suffix)
    if not wanted:
        raise UsageError(
            "--class: expected the class of all frames, such as 207, or a way: 207,291"
        )
    if len(places) < 2:
        raise UsageError(f"--seeds {text}: expected two seeds or more to go from one to the next")
    return _through_seeds(wanted[0], places, count, suffix, sources)


def _through_seeds(
    choice: int | str | None, places: Sequence[int], count: int, suffix: str, sources: Sources
) -> Iterator[Image]:
    """The same class all along."""
    label, class_id, mixture = chosen_class(choice, choice_name(choice, sources.classes))
    for i, (leg, fraction) in enumerate(_way(count, len(places) - 1)):
        seed, other = places[leg : leg + 2]
        file = image_name(label, seed, f"_{other:06d}_frame{i:04d}{suffix}")
        yield Image(file, class_id, seed, to_seed=other, fraction=fraction, mixture=mixture)


def _through_classes(
    choices: Sequence[int | str | None], places: Sequence[int], count: int, suffix: str
) -> Iterator[Image]:
    """The same seed all along."""
    ids = [choice for choice in choices if isinstance(choice, int)]
    if len(ids) < len(choices):
        raise UsageError("--class: a way leads from one class to another, such as 207,291")
    if len(places) != 1:
        raise UsageError("a way leads through seeds or through classes: pass one of the two")
    label = "-".join(f"{class_id:04d}" for class_id in ids) + "_"
    for i, (leg, fraction) in enumerate(_way(count, len(ids) - 1)):
        file = image_name(label, places[0], f"_frame{i:04d}{suffix}")
        shares = dict(zip(ids[leg : leg + 2], (1 - fraction, fraction), strict=True))
        alone = next((class_id for class_id, share in shares.items() if share == 1), None)
        mixture = mixture_text(shares) if alone is None else None
        class_id = alone if mixture is None else heaviest(mixture)
        yield Image(file, class_id, places[0], mixture=mixture)


def _way(count: int, legs: int) -> Iterator[tuple[int, float]]:
    """By image, on which leg it is, and how far on that."""
    for i in range(count):
        leg, part = divmod(i * legs, count - 1)
        yield (leg, part / (count - 1)) if leg < legs else (leg - 1, 1.0)
