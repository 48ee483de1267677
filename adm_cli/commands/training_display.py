"""Training as a person sees it: a live table on a terminal, a line a report elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from adm_cli.commands import console

if TYPE_CHECKING:
    from adm_cli.training.loop import Event

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

    def __init__(self, steps: int, start: int, *, quiet: bool) -> None:
        self.steps, self.step, self.quiet = steps, start, quiet
        self.training: dict[str, float] = {}
        self.validation: dict[str, float] = {}
        self.rate = self.left = 0.0
        self.saved = ""
        self._live: Any = None

    @contextmanager
    def show(self) -> Iterator[None]:
        if self.quiet or not console.err.is_terminal:
            yield
            return
        from rich.live import Live

        with Live(self._table(), console=console.err, refresh_per_second=4) as self._live:
            yield
        self._live = None

    def update(self, event: Event) -> None:
        from adm_cli.training.loop import Progress, Sampled, Saved, Validated

        if isinstance(event, Progress):
            self.step, self.rate, self.left = (
                event.step,
                event.images_per_second,
                event.seconds_left,
            )
            if event.row is not None:
                self.training = event.row
                self._line(
                    f"step {event.step}/{self.steps}: {_numbers(event.row)}, "
                    f"{event.images_per_second:.0f} images/s, {duration(event.seconds_left)} left"
                )
        elif isinstance(event, Validated):
            self.validation = event.metrics
            best = ", the best so far" if event.best else ""
            self._line(f"step {event.step}: validation {_numbers(event.metrics)}{best}")
        elif isinstance(event, Saved):
            self.saved = f"step {event.step}"
        elif isinstance(event, Sampled):
            self._line(f"step {event.step}: pictures in {event.path}")
        if self._live is not None:
            self._live.update(self._table())

    def _line(self, text: str) -> None:
        if self._live is None and not self.quiet:
            console.note(text)

    def _table(self) -> Any:
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
        memory = self.training.get("memory_gb", 0.0)
        table.caption = (
            f"step {self.step}/{self.steps}, {self.rate:.1f} images/s, "
            f"{duration(self.left)} left, {memory:.1f} GB, saved: {self.saved or 'not yet'}"
        )
        table.caption_justify = "left"
        return table


def _numbers(row: dict[str, float]) -> str:
    return ", ".join(f"{label} {_cell(row, name)}" for name, label in _NAMES.items() if name in row)


def _cell(row: dict[str, float], name: str) -> str:
    if name not in row:
        return ""
    return f"{100 * row[name]:.1f} %" if name.startswith("acc") else f"{row[name]:.4g}"


def duration(seconds: float) -> str:
    """ "3 h 20 min", "4 min", "12 s"."""
    if not math.isfinite(seconds):
        return "?"
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min" if whole >= 120 else f"{whole} s"
