"""``adm repro``: make a picture again and compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from adm_cli.commands import completing, console, options
from adm_cli.errors import AdmError, UsageError

if TYPE_CHECKING:
    from adm_cli.storage.images import Pixels, Recipe


def repro(
    picture: Annotated[
        Path, typer.Argument(help="A PNG or WebP made by adm sample or adm upsample.")
    ],
    model: Annotated[
        Optional[str],
        typer.Option("--model", "-m", help="Weights file, if the model is not a preset."),
    ] = None,
    classifier: options.Classifier = None,
    upsampler: Annotated[
        Optional[str],
        typer.Option(
            "--upsampler",
            autocompletion=completing.complete_upsampler,
            help="Weights file, if the upsampler is not a known one.",
        ),
    ] = None,
    small: Annotated[
        Optional[Path],
        typer.Option("--input", help="What was enlarged, if it carried no recipe of its own."),
    ] = None,
    device: Annotated[
        Optional[str],
        typer.Option(
            "--device",
            autocompletion=options.complete_device,
            help="Default: the kind it was made on.",
        ),
    ] = None,
    output: Annotated[
        Optional[Path], typer.Option("--output", "-o", help="Also write the new picture here.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Make a picture again and say whether it is identical, and if not what differs.

    Of an enlarged picture, first the small one is made again. Exit code 0 if every value is the
    same, 1 if not.
    """
    import numpy as np

    from adm_cli.devices import use_threads
    from adm_cli.recipes import check_recipe, differing_inputs
    from adm_cli.storage.images import open_picture, save_image

    pixels, recipe = open_picture(picture)
    if recipe is None:
        raise AdmError(f"{picture} carries no recipe: it was not made by adm, or was re-saved")
    check_recipe(recipe)  # raises if it is damaged, before anything is written or loaded
    if output is not None:
        _check_output(output)
    given = Given(picture, model, classifier, upsampler, small, device)
    threads = _recorded_threads(picture, recipe)
    differing = [] if use_threads(threads) else [_threads_differ(threads)]
    new, new_recipe = _remake(recipe, given)
    if new.shape != pixels.shape:
        sizes = [f"{shape[1]}x{shape[0]}" for shape in (pixels.shape, new.shape)]
        raise AdmError(f"{picture} is {sizes[0]} pixels, the model makes {sizes[1]}")
    if output is not None:
        save_image(output, new, new_recipe)
    gap = np.abs(new.astype(int) - pixels.astype(int))
    differing += differing_inputs(recipe, new_recipe)
    _report(gap, differing, threads is not None, json)
    if gap.any():
        raise typer.Exit(1)


@dataclass(frozen=True)
class Given:
    """What the command line says beside the recipe."""

    picture: Path
    model: str | None
    classifier: str | None
    upsampler: str | None
    small: Path | None
    device: str | None


def _remake(recipe: Mapping[str, Any], given: Given, depth: int = 0) -> tuple[Pixels, Recipe]:
    """The picture of a recipe, uint8 [H, W, 3], and the recipe of what was made now."""
    from adm_cli.recipes import MOST_STAGES, is_enlarged, is_plain

    if depth > MOST_STAGES:
        raise AdmError(f"{given.picture}: its recipe has more than {MOST_STAGES} stages")
    if is_plain(recipe):
        return _enlarge_plainly(recipe, given, depth)
    return (_enlarge if is_enlarged(recipe) else _draw)(recipe, given, depth)


def _draw(recipe: Mapping[str, Any], given: Given, _depth: int) -> tuple[Pixels, Recipe]:
    from adm_cli.pipeline import generate, load_pipeline
    from adm_cli.recipes import config_from_recipe, image_recipe, run_recipe
    from adm_cli.sources import find_sources

    config = config_from_recipe(recipe)
    guide = recipe["classifier"] if config.guided else None
    sources = find_sources(
        options.recorded_weights("--model", given.model, recipe["model"], given.picture),
        options.recorded_weights("--classifier", given.classifier, guide, given.picture),
        guided=config.guided,
    )
    device = given.device or recipe["device"]
    pipeline = load_pipeline(sources, guided=config.guided, device=device, dtype=recipe["dtype"])
    batch = next(generate(pipeline, config, on_note=console.note))
    batch.check_finite()
    new = image_recipe(run_recipe(pipeline, config), pipeline, batch, 0)
    return batch.images[0].numpy(), new


