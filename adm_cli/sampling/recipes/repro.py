"""`adm_cli.repro`: a picture made again by its recipe, or a run's, and compared."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adm_cli.checkpoints.sources import Sources
from adm_cli.checkpoints.supplying import supplied
from adm_cli.devices import choose_device, own_threads, use_threads
from adm_cli.errors import AdmError, RunError, UsageError, how_many, size_words, trim
from adm_cli.events import AnyPath, Note, OnEvent, as_paths
from adm_cli.files.disk import check_writable
from adm_cli.files.strict import type_checked
from adm_cli.pictures.decode import fit_picture
from adm_cli.pictures.depth import parse_value_range
from adm_cli.pictures.images import MOST_STAGES, Pixels, Recipe, open_picture, save_image
from adm_cli.sampling.arguments import path_or_none, text_or_none
from adm_cli.sampling.choosing.inputs import InputPicture, open_inputs, pixels_sha256
from adm_cli.sampling.choosing.photos import Photos
from adm_cli.sampling.drawing.batch import class_and_seed, refuse_overflow
from adm_cli.sampling.drawing.models import Models
from adm_cli.sampling.drawing.paint import (
    FilterPainter,
    ImageTask,
    NetworkPainter,
    Painter,
    paint,
    paint_enlarged,
)
from adm_cli.sampling.drawing.writer import DrawnImage
from adm_cli.sampling.events import BatchDone, Ended, Event, Started, follow
from adm_cli.sampling.folder import RunFolder
from adm_cli.sampling.recipes.differences import agreeing_hashes, differing_inputs
from adm_cli.sampling.recipes.no_recipe import image_beside
from adm_cli.sampling.recipes.recipe import (
    check_recipe,
    is_enlarged,
    is_plain,
    open_recipe,
    recorded_filter,
    recorded_run,
    value_range_text,
)
from adm_cli.sampling.recipes.recorded import (
    Whereabouts,
    recorded_photos,
    remaking_batch,
    stage_sources,
)
from adm_cli.sampling.recipes.repro_run import RunReproduction, repro_run
from adm_cli.sampling.run import Filter, Run
from adm_cli.sampling.settings import current_versions, low_res_size

Remade = Generator[Event, None, DrawnImage]


@dataclass(frozen=True)
class Reproduction:
    """How far a picture and its second making are apart."""

    values_that_differ: int
    largest_difference: int  # of 255
    inputs_that_differ: list[str]  # in words, of what the recipe records
    values: int  # of the picture
    threads_known: bool  # the number of CPU threads, on which rounding depends
    pixels: Pixels  # uint8 [H, W, 3], as made now
    recipe: Recipe
    verified: Mapping[str, str]  # SHA-256 that are as recorded, by what they are of

    @property
    def identical(self) -> bool:
        """Whether every value is the same."""
        return self.values_that_differ == 0

    def facts(self) -> dict[str, Any]:
        """As ``--json`` says it."""
        names = ("identical", "values_that_differ", "largest_difference", "inputs_that_differ")
        return {**{name: getattr(self, name) for name in names}, "verified": dict(self.verified)}


@type_checked
@supplied
@own_threads()
def repro(
    picture: AnyPath,
    model: AnyPath | None = None,
    classifier: AnyPath | None = None,
    upsampler: AnyPath | None = None,
    small: AnyPath | Sequence[AnyPath] | None = None,
    device: str | None = None,
    output: AnyPath | None = None,
    weak_model: AnyPath | None = None,
    num: int | None = None,
    fetch: bool = False,
    *,
    on_event: OnEvent | None = None,
) -> Reproduction | RunReproduction:
    """Makes a picture again by the recipe in it, of an enlarged one first the small picture.

    Of a run's folder all images that are there, or ``num``, by its ``run.json``. As ``adm repro``,
    whose options these are; ``small`` is its ``--input``: what was enlarged, or edited and by which
    mask. Raises AdmError where a recipe is missing or damaged, or its weights or what it was made
    of are not found.
    """
    path, made = Path(picture), path_or_none(output)
    now = Whereabouts(
        () if model is None else (str(model),), text_or_none(classifier), text_or_none(upsampler),
        as_paths(() if small is None else small), device, text_or_none(weak_model),
    )  # fmt: skip
    if path.is_dir():
        if made is not None:
            raise UsageError(f"--output is of one picture, and {path} is a folder: leave it out")
        return follow(repro_run(RunFolder(path), now, num), on_event)
    if num is not None:
        raise UsageError(f"--num is of a run's folder, and {path} is no folder: leave it out")
    return _repro_picture(path, made, now, on_event)


def _repro_picture(
    path: Path, made: Path | None, now: Whereabouts, on_event: OnEvent | None
) -> Reproduction:
    recipe = open_recipe(path)  # raises if it is damaged, before anything is written or loaded
    pixels = open_picture(path)[0]
    if made is not None:
        _check_output(made)
    threads = _recorded_threads(path, recipe)
    differing = [] if use_threads(threads) else [_threads_differ(threads)]
    new = follow(_remake(recipe, path, now), on_event)
    assert new.pixels is not None
    assert new.recipe is not None
    if new.pixels.shape != pixels.shape:
        sizes = [size_words(shape[:2]) for shape in (pixels.shape, new.pixels.shape)]
        raise AdmError(f"{path} is {sizes[0]} pixels, the model makes {sizes[1]}")
    if made is not None:
        save_image(made, new.pixels, new.recipe)
    gap = np.abs(new.pixels.astype(int) - pixels.astype(int))
    differing += differing_inputs(recipe, new.recipe)
    verified = agreeing_hashes(recipe, new.recipe)
    if not gap.any():
        verified["the picture's values"] = pixels_sha256(new.pixels)
    return Reproduction(
        int((gap > 0).sum()), int(gap.max()), differing, gap.size, threads is not None,
        new.pixels, new.recipe, verified,
    )  # fmt: skip


def _remake(recipe: Mapping[str, Any], picture: Path, now: Whereabouts, depth: int = 0) -> Remade:
    """The picture of a recipe, and the recipe of what was made now."""
    if depth > MOST_STAGES:
        raise AdmError(f"{picture}: its recipe has more than {MOST_STAGES} stages")
    if is_plain(recipe):
        return (yield from _enlarge_plainly(recipe, picture, now, depth))
    run = recorded_run(recipe)
    option = "--upsampler" if is_enlarged(recipe) else "--model"
    sources = stage_sources(run.first, now, picture, option)
    small, resize, photos = None, None, _photos(run, picture, now, recipe)
    if is_enlarged(recipe):
        resize = low_res_size(sources) if recipe["resized"] else None
        small = yield from _small_picture(recipe, picture, now, depth, resize)
    device = choose_device(now.device or run.device)
    models, run = Models([sources], device), _made_now(run, sources, device)
    most = remaking_batch(run)
    if run.batch_size > most:  # one image is wanted, and the others are padding
        text = f"computed {run.batch_size} at once when it was made, {most} now"
        yield Note(f"{text}: rounding may differ")
        run = replace(run, batch_size=most)
    yield from models.prepare(run, keep_base=False)
    painter = NetworkPainter(run, run.first, models.load(0), photos)
    return (yield from _painted(painter, run, small, resize))


def _made_now(run: Run, sources: Sources, device: torch.device) -> Run:
    """A run with the weights and versions that are here."""
    guide, weak = sources.classifier, sources.weak
    stage = replace(
        run.first,
        model=sources.model_name,
        model_sha256=sources.model.content_sha256,
        classifier=None if guide is None else guide.name,
        classifier_sha256=None if guide is None else guide.content_sha256,
        weak_model=None if weak is None else weak.name,
        weak_model_sha256=None if weak is None else weak.content_sha256,
    )
    return replace(run, stages=(stage,), device=device.type, versions=current_versions([stage]))


def _painted(
    painter: Painter, run: Run, small: InputPicture | None, resize: tuple[int, int] | None
) -> Remade:
    """The run's one image."""
    yield Started(None, 1, 0, run.num_steps or 1)
    task = ImageTask(run.images[0])
    events = (
        paint([painter], run, [task])
        if small is None
        else paint_enlarged(painter, run, [task], {task.image.file: small}.__getitem__, resize)
    )
    for found in events:
        if isinstance(found, list):
            (done,) = found
            if done.pixels is None:
                refuse_overflow([class_and_seed(done.image.class_id, done.image.seed)], 1)
            yield BatchDone(1)
            yield Ended(None, 1, 0, 1, 0.0)
            return done
        yield found
    raise AssertionError("a run of one image has one batch")


