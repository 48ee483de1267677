"""One of several processes that draw a run: told what by `workers`, it tells what happens.

Messages are pickles, in pipes that lead to the process that started this one and nowhere else.
When the pipe that comes from there is closed, by whatever end, this one stops as by Ctrl-C.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from adm_cli.errors import AdmError, UsageError
from adm_cli.sampling.drawing.draw import Only, draw_share
from adm_cli.sampling.drawing.models import Models
from adm_cli.sampling.events import Event, Step, follow
from adm_cli.sampling.folder import RunFolder, Shard
from adm_cli.sampling.run import Run


@dataclass(frozen=True)
class Assignment:
    """What a worker loads first, told before the run's folder is touched."""

    models: Models  # planned, nothing loaded
    debug: bool  # whether unforeseen errors come with a traceback


@dataclass(frozen=True)
class Share:
    """What it then draws."""

    run: Run
    folder: Path
    shard: Shard
    only: Only


@dataclass(frozen=True)
class WeightsLoaded:
    """The weights are in memory."""


@dataclass(frozen=True)
class WorkerFailure:
    """What went wrong; the process ends."""

    error: AdmError


def serve() -> None:
    """Draws a share of a run, as stdin says; events go to what was stdout."""
    tell = _teller(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # whatever else prints
    orders, debug = sys.stdin.buffer, False
    try:
        assignment: Assignment = pickle.load(orders)
        debug = assignment.debug
        assignment.models.begin()
        tell(WeightsLoaded())
        share: Share = pickle.load(orders)
        folder, stop = RunFolder(share.folder), _stop_at_end(orders.fileno())
        events = draw_share(share.run, folder, assignment.models, share.shard, share.only)
        follow(events, _telling(tell, stop))
    except (EOFError, KeyboardInterrupt, BrokenPipeError):
        pass  # nobody waits for more
    except AdmError as error:
        _tell_error(tell, error)
    except Exception as error:
        if debug:
            traceback.print_exc()
        _tell_error(tell, AdmError(f"{type(error).__name__}: {error}"))


def _teller(pipe: BinaryIO) -> Callable[[Any], None]:
    def tell(message: object) -> None:
        pickle.dump(message, pipe)
        pipe.flush()

    return tell


def _tell_error(tell: Callable[[Any], None], error: AdmError) -> None:
    with suppress(OSError):
        tell(WorkerFailure(error))


def _stop_at_end(orders: int) -> threading.Event:
    """Set when the pipe of that number ends; no more comes from it."""
    stop = threading.Event()

    def wait() -> None:
        while os.read(orders, 1):  # not by the buffered file, which Python locks as it ends
            pass
        stop.set()

    threading.Thread(target=wait, name="adm-orders", daemon=True).start()
    return stop


def _telling(tell: Callable[[Any], None], stop: threading.Event) -> Callable[[Event], None]:
    """Tells events; raises KeyboardInterrupt, once, if the work is to stop."""
    stopped = False

    def on_event(event: Event) -> None:
        nonlocal stopped
        tell(replace(event, view=_not_here) if isinstance(event, Step) else event)
        if stop.is_set() and not stopped:
            stopped = True
            raise KeyboardInterrupt

    return on_event


def _not_here() -> Tensor:
    raise UsageError("what a worker draws is not in this process: leave out workers to see steps")
