"""How far a long operation is: its events as a bar on a terminal, as lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from adm_cli.commands import console
from adm_cli.events import Count, Note, SoFar, Transfer


class Progress:
    """Shows events (`adm_cli.events`) as they come; nothing if quiet. It is an ``on_event``.

    Within `show` a bar is drawn on a terminal; elsewhere there is a line every ten seconds.
    """

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.last: Count | Transfer | None = None
        self.result: Any = None  # of what is done
        self._begun = (time.monotonic(), 0.0)  # when what is counted began, and how much was there
        self._printed = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    @contextmanager
    def show(self) -> Iterator[None]:
        if self.quiet or not console.err.is_terminal:
            yield
            return
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(20),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
        )
        with Bar(*columns, console=console.err, transient=True) as self._bar:
            yield
        self._bar = self._task = None

    def __call__(self, event: object) -> None:
        if isinstance(event, Note) and not self.quiet:
            console.note(event.text)
        elif isinstance(event, SoFar):
            self.result = event.result
        elif isinstance(event, Count):
            self._advance(event, event.what, event.done, event.total)
        elif isinstance(event, Transfer):
            self._advance(event, event.name, event.here, event.length)

    def _advance(self, event: Count | Transfer, what: str, done: float, total: int) -> None:
        now = time.monotonic()
        if self.last is None or _subject(self.last) != _subject(event):
            self._begun = (now, done)
            if self._bar is not None:
                if self._task is not None:
                    self._bar.remove_task(self._task)
                self._task = self._bar.add_task(what, total=total, completed=done, text="")
        self.last = event
        rate = (done - self._begun[1]) / max(now - self._begun[0], 1e-9)
        left = (total - done) / rate if rate > 0 else math.inf
        if self._bar is not None and self._task is not None:
            whole = isinstance(event, Transfer) and done == total
            text = f"checking and converting {what}" if whole else what
            self._bar.update(
                self._task, completed=done, description=text, text=_amount(event, rate)
            )
        elif done and not self.quiet and now - self._printed >= console.PLAIN_SECONDS:
            self._printed = now
            console.note(_line(event, rate, left))


def _subject(event: Count | Transfer) -> tuple[str, int]:
    return (event.what, event.total) if isinstance(event, Count) else (event.name, event.length)


def _amount(event: Count | Transfer, rate: float) -> str:
    if isinstance(event, Count):
        return f"{int(event.done)}/{event.total}"
    return f"{event.here / 1e6:,.0f}/{event.length / 1e6:,.0f} MB, {rate / 1e6:.1f} MB/s"


def _line(event: Count | Transfer, rate: float, left: float) -> str:
    more = f", about {duration(left)} left" if math.isfinite(left) else ""
    if isinstance(event, Count):
        return f"{int(event.done)}/{event.total} {event.what}{more}"
    return (
        f"{event.name}: {event.here / 1e6:,.0f} of {event.length / 1e6:,.0f} MB, "
        f"{rate / 1e6:.1f} MB/s{more}"
    )


def duration(seconds: float) -> str:
    """ "3 h 20 min", "4 min", "12 s"; "?" where nobody knows."""
    if not math.isfinite(seconds):
        return "?"
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min" if whole >= 120 else f"{whole} s"
