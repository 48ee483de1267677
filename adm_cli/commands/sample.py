"""``adm sample``: class-guided images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from adm_cli.commands import completing, drawing_options, ending, modifier_options, options
from adm_cli.config import DEFAULT_NUM


@modifier_options.each_once
def sample(
    context: typer.Context,
    model: drawing_options.ModelOrDefault = None,
    classifier: options.Classifier = None,
    class_: Annotated[
        Optional[list[str]],
        typer.Option(
            "--class",
            "-c",
            autocompletion=options.complete_class,
            help="Id, range (0-9), name, all, random or none, or a mixture (207+281, "
            "207*0.7+281*0.3); repeat or separate by commas. Default: random, by each image's "
            "seed.",
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
    entropy_scaling: options.EntropyScalingOrNot = None,
    cfg: options.Cfg = None,
    cfg_interval: options.CfgInterval = None,
    weak_model: options.WeakModel = None,
    classes_file: Annotated[
        Optional[Path],
        typer.Option(
            "--classes-file",
            allow_dash=True,
            help="A list instead of --class, a line an image: class, and if wanted seed, scale "
            "and cfg; - reads stdin.",
        ),
    ] = None,
    sampler: drawing_options.Sampler = None,
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
    like: Annotated[
        Optional[Path],
        typer.Option(
            "--like",
            help="A picture that adm sample drew: all settings of its recipe but those asked for.",
        ),
    ] = None,
    profile: Annotated[
        Optional[str],
        typer.Option(
            "--profile",
            autocompletion=completing.complete_word("paper", "fast", "best"),
            help="Settings for what is not asked for: paper, fast or best (--dry-run shows them).",
        ),
    ] = None,
    batch_size: options.Batch = None,
    device: drawing_options.DeviceIfAsked = None,
    dtype: drawing_options.DtypeIfAsked = None,
    plain: drawing_options.PlainIfAsked = None,
    clip: Annotated[
        Optional[bool],
        typer.Option(
            "--clip/--no-clip", help="Clamp each predicted x_0 to [-1, 1]. Default: clamp."
        ),
    ] = None,
    upsampler: Annotated[
        Optional[str],
        typer.Option(
            "--upsampler",
            autocompletion=completing.complete_upsampler,
            help="Enlarges what is drawn: checkpoint name, weights file, or, to twice the "
            "side without weights, bicubic, lanczos or back-projection. "
            "Default: the preset's, if any.",
        ),
    ] = None,
    no_upsample: drawing_options.NoUpsample = False,
    keep_base: drawing_options.KeepBase = False,
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
    upsample_temperature: Annotated[
        Optional[float],
        typer.Option("--upsample-temperature", help="Scales the upsampler's noise."),
    ] = None,
    shard: options.ShardOption = None,
    workers: options.Workers = 1,
    out: options.RunOut = None,
    format: options.Format = "png",
    grid: options.Grid = None,
    animate: options.Animate = None,
    gallery: options.Gallery = False,
    no_metadata: options.NoMetadata = False,
    overwrite: options.Overwrite = False,
    fetch: options.Fetch = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    **changes: Any,
) -> None:
    """Draw images of a class, guided by a classifier of noisy images.

    adm sample --class 207 --scale 4

    adm sample --class "golden retriever" --class goldfish --num 8 --grid

    adm sample --like out/0001/0207_golden-retriever_seed000000.png --seeds 8-15
    """
    if like is not None and str(context.get_parameter_source("model")).endswith("ENVIRONMENT"):
        model = None  # the picture's comes before the usual one
    asked = options.asked(locals())
    from adm_cli.sampling.sample import sample as draw_images

    ending.draw_and_show(draw_images, asked, json=json, quiet=quiet)
