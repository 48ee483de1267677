"""``adm sample``: class-guided images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from adm_cli.commands import console, options
from adm_cli.commands.drawing import (
    Draw,
    OnStep,
    Telling,
    draw_into,
    nothing,
    sampled,
    write_grid_of,
    write_npz,
)
from adm_cli.commands.selection import (
    DEFAULT_NUM,
    ClassLine,
    Wanted,
    read_class_list,
    select_images,
    select_lines,
)
from adm_cli.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from adm_cli.config import SamplingConfig
    from adm_cli.pipeline import Pipeline, Sources
    from adm_cli.storage.outputs import Film
    from adm_cli.storage.plans import Item, Plan
    from adm_cli.storage.runs import RunFolder, Shard
    from adm_cli.storage.writing import Finished

FORMATS = ("png", "webp", "npz")
FRESH = Path("out")  # holds the folders of runs without --out


@dataclass(frozen=True)
class Outputs:
    """Where the results of one run go, and in which form."""

    out: Path | None  # None: a fresh folder
    format: str
    grid: bool
    animation: Path | None
    overwrite: bool
    shard: Shard

    @property
    def suffix(self) -> str:
        """Of the images: an npz is made of PNGs."""
        return ".webp" if self.format == "webp" else ".png"

    @property
    def folder(self) -> Path:
        from adm_cli.storage.outputs import fresh_folder

        return fresh_folder(FRESH) if self.out is None else self.out


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
    classes_file: Annotated[
        Optional[Path],
        typer.Option(
            "--classes-file",
            allow_dash=True,
            help="A list instead of --class, a line an image: class [seed [scale]]; - reads stdin.",
        ),
    ] = None,
    sampler: Annotated[
        Optional[str], typer.Option("--sampler", help="ddpm or ddim. Default: the preset's.")
    ] = None,
    steps: Annotated[
        Optional[str],
        typer.Option(
            "--steps",
            help="Respacing: a number (250), sections (90,60,60,20,20) or ddimN (ddim25). "
            "Default: the preset's.",
        ),
    ] = None,
    eta: Annotated[
        Optional[float],
        typer.Option(
            "--eta", help="Noise of DDIM, 0 to 1: 0 deterministic, 1 like DDPM. Default: 0."
        ),
    ] = None,
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
    batch_size: Annotated[
        Optional[int],
        typer.Option(
            "--batch-size",
            "-b",
            help="Images computed at once. Default: as many as fit, at most 16.",
        ),
    ] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    clip: Annotated[
        bool, typer.Option("--clip/--no-clip", help="Clamp each predicted x_0 to [-1, 1].")
    ] = True,
    shard: options.ShardOption = None,
    out: Annotated[
        Optional[Path],
        typer.Option(
            "--out",
            "-o",
            help="Folder of the run: begun, or gone on with. Default: a new one under ./out.",
        ),
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            "--format", "-f", help="png, webp, or npz: PNGs, and a samples_*.npz of them."
        ),
    ] = "png",
    grid: Annotated[
        bool, typer.Option("--grid", help="Also write grid.png, a contact sheet.")
    ] = False,
    animate: Annotated[
        Optional[Path],
        typer.Option("--animate", help="Also write the first batch's denoising as GIF or WebP."),
    ] = None,
    overwrite: options.Overwrite = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the resolved settings and draw nothing.")
    ] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw images of a class, guided by a classifier of noisy images.

    adm sample --class 207 --scale 4

    adm sample --class "golden retriever" --class goldfish --num 8 --grid
    """
    from adm_cli.devices import choose_device, choose_dtype
    from adm_cli.pipeline import check_classes, choose_sampler, choose_schedule, find_sources
    from adm_cli.recipes import run_plan
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
    config = sampling_settings(sources, images, scale, sampler, steps, eta, batch_size, clip)
    choose_sampler(config)
    check_classes(sources, config.classes)
    schedule = choose_schedule(sources.model.info.diffusion, config.steps)
    outputs = _outputs(out, format, grid, animate, overwrite, part.shard)
    where = choose_device(part.device)
    compute = choose_dtype(dtype, where, use_fp16=sources.model.info.config.use_fp16)
    items = [image_item(i.class_id, i.seed, outputs.suffix, i.scale) for i in images]
    plan = run_plan(
        sources, config, items, where, compute, kind="sample", format=outputs.suffix[1:]
    )
    if dry_run:
        _show_plan(sources, config, len(schedule), plan, outputs, json)
        return
    if config.scale < 0:
        tell.note(f"scale {config.scale:g} is negative: images are repelled from their class")
    _draw(sources, config, plan, outputs, tell, part.device, dtype)


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
) -> SamplingConfig:
    """What is drawn, as a preset recommends where nothing was said; raises UsageError."""
    from adm_cli.config import SamplingConfig

    preset = sources.preset
    guided = sources.classifier is not None
    if scale is None:
        guided = guided and any(image.class_id is not None for image in images)
        scale = (preset.scale if preset else 1.0) if guided else 0.0
    used = scale or next((image.scale for image in images if image.scale), 0.0)
    if used != 0 and sources.classifier is None:
        raise UsageError(
            f"--scale {used:g} needs a classifier, and {sources.model_name} has none: "
            f"pass --classifier, or --scale 0"
        )
    if steps is None and preset is not None:
        steps = preset.steps
    if sampler is None:
        sampler = preset.sampler if preset is not None else "ddpm"
    return SamplingConfig(
        seeds=tuple(image.seed for image in images),
        classes=tuple(image.class_id for image in images),
        sampler=sampler,
        steps=steps,
        scale=scale,
        eta=eta,
        batch_size=batch_size,
        clip_denoised=clip,
        scales=_own_scales(images, scale),
    )


