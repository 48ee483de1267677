"""``adm repro``: make a picture again and compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from adm_cli.commands import console, options
from adm_cli.errors import AdmError, UsageError


def repro(
    picture: Annotated[Path, typer.Argument(help="A PNG or WebP made by adm sample.")],
    model: Annotated[
        Optional[str],
        typer.Option("--model", "-m", help="Weights file, if the model is not a preset."),
    ] = None,
    classifier: options.Classifier = None,
    device: Annotated[
        Optional[str], typer.Option("--device", help="Default: the kind it was made on.")
    ] = None,
    output: Annotated[
        Optional[Path], typer.Option("--output", "-o", help="Also write the new picture here.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Make a picture again and say whether it is identical, and if not what differs.

    Exit code 0 if every value is the same, 1 if not.
    """
    import numpy as np

    from adm_cli.pipeline import find_sources, generate, load_pipeline
    from adm_cli.recipes import config_from_recipe, differing_inputs, image_recipe, run_recipe
    from adm_cli.storage.images import open_picture, save_image

    pixels, recipe = open_picture(picture)
    if recipe is None:
        raise AdmError(f"{picture} carries no recipe: it was not made by adm, or was re-saved")
    config = config_from_recipe(recipe)
    guided = config.scale != 0
    if output is not None:
        _check_output(output)
    sources = find_sources(
        options.recorded_weights("--model", model, recipe["model"], picture),
        options.recorded_weights(
            "--classifier", classifier, recipe["classifier"] if guided else None, picture
        ),
        guided=guided,
    )
    pipeline = load_pipeline(
        sources,
        guided=guided,
        device=device or recipe["device"],
        dtype=recipe["dtype"],
    )
    batch = next(iter(generate(pipeline, config, on_note=console.note)))
    new = batch.images[0].numpy()
    new_recipe = image_recipe(run_recipe(pipeline, config), pipeline, batch, 0)
    if new.shape != pixels.shape:
        sizes = [f"{shape[1]}x{shape[0]}" for shape in (pixels.shape, new.shape)]
        raise AdmError(f"{picture} is {sizes[0]} pixels, the model makes {sizes[1]}")
    if output is not None:
        save_image(output, new, new_recipe)
    gap = np.abs(new.astype(int) - pixels.astype(int))
    _report(gap, differing_inputs(recipe, new_recipe), json)
    if gap.any():
        raise typer.Exit(1)


def _report(gap: Any, differing: list[str], json: bool) -> None:
    """Say how far the pictures are apart, ``gap`` value by value, and what may be behind it."""
    values, most = int((gap > 0).sum()), int(gap.max())
    if json:
        console.print_json(
            {
                "identical": values == 0,
                "values_that_differ": values,
                "largest_difference": most,
                "inputs_that_differ": differing,
            }
        )
        return
    if values == 0:
        print("identical")
        if differing:
            console.note(f"although these differ: {'; '.join(differing)}")
        return
    print(f"different: {values} of {gap.size} values, by at most {most} of 255")
    if differing:
        console.note(f"inputs that differ: {'; '.join(differing)}")
    else:
        console.note(
            "every recorded input is the same: this machine's arithmetic rounds differently, "
            "or the picture was edited"
        )


def _check_output(path: Path) -> None:
    from adm_cli.storage.files import check_writable

    if path.suffix.lower() not in (".png", ".webp"):
        raise UsageError(f"--output {path}: expected a name that ends in .png or .webp")
    if path.exists():
        raise UsageError(f"--output {path}: the file exists already, choose another name")
    check_writable(path.parent)
