"""Training as a person sees it: a bar and a live table on a terminal, a line a report elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from adm_cli.commands.progress import Progress, Sight, duration
from adm_cli.training.loop import Begun, Busy, Sampled, Saved, Validated
from adm_cli.training.loop import Progress as Stepped

if TYPE_CHECKING:
    from rich.console import RenderableType

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


class TrainingDisplay(Progress):
    """Takes the events of a run as they come."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__(quiet=quiet)
        self.run: Begun | None = None
        self.training: dict[str, float] = {}
        self.validation: dict[str, float] = {}
        self.saved = ""
        self.busy, self.since = "first step", time.monotonic()  # between steps, since when

    def __call__(self, event: object) -> None:
        super().__call__(event)
        if isinstance(event, Begun):
            self.run, self.below, self.since = event, self._table, time.monotonic()
            self.see(self._sight(event.step))
        elif isinstance(event, Busy):
            self.busy, self.since = event.what, time.monotonic()
        elif isinstance(event, Stepped):
            self._stepped(event)
        elif isinstance(event, Validated):
            self.validation = event.metrics
            best = ", the best so far" if event.best else ""
            self.say(f"step {event.step}: validation {_numbers(event.metrics)}{best}")
        elif isinstance(event, Saved):
            self.saved = f"step {event.step}"
        elif isinstance(event, Sampled):
            self.say(f"step {event.step}: pictures in {event.path}")

    def _stepped(self, event: Stepped) -> None:
        self.busy = ""
        self.training = self.training if event.row is None else event.row
        loss = f"loss {event.loss:.4g}" if event.row is None else _numbers(event.row)
        self.see(self._sight(event.step, event), line=loss, due=event.row is not None)

    def _sight(self, step: int, event: Stepped | None = None) -> Sight:
        assert self.run is not None
        epochs = [
            s * self.run.batch_size / max(1, self.run.pictures) for s in (step, self.run.steps)
        ]
        words = [f"epoch {epochs[0]:,.1f} of {epochs[1]:,.{int(epochs[1] < 10)}f}"]
        words += [] if event is None else [f"{event.images_per_second:.1f} images/s"]
        return Sight(
            self.run, f"step {step:,}/{self.run.steps:,}", step, self.run.steps,
            more=", ".join(words), left=None if event is None else event.seconds_left,
        )  # fmt: skip

    def _table(self) -> RenderableType:
        from rich.console import Group
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
        return Group(*([table] if table.row_count else []), self._caption())

    def _caption(self) -> str:
        doing = f"{self.busy} for {duration(time.monotonic() - self.since)} | " if self.busy else ""
        memory = self.training.get("memory_gb", 0.0)
        held = f"{memory:.1f} GB, " if memory else ""
        return f"{doing}{held}saved: {self.saved or 'not yet'}"


def _numbers(row: dict[str, float]) -> str:
    return ", ".join(f"{label} {_cell(row, name)}" for name, label in _NAMES.items() if name in row)


def _cell(row: dict[str, float], name: str) -> str:
    if name not in row:
        return ""
    return f"{100 * row[name]:.1f} %" if name.startswith("acc") else f"{row[name]:.4g}"
