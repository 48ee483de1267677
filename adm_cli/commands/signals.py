"""SIGINT (Ctrl-C), SIGTERM and SIGHUP stop a command: what is done is kept, and the exit code says
which it was.

They raise KeyboardInterrupt, but not where Python or a library would swallow it or take it for
another error.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # the last is not on Windows
_WAIT, _MOST_WAITS = 0.05, 200  # seconds, at most ten, for an import to end
# Code from which an exception does not come out as it was.
_SWALLOWING = ("<frozen importlib", "weakref.py", "_weakrefset.py")

_received: list[int] = []
_waits: list[int] = []


def catch_stop_signals() -> None:
    """Lets them raise KeyboardInterrupt."""
    for number in heeded():
        signal.signal(number, _stop)


def heeded() -> list[signal.Signals]:
    """Those that are not ignored, as SIGHUP is under nohup, and SIGINT behind a script's ``&``."""
    return [n for n in _numbers() if signal.getsignal(n) is not signal.SIG_IGN]


def ignore_stop_signals() -> None:
    """For the last moments, when all is said and done."""
    for number in _numbers():
        signal.signal(number, signal.SIG_IGN)


def _numbers() -> list[signal.Signals]:
    return [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]


def _stop(number: int, frame: FrameType | None) -> None:
    if _swallows(frame) and len(_waits) < _MOST_WAITS and hasattr(signal, "setitimer"):
        _waits.append(number)
        signal.signal(signal.SIGALRM, lambda _alarm, later: _stop(number, later))
        signal.setitimer(signal.ITIMER_REAL, _WAIT)
        return
    _received.append(number)
    if len(_received) == 1 or insists(_received):
        raise KeyboardInterrupt


def insists(received: Sequence[int]) -> bool:
    """Whether the newest of these signals is a Ctrl-C of somebody who has waited long enough.

    The end may take a moment, and nothing else cuts it short. torchrun passes on what it got:
    its processes have a terminal's first Ctrl-C twice.
    """
    passed_on = "TORCHELASTIC_RUN_ID" in os.environ
    return received[-1] == signal.SIGINT and len(received) > 1 + passed_on


def remember(received: Sequence[int]) -> None:
    """Signals that another handler took: one that comes now is not the first."""
    _received.extend(received)


def _swallows(frame: FrameType | None) -> bool:
    while frame is not None:
        code = frame.f_code
        if code.co_name == "__del__" or code.co_filename.startswith(_SWALLOWING[0]):
            return True
        if code.co_filename.endswith(_SWALLOWING[1:]):
            return True
        frame = frame.f_back
    return False


def check() -> None:
    """Raises KeyboardInterrupt if a signal came and the command goes on: its own was swallowed."""
    if _received:
        raise KeyboardInterrupt


def stopped() -> bool:
    """Whether a signal came."""
    return bool(_received)


def stopped_by() -> signal.Signals:
    """The signal that ended the command."""
    return signal.Signals(_received[0]) if _received else signal.SIGINT
