"""SIGTERM and SIGHUP stop a command as Ctrl-C does: what is done is kept, and the exit code says
which it was.
"""

from __future__ import annotations

import signal

_received: list[int] = []


def catch_stop_signals() -> None:
    """Lets SIGTERM and SIGHUP raise KeyboardInterrupt, unless they are ignored, as under nohup."""
    for name in ("SIGTERM", "SIGHUP"):  # the second is not on Windows
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _stop)


def _stop(number: int, _frame: object) -> None:
    _received.append(number)
    if len(_received) == 1:  # the end may take a moment, and must not be cut short by a second
        raise KeyboardInterrupt


def stopped_by() -> signal.Signals:
    """The signal that ended the command."""
    return signal.Signals(_received[0]) if _received else signal.SIGINT
