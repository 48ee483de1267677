"""Options that sample, edit and interpolate have in common, besides those of all commands."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from adm_cli.commands import completing, options
from adm_cli.config import DEFAULT_MODEL

ModelOrDefault = Annotated[
    Optional[str],
    typer.Option(
        "--model",
        "-m",
        envvar="ADM_MODEL",
        autocompletion=options.complete_model,
        help="Preset, checkpoint name or weights file (adm models lists presets). "
        f"Default: {DEFAULT_MODEL}.",
    ),
]
Sampler = Annotated[
    Optional[str],
    typer.Option(
        "--sampler",
        autocompletion=options.complete_sampler,
        help=f"{options.SAMPLERS}. Default: the preset's.",
    ),
]
NoUpsample = Annotated[
    bool, typer.Option("--no-upsample", help="Keep the small pictures, without an upsampler.")
]
KeepBase = Annotated[
    bool, typer.Option("--keep-base", help="Also keep the small pictures, in the folder base.")
]
Scale = Annotated[
    Optional[float],
    typer.Option("--scale", "-s", help="Guidance scale; 0 is off. Default: the preset's."),
]
Upsampler = Annotated[
    Optional[str],
    typer.Option(
        "--upsampler",
        autocompletion=completing.complete_upsampler,
        help="Enlarges what is drawn, as in adm sample. Default: the preset's, if any.",
    ),
]