def _enlarge(recipe: Mapping[str, Any], given: Given, depth: int) -> tuple[Pixels, Recipe]:
    from adm_cli.pipeline import load_pipeline, upsample
    from adm_cli.recipes import config_from_recipe, enlarged_recipe, image_recipe, run_recipe
    from adm_cli.sources import find_upsampler
    from adm_cli.storage.inputs import pixels_sha256

    config = config_from_recipe(recipe)
    name = options.recorded_weights("--upsampler", given.upsampler, recipe["model"], given.picture)
    sources = find_upsampler(name)
    size = sources.model.info.config.low_res_size  # type: ignore[union-attr]
    small, base = _small_picture(recipe, given, depth, size)
    device = given.device or recipe["device"]
    pipeline = load_pipeline(sources, device=device, dtype=recipe["dtype"])
    batch = next(upsample(pipeline, small[None], config, on_note=console.note))
    batch.check_finite()
    new = enlarged_recipe(
        image_recipe(run_recipe(pipeline, config), pipeline, batch, 0),
        small_sha256=pixels_sha256(small),
        base=base,
        resized=recipe["resized"],
    )
    return batch.images[0].numpy(), new


def _enlarge_plainly(recipe: Mapping[str, Any], given: Given, depth: int) -> tuple[Pixels, Recipe]:
    from adm_cli.recipes import check_recipe, plain_recipe
    from adm_cli.storage.inputs import pixels_sha256
    from adm_cli.storage.pictures import enlarge_picture

    check_recipe(recipe)
    if depth == 0 and given.upsampler not in (None, recipe["model"]):
        raise UsageError(
            f"{given.picture} was enlarged by {recipe['model']}, without weights: "
            f"leave out --upsampler"
        )
    small, base = _small_picture(recipe, given, depth, None)
    large, sha256 = enlarge_picture(small, recipe["model"]), pixels_sha256(small)
    return large, plain_recipe(recipe["model"], large.shape[:2], small_sha256=sha256, base=base)


def _small_picture(
    recipe: Mapping[str, Any], given: Given, depth: int, size: Any
) -> tuple[Pixels, Recipe | None]:
    """What was enlarged: given, or made again; and its recipe, where that is known."""
    from adm_cli.storage.inputs import open_inputs
    from adm_cli.storage.pictures import fit_picture

    if given.small is not None and depth == 0:
        pictures = open_inputs([given.small], resize=size if recipe["resized"] else None)
        same = [
            i for i, p in enumerate(pictures.items) if p.pixels_sha256 == recipe["small_sha256"]
        ]
        if not same and len(pictures) > 1:
            raise UsageError(f"none of the {len(pictures)} pictures of {given.small} is the one")
        return pictures[same[0] if same else 0], recipe["base"]
    if recipe["base"] is None:
        raise UsageError(
            f"{given.picture} was enlarged from a picture that carried no recipe, so it cannot be "
            f"made again from nothing: pass that picture with --input"
        )
    pixels, base = _remake(recipe["base"], given, depth + 1)
    return (fit_picture(pixels, size) if recipe["resized"] else pixels), base


def _recorded_threads(picture: Path, recipe: Mapping[str, Any]) -> Any:
    """The number of CPU threads that drew a picture, if its run is beside it, else None.

    Pictures that were made before runs noted it carry it themselves.
    """
    from adm_cli.errors import RunError
    from adm_cli.storage.runs import RunFolder

    try:
        plan = RunFolder(picture.parent).read()
    except RunError:
        return recipe.get("threads")
    mine = any(item.file == picture.name for item in plan.items)
    return recipe.get("threads", plan.settings.get("threads") if mine else None)


def _threads_differ(recorded: object) -> str:
    import torch

    return f"the number of CPU threads ({recorded!r:.20}, now {torch.get_num_threads()})"


def _report(gap: Any, differing: list[str], threads_known: bool, json: bool) -> None:
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
        threads = "" if threads_known else ", or another number of CPU threads,"
        console.note(
            f"every recorded input is the same: this machine's arithmetic{threads} rounds "
            f"differently, or the picture was edited"
        )


def _check_output(path: Path) -> None:
    from adm_cli.storage.files import check_writable

    if path.suffix.lower() not in (".png", ".webp"):
        raise UsageError(f"--output {path}: expected a name that ends in .png or .webp")
    if path.exists():
        raise UsageError(f"--output {path}: the file exists already, choose another name")
    check_writable(path.parent)
