"""``adm fetch``: the published checkpoints, downloaded, verified and converted."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from adm_cli.commands import completing, console, options
from adm_cli.errors import UsageError

if TYPE_CHECKING:
    from adm_cli.fetching import Fetched, How, Item


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
    overwrite: options.Overwrite = False,
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
    from adm_cli import fetching
    from adm_cli.storage.downloads import Patience

    items = fetching.find_items(names)
    fetching.check_source(source)
    if not math.isfinite(timeout):
        raise UsageError(f"--timeout must be a number of seconds, got {timeout}")
    patience = Patience(timeout=timeout, retries=retries)
    how = fetching.How(source, keep_original, overwrite, accept_changed, patience, offline)
    if dry_run:
        _show_plan(items, how, json)
        return
    if not quiet:
        for terms in dict.fromkeys(item.terms for item in items):
            console.note(terms)
    fetching.check_network(items, how)
    fetching.check_space(items, how)
    for item in items:
        _show(_fetch(item, how, quiet), json, quiet)


def _fetch(item: Item, how: How, quiet: bool) -> Fetched:
    from adm_cli import fetching
    from adm_cli.storage.downloads import Watch

    progress = DownloadProgress(item.name, quiet=quiet)
    try:
        with progress.show():
            return fetching.fetch(item, how, Watch(progress.tell, progress.advance))
    except KeyboardInterrupt:
        if progress.here:
            console.note(
                f"{progress.here:,} bytes of {item.file} are kept: the same command goes on there"
            )
        raise


def _show(done: Fetched, json: bool, quiet: bool) -> None:
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
        what = "is here already" if done.was_here else f"verified by {done.verified}"
        console.note(f"{done.name}: {what}")
    print(done.path)


def _show_plan(items: list[Item], how: How, json: bool) -> None:
    from adm_cli import fetching
    from adm_cli.storage.files import adm_home, free_disk
    from adm_cli.storage.http import shown
    from adm_cli.storage.partial import partial_bytes

    rows: list[dict[str, Any]] = [
        {
            "name": item.name,
            "from": shown(fetching.file_url(item, how)),
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


class DownloadProgress:
    """Bytes of one file: a bar on a terminal, a line now and then elsewhere, nothing if quiet."""

    def __init__(self, name: str, *, quiet: bool) -> None:
        self.name, self.quiet = name, quiet
        self.here = self.length = 0
        self._first: tuple[float, int] | None = None  # when, and bytes here then
        self._printed = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    @contextmanager
    def show(self) -> Iterator[None]:
        if self.quiet or not console.err.is_terminal:
            yield
            return
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console.err, transient=True) as self._bar:
            self._task = self._bar.add_task(self.name, total=None)
            yield
        self._bar = None

    def tell(self, text: str) -> None:
        if not self.quiet:
            console.note(text)

    def advance(self, here: int, length: int) -> None:
        self.here, self.length = here, length
        now = time.monotonic()
        if self._first is None:
            self._first = (now, here)
        if self._bar is not None:
            whole = here == length
            text = f"checking and converting {self.name}" if whole else self.name
            self._bar.update(self._task, completed=here, total=length, description=text)
        elif not self.quiet and now - self._printed >= console.PLAIN_SECONDS:
            self._printed = now
            rate = (here - self._first[1]) / max(now - self._first[0], 1e-9)
            left = f", about {(length - here) / rate:.0f} s left" if rate > 0 else ""
            console.note(
                f"{self.name}: {here / 1e6:,.0f} of {length / 1e6:,.0f} MB, "
                f"{rate / 1e6:.1f} MB/s{left}"
            )
