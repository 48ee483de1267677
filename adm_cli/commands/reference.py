"""``adm reference``: measures a set of images once, for evaluating others against it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from adm_cli.commands import console, options
from adm_cli.commands.numbers import show_costs
from adm_cli.commands.progress import Progress


def reference(
    data: Annotated[
        Path,
        typer.Argument(
            help="A folder, zip, uncompressed tar or npz (the original's layout) of images.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The reference file, .safetensors.")],
    features: options.Features = "inception",
    inception: options.InceptionFile = None,
    resize: options.Resize = None,
    value_range: options.ValueRange = None,
    batch_size: options.FeatureBatch = None,
    device: options.Device = "auto",
    overwrite: options.Replace = False,
    fetch: options.Fetch = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would cost, by one batch; write nothing.")
    ] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure a set of images once: statistics, 10,000 features, hashes.

    adm reference imagenet64-train -o imagenet64.safetensors

    adm reference VIRTUAL_imagenet256_labeled.npz -o imagenet256.safetensors
    """
    how: dict[str, Any] = options.asked(locals())
    dry_run = how.pop("dry_run")
    from adm_cli.reports import references

    with Progress(quiet=quiet) as progress:
        if dry_run:
            costs = references.plan_reference(**how, on_event=progress)
        else:
            made = references.reference(**how, on_event=progress)
    if dry_run:
        show_costs(costs, json=json)
    elif json:
        console.print_json(made.to_json())
    else:
        print(made.path)
