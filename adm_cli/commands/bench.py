"""``adm bench``: how fast a model computes here, and how near that is to the machine's limit."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from adm_cli.commands import completing, console, options
from adm_cli.errors import how_many

if TYPE_CHECKING:
    from adm_cli.reports.bench import Speed

_HEADING = (
    "model", "dtype", "batch", "threads", "path", "UNet ms", "gradient ms", "step ms",
    "images/s", "GFLOP", "GFLOP/s", "of conv", "peak GB",
)  # fmt: skip


def bench(
    model: options.Model = "tiny",
    classifier: options.Classifier = None,
    random_weights: Annotated[
        bool,
        typer.Option("--random-weights", help="Any preset, also one whose weights are not here."),
    ] = False,
    unguided: Annotated[bool, typer.Option("--unguided", help="Leave out the classifier.")] = False,
    device: options.Device = "auto",
    dtype: Annotated[
        str,
        typer.Option(
            "--dtype",
            autocompletion=completing.complete_list(*completing.DTYPE_NAMES),
            help="One or several, such as float32,bfloat16.",
        ),
    ] = "auto",
    batch_size: Annotated[
        str, typer.Option("--batch-size", "-b", help="One or several numbers of images.")
    ] = "1,4,16",
    threads: Annotated[
        Optional[str],
        typer.Option("--threads", help="One or several numbers of CPU threads. Default: as set."),
    ] = None,
    plain: options.Plain = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Each row by --plain too, measured in turn.")
    ] = False,
    seconds: Annotated[float, typer.Option("--seconds", help="Of measuring each quantity.")] = 1.0,
    json: options.Json = False,
) -> None:
    """Measure a model: an evaluation, a gradient, a guided step, and their part of the ceiling.

    The ceiling is what one large direct convolution of the same dtype reaches in the same run.

    adm bench --random-weights --model imagenet64 --dtype float32,bfloat16 --batch-size 1,4
    """
    asked = options.asked(locals())
    from adm_cli.reports.bench import bench as measure

    rows = measure(**asked)
    if json:
        for row in rows:
            console.print_json(asdict(row))
        return
    _print_table(list(rows))


def _print_table(rows: list[Speed]) -> None:
    last = rows[-1]
    console.print_table(_HEADING, [_cells(row) for row in rows])
    print(
        f"\n{last.device}, {last.dtype}: a large convolution {last.convolution_rate:.0f} GFLOP/s, "
        f"a large matrix product {last.product_rate:.0f}; images/s are of "
        f"{how_many(last.steps, 'step')}"
    )


def _cells(row: Speed) -> list[str]:
    gradient = "-" if row.gradient_ms is None else f"{row.gradient_ms:.1f}"
    return [
        row.model,
        row.dtype,
        str(row.batch),
        "-" if row.threads is None else str(row.threads),
        "plain" if row.plain else "fast" if row.device == "cpu" else "-",
        f"{row.unet_ms:.1f}",
        gradient,
        f"{row.step_ms:.1f}",
        f"{row.images_per_second:.3g}",
        f"{row.gflop:.2f}",
        f"{row.rate:.1f}",
        f"{row.of_convolutions:.0%}",
        f"{row.peak_gb:.2f}",
    ]
