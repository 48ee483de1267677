"""Results for people and other programs: CSV, JSON, and plots where matplotlib is there."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adm_cli.files.disk import atomic_write
from adm_cli.files.own import SOFTWARE

NO_PLOT = "no plot is drawn: matplotlib is missing (pip install matplotlib)"
_LARGEST = 1e30  # what is larger has no place in a plot
_MARKED = 60  # more points than that are a line
Points = tuple[Sequence[float], Sequence[float]]  # x and y


@dataclass(frozen=True)
class Panel:
    """A part of a plot: named lines over one axis."""

    x: str
    y: str
    lines: Mapping[str, Points]
    diagonal: bool = False  # also y = x, as in reliability diagrams
    log: bool = False  # of y
    errors: Mapping[str, Sequence[float]] = field(default_factory=dict)  # of lines by name


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The `csv_bytes` of rows."""
    with atomic_write(path) as file:
        file.write(csv_bytes(rows))


def csv_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A heading of all names that occur and a line a row; what a row lacks stays empty."""
    text = io.StringIO(newline="")
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def write_json(path: Path, value: object) -> None:
    with atomic_write(path) as file:
        file.write((json.dumps(value, indent=2) + "\n").encode())


def draw_panels(path: Path, panels: Sequence[Panel]) -> bool:
    """A PNG of panels side by side; False without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(5.5 * len(panels), 4), layout="constrained")
    for axis, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        if panel.diagonal:
            axis.plot([0, 1], [0, 1], color="0.7", linestyle="--")
        for name, (x, y) in panel.lines.items():
            marker = "." if len(x) <= _MARKED else None
            error = panel.errors.get(name)
            y = [value if abs(value) < _LARGEST else math.nan for value in y]
            axis.errorbar(x, y, error, label=name, marker=marker, capsize=2, elinewidth=0.8)
        axis.set_xlabel(panel.x)
        axis.set_ylabel(panel.y)
        axis.grid(alpha=0.3)
        if panel.log:
            axis.set_yscale("log")
        if panel.lines and (len(panel.lines) > 1 or panel.y not in panel.lines):
            axis.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": SOFTWARE})
    with atomic_write(path) as file:
        file.write(buffer.getvalue())
    return True
