"""A command that draws a run, as it is shown: to its end, with a grid and what looks at it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from adm_cli.commands import console
from adm_cli.commands.show import Show, show_settings

if TYPE_CHECKING:
    from adm_cli.sampling.job import RunResult


def draw_and_show(
    draw: Callable[..., RunResult], asked: Mapping[str, Any], *, json: bool, quiet: bool
) -> None:
    """``draw`` with the options ``asked``; of torchrun's processes only the first tells notes."""
    from adm_cli.training.distributed import find_world

    quiet = quiet or find_world().rank != 0
    with Show(json=json, quiet=quiet, images=asked["format"] != "npz") as show:
        done = draw(**asked, on_event=show)
        if not asked["dry_run"]:
            _end_run(show, done, grid=asked["grid"])
    if asked["dry_run"]:
        show_settings(done.settings, json=json)


def _end_run(show: Show, done: RunResult, *, grid: bool | None) -> None:
    """Nothing of one image, in a pipe, or with --json; a grid unless it was declined."""
    if show.json or not console.on_terminal() or len(done.run.images) == 1:
        return
    if grid is None and (made := done.add_grid()) is not None:
        show.result(made.facts())
    folder = shlex.quote(str(done.folder))
    page = shlex.quote(f"{done.folder}.html" if done.folder.name else "gallery.html")
    show.note(f"look at them in a browser: adm gallery {folder} -o {page}")
    show.note(f"what they were made with: adm info {folder}")
