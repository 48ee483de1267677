"""The folder of a training run: settings, states to resume from, metrics, plots and pictures.

settings.json             everything that decides what is learned
state-00001000.safetensors   weights, their averages, optimizer, history; the newest two
model.safetensors         the averaged weights, as `adm sample` takes them
best.safetensors          those of the lowest validation loss
metrics.csv, metrics.png, samples/
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from adm_cli.checkpoints.format import read_tensors, write_tensors
from adm_cli.checkpoints.header import AGAIN, STATE_FORMAT
from adm_cli.errors import CheckpointError, OutputError, why_unread
from adm_cli.events import AnyPath
from adm_cli.files.budget import parse_json
from adm_cli.files.disk import (
    atomic_write,
    explained,
    open_file,
    open_to_append,
    read_text,
)
from adm_cli.files.links import check_below, remove, remove_folder
from adm_cli.files.locks import hold
from adm_cli.files.own import is_own, refuse_foreign, refuse_other_kind
from adm_cli.files.tables import Panel, draw_panels

_STATE = re.compile(r"state-(\d{8,})\.safetensors")
_KEPT = 2
_WRITTEN = re.compile(  # by a run; what others called alike stays
    r"state-\d{8,}\.safetensors|(?:model|best)(?:-ema[\d.e-]+)?\.safetensors|metrics\.(?:csv|png)"
    r"|samples/step-\d{8,}\.png|tensorboard/events\.out\.tfevents\.\d+\.[^/]*|settings\.json",
    re.ASCII,
)

MetricsRow = dict[str, float]


class TrainingFolder:
    """Reads and writes the files of one run. Every write is whole or not at all."""

    def __init__(self, path: AnyPath) -> None:
        self.path = Path(path)
        self.settings = self.path / "settings.json"
        self.model = self.path / "model.safetensors"
        self.best = self.path / "best.safetensors"
        self.samples = self.path / "samples"
        self.plot = self.path / "metrics.png"

    def used(self) -> bool:
        """Whether a run was begun here."""
        return self.settings.exists() or bool(self.states())

    def check(self) -> None:
        """Raises OutputError if what is to be written in a folder within would go elsewhere."""
        check_below(self.path, ("samples", "tensorboard"))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps others from training here; at the end takes back a folder with nothing in it.

        Raises RunError if another process trains here. Does nothing where there are no locks.
        """
        place = self.path / ".train.lock"
        busy = f"another process is training in {self.path}: wait for it, or choose another --out"
        with hold(place, busy):
            try:
                yield
            finally:
                with suppress(OSError):
                    if list(self.path.iterdir()) == [place]:
                        remove(place)
                    remove_folder(self.path)

    def states(self) -> list[Path]:
        """State files, the newest first."""
        found = [p for p in self.path.glob("state-*.safetensors") if _STATE.fullmatch(p.name)]
        return sorted(found, key=lambda p: int(p.stem.split("-")[1]), reverse=True)

    def clean(self) -> None:
        """Removes what killed writers left behind; nobody else writes here."""
        for path in [*self.path.glob(".adm-*.tmp"), *self.samples.glob(".adm-*.tmp")]:
            with suppress(OSError):
                remove(path)

    def clear(self) -> None:
        """Removes all that a run wrote, for another to begin here; settings last.

        Raises OutputError, and removes nothing, where any of it may be somebody else's.
        """
        self.check_own()
        for path in self.written():
            remove(path)

    def written(self) -> list[Path]:
        """Files that bear the names of what a run writes; settings last."""
        inner = (self.path, self.samples, self.path / "tensorboard")
        names = (path.relative_to(self.path) for each in inner for path in each.glob("*"))
        found = sorted(name for name in names if _WRITTEN.fullmatch(name.as_posix()))
        found.sort(key=lambda name: name.name == "settings.json")
        return [self.path / name for name in found]

    def check_own(self) -> None:
        """Raises OutputError where a file that bears the name of one of ours is somebody else's.

        Settings, states and weights say what they are; beside one of ours, so does a name.
        """
        found = self.written()
        books = [path for path in found if path.suffix in (".json", ".safetensors")]
        refuse_foreign(books or found, "choose another --out")

    def check_fresh(self) -> None:
        """Raises OutputError where a run that begins here would replace files."""
        self.check_own()
        refuse_other_kind(self.path, self.settings.name)
        found = [path for path in self.written() if path.parent.name != "tensorboard"]
        if found:
            raise OutputError(
                f"{found[0]} is there, and no run that it is of: choose another --out, or pass "
                f"--fresh, which removes {'it' if len(found) == 1 else f'such {len(found)} files'}"
            )

    def save_settings(self, settings: Mapping[str, Any]) -> None:
        with atomic_write(self.settings) as file:
            file.write((json.dumps(settings, indent=2) + "\n").encode())

    def load_settings(self) -> dict[str, Any]:
        """Raises CheckpointError if they are damaged."""
        try:
            settings = parse_json(read_text(self.settings))
            if not isinstance(settings, dict):
                raise ValueError("expected a JSON object")
        except (OSError, ValueError, RecursionError) as error:
            mend = "--fresh begins anew" if is_own(self.settings) else "choose another --out"
            raise CheckpointError(
                f"cannot read {self.settings}: {why_unread(error)}; {mend}"
            ) from None
        return settings

    def save_state(
        self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
    ) -> Path:
        """Write a state, then drop all but the newest two up to it."""
        path = self.path / f"state-{step:08d}.safetensors"
        write_tensors(path, tensors, {"format": STATE_FORMAT, "facts": json.dumps(dict(facts))})
        for old in [p for p in self.states() if p.name <= path.name][_KEPT:]:
            with suppress(OSError):  # no reason to stop: it is tried again at the next one
                remove(old)
        return path

    def load_state(self) -> tuple[dict[str, Tensor], dict[str, Any], list[str]]:
        """Tensors and facts of the newest state that is whole, and what was wrong with newer ones.

        Raises CheckpointError if there is none.
        """
        wrong: list[str] = []
        for path in self.states():
            try:
                tensors, metadata = read_tensors(path)
                if metadata.get("format") != STATE_FORMAT:
                    raise CheckpointError(f"{path} is not a training state")
                return tensors, parse_json(metadata["facts"]), wrong
            except (CheckpointError, KeyError, ValueError) as error:
                own = isinstance(error, CheckpointError)
                text = str(error) if own else f"{path}: {why_unread(error)}"
                wrong.append(text.removesuffix(AGAIN))  # of what cannot be downloaded
        if wrong:
            raise CheckpointError(f"no state can be read: {wrong[0]}; --fresh begins anew")
        raise CheckpointError(f"{self.path} has no state to resume from: --fresh begins anew")


