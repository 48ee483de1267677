"""Questions, to a person at a terminal alone."""

from __future__ import annotations

import sys

from adm_cli.commands import console
from adm_cli.commands.show import Show
from adm_cli.errors import MissingWeightsError


def agrees_to_fetch(show: Show, error: MissingWeightsError) -> bool:
    """Whether somebody is there who wants missing weights fetched now; else nothing is asked."""
    if not error.published or show.json or show.quiet or not console.on_terminal():
        return False
    if not (sys.stdin.isatty() and console.err.is_terminal):
        return False
    show.note(str(error))
    console.err.print("adm: fetch them now, and go on? [y/N] ", end="", markup=False)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
