"""The folder of a sweep: a run folder for each cell, and what was found out about all of them.

sweep.json                the axes, and a row a cell: settings, time, scores; hashes of the pictures
.sweep.json.copy          the same bytes again
sweep.csv, sweep.png      the rows as a table, and the scores as curves
sheet.png                 the same seeds along each row, a column a cell
tiny_ddim_25_scale4/      a cell's run
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from adm_cli.errors import AdmError, UsageError, are, trim, why_unread
from adm_cli.files.budget import parse_json
from adm_cli.files.disk import (
    explain_os_error,
    file_digest,
    leftovers,
    make_folder,
    read_file,
    refuse_existing,
)
from adm_cli.files.links import check_below, watched
from adm_cli.files.names import check_name
from adm_cli.files.own import is_own, refuse_foreign, refuse_other_kind
from adm_cli.files.sealed import as_written, both_copies, is_whole, sealed_json, write_copies
from adm_cli.files.tables import Panel, csv_bytes, draw_panels, write_csv
from adm_cli.sampling.events import Finding
from adm_cli.sampling.folder import RunFolder
from adm_cli.sampling.verifying.check import check_digest

FORMAT = 2
_HIDDEN = ("scores_of", "metrics")  # of the program, not of whoever reads the table
_MOST_BYTES = 2**26  # of a table
TableRow = dict[str, Any]  # of a sweep, a cell
_LARGEST = 1e30  # of a number in a row


class Results(NamedTuple):
    """What ``sweep.json`` holds."""

    axes: dict[str, list[Any]]
    rows: dict[str, TableRow]  # by cell
    facts: dict[str, Any]  # what all cells share
    files: dict[str, str]  # SHA-256 of sheet and plot


class SweepFolder:
    """Reads and writes what is beside the cells. Every write is whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file, self.table = path / "sweep.json", path / "sweep.csv"
        self.sheet, self.plot = path / "sheet.png", path / "sweep.png"

    @contextmanager
    def watched(self) -> Iterator[None]:
        """The folder, which stays the same one also between its cells, each of which is locked."""
        make_folder(self.path)
        with watched(self.file):
            yield

    def exists(self) -> bool:
        """Whether a sweep was begun here."""
        return any(copy.exists() for copy in both_copies(self.file))

    def cells(self) -> list[RunFolder]:
        """The runs of those cells that are there, by name. Raises as `cell`."""
        runs = [RunFolder(path) for path in sorted(self.path.iterdir()) if path.is_dir()]
        return [self.cell(run.path.name) for run in runs if run.exists()]

    def cell(self, name: str) -> RunFolder:
        """The run of a cell; raises OutputError for a link, which may lead to another run."""
        check_below(self.path, (name,))
        return RunFolder(self.path / name)

    def read(self) -> Results:
        """What was found out, nothing for a new folder. Raises AdmError for damage."""
        first: AdmError | None = None
        for path in both_copies(self.file):
            try:
                return _read(path)
            except FileNotFoundError:
                continue
            except AdmError as error:
                first = first or error
        if first is not None:
            raise first
        return Results({}, {}, {}, {})

    def write(
        self, axes: Mapping[str, Sequence[Any]], rows: Sequence[TableRow], facts: Mapping[str, Any]
    ) -> None:
        """The rows as JSON and CSV; ``facts`` are what all of them share."""
        pictures = [path for path in (self.sheet, self.plot) if path.exists()]
        value = {
            "format": FORMAT,
            "facts": dict(facts),
            "files": {path.name: file_digest(path)[1] for path in pictures},
            "axes": dict(axes),
            "cells": rows,
        }
        write_copies(self.file, sealed_json(value))
        self.write_table(rows)

    def write_table(self, rows: Sequence[TableRow]) -> None:
        write_csv(self.table, [shown(row) for row in rows])

    def verify(self) -> Iterator[Finding]:
        """What is wrong beside the cells. Raises AdmError if neither copy of the rows is whole."""
        for path in both_copies(self.file):
            try:
                _read(path)
                if not is_whole(path):
                    text = f"{path}: its line ends or layout are not those written"
                    yield Finding("run", path.name, text)
            except FileNotFoundError:
                yield Finding("run", path.name, f"{path} is missing")
            except AdmError as error:
                yield Finding("run", path.name, str(error))
        found = self.read()
        table = hashlib.sha256(csv_bytes([shown(row) for row in found.rows.values()])).hexdigest()
        for name, digest in {self.table.name: table, **found.files}.items():
            if finding := check_digest(self.path / name, digest):
                yield finding
        for path in leftovers(self.path):
            yield Finding("temporary", path.name, f"{path} was left behind by a killed process")
        gone = sorted(set(found.rows) - {run.path.name for run in self.cells()})
        if gone:
            count = f"{len(gone)} of {len(found.rows)}"
            text = f"{count} cells of {self.path} {are(len(gone))} not there, e.g. {gone[0]}"
            yield Finding("unfinished", gone[0], text)

    def check_own(self) -> None:
        """Raises OutputError where a file that bears the name of one of ours is another's."""
        books = [path for path in both_copies(self.file) if path.exists()]
        if any(map(is_own, books)):
            books = []
        refuse_foreign(books, "choose another --out")
        known: Iterable[str] = ()
        with suppress(AdmError):  # a damaged sweep
            known = self.read().files
        files = (self.sheet, self.plot, *(() if self.exists() else (self.table,)))
        refuse_foreign((p for p in files if p.name not in known), "choose another --out")

    def check_new(self) -> None:
        """Raises OutputError where a sweep that begins here would replace files of others."""
        if self.path.is_dir() and not self.exists() and not self.cells():
            refuse_other_kind(self.path, self.file.name)
            refuse_existing([self.table, self.sheet, self.plot])

    def results(self) -> list[str]:
        """The names of those files that are there."""
        files = (self.sheet, self.table, self.file, self.plot)
        return [path.name for path in files if path.exists()]

    def draw(self, panels: Sequence[Panel]) -> bool:
        """The curves; False without matplotlib."""
        return draw_panels(self.plot, panels)


