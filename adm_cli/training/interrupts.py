"""Ctrl-C in Python code that trains, and a notebook's stop: the step is finished and saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def after_the_step(should_stop: Callable[[], bool]) -> Iterator[Callable[[], bool]]:
    """``should_stop``, which also says so once SIGINT came; KeyboardInterrupt comes at the end.

    A second SIGINT raises it at once. Handlers of others stay, and threads have none.
    """
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield should_stop
        return
    received: list[int] = []

    def receive(number: int, _frame: object) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, receive)
    try:
        yield lambda: bool(received) or should_stop()
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if received:
        raise KeyboardInterrupt
