"""The folder of a sweep: a run folder for each cell, and what was found out about all of them.

sweep.json                the axes, and a row a cell: settings, time, scores
sweep.csv, sweep.png      the rows as a table, and the scores as curves
sheet.png                 the same seeds along each row, a column a cell
tiny_ddim_25_scale4/      a cell's run
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adm_cli.errors import AdmError
from adm_cli.storage.files import explain_os_error, read_text
from adm_cli.storage.tables import Panel, draw_panels, write_csv, write_json

FORMAT = 1
_HIDDEN = ("scores_of", "metrics")  # of the program, not of whoever reads the table
_LARGEST = 1e30  # of a number in a row
Row = dict[str, Any]


class SweepFolder:
    """Reads and writes what is beside the cells. Every write is whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file, self.table = path / "sweep.json", path / "sweep.csv"
        self.sheet, self.plot = path / "sheet.png", path / "sweep.png"

    def read(self) -> tuple[dict[str, list[Any]], dict[str, Row]]:
        """The axes, and the rows by cell; both empty for a new folder. Raises AdmError."""
        try:
            value = json.loads(read_text(self.file))
            if value["format"] != FORMAT:
                raise ValueError(f"format {value['format']!r:.20}, made by another adm")
            axes = {str(name): list(values) for name, values in value["axes"].items()}
            return axes, {str(row["cell"]): _checked(row) for row in value["cells"]}
        except FileNotFoundError:
            return {}, {}
        except OSError as error:
            raise AdmError(explain_os_error(f"cannot read {self.file}", error)) from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise AdmError(
                f"{self.file} is damaged ({error}): remove it; the images are safe in the folders "
                f"beside it, and the same command goes on"
            ) from None

    def write(
        self, axes: Mapping[str, Sequence[Any]], rows: Sequence[Row], facts: Mapping[str, Any]
    ) -> None:
        """The rows as JSON and CSV; ``facts`` are what all of them share."""
        write_json(self.file, {"format": FORMAT, **facts, "axes": dict(axes), "cells": rows})
        write_csv(self.table, [shown(row) for row in rows])

    def results(self) -> list[str]:
        """The names of those files that are there."""
        files = (self.sheet, self.table, self.file, self.plot)
        return [path.name for path in files if path.exists()]

    def draw(self, panels: Sequence[Panel]) -> bool:
        """The curves; False without matplotlib."""
        return draw_panels(self.plot, panels)


def _checked(row: Row) -> Row:
    """A row that the program can go on with; raises ValueError or TypeError."""
    metrics = row.get("metrics", [])
    if not isinstance(metrics, list) or not all(isinstance(name, str) for name in metrics):
        raise ValueError(f"metrics is {metrics!r:.40}")
    scores = [f"{name}{end}" for name in metrics for end in ("", "_error")]
    for name in ("drawn", "seconds", "images_per_second", *scores):
        value = row.get(name, 0)
        number = type(value) in (int, float) and abs(value) < _LARGEST
        if not number and not (name in scores and value is None):
            raise ValueError(f"{name} is {value!r:.40}")
    if type(row.get("drawn", 0)) is not int or min(row.get("drawn", 0), row.get("seconds", 0)) < 0:
        raise ValueError(f"{row.get('drawn')} images in {row.get('seconds')} s")
    return dict(row)


def shown(row: Row) -> Row:
    """A row as whoever reads the table wants it."""
    return {k: v for k, v in row.items() if k not in _HIDDEN}
