"""A sweep under way: cell after cell is drawn and measured, and the results are written."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adm_cli.commands import console
from adm_cli.commands.sweep_cells import Judge, Prepared, draw_cell, erase_cell, measure_cell
from adm_cli.commands.sweep_results import draw_curves, draw_sheet, write_rows
from adm_cli.errors import NotFiniteError, RunError
from adm_cli.reports.sweeps import axes_of, number, varied_axes
from adm_cli.storage.plans import differences
from adm_cli.storage.sweeps import SweepFolder, shown

if TYPE_CHECKING:
    from adm_cli.commands.drawing import Telling
    from adm_cli.pipeline import Pipeline

Row = dict[str, Any]


@dataclass
class Sweep:
    """A sweep under way: its folder, its cells, and a row of the table for each."""

    folder: SweepFolder
    cells: list[Prepared]
    sheet_rows: int
    tell: Telling
    rows: dict[str, Row] = field(default_factory=dict)

    def begin(self, *, overwrite: bool) -> None:
        """The rows, with what is known of a sweep that is gone on with.

        Raises RunError where that one has cells which are not asked for now.
        """
        known_axes, old = ({}, {}) if overwrite else self.folder.read()[:2]
        now = axes_of([prepared.cell for prepared in self.cells])
        names = {prepared.cell.name for prepared in self.cells}
        if not set(old) <= names:
            changed = ", ".join(differences({"cfg": [1.0], **known_axes}, now))
            raise RunError(
                f"{self.folder.path} holds a sweep with cells that are not asked for now "
                f"({changed}): ask for them too, choose another --out, or pass --overwrite"
            )
        for prepared in self.cells:
            now_asked, known = _settings_row(prepared), old.get(prepared.cell.name, {})
            fresh = {"drawn": 0, "seconds": 0.0}
            self.rows[prepared.cell.name] = {**now_asked, **fresh, **known, **now_asked}

    def move(self, path: Path) -> None:
        """Another folder, before anything is drawn."""
        from adm_cli.storage.runs import RunFolder

        self.folder = SweepFolder(path)
        self.cells = [replace(c, run=RunFolder(path / c.cell.name)) for c in self.cells]

    def discard_if_empty(self) -> None:
        """Takes back a folder in which the sweep left no image."""
        from adm_cli.storage.outputs import remove_if_empty

        for prepared in self.cells:
            prepared.run.discard_if_empty()
        remove_if_empty(self.folder.path)

    def run(self, judge: Judge | None, device: str, dtype: str, *, overwrite: bool) -> None:
        """Draws and measures what is missing; tables and sheet are written in any case."""
        from adm_cli.pipeline import load_pipeline

        pipeline: Pipeline | None = None
        said: set[str] = set()
        overflowed: list[NotFiniteError] = []
        if overwrite:
            for prepared in self.cells:
                erase_cell(prepared)
        try:
            for i, prepared in enumerate(self.cells):
                row, whole = self.rows[prepared.cell.name], True
                if missing := prepared.missing:
                    name = prepared.cell.name
                    self.tell.note(f"cell {i + 1} of {len(self.cells)}: {missing} images of {name}")
                    if pipeline is None or pipeline.sources is not prepared.sources:
                        mine = [c for c in self.cells if c.sources is prepared.sources]
                        guided = any(c.config.guided for c in mine)
                        pipeline = load_pipeline(
                            prepared.sources, guided=guided, device=device, dtype=dtype
                        )
                    try:
                        draw_cell(prepared, pipeline, row, self.tell, overwrite=overwrite)
                    except NotFiniteError as error:  # the other cells may be fine
                        overflowed.append(error)
                        whole = False
                if judge is not None and whole:
                    remarks = measure_cell(prepared, judge, row)
                    for text in (remark for remark in remarks if remark not in said):
                        said.add(text)
                        self.tell.note(text)
                self._save()
                if self.tell.json:
                    console.print_json(shown(row))
            if overflowed:
                raise overflowed[0]
        finally:
            self._finish()

    def _save(self) -> None:
        cells = [prepared.cell for prepared in self.cells]
        write_rows(self.folder, cells, list(self.rows.values()), self.sheet_rows)

    def _finish(self) -> None:
        """Tables, sheet and curves of what there is."""
        missing = {p.cell.name: p.missing for p in self.cells}
        if all(missing[p.cell.name] == len(p.plan.items) for p in self.cells):
            return  # nothing was drawn, now or before
        self._save()  # what cost much, before the pictures
        runs = [prepared.run for prepared in self.cells]
        draw_sheet(self.folder, [prepared.cell for prepared in self.cells], runs, self.sheet_rows)
        rows = [row for name, row in self.rows.items() if not missing[name]]
        metrics = draw_curves(self.folder, rows, self.tell)
        self._save()
        if not self.tell.json:
            self._print_table(rows, metrics)
        total = sum(missing.values())
        where = self.folder.path
        self.tell.note(
            f"{total} images are missing in {where}: the same command with --out {where} goes on"
            if total
            else f"{len(rows)} cells in {where}: {', '.join(self.folder.results())}"
        )

    def _print_table(self, rows: list[Row], metrics: list[str]) -> None:
        varied = varied_axes([prepared.cell for prepared in self.cells]) or ["scale"]
        lines = []
        for row in rows:
            axes = [number(row[a]) if a in ("scale", "cfg") else str(row[a]) for a in varied]
            speed = row.get("images_per_second")
            scores = [row.get(name) for name in metrics]
            lines.append([
                *axes,
                f"{row['images']:,}",
                "-" if speed is None else f"{speed:.3g}",
                *("-" if score is None else f"{score:.5g}" for score in scores),
            ])  # fmt: skip
        console.print_table([*varied, "images", "images/s", *metrics], lines)


def _settings_row(prepared: Prepared) -> Row:
    """What a row says of a cell before anything is drawn."""
    cell, plan = prepared.cell, prepared.plan
    return {
        "cell": cell.name,
        "model": cell.model,
        "sampler": cell.sampler,
        "steps": cell.steps,
        "scale": cell.scale,
        "cfg": cell.cfg,
        "eta": prepared.config.eta,
        "num_steps": plan.settings["num_steps"],
        "images": len(plan.items),
    }