class MetricsFile:
    """``metrics.csv``: a row a report; columns may be added as new numbers appear."""

    def __init__(self, path: Path, upto: int | None = None) -> None:
        """Goes on with the rows of steps up to ``upto``; begins anew if that is None."""
        self.path = path
        self.rows: list[MetricsRow] = []
        if upto is not None and path.exists():
            self.rows = [row for row in _read_rows(path) if 0 <= row["step"] <= upto]
        self.columns = list(dict.fromkeys(name for row in self.rows for name in row))
        if upto is not None:
            self._rewrite()

    def add(self, row: Mapping[str, float]) -> None:
        """Append a row; raises OutputError if it cannot be written."""
        self.rows.append(dict(row))
        new = [name for name in row if name not in self.columns]
        if new or not self.path.exists():
            self.columns += new
            self._rewrite()
            return
        line = io.StringIO(newline="")
        csv.writer(line).writerow(self._cells(row))
        with explained(f"cannot write {self.path}"), open_to_append(self.path) as file:
            file.write(line.getvalue().encode())

    def sync(self) -> None:
        """Returns when the rows are safe; raises OutputError."""
        if not self.path.exists():
            return  # no row yet
        with explained(f"cannot write {self.path}"), self.path.open("r+b") as file:
            os.fsync(file.fileno())

    def series(self, name: str) -> tuple[list[float], list[float]]:
        """Steps and values of a column, where it has one."""
        there = [row for row in self.rows if name in row]
        return [row["step"] for row in there], [row[name] for row in there]

    def _cells(self, row: Mapping[str, float]) -> Sequence[str]:
        return [_cell(row[name]) if name in row else "" for name in self.columns]

    def _rewrite(self) -> None:
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(self.columns)
        writer.writerows(self._cells(row) for row in self.rows)
        with atomic_write(self.path) as file:
            file.write(text.getvalue().encode())


def _cell(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:.7g}"


def _read_rows(path: Path) -> list[MetricsRow]:
    """Rows of numbers; a row that was cut short by a crash is dropped. Raises CheckpointError."""
    rows = []
    try:
        with io.TextIOWrapper(open_file(path), "utf-8", "replace", newline="") as file:
            for row in csv.DictReader(file):
                with suppress(ValueError, TypeError):
                    rows.append({name: float(text) for name, text in row.items() if text})
    except (OSError, csv.Error) as error:
        raise CheckpointError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or error}; remove it: training "
            f"goes on without its rows"
        ) from None
    return [row for row in rows if "step" in row]


def draw_plot(path: Path, metrics: MetricsFile) -> bool:
    """Loss, and accuracy where there is one, over steps; False without matplotlib."""
    panels = []
    for name, title in (("loss", "loss"), ("acc1", "top-1 accuracy")):
        lines = {
            label: metrics.series(prefix + name)
            for prefix, label in (("", "training"), ("val_", "validation"))
            if metrics.series(prefix + name)[0]
        }
        if lines or name == "loss":
            panels.append(Panel("step", title, lines))
    return draw_panels(path, panels)