def _read(path: Path) -> Results:
    """One copy; raises AdmError if it is damaged, FileNotFoundError if it is not there."""
    try:
        data = read_file(path, _MOST_BYTES)
        if (whole := as_written(data)) is None:
            raise ValueError("its hash is not its content's")
        value = parse_json(whole, most=_MOST_BYTES)
        if value["format"] != FORMAT:
            raise ValueError(f"format {trim(value['format'], 20)}, made by another adm")
        axes = {str(name): list(values) for name, values in value["axes"].items()}
        rows = {str(row["cell"]): _checked(row) for row in value["cells"]}
        files = {check_name(name): digest for name, digest in value["files"].items()}
        if not all(isinstance(digest, str) for digest in files.values()):
            raise ValueError("a hash is no text")
        return Results(axes, rows, dict(value["facts"]), files)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise AdmError(explain_os_error(f"cannot read {path}", error)) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, UsageError) as error:
        raise AdmError(
            f"{path} is damaged ({why_unread(error)}): remove it; the images are safe in the "
            f"folders "
            f"beside it, and the same command goes on"
        ) from None


def _checked(row: TableRow) -> TableRow:
    """A row that the program can go on with; raises ValueError or TypeError."""
    metrics = row.get("metrics", [])
    if not isinstance(metrics, list) or not all(isinstance(name, str) for name in metrics):
        raise ValueError(f"metrics is {trim(metrics, 40)}")
    scores = [f"{name}{end}" for name in metrics for end in ("", "_error")]
    for name in ("drawn", "seconds", "images_per_second", *scores):
        value = row.get(name, 0)
        number = type(value) in (int, float) and abs(value) < _LARGEST
        if not number and not (name in scores and value is None):
            raise ValueError(f"{name} is {trim(value, 40)}")
    if type(row.get("drawn", 0)) is not int or min(row.get("drawn", 0), row.get("seconds", 0)) < 0:
        raise ValueError(f"{row.get('drawn')} images in {row.get('seconds')} s")
    return dict(row)


def shown(row: TableRow) -> TableRow:
    """A row as whoever reads the table wants it."""
    return {k: v for k, v in row.items() if k not in _HIDDEN}
