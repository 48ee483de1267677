"""``adm reference``: measures a set of images once, for evaluating others against it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adm_cli.commands import console, options
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
    overwrite: options.Overwrite = False,
    fetch: options.Fetch = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure a set of images once: statistics, 10,000 features, hashes.

    adm reference imagenet64-train -o imagenet64.safetensors

    adm reference VIRTUAL_imagenet256_labeled.npz -o imagenet256.safetensors
    """
    from adm_cli.reports.references import reference as measure

    progress = Progress(quiet=quiet)
    with progress:
        made = measure(
            data, out=out, features=features, inception=inception, resize=resize,
            value_range=value_range, batch_size=batch_size, device=device, overwrite=overwrite,
            fetch=fetch, on_event=progress,
        )  # fmt: skip
    if json:
        console.print_json(made.to_json())
    else:
        print(made.path)
