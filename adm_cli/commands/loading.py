"""Something to see while torch is loaded, which takes seconds."""

from __future__ import annotations

import functools
import gc
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
    if "torch" in sys.modules:
        return
    with Progress(quiet=silent or not console.err.is_terminal) as progress:
        progress(Doing("adm: loading torch"))
        gc.disable()  # of its hundred thousands of objects none is to be collected, now or later
        try:
            importlib.import_module("torch")
            gc.freeze()
        finally:
            gc.enable()
