"""Questions, to a person at a terminal alone."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from adm_cli.commands import console
from adm_cli.commands.progress import Progress
from adm_cli.errors import MissingWeightsError


def offers_to_fetch(command: Callable[..., None]) -> Callable[..., None]:
    """A command that begins again once published weights, which it lacks, were fetched.

    Somebody who is there is asked; else, or if nobody wants it, the error is raised.
    """

    @functools.wraps(command)
    def run(**options: Any) -> None:
        silent = options.get("quiet") or options.get("json") or options.get("dry_run")
        while True:
            try:
                command(**options)
                return
            except MissingWeightsError as error:
                if silent or not error.published or not _agrees(str(error)):
                    raise
                _fetch(error.published)

    return run


def _agrees(text: str) -> bool:
    if not (console.on_terminal() and sys.stdin.isatty() and console.err.is_terminal):
        return False
    console.note(text)
    console.err.print("adm: fetch them now, and go on? [y/N] ", end="", markup=False)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _fetch(names: tuple[str, ...]) -> None:
    from adm_cli.checkpoints.fetching import fetch

    with Progress(quiet=False) as progress:
        fetch(names, on_event=progress)
