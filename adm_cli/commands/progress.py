"""How far a long operation is: its events as a bar on a terminal, as lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from adm_cli.commands import console, signals
from adm_cli.events import Count, Doing, Hint, Note, SoFar, Transfer
from adm_cli.sampling.events import BatchDone, Ended, Started, Step

if TYPE_CHECKING:
    from rich.console import RenderableType
    from typing_extensions import Self

SECONDS = 10.0  # between lines where there is no terminal
_BAR = 20  # columns
_PER_SECOND = 8  # times a terminal is drawn


@dataclass(frozen=True)
class Sight:
    """How far something is, for a person."""

    subject: object  # what is counted: where it changes, something else begins
    text: str  # what it is, and how much of it is done
    done: float = 0.0
    total: float | None = None  # None: nobody knows, and a terminal alone shows it
    unit: float = 1.0  # of the rate, which is told with ``rate``: "MB/s"
    rate: str = ""
    more: str = ""
    left: float | None = None  # seconds; None: as the rate so far says


class Progress:
    """Shows events (`adm_cli.events`, and those of drawing) as they come; nothing if quiet.

    It is an ``on_event``, within its context. On a terminal there is a bar while something is
    counted; elsewhere there is a line every ten seconds.
    """

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.below: Callable[[], RenderableType] | None = None  # shown under a terminal's bar
        self.transfer: Transfer | None = None  # the latest
        self.so_far: Any = None  # the result of what is done
        self.sight: Sight | None = None
        self._drawing: _Drawing | None = None
        self._begun = (0.0, 0.0)  # when what is counted began, and how much was there
        self._seen = 0.0  # when it was looked at last
        self._printed = time.monotonic()
        self._live: Any = None
        self._spinner: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.hide()

    def __call__(self, event: object) -> None:
        if isinstance(event, Note) or (isinstance(event, Hint) and console.err.is_terminal):
            self.note(event.text)
        elif isinstance(event, SoFar):
            self.so_far = event.result
        elif isinstance(event, Ended):
            self.hide()
        elif isinstance(event, (Doing, Count, Transfer)):
            self.see(_sight(event))
            self.transfer = event if isinstance(event, Transfer) else self.transfer
        elif isinstance(event, Started):
            self.hide()
            self._printed = time.monotonic()  # loading took its time
            self._drawing = _Drawing(event) if event.images > event.there else None
            self._look()
        elif isinstance(event, (Step, BatchDone)) and self._drawing is not None:
            self._drawing.advance(event)
            self._look()

    def note(self, text: str) -> None:
        """A line for a person."""
        if not self.quiet:
            console.note(text)

    def say(self, text: str) -> None:
        """A line where there is no bar, which would show it."""
        if not console.err.is_terminal:
            self._printed = time.monotonic()
            self.note(text)

    def see(self, sight: Sight, *, line: str = "", due: bool = False) -> None:
        """Shows how far something is; ``line`` is what only a line says of it, which may be due."""
        signals.check()
        self._seen = now = time.monotonic()
        new = self.sight is None or self.sight.subject != sight.subject
        if new:
            self._begun = (now, sight.done)
        self.sight = sight
        if self.quiet:
            return
        if console.err.is_terminal:
            self._begin()
            if new:
                self._live.refresh()
        elif due or (sight.done and sight.total and now - self._printed >= SECONDS):
            words = [f"{sight.text}: {line}" if line else sight.text, *self._words(sight, "about ")]
            self.say(", ".join(words))

    def hide(self) -> None:
        """Takes the bar away, and what was counted is over."""
        if self._live is not None:
            self._live.stop()
        self._live = self.sight = self._drawing = None

    def _words(self, sight: Sight, about: str = "") -> list[str]:
        """What there is to say beside how much is done."""
        left = self._left(sight)
        words = [self._rate(sight), sight.more]
        words += [f"{about}{duration(left)} left"] if math.isfinite(left) else []
        return [word for word in words if word]

    def _left(self, sight: Sight) -> float:
        """Seconds to come; infinite where nobody knows."""
        left, speed = math.inf if sight.left is None else sight.left, self._speed(sight)
        if sight.left is None and sight.total is not None and speed:
            left = (sight.total - sight.done) / speed
        return max(0.0, left - (time.monotonic() - self._seen))

    def _rate(self, sight: Sight) -> str:
        rate = self._speed(sight) / sight.unit
        if not sight.rate or not rate:
            return ""
        return f"{rate:.3g} {sight.rate}" if rate < 1000 else f"{rate:,.0f} {sight.rate}"

    def _speed(self, sight: Sight) -> float:
        """So much a second; 0 before anything is done."""
        begun, there = self._begun
        return max(0.0, sight.done - there) / max(self._seen - begun, 1e-9)

    def _look(self) -> None:
        if self._drawing is not None:
            self.see(self._drawing.sight())

    def _begin(self) -> None:
        """On a terminal; what goes to stdout passes by the bar only if that is a terminal, too."""
        if self._live is not None:
            return
        from rich.live import Live
        from rich.spinner import Spinner

        self._spinner = Spinner("dots", style="green")
        self._live = Live(
            get_renderable=self._render, console=console.err, refresh_per_second=_PER_SECOND,
            transient=True, redirect_stdout=console.on_terminal(),
        )  # fmt: skip
        self._live.start()

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        sight = self.sight
        if sight is None:
            return ""
        line = Table.grid(padding=(0, 1))
        for _ in range(3):
            line.add_column(no_wrap=True, overflow="ellipsis")
        if sight.total is None:
            line.add_row(self._spinner, Text(sight.text))
        else:
            bar = ProgressBar(total=sight.total, completed=min(sight.done, sight.total), width=_BAR)
            line.add_row(Text(sight.text), bar, Text(", ".join(self._words(sight))))
        return line if self.below is None else Group(line, self.below())


class _Drawing:
    """Images that are drawn: those that are done, and batches under way."""

    def __init__(self, event: Started) -> None:
        self.what, self.steps = event.what, event.steps
        self.images, self.done, self.step = event.images - event.there, 0, 0
        self.batches: dict[int, tuple[int, int]] = {}  # images and step, of each worker's batch

    def advance(self, event: Step | BatchDone) -> None:
        if isinstance(event, Step):
            self.step = self.steps - event.left
            # not a count: a batch that ran out of memory starts over
            self.batches[event.worker] = (event.images, self.step)
        else:
            self.step = 0
            self.done += event.images
            self.batches.pop(event.worker, None)

    def sight(self) -> Sight:
        """A batch's padding counts as nothing."""
        wanted = self.images - self.done
        under_way = sum(min(images, wanted) * step for images, step in self.batches.values())
        done = self.done + min(under_way / self.steps, wanted)
        return Sight(
            self, f"{self.what} {self.done:,}/{self.images:,}", done, self.images,
            rate="images/s", more=f"step {self.step}/{self.steps}",
        )  # fmt: skip


def _sight(event: Doing | Count | Transfer) -> Sight:
    if isinstance(event, Doing):
        return Sight(event, event.what)
    if isinstance(event, Transfer):
        name, here, length = event.name, event.here, event.length
        if here == length:
            return _sight(Doing(f"checking and converting {name}"))
        text = f"{name}: {here / 1e6:,.0f} of {length / 1e6:,.0f} MB"
        return Sight((name, length), text, here, length, unit=1e6, rate="MB/s")
    of = "" if event.total is None else f"/{event.total}"
    text = f"{int(event.done)}{of} {event.what}"
    return Sight((event.what, event.total), text, event.done, event.total)


def duration(seconds: float) -> str:
    """ "3 h 20 min", "4 min", "12 s"; "?" where nobody knows."""
    if not math.isfinite(seconds):
        return "?"
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min" if whole >= 120 else f"{whole} s"
