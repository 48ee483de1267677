"""``adm merge``: the images of runs in one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from adm_cli.commands import console, options
from adm_cli.commands import show as showing

if TYPE_CHECKING:
    from adm_cli.sampling.events import FileMade


def merge(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="File to write: .npz, .zip or .tar; with --shard-size x-%06d.tar.",
        ),
    ],
    shard_size: Annotated[
        Optional[int], typer.Option("--shard-size", help="Images in each tar.", min=1)
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Take what there is of runs that are incomplete.")
    ] = False,
    overwrite: options.Replace = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say which files, images and bytes; write nothing.")
    ] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Gather runs into an npz as the original's evaluator reads it, a zip, or WebDataset tars.

    Images stand in the order in which they were asked for, whichever shard drew them; each is
    checked against its hash. Memory does not grow with their number.

    adm merge runs/x -o samples.npz

    adm merge runs/x -o set-%06d.tar --shard-size 10000
    """
    asked = options.asked(locals())
    from adm_cli.sampling.merge import merge as gather

    with showing.Show(json=json, quiet=quiet) as show:
        made = gather(**asked, on_event=show)
    if dry_run:
        _show_plan(made, json=json)


def _show_plan(files: Sequence[FileMade], *, json: bool) -> None:
    """Files to come."""
    for file in files:
        if json:
            console.print_json(file.facts())
    if json:
        return
    console.print_table(
        ["file", "images", "MB"],
        [[str(f.path), f"{f.about['images']:,}", f"{f.about['bytes'] / 1e6:,.1f}"] for f in files],
    )
