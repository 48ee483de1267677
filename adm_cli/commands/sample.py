"""``adm sample``: class-guided images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from adm_cli.commands import completing, console, options
from adm_cli.commands.drawing import Telling
from adm_cli.commands.jobs import Job, Loaded, load_sampling, run_job
from adm_cli.commands.sample_outputs import Outputs, automatic, choose_outputs
from adm_cli.commands.selection import (
    DEFAULT_NUM,
    ClassLine,
    Wanted,
    read_class_list,
    select_images,
    select_lines,
)
from adm_cli.commands.stacks import PlainStage, Stage, drop_base, find_stage, load_stack
from adm_cli.errors import UsageError

if TYPE_CHECKING:
    from adm_cli.config import SamplingConfig
    from adm_cli.sources import Sources
    from adm_cli.storage.plans import Plan


def sample(
    model: options.Model = "tiny",
    classifier: options.Classifier = None,
    class_: Annotated[
        Optional[list[str]],
        typer.Option(
            "--class",
            "-c",
            autocompletion=options.complete_class,
            help="Id, range (0-9), name, all, random or none; repeat or separate by commas. "
            "Default: random, chosen by each image's seed.",
        ),
    ] = None,
    scale: Annotated[
        Optional[float],
        typer.Option(
            "--scale", "-s", help="Guidance scale; 0 is off, below 0 repels. Default: the preset's."
        ),
    ] = None,
    num: Annotated[
        Optional[int],
        typer.Option("--num", "-n", help=f"Images of each class. Default: {DEFAULT_NUM}."),
    ] = None,
    total: Annotated[
        Optional[int],
        typer.Option("--total", help="Images in all, shared out evenly over the classes."),
    ] = None,
    guide_interval: options.GuideInterval = None,
    entropy_scaling: options.EntropyScaling = False,
    cfg: options.Cfg = None,
    cfg_interval: options.CfgInterval = None,
    classes_file: Annotated[
        Optional[Path],
        typer.Option(
            "--classes-file",
            allow_dash=True,
            help="A list instead of --class, a line an image: class, and if wanted seed, scale "
            "and cfg; - reads stdin.",
        ),
    ] = None,
    sampler: Annotated[
        Optional[str],
        typer.Option(
            "--sampler",
            autocompletion=options.complete_sampler,
            help=f"{options.SAMPLERS}. Default: the preset's.",
        ),
    ] = None,
    steps: Annotated[
        Optional[str],
        typer.Option(
            "--steps",
            help="Respacing: a number (250), sections (90,60,60,20,20) or ddimN (ddim25). "
            "Default: the preset's.",
        ),
    ] = None,
    eta: options.Eta = None,
    seed: Annotated[
        Optional[int],
        typer.Option("--seed", help="Seed of the first image; each next one adds 1. Default: 0."),
    ] = None,
    seeds: Annotated[
        Optional[str],
        typer.Option(
            "--seeds", help="Exact seeds, such as 0-63,100; every class gets each of them."
        ),
    ] = None,
    batch_size: options.Batch = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    clip: options.Clip = True,
    upsampler: Annotated[
        Optional[str],
        typer.Option(
            "--upsampler",
            autocompletion=completing.complete_upsampler,
            help="Enlarges what is drawn: checkpoint name, weights file, or bicubic or lanczos "
            "(twice, without weights). Default: the preset's, if any.",
        ),
    ] = None,
    no_upsample: Annotated[
        bool, typer.Option("--no-upsample", help="Keep the small pictures, without an upsampler.")
    ] = False,
    keep_base: Annotated[
        bool, typer.Option("--keep-base", help="Also keep the small pictures, in the folder base.")
    ] = False,
    upsample_sampler: Annotated[
        Optional[str],
        typer.Option("--upsample-sampler", help=f"The upsampler's: {options.SAMPLERS}."),
    ] = None,
    upsample_steps: Annotated[
        Optional[str], typer.Option("--upsample-steps", help="The upsampler's respacing.")
    ] = None,
    upsample_project: Annotated[
        Optional[int],
        typer.Option("--upsample-project", help=options.PROJECT_HELP),
    ] = None,
    upsample_noise: Annotated[
        Optional[float],
        typer.Option("--upsample-noise", help=options.LOW_RES_NOISE_HELP),
    ] = None,
    shard: options.ShardOption = None,
    out: options.RunOut = None,
    format: options.Format = "png",
    grid: options.Grid = False,
    animate: options.Animate = None,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw images of a class, guided by a classifier of noisy images.

    adm sample --class 207 --scale 4

    adm sample --class "golden retriever" --class goldfish --num 8 --grid
    """
    from adm_cli.defaults import choose_schedule, taken_from
    from adm_cli.devices import choose_device, choose_dtype
    from adm_cli.pipeline import choose_sampler
    from adm_cli.recipes import run_plan
    from adm_cli.sources import check_classes, find_sources
    from adm_cli.storage.outputs import image_item

    part = options.find_part(shard, device, out)
    tell = Telling(json, quiet or not part.speaks, images=format != "npz")
    lines = _class_list(classes_file, class_, seeds, total)
    guided = scale != 0 or any(line.scale for line in lines)
    sources = find_sources(model, classifier, guided=guided)
    if lines:
        images = select_lines(sources, lines, seed=seed, num=num)
    else:
        pairs = select_images(sources, class_, seed=seed, seeds=seeds, num=num, total=total)
        images = [Wanted(class_id, own_seed) for class_id, own_seed in pairs]
    interval = options.read_interval(guide_interval)
    own_interval = options.read_interval(cfg_interval, "--cfg-interval")
    config = sampling_settings(
        sources, images, scale, sampler, steps, eta, batch_size, clip,
        guide_interval=interval, entropy_scaling=entropy_scaling,
        cfg=cfg, cfg_interval=own_interval,
    )  # fmt: skip
    if not config.guided:
        options.check_modifiers(interval, entropy_scaling)
    if not config.classifier_free:
        options.check_cfg_interval(own_interval)
    choose_sampler(config)
    check_classes(sources, config.classes)
    schedule = choose_schedule(sources.model.info.diffusion, config.steps)
    stage = None
    if not no_upsample:
        stage = find_stage(
            sources, config, upsampler, upsample_sampler, upsample_steps,
            upsample_project, upsample_noise,
        )  # fmt: skip
    later = (upsampler, upsample_sampler, upsample_steps, upsample_project, upsample_noise)
    _check_used(stage, keep_base or any(v is not None for v in later), no_upsample)
    outputs = choose_outputs(out, format, grid, animate, overwrite, part.shard)
    where = choose_device(part.device)
    compute = choose_dtype(dtype, where, use_fp16=sources.model.info.config.use_fp16)
    items = [image_item(i.class_id, i.seed, outputs.suffix, i.scale, i.cfg) for i in images]
    base = run_plan(
        sources, config, items, where, compute, kind="sample", format=outputs.suffix[1:]
    )
    plan = base if stage is None else stage.plan(base, where, dtype)
    if dry_run:
        _show_plan(sources, config, len(schedule), stage, plan, outputs, json)
        return
    asked = replace(config, sampler=sampler, steps=steps)
    if text := taken_from(sources, asked, config):
        tell.note(text)

    def load() -> Loaded:
        if stage is not None:
            return load_stack(
                sources, config, stage, base, outputs, tell,
                keep_base=keep_base, device=part.device, dtype=dtype,
            )  # fmt: skip
        return load_sampling(sources, config, tell, device=part.device, dtype=dtype)

    run_job(Job(plan, outputs, tell, load, drop_base))


