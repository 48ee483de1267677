"""``adm export``: weights for the original's code, for diffusers, and as a graph of ONNX."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from adm_cli.commands import completing, console, options
from adm_cli.commands.numbers import show_costs
from adm_cli.commands.progress import Progress


class Target(str, Enum):
    """For which program."""

    original = "original"
    diffusers = "diffusers"
    onnx = "onnx"


def export(
    model: Annotated[
        str,
        typer.Argument(
            autocompletion=completing.complete_model,
            help="Preset, checkpoint name or weights file.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Argument(help="A .pt for the original, a folder for diffusers, an .onnx.")
    ],
    to: Annotated[
        Target,
        typer.Option("--to", help="original (guided-diffusion), diffusers or onnx."),
    ],
    overwrite: options.Replace = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all, say what it would be; write nothing.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Write a model for another program; refused, with the reason, where that one cannot have it.

    For the original also the line of flags is printed that builds the model.

    adm export imagenet64 --to original 64x64.pt

    adm export my.safetensors --to diffusers my-unet

    adm export my.safetensors --to onnx my.onnx
    """
    from adm_cli.checkpoints.exporting import export as write

    with Progress(quiet=False) as progress:
        done = write(
            model, output, to=to.value, overwrite=overwrite, dry_run=dry_run, on_event=progress
        )
    if json:
        console.print_json(done.to_json())
        return
    if dry_run:
        names = ("path", "kind", "parameters", "output_bytes")
        show_costs({name: getattr(done, name) for name in names}, json=False)
    else:
        print(done.path)
    if done.flags is not None:
        print(done.flags)
