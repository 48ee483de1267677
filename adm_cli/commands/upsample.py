"""``adm upsample``: pictures enlarged by an upsampler."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from adm_cli.commands import completing, ending, modifier_options, options


@modifier_options.of_trajectory
def upsample(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            help="Pictures, folders of them, npz files of the original's, or runs of adm sample.",
            show_default=False,
        ),
    ],
    model: Annotated[
        Optional[str],
        typer.Option(
            "--model",
            "-m",
            autocompletion=completing.complete_enlarging,
            help="Upsampler: checkpoint name, weights file, or a stack's preset. Default: the "
            "known one for pictures of this size.",
        ),
    ] = None,
    class_: Annotated[
        Optional[str],
        typer.Option(
            "--class",
            "-c",
            help="Class of every picture (id, name or none). Default: what comes with each.",
        ),
    ] = None,
    sampler: Annotated[
        Optional[str],
        typer.Option(
            "--sampler",
            autocompletion=options.complete_sampler,
            help=f"{options.SAMPLERS}. Default: ddpm.",
        ),
    ] = None,
    steps: Annotated[
        Optional[str],
        typer.Option("--steps", help="Respacing, as in adm sample. Default: the model's."),
    ] = None,
    eta: options.Eta = None,
    seed: Annotated[
        Optional[int],
        typer.Option(
            "--seed",
            help="Seed of the first picture; each next one adds 1. Default: what comes with each "
            "picture, else a number made of its pixels.",
        ),
    ] = None,
    seeds: Annotated[
        Optional[str],
        typer.Option("--seeds", help="Exact seeds; every picture is enlarged with each of them."),
    ] = None,
    project: Annotated[Optional[int], typer.Option("--project", help=options.PROJECT_HELP)] = None,
    noise: Annotated[
        Optional[float], typer.Option("--noise", help=options.LOW_RES_NOISE_HELP)
    ] = None,
    batch_size: options.Batch = None,
    resize: Annotated[
        bool,
        typer.Option("--resize", help="Fit pictures of another size: cut to shape, then averaged."),
    ] = False,
    value_range: options.ValueRange = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    plain: options.Plain = False,
    clip: options.Clip = True,
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
    """Enlarge pictures with an upsampler, in the order of the inputs.

    adm upsample out/0001 --model 64_256_upsampler

    adm upsample small.png --class "golden retriever" --seeds 0-3
    """
    asked = options.asked(locals())
    from adm_cli.sampling.upsample import upsample as enlarge_pictures

    ending.draw_and_show(enlarge_pictures, asked, json=json, quiet=quiet)
