"""Options that sample, edit and interpolate have in common, besides those of all commands."""

from __future__ import annotations

from typing import Annotated, Optional, get_args

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
# Of a command that knows what nobody asked for from a picture or a profile.
DeviceIfAsked = Annotated[Optional[str], get_args(options.Device)[1]]
DtypeIfAsked = Annotated[Optional[str], get_args(options.Dtype)[1]]
PlainIfAsked = Annotated[Optional[bool], get_args(options.Plain)[1]]
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
