"""What a sweep shows beside its cells: contact sheet, curves, tables; and making them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from adm_cli import __version__
from adm_cli.commands import console
from adm_cli.errors import AdmError
from adm_cli.reports.sweeps import Cell, axes_of, curves, spread, varied_axes

if TYPE_CHECKING:
    from adm_cli.commands.drawing import Telling
    from adm_cli.storage.runs import RunFolder
    from adm_cli.storage.sweeps import SweepFolder
    from adm_cli.storage.verifying import Finding

Row = dict[str, Any]


def write_rows(
    folder: SweepFolder, cells: Sequence[Cell], rows: Sequence[Row], sheet_rows: int
) -> None:
    """The tables, after the pictures: they hold the pictures' hashes."""
    folder.write(axes_of(cells), rows, {"adm": __version__, "sheet_rows": sheet_rows})


def draw_sheet(
    folder: SweepFolder, cells: Sequence[Cell], runs: Sequence[RunFolder], sheet_rows: int
) -> None:
    """The same seeds along each row, a column a cell; nothing where no image is there yet."""
    from adm_cli.storage.images import open_picture, save_image
    from adm_cli.storage.sheets import contact_sheet

    items = next((run.read().items for run in runs if run.exists()), ())
    picked = [items[i] for i in spread(len(items), sheet_rows)]
    there = [run.kept(picked) for run in runs]
    pictures, labels = [], []
    for item in picked:
        row = [
            open_picture(run.path / item.file) if item.file in kept else None
            for run, kept in zip(runs, there, strict=True)
        ]
        pictures.append([None if found is None else found[0] for found in row])
        recipe = next((found[1] for found in row if found and found[1]), {})
        name = recipe.get("class_name") or ""
        labels.append(f"{name[:24]}\nseed {item.facts['seed']}".strip())
    if any(picture is not None for row in pictures for picture in row):
        columns = [cell.label(varied_axes(cells)) for cell in cells]
        save_image(folder.sheet, contact_sheet(pictures, labels, columns).pixels)


def draw_curves(folder: SweepFolder, rows: Sequence[Row], tell: Telling) -> list[str]:
    """The scores of finished cells, where there is a line to draw; returns the metrics' names."""
    metrics = list(dict.fromkeys(name for row in rows for name in row.get("metrics", ())))
    panels = curves(rows, metrics) if rows else []
    if panels and not folder.draw(panels):
        tell.note(console.NO_PLOT)
    return metrics


def mend_sweep(folder: SweepFolder, findings: Sequence[Finding], tell: Telling) -> None:
    """Makes again what is wrong beside the cells, which are right. Raises AdmError for damage."""
    from adm_cli.storage.files import remove_leftover
    from adm_cli.storage.links import remove
    from adm_cli.storage.runs import RunFolder

    found = folder.read()
    rows = list(found.rows.values())
    try:
        cells = [
            Cell(row["model"], row["sampler"], row["steps"], row["scale"], row.get("cfg", 1.0))
            for row in rows
        ]
        images, sheet_rows = [row["images"] for row in rows], found.facts["sheet_rows"]
    except KeyError as error:
        raise AdmError(f"{folder.file} is no sweep of adm: a cell has no {error}") from None
    there = {run.path.name: run for run in folder.cells()}
    runs = [there.get(row["cell"], RunFolder(folder.path / "gone")) for row in rows]
    for finding in findings:
        if finding.kind == "temporary":
            remove_leftover(folder.path / finding.file)
    names = {finding.file for finding in findings}
    if folder.sheet.name in names:
        remove(folder.sheet)
        draw_sheet(folder, cells, runs, sheet_rows)
    if folder.plot.name in names:
        remove(folder.plot)
        whole = [len(run.kept(run.read().items)) if run.exists() else 0 for run in runs]
        finished = [row for row, n, of in zip(rows, whole, images, strict=True) if n == of]
        draw_curves(folder, finished, tell)
    write_rows(folder, cells, rows, sheet_rows)
