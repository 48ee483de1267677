"""Training as a person sees it: a live table on a terminal, a line a report elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from adm_cli.commands import console
from adm_cli.commands.progress import Progress, duration
from adm_cli.events import Count, Note

if TYPE_CHECKING:
    from adm_cli.training.loop import Begun
    from adm_cli.training.loop import Progress as Stepped

_SILENCE = 30.0  # seconds without a line, where there is no table

_NAMES = {
    "loss": "loss",
    "mse": "mse",
    "vb": "vb",
    "bits_per_dim": "bits/dim",
    "acc1": "top-1",
    "acc5": "top-5",
    "grad_norm": "gradient",
    "lr": "rate",
}


class TrainingDisplay:
    """Takes the events of a run as they come."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.step = self.steps = self.batch_size = 0
        self.pictures = 1
        self.training: dict[str, float] = {}
        self.validation: dict[str, float] = {}
        self.rate = self.left = 0.0
        self.saved = ""
        self.busy, self.since = "first step", time.monotonic()  # between steps, since when
        self._reading = Progress(quiet=quiet)
        self._live: Any = None
        self._stack = ExitStack()
        self._printed = time.monotonic()

    @contextmanager
    def show(self) -> Iterator[None]:
        with self._stack:
            self._stack.enter_context(self._reading.show())
            yield
        self._live = None

    def update(self, event: object) -> None:
        from adm_cli.training.loop import Begun, Busy, Sampled, Saved, Validated
        from adm_cli.training.loop import Progress as Stepped

        if isinstance(event, (Note, Count)):
            self._reading(event)
        elif isinstance(event, Begun):
            self._begin(event)
        elif isinstance(event, Busy):
            self.busy, self.since = event.what, time.monotonic()
        elif isinstance(event, Stepped):
            self._stepped(event)
        elif isinstance(event, Validated):
            self.validation = event.metrics
            best = ", the best so far" if event.best else ""
            self._line(f"step {event.step}: validation {_numbers(event.metrics)}{best}")
        elif isinstance(event, Saved):
            self.saved = f"step {event.step}"
        elif isinstance(event, Sampled):
            self._line(f"step {event.step}: pictures in {event.path}")

    def _begin(self, event: Begun) -> None:
        self.step, self.steps = event.step, event.steps
        self.batch_size, self.pictures = event.batch_size, max(1, event.pictures)
        self.since = time.monotonic()
        if self.quiet or not console.err.is_terminal:
            return
        from rich.live import Live

        self._stack.close()  # the bar of what is read
        live = Live(
            get_renderable=self._table, console=console.err, refresh_per_second=4, transient=True
        )
        self._live = self._stack.enter_context(live)

    def _stepped(self, event: Stepped) -> None:
        self.step, self.rate, self.left = event.step, event.images_per_second, event.seconds_left
        self.busy = ""
        if event.row is not None:
            self.training = event.row
        if event.row is None and time.monotonic() - self._printed < _SILENCE:
            return
        numbers = f"loss {event.loss:.4g}" if event.row is None else _numbers(event.row)
        self._line(
            f"step {event.step}/{self.steps}: {numbers}, "
            f"{event.images_per_second:.0f} images/s, {duration(event.seconds_left)} left"
        )

    def _line(self, text: str) -> None:
        self._printed = time.monotonic()
        if self._live is None and not self.quiet:
            console.note(text)

    def _table(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        table.add_column("")
        for column in ("training", "validation"):
            table.add_column(column, justify="right")
        for name, label in _NAMES.items():
            if name in self.training or name in self.validation:
                table.add_row(label, _cell(self.training, name), _cell(self.validation, name))
        for q in range(4):
            name = f"acc1_q{q}"
            if name in self.training:
                label = f"top-1, noise {25 * q}-{25 * (q + 1)} %"
                table.add_row(label, _cell(self.training, name), _cell(self.validation, name))
        head = Table.grid(padding=(0, 2))
        head.add_row(
            ProgressBar(total=max(1, self.steps), completed=self.step, width=24),
            f"step {self.step:,}/{self.steps:,}",
            f"epoch {self._epochs(self.step):,.1f} of {self._epochs(self.steps):,.0f}",
        )
        return Group(head, *([table] if table.row_count else []), self._caption())

    def _epochs(self, step: int) -> float:
        return step * self.batch_size / self.pictures

    def _caption(self) -> str:
        doing = ""
        if self.busy:
            doing = f"{self.busy} for {duration(time.monotonic() - self.since)} | "
        memory = self.training.get("memory_gb", 0.0)
        speed = f"{self.rate:.1f} images/s, {duration(self.left)} left" if self.rate else "..."
        held = f", {memory:.1f} GB" if memory else ""
        return f"{doing}{speed}{held}, saved: {self.saved or 'not yet'}"


def _numbers(row: dict[str, float]) -> str:
    return ", ".join(f"{label} {_cell(row, name)}" for name, label in _NAMES.items() if name in row)


def _cell(row: dict[str, float], name: str) -> str:
    if name not in row:
        return ""
    return f"{100 * row[name]:.1f} %" if name.startswith("acc") else f"{row[name]:.4g}"
