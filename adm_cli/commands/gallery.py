"""``adm gallery``: pictures in one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from adm_cli.commands import console, options
from adm_cli.commands import show as showing
from adm_cli.commands.numbers import show_costs
from adm_cli.errors import how_many
from adm_cli.files.disk import size_text

_THUMBNAIL = 64  # `reports.gallery.build.THUMBNAIL`, which needs Pillow


def gallery(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Runs, sweeps, folders or pictures.", show_default=False),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")] = Path(
        "gallery.html"
    ),
    title: Annotated[
        Optional[str], typer.Option("--title", help="Its heading. Default: its file's name.")
    ] = None,
    thumbnail: Annotated[
        int, typer.Option("--thumbnail", help="Side of the thumbnails, pixels.", min=8, max=512)
    ] = _THUMBNAIL,
    overwrite: options.Replace = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would be, by 100 pictures; write none.")
    ] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Show pictures in one HTML page, by class, scale, sampler, seed or run.

    The page opens in any browser, loads nothing from a network, and compares side by side what
    differs in one setting: the same class and seed under each other. A click shows a picture
    with its recipe and the command that makes it again.

    adm gallery out/0001

    adm gallery runs/scale1 runs/scale4 -o compared.html
    """
    asked = options.asked(locals())
    from adm_cli.reports.gallery.build import gallery as build

    with showing.Show(json=json, quiet=quiet) as show:
        made = build(**asked, on_event=show)
        facts = {"path": str(made.path), "pictures": made.pictures, "bytes": made.bytes}
        if not dry_run:
            show.result(facts)
    if dry_run:
        show_costs(facts if json else {**facts, "bytes": f"{size_text(made.bytes)}"}, json=json)
    elif not json and not quiet:
        console.note(
            f"{how_many(made.pictures, 'picture')}, {size_text(made.bytes)}: open it in a browser"
        )
