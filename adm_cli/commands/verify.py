"""``adm verify``: whether a run is as it was written, and mending it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from adm_cli.commands import completing, options
from adm_cli.commands import show as showing


def verify(
    folder: Annotated[
        Path, typer.Argument(help="Folder of a run, or of a sweep.", show_default=False)
    ],
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Remove what is damaged and draw it again, as it was."),
    ] = False,
    model: Annotated[
        Optional[list[str]],
        typer.Option(
            "--model",
            "-m",
            help="For --repair: weights file, if it is not a preset; repeat for a sweep's.",
        ),
    ] = None,
    classifier: options.Classifier = None,
    upsampler: Annotated[
        Optional[str],
        typer.Option(
            "--upsampler",
            autocompletion=completing.complete_upsampler,
            help="For --repair: a stack's, if it is not a known one.",
        ),
    ] = None,
    inputs: Annotated[
        Optional[list[Path]],
        typer.Option(
            "--input", help="For --repair: what was enlarged or edited, where it is now; repeat."
        ),
    ] = None,
    device: Annotated[
        Optional[str],
        typer.Option(
            "--device",
            autocompletion=options.complete_device,
            help="For --repair. Default: the kind of the run.",
        ),
    ] = None,
    weak_model: options.WeakModel = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="With --repair: what it would draw and cost; mend nothing."),
    ] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Check every file of a run against its manifest, and say what is to be done again.

    Of a stack the small pictures that were kept, and of a sweep every cell, its tables and its
    sheet. Exit code 0 if every image is there and right, 1 if not. Damaged, missing and unfinished
    images are also drawn by running the same command again; --repair does no more than restore
    what was there.
    """
    asked = options.asked(locals())
    from adm_cli.sampling.verifying.verify import verify as check_folder

    with showing.Show(json=json, quiet=quiet, images=False) as show:
        left = check_folder(**asked, on_event=show)
    if left:
        raise typer.Exit(1)
