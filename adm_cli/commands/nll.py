"""``adm nll``: how likely pictures are under a diffusion model, in bits per dimension."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from adm_cli.commands import console, options
from adm_cli.commands.numbers import show_costs, with_error
from adm_cli.commands.progress import Progress
from adm_cli.errors import how_many

if TYPE_CHECKING:
    from adm_cli.reports.nll import Likelihood


def nll(
    data: options.Pictures,
    model: options.Model = "tiny",
    num: options.SomePictures = None,
    steps: Annotated[
        Optional[str],
        typer.Option("--steps", help="Respacing, as in adm sample. Default: every timestep."),
    ] = None,
    labels: options.Labels = "auto",
    value_range: options.ValueRange = None,
    class_: Annotated[
        Optional[list[str]],
        typer.Option(
            "--class",
            "-c",
            help="Only pictures of these classes; none: all pictures, without telling the model "
            "their class.",
        ),
    ] = None,
    seed: options.NoiseSeed = 0,
    batch_size: options.Batch = None,
    skip_bad: options.SkipBad = False,
    clip: options.Clip = True,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    plain: options.Plain = False,
    out: Annotated[
        Optional[Path],
        typer.Option(
            "--out", "-o", help="Also write every step's terms to this .csv, and plot them."
        ),
    ] = None,
    overwrite: options.Replace = False,
    fetch: options.Fetch = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what it would cost, and measure nothing.")
    ] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Bits per dimension of pictures: the variational bound, its terms and errors.

    adm nll photos --num 32 --steps 50 --out terms.csv
    """
    asked = options.asked(locals())
    del asked["dry_run"]
    from adm_cli.reports.nll import nll as measure
    from adm_cli.reports.nll import plan_nll

    progress = Progress(quiet=quiet)
    if dry_run:
        from adm_cli.reports.costs import nll_costs

        later = ("skip_bad", "fetch")  # of measuring, which is not begun
        planned = {name: value for name, value in asked.items() if name not in later}
        show_costs(nll_costs(plan_nll(**planned, on_event=progress)), json=json)
        return
    found = None
    try:
        with progress:
            found = measure(**asked, on_event=progress)
    finally:  # also when interrupted: what was computed is shown, and called a part
        found = found or progress.so_far
        if found is not None:
            _show(found, json=json)
            if not quiet:
                console.note(_told(found, out))


def _told(found: Likelihood, out: Path | None) -> str:
    images = found.totals["images"]
    pictures = how_many(images, "picture")
    text = f"{pictures} in {found.seconds:.1f} s"
    if found.complete:
        return text
    kept = "the same command goes on" if out else "with --out the same command would go on"
    return f"{text}, only a part of {found.pictures}; {kept}"


def _show(found: Likelihood, *, json: bool) -> None:
    if json:
        console.print_json(found.to_json())
        return
    totals = found.totals
    heading = ("noise", "steps", "bits/dim", "MSE of eps", "MSE of x_0")
    rows = [
        (
            "t {}-{}".format(*row["timesteps"]),
            str(row["steps"]),
            _bits(row, "vb"),
            f"{row['mse']:.4g}",
            f"{row['xstart_mse']:.4g}",
        )
        for row in found.quarters
    ]
    rows.append(("prior", "", _bits(totals, "prior"), "", ""))
    means = (f"{totals['mse']:.4g}", f"{totals['xstart_mse']:.4g}")
    rows.append(("total", str(found.settings["num_steps"]), _bits(totals, "bits_per_dim"), *means))
    console.print_table(heading, rows)


def _bits(row: dict[str, Any], name: str) -> str:
    return with_error(row[name], row[f"{name}_stderr"])
