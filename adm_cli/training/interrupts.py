"""What ends a training of Python code before its last step: the step is finished and saved first.

Ctrl-C, a notebook's stop, and exceptions out of the caller's own functions.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from adm_cli.events import OnEvent

Stop = Callable[[], bool]


@contextmanager
def after_the_step(should_stop: Stop, on_event: OnEvent) -> Iterator[tuple[Stop, OnEvent]]:
    """Both, which also stop once SIGINT came or one of them raised; that is raised at the end.

    A second SIGINT raises KeyboardInterrupt at once. Handlers of others stay, and threads have
    none. After an exception ``on_event`` hears of nothing more.
    """
    raised: list[BaseException] = []

    def stop() -> bool:
        try:
            return bool(raised) or should_stop()
        except Exception as error:
            raised.append(error)
            return True

    def tell(event: object) -> None:
        try:
            if not raised:
                on_event(event)
        except Exception as error:
            raised.append(error)

    with _interrupts(raised):
        yield stop, tell
    if raised:
        raise raised[0]


@contextmanager
def _interrupts(raised: list[BaseException]) -> Iterator[None]:
    """The first SIGINT becomes a KeyboardInterrupt in the list, where nobody else handles it."""
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def receive(_number: int, _frame: object) -> None:
        raised.append(KeyboardInterrupt())
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, receive)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