def _enlarge_plainly(
    recipe: Mapping[str, Any], picture: Path, now: Whereabouts, depth: int
) -> Remade:
    check_recipe(recipe)
    if depth == 0 and now.upsampler not in (None, recipe["model"]):
        raise UsageError(
            f"{picture} was enlarged by {recipe['model']}, without weights: leave out --upsampler"
        )
    small = yield from _small_picture(recipe, picture, now, depth, None)
    run = recorded_filter(recipe, small.size)
    stage = run.last
    assert isinstance(stage, Filter)
    run = replace(run, versions=current_versions([stage]))
    painter = FilterPainter(run, stage, _photos(run, picture, now, recipe), alone=True)
    return (yield from _painted(painter, run, small, None))


def _photos(run: Run, picture: Path, now: Whereabouts, recipe: Mapping[str, Any]) -> Photos:
    """What the run's one image is an edit of: given, or where the run beside it says.

    Raises UsageError where it is not there.
    """
    image = run.images[0]
    if image.photo_sha256 is None:
        return {}
    values = value_range_text(recipe)
    within = None if values is None else parse_value_range(values)[:2]
    where, mask = _names_beside(picture)
    named = image._replace(input=where, mask=mask)
    found, without = recorded_photos([named], picture.parent, now, within)
    if without:
        raise UsageError(
            f"{picture} was edited from {without[image.file]} of SHA-256 "
            f"{image.photo_sha256[:12]}, which is gone or has changed: pass what was edited, and "
            f"its mask if there was one, with --input"
        )
    return found


