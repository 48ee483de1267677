"""`adm_cli.edit`: pictures drawn anew, in part or as another class, into a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from adm_cli.checkpoints.sources import Sources
from adm_cli.checkpoints.supplying import supplied
from adm_cli.classes.imagenet import select_classes
from adm_cli.config import SamplingConfig, UNetConfig
from adm_cli.devices import choose_device
from adm_cli.diffusion.modifiers import UNASKED, Changes
from adm_cli.errors import UsageError
from adm_cli.events import AnyPath, OnEvent, as_paths, as_words, ignore
from adm_cli.files.strict import type_checked
from adm_cli.sampling.arguments import Classes, Seeds, comma_list, path_or_none, spelled_out
from adm_cli.sampling.asked import asked_stage
from adm_cli.sampling.choosing.asked_classes import choose_classes
from adm_cli.sampling.choosing.images import Images
from adm_cli.sampling.choosing.inputs import open_inputs
from adm_cli.sampling.choosing.select_edits import chosen_seeds, pair_masks, select_edits
from adm_cli.sampling.defaults import choose_schedule, remarks
from adm_cli.sampling.drawing.models import Models
from adm_cli.sampling.editing import UNEDITED, Editing
from adm_cli.sampling.job import RunResult, SamplingJob, check_workers, find_part
from adm_cli.sampling.outputs import Outputs, choose_outputs
from adm_cli.sampling.run import Filter, Run, Stage
from adm_cli.sampling.sample import choose_upsampling, sampling_facts
from adm_cli.sampling.settings import (
    Interval,
    Machine,
    StageOptions,
    Upsampling,
    check_modifiers,
    distinct_kinds,
    make_run,
    make_stage,
    sampling_config,
)
from adm_cli.sampling.start import machine_line
from adm_cli.sampling.upsample import check_same_inputs

if TYPE_CHECKING:
    from typing_extensions import Unpack

STRENGTH = 0.6  # without a mask
RESAMPLE, JUMP = 5, 2  # with one


@type_checked
@supplied
@spelled_out(Changes, UNASKED)
def edit(
    inputs: AnyPath | Sequence[AnyPath],
    model: AnyPath | None = None,
    classifier: AnyPath | None = None,
    class_: Classes | None = None,
    strength: float | None = None,
    mask: AnyPath | None = None,
    resample: int | None = None,
    jump: int | None = None,
    invert: bool = False,
    from_class: str | int | None = None,
    scale: float | None = None,
    cfg: float | None = None,
    guide_interval: str | Interval | None = None,
    cfg_interval: str | Interval | None = None,
    entropy_scaling: bool = False,
    weak_model: AnyPath | None = None,
    num: int | None = None,
    seed: int | None = None,
    seeds: Seeds | None = None,
    sampler: str | None = None,
    steps: str | int | None = None,
    eta: float | None = None,
    value_range: str | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
    plain: bool = False,
    clip: bool = True,
    upsampler: AnyPath | None = None,
    no_upsample: bool = False,
    keep_base: bool = False,
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
    """Draws pictures anew, in part or as another class; goes on with a run there.

    As ``adm edit``, whose options these are. ``inputs`` are pictures, folders of them, npz files or
    runs. ``on_event`` sees every `events.Event`. Raises AdmError where the command would print an
    error: UsageError for arguments that cannot be, before any work.
    """
    given = {**locals(), **changes}
    part = find_part(shard, device, path_or_none(out))
    sources, options = asked_stage(given, guided=scale != 0)
    how = _editing(sources, strength, mask, resample, jump, invert, from_class)
    pictures = open_inputs(as_paths(inputs), on_event or ignore, values=value_range)
    masks = None if mask is None else open_inputs(as_paths(mask))
    outputs = choose_outputs(
        path_or_none(out), format, grid, path_or_none(animate), gallery, overwrite, part.shard,
        metadata=not no_metadata,
    )  # fmt: skip
    images, made_of = select_edits(
        pair_masks(pictures, masks, on_event or ignore), sources, as_words(class_),
        chosen_seeds(seed, comma_list(seeds), num), outputs.suffix,
    )  # fmt: skip
    config = sampling_config(sources, distinct_kinds(images), options)
    if invert and eta is None:  # a latent is decoded without noise
        config = replace(config, eta=None)
    check_modifiers(options, [config])
    where = Machine(choose_device(part.device), dtype, batch_size, plain, workers)
    check_workers(workers, where.device)
    upsampling = choose_upsampling(
        sources, images, upsampler, StageOptions(clip=clip), where, none=no_upsample,
        used=keep_base,
    )  # fmt: skip
    weights = [sources]
    if upsampling is not None and upsampling.sources is not None:
        weights.append(upsampling.sources)
    run = _run(weights, config, how, images, upsampling, where, outputs)
    if pictures.values is not None:
        run = replace(run, value_range=pictures.values[:2])
    job = SamplingJob(
        run, Models(weights, where.device, photos=made_of, processes=workers), outputs,
        _facts(run, sources, len(pictures)), [*remarks(config, sources.model.info.diffusion)],
        keep_base, workers, [machine_line(run, part.device, where)],
    )  # fmt: skip
    if dry_run:
        return job.preview()
    check_same_inputs(run, outputs)
    return job.carry_out(on_event)


def _run(
    weights: Sequence[Sources],
    config: SamplingConfig,
    how: Editing,
    images: Images,
    upsampling: Upsampling | None,
    where: Machine,
    outputs: Outputs,
) -> Run:
    sources = weights[0]
    schedule = choose_schedule(sources.model.info.diffusion, config.steps, config.spacing)
    first = replace(
        make_stage(sources, config, where),
        num_steps=how.edited_steps(len(schedule)),
        **{name: getattr(how, name) for name in UNEDITED},
    )
    stages: list[Stage | Filter] = [first, *([] if upsampling is None else [upsampling.stage])]
    return make_run(stages, weights, images, where, outputs.suffix[1:], metadata=outputs.metadata)


def _editing(
    sources: Sources,
    strength: float | None,
    mask: AnyPath | None,
    resample: int | None,
    jump: int | None,
    invert: bool,
    from_class: str | int | None,
) -> Editing:
    """What is asked for, resolved; raises UsageError or ConfigError."""
    if mask is None and (resample is not None or jump is not None):
        raise UsageError("--resample and --jump are about what a --mask has drawn anew: pass one")
    if from_class is not None and not invert:
        raise UsageError("--from-class says what is on the picture to --invert: pass it, too")
    if strength is None:
        strength = STRENGTH if mask is None else 1.0
    if mask is not None:
        resample = RESAMPLE if resample is None else resample
        jump = JUMP if jump is None else jump
    return Editing(
        strength=float(strength),
        invert=invert,
        from_class=None if from_class is None else _one_class(sources, str(from_class)),
        resample=1 if resample is None else resample,
        jump=1 if jump is None else jump,
    )


def _one_class(sources: Sources, spec: str) -> int:
    config = sources.model.info.config
    assert isinstance(config, UNetConfig)
    if config.num_classes is None:
        raise UsageError(
            f"{sources.called} takes no class: --from-class would change nothing, leave it out"
        )
    chosen = choose_classes(spec, sources, select_classes)
    if len(chosen) != 1:
        raise UsageError(f"--from-class {spec}: expected one class")
    return chosen[0]


def _facts(run: Run, sources: Sources, pictures: int) -> dict[str, Any]:
    """What a person may want to know in advance."""
    stage = run.first
    names = ["strength"]
    names += ["invert"] if stage.invert else []
    names += ["from_class"] if stage.from_class is not None else []
    names += ["resample", "jump"] if run.images[0].mask_sha256 is not None else []
    more = {name: getattr(stage, name) for name in names}
    return {**sampling_facts(run, sources), **more, "pictures": pictures}
