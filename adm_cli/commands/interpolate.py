"""``adm interpolate``: images on the way between seeds, or between classes."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from adm_cli.commands import drawing_options, ending, modifier_options, options


@modifier_options.each_once
def interpolate(
    model: drawing_options.ModelOrDefault = None,
    classifier: options.Classifier = None,
    class_: Annotated[
        Optional[list[str]],
        typer.Option(
            "--class",
            "-c",
            autocompletion=options.complete_class,
            help="Class of all frames: id, name or none. Several are the way, such as 207,291.",
        ),
    ] = None,
    seeds: Annotated[
        Optional[str],
        typer.Option(
            "--seeds",
            help="The way, such as 3,17,3: two seeds or more; one where it is through classes. "
            "Default: 0,1, or 0.",
        ),
    ] = None,
    frames: Annotated[
        int, typer.Option("--frames", "-n", help="Images, evenly on the whole way, ends included.")
    ] = 16,
    scale: drawing_options.Scale = None,
    cfg: options.Cfg = None,
    guide_interval: options.GuideInterval = None,
    cfg_interval: options.CfgInterval = None,
    entropy_scaling: options.EntropyScaling = False,
    weak_model: options.WeakModel = None,
    sampler: drawing_options.Sampler = None,
    steps: Annotated[
        Optional[str],
        typer.Option("--steps", help="Respacing, as in adm sample. Default: the preset's."),
    ] = None,
    eta: options.Eta = None,
    batch_size: options.Batch = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    plain: options.Plain = False,
    clip: options.Clip = True,
    upsampler: drawing_options.Upsampler = None,
    no_upsample: drawing_options.NoUpsample = False,
    keep_base: drawing_options.KeepBase = False,
    workers: options.Workers = 1,
    out: options.RunOut = None,
    format: options.Format = "png",
    grid: options.Grid = None,
    gallery: options.Gallery = False,
    no_metadata: options.NoMetadata = False,
    overwrite: options.Overwrite = False,
    fetch: options.Fetch = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    **changes: Any,
) -> None:
    """Draw images on the way between seeds or classes, and a film of them, interpolation.webp.

    adm interpolate --class 207 --seeds 0,1 --frames 16

    adm interpolate --class 323,970 --seeds 0

    All noise turns from one seed's to the next one's (slerp), or a class becomes another by
    mixtures (207*0.9+291*0.1): the ends are what adm sample draws.
    """
    asked = options.asked(locals())
    from adm_cli.sampling.interpolate import interpolate as draw_frames

    ending.draw_and_show(draw_frames, asked, json=json, quiet=quiet)
