"""``adm fetch``: the published checkpoints, downloaded, verified and converted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from adm_cli.commands import completing, console, options
from adm_cli.commands.progress import Progress
from adm_cli.files.disk import adm_home, free_disk

if TYPE_CHECKING:
    from adm_cli.checkpoints.fetched import FetchOptions
    from adm_cli.checkpoints.fetching import FetchResult, Item


def fetch(
    names: Annotated[
        list[str],
        typer.Argument(
            autocompletion=completing.complete_fetch,
            help="Presets, checkpoint names, all, or inception (for FID).",
        ),
    ],
    source: Annotated[
        Optional[str],
        typer.Option(
            "--from", help="Folder or URL that has the files. Default: where they are published."
        ),
    ] = None,
    keep_original: Annotated[
        bool, typer.Option("--keep-original", help="Keep the downloaded files beside the models.")
    ] = False,
    accept_changed: Annotated[
        bool,
        typer.Option(
            "--accept-changed", help="Take a file although it is not the one fetched before."
        ),
    ] = False,
    overwrite: options.Replace = False,
    retries: Annotated[
        int, typer.Option("--retries", min=0, help="Failures in a row before giving up.")
    ] = 6,
    timeout: Annotated[
        float,
        typer.Option("--timeout", min=1, help="Seconds without an answer before trying again."),
    ] = 30.0,
    offline: Annotated[
        bool,
        typer.Option(
            "--offline", help="Download nothing, as with ADM_OFFLINE=1: only what is here."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be fetched, and the free disk.")
    ] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Download published checkpoints, check and convert them; goes on after an interruption.

    adm fetch imagenet256
    """
    from adm_cli.checkpoints import fetching
    from adm_cli.checkpoints.fetched import choose_how

    if dry_run:
        items = fetching.find_items(names)
        how = choose_how(
            source, keep_original, overwrite, accept_changed, retries, timeout, offline
        )
        _show_plan(items, how, json)
        return
    progress = Progress(quiet=quiet)

    def on_event(event: object) -> None:
        if isinstance(event, fetching.FetchResult):
            _show(event, json, quiet)
        else:
            progress(event)

    try:
        with progress:
            fetching.fetch(
                names, source=source, keep_original=keep_original, accept_changed=accept_changed,
                overwrite=overwrite, retries=retries, timeout=timeout, offline=offline,
                on_event=on_event,
            )  # fmt: skip
    except KeyboardInterrupt:
        if (last := progress.transfer) is not None and last.here:
            console.note(
                f"{last.here:,} bytes of {last.name} are kept: the same command goes on there"
            )
        raise


def _show(done: FetchResult, json: bool, quiet: bool) -> None:
    if json:
        console.print_json(
            {
                "name": done.name,
                "path": str(done.path),
                "was_here": done.was_here,
                "bytes": done.bytes or None,
                "sha256": done.sha256 or None,
                "verified": done.verified or None,
            }
        )
        return
    if not quiet:
        what = " is here already" if done.was_here else f": verified by {done.verified}"
        console.note(f"{done.name}{what}")
    print(done.path)


def _show_plan(items: list[Item], how: FetchOptions, json: bool) -> None:
    from adm_cli.checkpoints import fetching
    from adm_cli.checkpoints.http import clean
    from adm_cli.checkpoints.partial import partial_bytes

    rows: list[dict[str, Any]] = [
        {
            "name": item.name,
            "from": clean(fetching.file_url(item, how)),
            "to": str(item.place),
            "bytes": fetching.size_of(item),
            "partly_here": partial_bytes(item.original),
            "present": item.place.is_file(),
        }
        for item in items
    ]
    total: dict[str, Any] = {
        "folder": str(adm_home()),
        "needed_bytes": fetching.missing_bytes(items, how),
        "free_bytes": free_disk(adm_home()),
        "terms": list(dict.fromkeys(item.terms for item in items)),
    }
    if json:
        for row in [*rows, total]:
            console.print_json(row)
        return
    for row in rows:
        state = "is here" if row["present"] else f"{row['bytes'] / 1e9:.2f} GB"
        if row["partly_here"] and not row["present"]:
            state += f", of which {row['partly_here'] / 1e9:.2f} are here"
        console.out.print(f"{row['name']:26} {state:8}  {row['from']}", markup=False)
    console.out.print(
        f"needs {total['needed_bytes'] / 1e9:.2f} GB in {total['folder']}, "
        f"{total['free_bytes'] / 1e9:.2f} GB are free",
        markup=False,
    )
    for terms in total["terms"]:
        console.out.print(terms, markup=False)
