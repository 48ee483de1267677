"""``adm reference``: measures a set of images once, for evaluating others against it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adm_cli.commands import console, options
from adm_cli.errors import OutputError, UsageError


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
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure a set of images once: statistics, 10,000 features, hashes.

    adm reference imagenet64-train -o imagenet64.safetensors

    adm reference VIRTUAL_imagenet256_labeled.npz -o imagenet256.safetensors
    """
    from adm_cli.evaluating import load_extractor, published_reference, reference_from_images
    from adm_cli.storage.files import check_writable
    from adm_cli.storage.pixels import open_pixels
    from adm_cli.storage.references import describe_reference, save_reference

    if out.suffix != ".safetensors":
        raise UsageError(f"--out {out}: expected a name that ends in .safetensors")
    if out.exists() and not overwrite:
        raise OutputError(f"{out} exists already: pass --overwrite, or another --out")
    check_writable(out.parent)
    size = options.parse_resize(resize)
    extractor = load_extractor(features, inception=inception, device=device, batch_size=batch_size)
    images = open_pixels(data, size, value_range)
    for text in () if quiet else images.notes:
        console.note(text)
    progress = console.Counter("images", len(images), quiet=quiet)
    with progress.show():
        found = published_reference(images, extractor, on_images=progress.update)
        published = found is not None
        if found is None:
            found = reference_from_images(images, extractor, on_images=progress.update)
    digest = save_reference(out, found)
    if published and not quiet:
        console.note(f"the statistics that {data.name} holds were kept, not those of its images")
    if json:
        facts = describe_reference(found)
        console.print_json({"path": str(out), **facts, "content_sha256": digest})
    else:
        print(out)
