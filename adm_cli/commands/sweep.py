"""``adm sweep``: the same seeds over a grid of scales, steps, samplers and models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from adm_cli.commands import console, modifier_options, options
from adm_cli.commands import show as showing
from adm_cli.config import DEFAULT_NUM, DEFAULT_ROWS
from adm_cli.errors import how_many


@modifier_options.several
def sweep(
    model: options.Model = "tiny",
    classifier: options.Classifier = None,
    scale: Annotated[
        Optional[str],
        typer.Option(
            "--scale",
            "-s",
            help="Guidance scales, such as 0,1,2.5,4. Default: 0,1,2,4,8, where nothing else is "
            "swept over and a classifier guides.",
        ),
    ] = None,
    cfg: Annotated[
        Optional[str],
        typer.Option("--cfg", help="Weights of classifier-free guidance, such as 1,1.5,3."),
    ] = None,
    steps: Annotated[
        Optional[str], typer.Option("--steps", help="Respacings, such as 25,250,ddim25.")
    ] = None,
    sampler: Annotated[
        Optional[str], typer.Option("--sampler", help="Samplers, such as ddpm,ddim,dpm++2m.")
    ] = None,
    class_: Annotated[
        Optional[list[str]], typer.Option("--class", "-c", help="As in adm sample.")
    ] = None,
    num: Annotated[
        Optional[int],
        typer.Option(
            "--num", "-n", help=f"Images of each class in a cell. Default: {DEFAULT_NUM}."
        ),
    ] = None,
    total: Annotated[
        Optional[int],
        typer.Option("--total", help="Images in a cell, shared out evenly over the classes."),
    ] = None,
    seed: Annotated[
        Optional[int], typer.Option("--seed", help="Of the first image in each cell. Default: 0.")
    ] = None,
    seeds: Annotated[
        Optional[str], typer.Option("--seeds", help="Exact seeds of every class, such as 0-63.")
    ] = None,
    eta: Annotated[
        Optional[str], typer.Option("--eta", help="Noise of ddim and dpm++2m, such as 0,0.5,1.")
    ] = None,
    guide_interval: Annotated[
        Optional[list[str]],
        typer.Option("--guide-interval", help="As in adm sample; repeat it to sweep over several."),
    ] = None,
    entropy_scaling: options.EntropyScaling = False,
    cfg_interval: options.CfgInterval = None,
    weak_model: options.WeakModel = None,
    ref: Annotated[
        Optional[Path],
        typer.Option(
            "--ref",
            "-r",
            help="Measure each cell against this: a file of adm reference, or images.",
        ),
    ] = None,
    metrics: Annotated[
        Optional[str],
        typer.Option(
            "--metrics",
            autocompletion=options.complete_metrics,
            help=f"Of {options.METRICS}. Default: all there are.",
        ),
    ] = None,
    features: options.Features = "inception",
    inception: options.InceptionFile = None,
    rows: Annotated[
        int, typer.Option("--rows", help="Images of each cell on the contact sheet, at most.")
    ] = DEFAULT_ROWS,
    batch_size: Annotated[
        Optional[int],
        typer.Option("--batch-size", "-b", help="Images computed at once, as in adm sample."),
    ] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    plain: options.Plain = False,
    clip: options.Clip = True,
    out: Annotated[
        Optional[Path],
        typer.Option(
            "--out", "-o", help="Folder of the sweep: begun, or gone on with. Default: under ./out."
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    fetch: options.Fetch = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the cells and their cost, and draw nothing.")
    ] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    **changes: Any,
) -> None:
    """Draw the same seeds over a grid of settings: contact sheet, table, curves.

    adm sweep --class 207 --scale 0,1,2,4,8 --steps 25,100 --out sweep

    adm sweep --class all --num 20 --scale 0,2,4 --ref photos --features classifier --out sweep
    """
    asked = options.asked(locals())
    from adm_cli.sampling.sweeps.sweep import sweep as draw_sweep

    note = "the sweep goes on with them"
    with showing.ShowSweep(json=json, quiet=quiet, images=False, goes_on=note) as show:
        done = draw_sweep(**asked, on_event=show)
    if dry_run:
        _show_costs(list(done.rows), json=json)


def _show_costs(rows: list[dict[str, Any]], *, json: bool) -> None:
    """The cells, what is there of each, and what the rest costs."""
    if json:
        for row in rows:
            console.print_json(row)
        return
    names = ("images", "to_draw", "evaluations", "gflop")
    rows.append(
        {"cell": how_many(len(rows), "cell"), **{n: sum(row[n] for row in rows) for n in names}}
    )
    console.print_table(
        ["cell", "images", "to draw", "steps", "evaluations", "TFLOP"],
        [
            [
                row["cell"],
                f"{row['images']:,}",
                f"{row['to_draw']:,}",
                str(row.get("num_steps", "")),
                f"{row['evaluations']:,}",
                f"{row['gflop'] / 1000:,.1f}",
            ]
            for row in rows
        ],
    )
