"""What a sweep shows beside its cells: contact sheet, curves, tables; and making them again."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from adm_cli import __version__
from adm_cli.diffusion.modifiers import NEUTRAL
from adm_cli.errors import AdmError
from adm_cli.events import Note
from adm_cli.files.disk import remove_leftover
from adm_cli.files.links import remove
from adm_cli.files.tables import NO_PLOT
from adm_cli.pictures.images import open_picture, save_image
from adm_cli.pictures.sheets import contact_sheet
from adm_cli.sampling.events import Event, Finding
from adm_cli.sampling.folder import RunFolder
from adm_cli.sampling.sweeps.folder import SweepFolder, TableRow
from adm_cli.sampling.sweeps.grid import Cell, axes_of, curves, spread, varied_axes


def write_rows(
    folder: SweepFolder, cells: Sequence[Cell], rows: Sequence[TableRow], sheet_rows: int
) -> None:
    """The tables, after the pictures: they hold the pictures' hashes."""
    folder.write(axes_of(cells), rows, {"adm": __version__, "sheet_rows": sheet_rows})


def draw_sheet(
    folder: SweepFolder, cells: Sequence[Cell], runs: Sequence[RunFolder], sheet_rows: int
) -> None:
    """The same seeds along each row, a column a cell; nothing where no image is there yet."""
    images = next((run.read().images for run in runs if run.exists()), None)
    picked = [] if images is None else [images[i] for i in spread(len(images), sheet_rows)]
    pictures, labels = [], []
    for image in picked:
        row = [open_picture(run.path / image.file) if run.has(image.file) else None for run in runs]
        pictures.append([None if found is None else found[0] for found in row])
        recipe = next((found[1] for found in row if found and found[1]), {})
        name = recipe.get("class_name") or ""
        labels.append(f"{name[:24]}\nseed {image.seed}".strip())
    if any(picture is not None for row in pictures for picture in row):
        columns = [cell.label(varied_axes(cells)) for cell in cells]
        save_image(folder.sheet, contact_sheet(pictures, labels, columns).pixels)


def draw_curves(folder: SweepFolder, rows: Sequence[TableRow]) -> Generator[Event, None, list[str]]:
    """The scores of finished cells, where there is a line to draw; returns the metrics' names."""
    metrics = list(dict.fromkeys(name for row in rows for name in row.get("metrics", ())))
    panels = curves(rows, metrics) if rows else []
    if panels and not folder.draw(panels):
        yield Note(NO_PLOT)
    return metrics


def mend_sweep(folder: SweepFolder, findings: Sequence[Finding]) -> Generator[Event, None, None]:
    """Makes again what is wrong beside the cells, which are right. Raises AdmError for damage."""
    found = folder.read()
    rows = list(found.rows.values())
    try:
        cells = [
            Cell(
                row["model"],
                row["sampler"],
                row["steps"],
                row["scale"],
                row.get("cfg", 1.0),
                row["eta"] if "eta" in found.axes else None,
                tuple(row["interval"]) if row.get("interval") else None,
                tuple(
                    (name, row[name])
                    for name in NEUTRAL
                    if isinstance(row.get(name), (int, float, str))
                ),
            )
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
        whole = [sum(1 for _ in run.kept(run.read().images)) if run.exists() else 0 for run in runs]
        finished = [row for row, n, of in zip(rows, whole, images, strict=True) if n == of]
        yield from draw_curves(folder, finished)
    write_rows(folder, cells, rows, sheet_rows)
