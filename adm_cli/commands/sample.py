"""``adm sample``: class-guided images."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from adm_cli.commands import console, options
from adm_cli.commands.selection import DEFAULT_NUM, select_images
from adm_cli.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from adm_cli.config import SamplingConfig
    from adm_cli.pipeline import ImageBatch, Pipeline, Sources
    from adm_cli.storage.runs import Film, Grid, Output, Record

FORMATS = ("png", "webp", "npz")
FRESH = Path("out")  # holds the folders of runs without --out


@dataclass(frozen=True)
class Outputs:
    """Where the results of one run go."""

    out: Path | None  # None: a fresh folder
    format: str
    grid: bool
    animation: Path | None
    overwrite: bool

    @property
    def folder(self) -> Path:
        from adm_cli.storage.runs import fresh_folder

        return fresh_folder(FRESH) if self.out is None else self.out


def sample(
    model: options.Model = "tiny",
    classifier: options.Classifier = None,
    class_: Annotated[
        Optional[list[str]],
        typer.Option(
            "--class",
            "-c",
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
    out: Annotated[
        Optional[Path],
        typer.Option("--out", "-o", help="Folder for the images. Default: a new one under ./out."),
    ] = None,
    format: Annotated[str, typer.Option("--format", "-f", help="png, webp or npz.")] = "png",
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
    from adm_cli.pipeline import (
        check_classes,
        choose_sampler,
        choose_schedule,
        find_sources,
        load_pipeline,
    )
    from adm_cli.storage.runs import remove_if_empty

    sources = find_sources(model, classifier, guided=scale != 0)
    images = select_images(sources, class_, seed=seed, seeds=seeds, num=num)
    config = _settings(sources, images, scale, sampler, steps, eta, batch_size, clip)
    choose_sampler(config)
    check_classes(sources, config.classes)
    schedule = choose_schedule(sources.model.info.diffusion, config.steps)
    outputs = _outputs(out, format, grid, animate, overwrite)
    where = choose_device(device)
    compute = choose_dtype(dtype, where, use_fp16=sources.model.info.config.use_fp16)
    if dry_run:
        _show_plan(sources, config, len(schedule), str(where), str(compute), outputs, json)
        return
    if config.scale < 0 and not quiet:
        console.note(f"scale {config.scale:g} is negative: images are repelled from their class")
    outputs = _prepare(outputs, config)
    try:
        pipeline = load_pipeline(sources, guided=config.scale != 0, device=device, dtype=dtype)
        _draw(pipeline, config, len(schedule), outputs, json=json, quiet=quiet)
    finally:
        if out is None:
            remove_if_empty(outputs.folder)


def _settings(
    sources: Sources,
    images: list[tuple[int | None, int]],
    scale: float | None,
    sampler: str | None,
    steps: str | None,
    eta: float | None,
    batch_size: int | None,
    clip: bool,
) -> SamplingConfig:
    from adm_cli.config import SamplingConfig

    preset = sources.preset
    guided = sources.classifier is not None
    if scale is None:
        guided = guided and any(class_id is not None for class_id, _ in images)
        scale = (preset.scale if preset else 1.0) if guided else 0.0
    if scale != 0 and not guided:
        raise UsageError(
            f"--scale {scale:g} needs a classifier, and {sources.model_name} has none: "
            f"pass --classifier, or --scale 0"
        )
    if steps is None and preset is not None:
        steps = preset.steps
    if sampler is None:
        sampler = preset.sampler if preset is not None else "ddpm"
    return SamplingConfig(
        seeds=tuple(own_seed for _, own_seed in images),
        classes=tuple(class_id for class_id, _ in images),
        sampler=sampler,
        steps=steps,
        scale=scale,
        eta=eta,
        batch_size=batch_size,
        clip_denoised=clip,
    )


def _outputs(
    out: Path | None, format: str, grid: bool, animation: Path | None, overwrite: bool
) -> Outputs:
    if format not in FORMATS:
        hint = did_you_mean(format, FORMATS)
        raise UsageError(f"unknown --format {format!r}{hint} (there are {', '.join(FORMATS)})")
    if animation is not None and animation.suffix.lower() not in (".gif", ".webp"):
        raise UsageError(f"--animate {animation}: expected a name that ends in .gif or .webp")
    return Outputs(out, format, grid, animation, overwrite)


def _prepare(outputs: Outputs, config: SamplingConfig) -> Outputs:
    """Everything that could go wrong with the output, before any work."""
    from adm_cli.storage.files import check_writable
    from adm_cli.storage.runs import image_name, make_fresh_folder, refuse_existing

    if outputs.out is None:
        outputs = replace(outputs, out=make_fresh_folder(FRESH))
    check_writable(outputs.folder)
    if outputs.animation is not None:
        check_writable(outputs.animation.parent)
    if outputs.overwrite:
        return outputs
    names = [
        image_name(c, s, f".{outputs.format}")
        for c, s in zip(config.classes, config.seeds, strict=True)
        if outputs.format != "npz"
    ]
    files = [outputs.folder / name for name in names]
    if outputs.format == "npz":
        # of any size: a run that is interrupted writes what it has
        files += sorted(outputs.folder.glob("samples_*.npz"))
    files += [outputs.folder / "grid.png"] if outputs.grid else []
    files += [outputs.animation] if outputs.animation is not None else []
    refuse_existing(files)
    return outputs


def _draw(
    pipeline: Pipeline,
    config: SamplingConfig,
    steps: int,
    outputs: Outputs,
    *,
    json: bool,
    quiet: bool,
) -> None:
    from adm_cli.pipeline import generate
    from adm_cli.recipes import image_recipe, run_recipe
    from adm_cli.storage.runs import Film, Grid, ImageFolder, NpzFile

    run = run_recipe(pipeline, config)
    folder = ImageFolder(outputs.folder, f".{outputs.format}")
    output = NpzFile(outputs.folder, run) if outputs.format == "npz" else folder
    sheet = Grid(outputs.folder / "grid.png") if outputs.grid else None
    film = None
    if outputs.animation is not None:
        film = Film(outputs.animation, steps, len(config.seeds))
    progress = console.SamplingProgress(len(config.seeds), steps, quiet=quiet)
    say = console.note if not quiet else (lambda _text: None)

    def on_step(step: Any) -> None:
        progress.advance(step.x.shape[0], step.i)
        if film is not None and progress.done_images == 0:
            film.add(step.i, step.x)

    def on_batch(batch: ImageBatch) -> None:
        pixels = batch.images.numpy()
        recipes = [image_recipe(run, pipeline, batch, i) for i in range(len(batch.seeds))]
        _report(output.add(pixels, batch.classes, batch.seeds, recipes), json)
        if sheet is not None:
            sheet.add(pixels)
        progress.finish_batch(len(batch.seeds))

    def summary() -> None:
        done, total = output.written, len(config.seeds)
        if 0 < done < total:
            say(f"{done} of {total} images are in {outputs.folder}")
        elif done:
            images = "1 image" if total == 1 else f"{total} images"
            say(f"{images} in {progress.elapsed():.1f} s in {outputs.folder}")

    with ExitStack() as closing:  # also when interrupted, or the disk is full: keep what is done
        closing.callback(summary)
        for file in (film, sheet, output):  # the last one is closed first
            if file is not None:
                closing.callback(_close, file, json)
        with progress.show():
            for batch in generate(pipeline, config, on_step=on_step, on_note=say):
                on_batch(batch)


def _close(file: Film | Grid | Output, json: bool) -> None:
    _report(file.close(), json)


def _report(records: Iterable[Record], json: bool) -> None:
    for record in records:
        if json:
            console.print_json(record)
        else:
            print(record["path"], flush=True)


def _show_plan(
    sources: Sources,
    config: SamplingConfig,
    steps: int,
    device: str,
    dtype: str,
    outputs: Outputs,
    json: bool,
) -> None:
    classes = list(dict.fromkeys(config.classes))
    plan: dict[str, Any] = {
        "model": sources.model_name,
        "model_sha256": sources.model.content_sha256,
        "classifier": sources.classifier_name if config.scale else None,
        "scale": config.scale,
        "sampler": config.sampler,
        "steps": config.steps,
        "num_steps": steps,
        "eta": config.eta,
        "classes": classes,
        "images": len(config.seeds),
        "seeds": [min(config.seeds), max(config.seeds)],
        "batch_size": config.batch_size,
        "device": device,
        "dtype": dtype.removeprefix("torch."),
        "out": str(outputs.folder),
        "format": outputs.format,
    }
    if json:
        console.print_json(plan)
        return
    names = {i: f"{i} {sources.classes[i]}" for i in classes if i is not None}
    plan["classes"] = ", ".join(list(names.values())[:10]) + (", ..." if len(names) > 10 else "")
    plan["seeds"] = f"{min(config.seeds)} to {max(config.seeds)}"
    for name, value in plan.items():
        text = "auto" if name == "batch_size" and value is None else value
        print(f"{name:14} {'-' if text in (None, '') else text}")
