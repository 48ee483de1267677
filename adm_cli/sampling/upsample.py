"""`adm_cli.upsample`: pictures enlarged by an upsampler, into a folder."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from adm_cli.checkpoints.presets import CHECKPOINTS
from adm_cli.checkpoints.sources import Sources, find_upsampler
from adm_cli.checkpoints.supplying import supplied
from adm_cli.config import UNetConfig
from adm_cli.devices import choose_device
from adm_cli.diffusion.modifiers import OF_TRAJECTORY, Changes, modified
from adm_cli.errors import RunError, UsageError, are, size_words
from adm_cli.events import AnyPath, OnEvent, as_paths, ignore
from adm_cli.files.strict import type_checked
from adm_cli.sampling.arguments import Seeds, comma_list, path_or_none, spelled_out
from adm_cli.sampling.asked import asked_modifiers
from adm_cli.sampling.choosing.images import Images
from adm_cli.sampling.choosing.inputs import InputPictures, open_inputs
from adm_cli.sampling.choosing.select_pictures import select_enlarged
from adm_cli.sampling.drawing.models import Models
from adm_cli.sampling.job import RunResult, SamplingJob, check_workers, find_part
from adm_cli.sampling.outputs import Outputs, choose_outputs
from adm_cli.sampling.run import Run
from adm_cli.sampling.settings import (
    Machine,
    StageOptions,
    distinct_kinds,
    enlarging_config,
    low_res_size,
    make_run,
    make_stage,
)
from adm_cli.sampling.start import machine_line

if TYPE_CHECKING:
    from typing_extensions import Unpack


@type_checked
@supplied
@spelled_out(Changes, dict.fromkeys(OF_TRAJECTORY))
def upsample(
    inputs: AnyPath | Sequence[AnyPath],
    model: AnyPath | None = None,
    class_: str | int | None = None,
    sampler: str | None = None,
    steps: str | int | None = None,
    eta: float | None = None,
    seed: int | None = None,
    seeds: Seeds | None = None,
    project: int | None = None,
    noise: float | None = None,
    batch_size: int | None = None,
    resize: bool = False,
    value_range: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    plain: bool = False,
    clip: bool = True,
    shard: str | None = None,
    workers: int = 1,
    out: AnyPath | None = None,
    format: str = "png",
    grid: bool | None = None,
    animate: AnyPath | None = None,
    gallery: bool = False,
    no_metadata: bool = False,
    overwrite: bool = False,
    fetch: bool = False,
    dry_run: bool = False,
    *,
    on_event: OnEvent | None = None,
    **changes: Unpack[Changes],
) -> RunResult:
    """Enlarges pictures with an upsampler, in the order of the inputs; goes on with a run there.

    As ``adm upsample``, whose options these are. ``inputs`` are pictures, folders of them, npz
    files or runs. ``on_event`` sees every `events.Event`. Raises AdmError where the command would
    print an error: UsageError for arguments that cannot be, before any work.
    """
    part = find_part(shard, device, path_or_none(out))
    sources = None if model is None else find_upsampler(model)
    size = _size_to_fit(sources) if resize else None
    pictures = open_inputs(as_paths(inputs), on_event or ignore, resize=size, values=value_range)
    sources = sources or _upsampler_for(pictures)
    _check_sizes(pictures, sources)
    outputs = choose_outputs(
        path_or_none(out), format, grid, path_or_none(animate), gallery, overwrite, part.shard,
        metadata=not no_metadata,
    )  # fmt: skip
    images, made_of = select_enlarged(
        pictures, sources, comma_list(class_), seed, comma_list(seeds), outputs.suffix
    )
    options = StageOptions(
        sampler=sampler, steps=comma_list(steps), eta=eta, clip=clip, project=project, noise=noise,
        **asked_modifiers(changes),
    )  # fmt: skip
    where = Machine(choose_device(part.device), dtype, batch_size, plain, workers)
    check_workers(workers, where.device)
    run = _run(sources, images, options, where, outputs)
    if pictures.values is not None:
        run = replace(run, value_range=pictures.values[:2])
    models = Models([sources], where.device, made_of, pictures.size, processes=workers)
    told = machine_line(run, part.device, where)
    about = _settings(run, len(pictures))
    job = SamplingJob(run, models, outputs, about, hints=[told], workers=workers)
    if dry_run:
        return job.preview()
    check_same_inputs(run, outputs)
    return job.carry_out(on_event)


def _run(
    sources: Sources, images: Images, options: StageOptions, where: Machine,
    outputs: Outputs,
) -> Run:  # fmt: skip
    config = enlarging_config(sources, distinct_kinds(images), options)
    stage = make_stage(sources, config, where)
    return make_run(
        [stage], [sources], images, where, outputs.suffix[1:], metadata=outputs.metadata
    )


def _size_to_fit(sources: Sources | None) -> tuple[int, int]:
    if sources is None:
        raise UsageError("--resize needs --model, which says to what size")
    return low_res_size(sources)


def _upsampler_for(pictures: InputPictures) -> Sources:
    """The known upsampler for pictures of this size; raises UsageError where there is none."""
    (size, count), *_ = collections.Counter(item.size for item in pictures.items).most_common()
    known = {}
    for row in CHECKPOINTS:
        if isinstance(row.config, UNetConfig) and row.config.low_res_size is not None:
            known[row.config.low_res_size] = row.name
    if size in known:
        return find_upsampler(known[size])
    listed = ", ".join(f"{name} ({size_words(small)})" for small, name in known.items())
    raise UsageError(
        f"{count} of {len(pictures)} pictures {are(count)} {size_words(size)}, and no known "
        f"upsampler "
        f"enlarges these: pass --model, perhaps with --resize (there are {listed})"
    )


def _check_sizes(pictures: InputPictures, sources: Sources) -> None:
    size = low_res_size(sources)
    wrong = [] if pictures.size is not None else [i for i in pictures.items if i.size != size]
    if wrong:
        raise UsageError(
            f"{len(wrong)} of {len(pictures)} pictures {are(len(wrong))} not "
            f"{size_words(size)}, which "
            f"{sources.called} enlarges, e.g. {wrong[0].where} ({size_words(wrong[0].size)}): "
            f"pass --resize to fit them, or another --model"
        )


_WHAT = {
    "small_sha256": "another picture",
    "photo_sha256": "another picture",
    "mask_sha256": "another mask",
    "class": "another class",
    "seed": "another seed",
}


def check_same_inputs(run: Run, outputs: Outputs) -> None:
    """Raises RunError where images of the run were made from other pictures or with other seeds."""
    if outputs.overwrite or outputs.out is None:
        return
    for record in outputs.folder.kept(run.images):
        place = run.images.find(record["file"])
        assert place is not None
        image = run.images[place]
        facts = image.facts()
        for name, what in _WHAT.items():
            if record.get(name) != facts.get(name):
                raise RunError(
                    f"{outputs.out / image.file} was made from {what} than {image.input} "
                    f"now gives: choose another --out, or pass --overwrite to start anew"
                )


def _settings(run: Run, pictures: int) -> dict[str, Any]:
    """What a person may want to know in advance."""
    stage = run.first
    names = ("model", "model_sha256", "sampler", "steps", "num_steps", "eta", "project",
             "low_res_noise")  # fmt: skip
    return {
        **{name: getattr(stage, name) for name in names},
        **modified(stage),
        "pictures": pictures,
        "classes": list(dict.fromkeys(row.first.class_id for row in run.images.rows)),
        "images": len(run.images),
        "size": list(run.size),
    }
