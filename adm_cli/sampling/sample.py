"""`adm_cli.sample`: class-guided images into a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adm_cli.checkpoints.sources import Sources
from adm_cli.checkpoints.supplying import supplied
from adm_cli.config import DEFAULT_MODEL, SamplingConfig
from adm_cli.devices import choose_device
from adm_cli.diffusion.modifiers import UNASKED, Changes, modified
from adm_cli.errors import MissingWeightsError, UsageError
from adm_cli.events import AnyPath, Note, OnEvent, as_words, ignore
from adm_cli.files.strict import type_checked
from adm_cli.sampling.arguments import Classes, Seeds, comma_list, path_or_none, spelled_out
from adm_cli.sampling.asked import asked_stage
from adm_cli.sampling.choosing.images import Images
from adm_cli.sampling.choosing.select import (
    ClassLine,
    read_class_list,
    select_images,
    select_lines,
)
from adm_cli.sampling.defaults import noise_remarks, remarks, taken_from
from adm_cli.sampling.drawing.models import Models
from adm_cli.sampling.job import RunResult, SamplingJob, check_workers, find_part
from adm_cli.sampling.outputs import Outputs, choose_outputs
from adm_cli.sampling.profiles import fill_profile, in_words, profile_contents
from adm_cli.sampling.recipes.like import read_likeness
from adm_cli.sampling.run import Filter, Run, Stage
from adm_cli.sampling.settings import (
    Interval,
    Machine,
    StageOptions,
    Upsampling,
    check_modifiers,
    distinct_kinds,
    find_upsampling,
    make_run,
    make_stage,
    sampling_config,
)
from adm_cli.sampling.start import classes_lines, machine_line

if TYPE_CHECKING:
    from typing_extensions import Unpack


@type_checked
@supplied
@spelled_out(Changes, UNASKED)
def sample(
    model: AnyPath | None = None,
    classifier: AnyPath | None = None,
    class_: Classes | None = None,
    scale: float | None = None,
    num: int | None = None,
    total: int | None = None,
    guide_interval: str | Interval | None = None,
    entropy_scaling: bool | None = None,
    cfg: float | None = None,
    cfg_interval: str | Interval | None = None,
    weak_model: AnyPath | None = None,
    classes_file: AnyPath | None = None,
    sampler: str | None = None,
    steps: str | int | None = None,
    eta: float | None = None,
    seed: int | None = None,
    seeds: Seeds | None = None,
    like: AnyPath | None = None,
    profile: str | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    plain: bool | None = None,
    clip: bool | None = None,
    upsampler: AnyPath | None = None,
    no_upsample: bool = False,
    keep_base: bool = False,
    upsample_sampler: str | None = None,
    upsample_steps: str | int | None = None,
    upsample_project: int | None = None,
    upsample_noise: float | None = None,
    upsample_temperature: float | None = None,
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
    """Draws images of a class into a folder, guided by a classifier; goes on with a run there.

    As ``adm sample``, whose options these are: ``class_`` also takes ids, ``seeds`` numbers, and
    ``changes`` are what `Modifiers` has.
    ``like`` is a picture whose recipe says what nothing else does, ``profile`` a word that does:
    paper, fast or best. ``on_event`` sees every `events.Event`. Raises AdmError where the command
    would print an error: UsageError for arguments that cannot be, before any work.
    """
    given = {**locals(), **changes}
    del given["changes"]
    if like is not None or profile is not None:
        return _sample_filled(given)
    part = find_part(shard, device or "auto", path_or_none(out))
    clip = clip is not False
    later = StageOptions(
        sampler=upsample_sampler, steps=comma_list(upsample_steps), project=upsample_project,
        noise=upsample_noise, clip=clip, temperature=upsample_temperature,
    )  # fmt: skip
    classes, texts = as_words(class_), comma_list(seeds)
    lines = _class_list(path_or_none(classes_file), classes, texts, total)
    guided = scale != 0 or any(line.scale for line in lines)
    sources, options = asked_stage(given, guided=guided)
    outputs = choose_outputs(
        path_or_none(out), format, grid, path_or_none(animate), gallery, overwrite, part.shard,
        metadata=not no_metadata,
    )  # fmt: skip
    if lines:
        images = select_lines(sources, lines, outputs.suffix, seed=seed, num=num)
    else:
        images = select_images(
            sources, classes, outputs.suffix, seed=seed, seeds=texts, num=num, total=total
        )
    config = sampling_config(sources, distinct_kinds(images), options)
    check_modifiers(options, [config])
    where = Machine(choose_device(part.device), dtype or "auto", batch_size, bool(plain), workers)
    check_workers(workers, where.device)
    used = keep_base or later != StageOptions(clip=clip)
    upsampling = choose_upsampling(
        sources, images, upsampler, later, where, none=no_upsample, used=used
    )
    job = sampling_job(sources, config, options, images, upsampling, where, outputs, keep_base)
    hints = [machine_line(job.run, part.device, where)]
    if classes is None and not lines and sources.classes:
        hints += classes_lines(images, sources.classes)
    job = replace(job, hints=hints)
    return job.preview() if dry_run else job.carry_out(on_event)


def _sample_filled(asked: dict[str, Any]) -> RunResult:
    """With the settings of a picture or a profile for what was not asked."""
    like, profile = asked.pop("like"), asked.pop("profile")
    dry_run, on_event = asked.pop("dry_run"), asked.pop("on_event")
    if profile is None:
        return _sample_like(like, asked, dry_run, on_event)
    if like is not None:
        raise UsageError("--like and --profile both say what was not asked for: pass one of them")
    return _sample_by(profile, asked, dry_run, on_event)


def _sample_by(
    profile: str, asked: dict[str, Any], dry_run: bool, on_event: OnEvent | None
) -> RunResult:
    """What the profile sets is told first; by a dry run too where the weights are not here."""
    model, guided = str(asked["model"] or DEFAULT_MODEL), asked["classifier"] is not None
    contents = profile_contents(profile, model, guided=guided)
    filled = fill_profile(contents, asked)
    taken = {name: value for name, value in contents.items() if filled[name] != asked[name]}
    told = Note(f"profile {profile}: {in_words(taken) or 'what the preset recommends'}")
    tell = on_event or ignore
    if not dry_run:
        tell(told)
        return sample(**filled, on_event=on_event)
    try:
        planned = sample(**filled, dry_run=True)
    except MissingWeightsError:
        tell(told)
        raise
    more = {"profile": profile, "profile_sets": taken}
    return replace(planned, settings={**more, **planned.settings})


def _sample_like(
    picture: AnyPath, asked: dict[str, Any], dry_run: bool, on_event: OnEvent | None
) -> RunResult:
    """With the settings of a picture for what was not asked, and what differs told first."""
    likeness = read_likeness(picture)
    filled = likeness.fill(asked)
    planned = sample(**filled, dry_run=True)
    differing = likeness.differences(planned.run)
    if dry_run:
        more = {"like": str(likeness.picture), "differs": differing}
        return replace(planned, settings={**planned.settings, **more})
    if on_event is not None:
        but = "; ".join(differing) or "the seeds at most"
        on_event(Note(f"as {likeness.picture}; what differs: {but}"))
    return sample(**filled, on_event=on_event)


def _class_list(
    path: Path | None, classes: list[str] | None, seeds: str | None, total: int | None
) -> list[ClassLine]:
    if path is None:
        return []
    if classes is not None or seeds is not None or total is not None:
        raise UsageError("--classes-file says it all: leave out --class, --seeds and --total")
    return read_class_list(path)


def choose_upsampling(
    sources: Sources,
    images: Images,
    name: AnyPath | None,
    options: StageOptions,
    where: Machine,
    *,
    none: bool,
    used: bool,
) -> Upsampling | None:
    """The upsampler, unless ``none`` is asked for; ``used``: something was asked of it.

    Raises as `find_upsampling`, and UsageError for settings of an upsampler where there is none.
    """
    found = None
    if not none:
        found = find_upsampling(sources, distinct_kinds(images), name, options, where)
    if found is None and (used or name is not None):
        raise UsageError(
            "--no-upsample stands alone: leave out what is about the upsampler"
            if none
            else "there is no upsampler to set or to keep pictures of: pass --upsampler"
        )
    return found


def sampling_job(
    sources: Sources,
    config: SamplingConfig,
    options: StageOptions,
    images: Images,
    upsampling: Upsampling | None,
    where: Machine,
    outputs: Outputs,
    keep_base: bool,
) -> SamplingJob:
    """Everything that is resolved, as a run and what a person should know of it."""
    stages: list[Stage | Filter] = [make_stage(sources, config, where)]
    weights = [sources]
    if upsampling is not None:
        stages.append(upsampling.stage)
        weights += [] if upsampling.sources is None else [upsampling.sources]
    run = make_run(stages, weights, images, where, outputs.suffix[1:], metadata=outputs.metadata)
    told = taken_from(sources, config_asked(config, options), config)
    notes = [*([] if told is None else [told]), *remarks(config, sources.model.info.diffusion)]
    notes += noise_remarks(sources, config)
    if where.device.type == "cpu" and where.dtype == "float16":
        notes.append("float16 is slow on most CPUs, many times slower than --dtype float32")
    models, facts = (
        Models(weights, where.device, processes=where.workers),
        sampling_facts(run, sources),
    )
    return SamplingJob(run, models, outputs, facts, notes, keep_base, where.workers)


def config_asked(config: SamplingConfig, options: StageOptions) -> SamplingConfig:
    """``config`` with the sampler and steps that were asked for."""
    return replace(config, sampler=options.sampler, steps=options.steps)


def sampling_facts(run: Run, sources: Sources) -> dict[str, Any]:
    """What a person may want to know in advance."""
    stage, rows = run.first, run.images.rows
    classes = list(dict.fromkeys(i for row in rows for i in row.first.class_ids))
    mixtures = list(dict.fromkeys(row.first.mixture for row in rows if row.first.mixture))
    modifiers = {
        "guide_interval": stage.guide_interval and list(stage.guide_interval),
        "entropy_scaling": stage.entropy_scaling,
        "cfg_interval": stage.cfg_interval and list(stage.cfg_interval),
        "weak_model": stage.weak_model,
        **modified(stage),
    }
    return {
        "model": stage.model,
        "model_sha256": stage.model_sha256,
        "classifier": stage.classifier,
        "scale": stage.scale,
        "cfg": stage.cfg,
        **{k: v for k, v in modifiers.items() if v is not None and v is not False},
        "sampler": stage.sampler,
        "steps": stage.steps,
        "num_steps": stage.num_steps,
        "eta": stage.eta,
        **_upsampling_settings(run),
        "size": list(run.size),
        "classes": classes,
        "class_names": {i: sources.classes.get(i) for i in classes if i is not None},
        **({"mixtures": mixtures} if mixtures else {}),
        "images": len(run.images),
        "seeds": [
            min(row.first.seed for row in rows),
            max(row.first.seed + row.length - 1 for row in rows),
        ],
    }


def _upsampling_settings(run: Run) -> dict[str, Any]:
    if len(run.stages) == 1:
        return {}
    stage = run.last
    if isinstance(stage, Filter):
        return {"upsampler": stage.model}
    names = ("model_sha256", "sampler", "steps", "num_steps", "project", "low_res_noise")
    return {
        "upsampler": stage.model,
        **{f"upsampler_{name}": getattr(stage, name) for name in names},
        **{f"upsampler_{name}": value for name, value in modified(stage).items()},
    }
