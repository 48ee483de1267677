"""How a run ends on a terminal: its folder, a grid, and the commands that look at it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from adm_cli.commands import console
from adm_cli.commands.show import Show

if TYPE_CHECKING:
    from adm_cli.sampling.job import RunResult


def end_run(show: Show, done: RunResult, *, grid: bool | None) -> None:
    """Nothing of one image, in a pipe, or with --json; a grid unless it was declined."""
    if show.json or not console.on_terminal() or len(done.run.images) == 1:
        return
    if grid is None and (made := done.add_grid()) is not None:
        show.result(made.facts())
    folder = shlex.quote(str(done.folder))
    page = shlex.quote(f"{done.folder}.html" if done.folder.name else "gallery.html")
    show.note(f"look at them in a browser: adm gallery {folder} -o {page}")
    show.note(f"what they were made with: adm info {folder}")