def _own_scales(images: list[Wanted], scale: float) -> tuple[float, ...] | None:
    if all(image.scale is None for image in images):
        return None
    return tuple(scale if image.scale is None else image.scale for image in images)


def _outputs(
    out: Path | None, format: str, grid: bool, animation: Path | None, overwrite: bool, shard: Shard
) -> Outputs:
    if format not in FORMATS:
        hint = did_you_mean(format, FORMATS)
        raise UsageError(f"unknown --format {format!r}{hint} (there are {', '.join(FORMATS)})")
    if animation is not None and animation.suffix.lower() not in (".gif", ".webp"):
        raise UsageError(f"--animate {animation}: expected a name that ends in .gif or .webp")
    if shard.count > 1 and (overwrite or grid or animation is not None or format == "npz"):
        raise UsageError(
            f"shard {shard} sees a part of the run: draw every shard without --grid, --animate, "
            f"--format npz and --overwrite, then run the same command without --shard, or adm merge"
        )
    return Outputs(out, format, grid, animation, overwrite, shard)


def _prepare(outputs: Outputs, plan: Plan) -> Outputs:
    """Everything that could go wrong with the output, before any work."""
    from adm_cli.storage.files import check_writable, refuse_existing
    from adm_cli.storage.outputs import make_fresh_folder
    from adm_cli.storage.runs import RunFolder

    if outputs.out is None:
        outputs = replace(outputs, out=make_fresh_folder(FRESH))
    check_writable(outputs.folder)
    if outputs.animation is not None:
        check_writable(outputs.animation.parent)
    run = RunFolder(outputs.folder)
    run.check(plan, automatic=_automatic(plan), overwrite=outputs.overwrite)
    if outputs.overwrite:
        return outputs
    files = []
    if not run.exists():
        files += [outputs.folder / "grid.png"] if outputs.grid else []
        files += sorted(outputs.folder.glob("samples_*.npz")) if outputs.format == "npz" else []
    if outputs.animation is not None and not run.kept(plan.items[:1]):
        files.append(outputs.animation)
    refuse_existing(files)
    return outputs


def _automatic(plan: Plan) -> list[str]:
    """Settings that were left to the program: a run that is there keeps its own."""
    return ["batch_size"] if plan.settings["batch_size"] is None else []


