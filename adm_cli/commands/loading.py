"""Something to see while torch is loaded, which takes seconds."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from typing import Any

from adm_cli.commands import console
from adm_cli.commands.progress import Progress
from adm_cli.events import Doing


def loads_torch(command: Callable[..., None]) -> Callable[..., None]:
    """A command that needs torch: on a terminal it says so at once, unless it is quiet."""

    @functools.wraps(command)
    def run(**options: Any) -> None:
        load_torch(silent=bool(options.get("quiet") or options.get("json")))
        command(**options)

    return run


def load_torch(*, silent: bool) -> None:
    """Torch is there afterwards; on a terminal, unless ``silent``, it says what takes so long."""
    if not silent and console.err.is_terminal and "torch" not in sys.modules:
        with Progress(quiet=False) as progress:
            progress(Doing("adm: loading torch"))
            importlib.import_module("torch")