def _check_used(stage: Stage | PlainStage | None, asked: bool, no_upsample: bool) -> None:
    """Raises UsageError for settings of an upsampler where there is none."""
    if stage is not None or not asked:
        return
    if no_upsample:
        raise UsageError("--no-upsample stands alone: leave out what is about the upsampler")
    raise UsageError("there is no upsampler to set or to keep pictures of: pass --upsampler")


def _class_list(
    path: Path | None, classes: list[str] | None, seeds: str | None, total: int | None
) -> list[ClassLine]:
    if path is None:
        return []
    if classes is not None or seeds is not None or total is not None:
        raise UsageError("--classes-file says it all: leave out --class, --seeds and --total")
    return read_class_list(path)


def sampling_settings(
    sources: Sources,
    images: list[Wanted],
    scale: float | None,
    sampler: str | None,
    steps: str | None,
    eta: float | None,
    batch_size: int | None,
    clip: bool,
    *,
    guide_interval: tuple[float, float] | None = None,
    entropy_scaling: bool = False,
    cfg: float | None = None,
    cfg_interval: tuple[float, float] | None = None,
) -> SamplingConfig:
    """What is drawn, with what was not asked for as `defaults.resolve` has it; UsageError if
    it cannot be.
    """
    from adm_cli.config import SamplingConfig
    from adm_cli.defaults import common_cfg, common_scale, resolve
    from adm_cli.sources import check_cfg

    classes = tuple(image.class_id for image in images)
    if scale is None:
        scale = common_scale(sources, classes, guided=sources.classifier is not None)
    used = scale or next((image.scale for image in images if image.scale), 0.0)
    if used != 0 and sources.classifier is None:
        raise UsageError(
            f"--scale {used:g} needs a classifier, and {sources.model_name} has none: "
            f"pass --classifier, or --scale 0"
        )
    if cfg is None:
        cfg = common_cfg(sources, classes)
    if any(weight not in (None, 1) for weight in (cfg, *(image.cfg for image in images))):
        check_cfg(sources)
    config = SamplingConfig(
        seeds=tuple(image.seed for image in images),
        classes=classes,
        sampler=sampler,
        steps=steps,
        scale=scale,
        eta=eta,
        batch_size=batch_size,
        clip_denoised=clip,
        scales=_own([image.scale for image in images], scale),
        guide_interval=guide_interval,
        cfg=cfg,
        cfgs=_own([image.cfg for image in images], cfg),
        cfg_interval=cfg_interval,
    )
    if entropy_scaling and config.guided:
        config = replace(config, entropy_scaling=True)
    return resolve(sources, config)


