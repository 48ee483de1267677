"""``adm repro``: make a picture again and compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from adm_cli.commands import console, options
from adm_cli.errors import AdmError


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
    sources = find_sources(
        model or recipe["model"], classifier or recipe.get("classifier"), guided=config.scale != 0
    )
    pipeline = load_pipeline(
        sources,
        guided=config.scale != 0,
        device=device or recipe["device"],
        dtype=recipe["dtype"],
    )
    batch = next(iter(generate(pipeline, config, on_note=console.note)))
    new = batch.images[0].numpy()
    new_recipe = image_recipe(run_recipe(pipeline, config), pipeline, batch, 0)
    if output is not None:
        save_image(output, new, new_recipe)
    differing = differing_inputs(recipe, new_recipe)
    if new.shape != pixels.shape:
        raise AdmError(f"the picture is {pixels.shape[:2]}, the model makes {new.shape[:2]}")
    gap = np.abs(new.astype(int) - pixels.astype(int))
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
    elif values == 0:
        print("identical")
        if differing:
            console.note(f"although these differ: {'; '.join(differing)}")
    else:
        print(f"different: {values} of {gap.size} values, by at most {most} of 255")
        console.note(
            f"inputs that differ: {'; '.join(differing)}"
            if differing
            else "every recorded input is the same: this machine's arithmetic rounds differently, "
            "or the picture was edited"
        )
    if values:
        raise typer.Exit(1)