def _draw(
    sources: Sources,
    config: SamplingConfig,
    plan: Plan,
    outputs: Outputs,
    tell: Telling,
    device: str,
    dtype: str,
) -> None:
    from adm_cli.pipeline import choose_batch_size, load_pipeline
    from adm_cli.storage.runs import RunFolder

    fresh = outputs.out is None
    outputs = _prepare(outputs, plan)
    run = RunFolder(outputs.folder)
    try:
        pipeline, automatic = None, _automatic(plan)
        mine = outputs.shard.share(plan.items)
        if outputs.overwrite or len(run.kept(mine)) < len(mine):  # else there is nothing to load
            pipeline = load_pipeline(sources, guided=config.guided, device=device, dtype=dtype)
            size = choose_batch_size(pipeline, config)
            plan = replace(plan, settings={**plan.settings, "batch_size": size})
        plan, changes = run.begin(plan, automatic=automatic, overwrite=outputs.overwrite)
        if changes:
            tell.note(f"since {run.path} was begun, this has changed: {', '.join(changes)}")
        config = replace(config, batch_size=plan.settings["batch_size"])
        _draw_images(pipeline, config, run, plan, outputs, tell)
    finally:
        if fresh:
            run.discard_if_empty()


def _draw_images(
    pipeline: Pipeline | None,
    config: SamplingConfig,
    run: RunFolder,
    plan: Plan,
    outputs: Outputs,
    tell: Telling,
) -> None:
    from adm_cli.storage.outputs import Film

    steps, items = plan.settings["num_steps"], plan.items
    draw = nothing if pipeline is None else sampled(pipeline, config, tell)
    closing = []
    if outputs.format == "npz":
        closing.append(lambda: write_npz(run, outputs.shard, tell))
    if outputs.grid:
        closing.append(lambda: write_grid_of(run, items, outputs.shard, tell))
    if outputs.animation is not None:
        if run.kept(items[:1]):
            if not outputs.animation.exists():
                tell.note(f"no {outputs.animation}: the first image was drawn before")
        else:
            film = Film(outputs.animation, steps, len(items))
            draw = _filmed(draw, film)
            closing.append(lambda: _write_film(run, film, outputs.shard, tell))
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


def _filmed(draw: Draw, film: Film) -> Draw:
    """``draw``, its first batch shown to ``film``."""

    def filmed(missing: Sequence[Item], on_step: OnStep) -> Iterator[Sequence[Finished]]:
        first = True

        def on_filmed_step(step: Any) -> None:
            if first:
                film.add(step.i, step.x)
            on_step(step)

        for batch in draw(missing, on_filmed_step):
            first = False
            yield batch

    return filmed


def _write_film(run: RunFolder, film: Film, shard: Shard, tell: Telling) -> None:
    from adm_cli.storage.writing import record_file

    frames = film.close()
    if frames:
        if film.path.parent.resolve() == run.path.resolve():
            record_file(run, shard, film.path.name, {"frames": frames})
        tell.result({"path": str(film.path), "frames": frames})


def _show_plan(
    sources: Sources,
    config: SamplingConfig,
    steps: int,
    plan: Plan,
    outputs: Outputs,
    json: bool,
) -> None:
    from adm_cli.storage.runs import RunFolder

    classes = list(dict.fromkeys(config.classes))
    mine = outputs.shard.share(plan.items)
    there = [] if outputs.overwrite else RunFolder(outputs.folder).kept(mine)
    facts: dict[str, Any] = {
        "model": sources.model_name,
        "model_sha256": sources.model.content_sha256,
        "classifier": sources.classifier_name if config.guided else None,
        "scale": config.scale,
        "sampler": config.sampler,
        "steps": config.steps,
        "num_steps": steps,
        "eta": config.eta,
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
    facts["seeds"] = f"{min(config.seeds)} to {max(config.seeds)}"
    for name, value in facts.items():
        text = "auto" if name == "batch_size" and value is None else value
        print(f"{name:14} {'-' if text in (None, '') else text}")