def _own(values: list[float | None], common: float) -> tuple[float, ...] | None:
    """A value for each image, ``common`` where it has none; None where none has."""
    if all(value is None for value in values):
        return None
    return tuple(common if value is None else value for value in values)


def _show_plan(
    sources: Sources,
    config: SamplingConfig,
    steps: int,
    stage: Stage | PlainStage | None,
    plan: Plan,
    outputs: Outputs,
    json: bool,
) -> None:
    from adm_cli.recipes import MODIFIERS
    from adm_cli.storage.runs import RunFolder

    classes = list(dict.fromkeys(config.classes))
    modifiers = (*MODIFIERS, "cfg_interval")
    mine = outputs.shard.share(plan.items)
    run = RunFolder(outputs.folder)
    run.check(plan, automatic=automatic(plan), overwrite=outputs.overwrite)
    there = [] if outputs.overwrite else run.kept(mine)
    facts: dict[str, Any] = {
        "model": sources.model_name,
        "model_sha256": sources.model.content_sha256,
        "classifier": sources.classifier_name if config.guided else None,
        "scale": config.scale,
        "cfg": config.cfg,
        **{name: plan.settings[name] for name in modifiers if name in plan.settings},
        "sampler": config.sampler,
        "steps": config.steps,
        "num_steps": steps,
        "eta": config.eta,
        **({} if stage is None else stage.facts(plan)),
        "size": plan.settings["size"],
        "classes": classes,
        "images": len(plan.items),
        "seeds": [min(config.seeds), max(config.seeds)],
        "batch_size": config.batch_size,
        "device": plan.settings["device"],
        "dtype": plan.settings["dtype"],
        "out": str(outputs.folder),
        "format": outputs.format,
        "shard": str(outputs.shard),
        "to_draw": len(mine) - len(there),
    }
    if json:
        console.print_json(facts)
        return
    names = {i: f"{i} {sources.classes[i]}" for i in classes if i is not None}
    facts["classes"] = ", ".join(list(names.values())[:10]) + (", ..." if len(names) > 10 else "")
    facts["size"] = "x".join(map(str, facts["size"]))
    facts["seeds"] = f"{min(config.seeds)} to {max(config.seeds)}"
    width = max(14, *map(len, facts))
    for name, value in facts.items():
        text = "auto" if name == "batch_size" and value is None else value
        print(f"{name:{width}} {'-' if text in (None, '') else console.one_line(str(text))}")