def _names_beside(picture: Path) -> tuple[str, str]:
    """How the run beside a picture calls what it was edited from, and the mask."""
    image = image_beside(picture)
    unknown = "a picture whose name is not known"
    return (image and image.input) or unknown, (image and image.mask) or unknown


def _small_picture(
    recipe: Mapping[str, Any],
    picture: Path,
    now: Whereabouts,
    depth: int,
    resize: tuple[int, int] | None,
) -> Generator[Event, None, InputPicture]:
    """What was enlarged: given, or made again; with its recipe, where that is known."""
    if now.inputs and depth == 0 and "photo_sha256" not in (recipe["base"] or {}):
        pictures = open_inputs(now.inputs, resize=resize, values=value_range_text(recipe))
        digest = recipe["small_sha256"]
        same = [item for item in pictures.items if item.pixels_sha256 == digest]
        if not same and len(pictures) > 1:
            where = now.inputs[0]
            raise UsageError(f"none of {how_many(len(pictures), 'picture')} of {where} is the one")
        return replace(same[0] if same else pictures.items[0], recipe=recipe["base"])
    if recipe["base"] is None:
        raise UsageError(
            f"{picture} was enlarged from a picture that carried no recipe, so it cannot be "
            f"made again from nothing: pass that picture with --input"
        )
    made = yield from _remake(recipe["base"], picture, now, depth + 1)
    pixels = made.pixels
    assert pixels is not None
    seen = pixels if resize is None else fit_picture(pixels, resize)
    return InputPicture(
        "", str(picture), pixels.shape[:2], pixels_sha256(seen), made.recipe, None, None,
        lambda: pixels,
    )  # fmt: skip


def _recorded_threads(picture: Path, recipe: Mapping[str, Any]) -> Any:
    """The number of CPU threads that drew a picture, if its run is beside it, else None.

    Pictures that were made before runs noted it carry it themselves.
    """
    try:
        run = RunFolder(picture.parent).read()
    except RunError:
        return recipe.get("threads")
    mine = run.images.find(picture.name) is not None
    return recipe.get("threads", run.threads if mine else None)


def _threads_differ(recorded: object) -> str:
    return f"the number of CPU threads ({trim(recorded, 20)}, now {torch.get_num_threads()})"


def _check_output(path: Path) -> None:
    if path.suffix.lower() not in (".png", ".webp"):
        raise UsageError(f"--output {path}: expected a name that ends in .png or .webp")
    if path.exists():
        raise UsageError(f"--output {path}: the file exists already, choose another name")
    check_writable(path.parent)
