"""``adm edit``: pictures drawn anew, in part or as another class."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from adm_cli.commands import drawing_options, ending, modifier_options, options


@modifier_options.each_once
def edit(
    inputs: Annotated[
        list[Path],
        typer.Argument(help="Pictures, folders of them, npz files, or runs.", show_default=False),
    ],
    model: drawing_options.ModelOrDefault = None,
    classifier: options.Classifier = None,
    class_: Annotated[
        Optional[list[str]],
        typer.Option(
            "--class",
            "-c",
            autocompletion=options.complete_class,
            help="What a picture is to become: id, range (0-9), name or none; several make it each "
            "of them. Default: the class that comes with a picture.",
        ),
    ] = None,
    strength: Annotated[
        Optional[float],
        typer.Option(
            "--strength",
            help="How much is drawn anew, by noise on the picture: 0 nothing, 1 all of it. "
            "Default: 0.6, with a --mask 1.",
        ),
    ] = None,
    mask: Annotated[
        Optional[Path],
        typer.Option(
            "--mask",
            help="A picture whose white is to be drawn anew, the rest kept; or a folder, one for "
            "each picture.",
        ),
    ] = None,
    resample: Annotated[
        Optional[int],
        typer.Option(
            "--resample",
            help="Times that each stretch is drawn so that it fits what is kept. Default: 5.",
        ),
    ] = None,
    jump: Annotated[
        Optional[int], typer.Option("--jump", help="Steps of such a stretch. Default: 2.")
    ] = None,
    invert: Annotated[
        bool,
        typer.Option("--invert", help="Begin with the picture's latent (DDIM), not with noise."),
    ] = False,
    from_class: Annotated[
        Optional[str],
        typer.Option(
            "--from-class",
            autocompletion=options.complete_class,
            help="What is on the pictures, for --invert. Default: none, where the model can do "
            "without.",
        ),
    ] = None,
    scale: drawing_options.Scale = None,
    cfg: options.Cfg = None,
    guide_interval: options.GuideInterval = None,
    cfg_interval: options.CfgInterval = None,
    entropy_scaling: options.EntropyScaling = False,
    weak_model: options.WeakModel = None,
    num: Annotated[
        Optional[int],
        typer.Option("--num", "-n", help="Images of each picture and class, instead of one."),
    ] = None,
    seed: Annotated[
        Optional[int], typer.Option("--seed", help="The first of them; each next one adds 1.")
    ] = None,
    seeds: Annotated[
        Optional[str],
        typer.Option("--seeds", help="Exact seeds; every picture and class gets each of them."),
    ] = None,
    sampler: drawing_options.Sampler = None,
    steps: Annotated[
        Optional[str],
        typer.Option(
            "--steps",
            help="Respacing, as in adm sample, of which --strength takes a share. Default: the "
            "preset's.",
        ),
    ] = None,
    eta: options.Eta = None,
    value_range: options.ValueRange = None,
    batch_size: options.Batch = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    plain: options.Plain = False,
    clip: options.Clip = True,
    upsampler: drawing_options.Upsampler = None,
    no_upsample: drawing_options.NoUpsample = False,
    keep_base: drawing_options.KeepBase = False,
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
    """Draw pictures anew: more or less of all of them, or the white of a mask.

    adm edit photo.png --class 281 --strength 0.6

    adm edit photo.png --class lion --mask mask.png --seeds 0-3
    """
    asked = options.asked(locals())
    from adm_cli.sampling.edit import edit as edit_pictures

    ending.draw_and_show(edit_pictures, asked, json=json, quiet=quiet)
