"""Finished images and the classes that they say they are of: runs, npz files, recipes, folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from adm_cli.errors import UsageError
from adm_cli.files.manifests import Manifests
from adm_cli.pictures.datasets import ImageSet, match_classes, open_images
from adm_cli.pictures.images import MOST_STAGES, Recipe, recipe_in
from adm_cli.pictures.npz import read_image_arrays
from adm_cli.pictures.pixels import NpzPixels, PicturePixels, PixelSet, open_pixels


@dataclass(frozen=True)
class LabelledPixels:
    """Images, their class ids, and what guided them."""

    pixels: PixelSet
    labels: npt.NDArray[np.int64]  # [N]; -1 of no class, or of one that is not among the known
    guides: frozenset[str]  # SHA-256 of classifiers, as far as the images' recipes name them

    @property
    def left_out(self) -> int:
        """How many images have no class that is known."""
        return int((self.labels < 0).sum())

    @property
    def classes(self) -> list[int]:
        """The ids that occur, ascending."""
        return sorted({int(label) for label in self.labels if label >= 0})


def open_labelled(
    path: Path, known: Mapping[int, str], resize: tuple[int, int] | None = None
) -> LabelledPixels:
    """As `open_pixels`, with a class for each image, under the ids of ``known`` (id to name).

    From a run's manifest, an npz's ``arr_1``, the recipes that pictures carry, or what
    `open_images` takes for labels: class folders, file names, labels beside pictures. Raises as
    `open_pixels`, and UsageError where no image has a class that is known, or a class id has
    another name there than here.
    """
    pixels = open_pixels(path, resize)
    recipes: list[Recipe | None] = []
    if isinstance(pixels, PicturePixels):
        said, recipes = _of_pictures(pixels.images, path, known)
    else:
        assert isinstance(pixels, NpzPixels)
        said, recipes = _of_npz(path)
    for recipe in recipes:
        _check_name(path, recipe, known)
    labels = np.array([-1 if i is None or i not in known else i for i in said], dtype=np.int64)
    if (labels < 0).all():
        raise UsageError(_why_none(path, said, known))
    return LabelledPixels(pixels, labels, frozenset(_guides(recipes)))


def guides_of(pixels: PixelSet) -> frozenset[str]:
    """SHA-256 of the classifiers that guided a set, as far as its first image's recipe names it."""
    if isinstance(pixels, PicturePixels):
        return frozenset(_guides([recipe_in(pixels.images.read(0))]))
    return frozenset(_guides(_of_npz(pixels.path)[1]))


def picture_name(pixels: PixelSet, index: int) -> str:
    """Where an image is, for a person."""
    if isinstance(pixels, PicturePixels):
        return pixels.images.name(index)
    return f"{pixels.path}[{index}]"


def _of_npz(path: Path) -> tuple[Sequence[int | None], list[Recipe | None]]:
    arrays = read_image_arrays(path)
    arrays.images.close()
    labels = [None] * len(arrays.images) if arrays.labels is None else arrays.labels.tolist()
    return labels, [arrays.recipe]


def _of_pictures(
    images: ImageSet, path: Path, known: Mapping[int, str]
) -> tuple[Sequence[int | None], list[Recipe | None]]:
    if os.path.isfile(path / "run.json"):
        records = Manifests(path).records()
        said = [_whole(records[p.name].get("class")) for p in images.pictures]
        firsts = {label: i for i, label in reversed(list(enumerate(said)))}
        return said, [recipe_in(images.read(i)) for i in firsts.values()]
    if _class_of(recipe_in(images.read(0))) is not None:
        recipes: list[Recipe | None] = [recipe_in(images.read(i)) for i in range(len(images))]
        return [_class_of(recipe) for recipe in recipes], recipes
    try:
        named = open_images([path])
    except UsageError:  # lists that do not fit; what is told of it is about an option not there
        return [None] * len(images), []
    if not named.classes:
        return [None] * len(images), []
    ids = {p.name: p.label for p in match_classes(named, known).pictures}
    return [ids.get(p.name) for p in images.pictures], []


def _stages(recipe: Recipe | None) -> Iterable[Recipe]:
    """A recipe, and those of the small pictures it was made from."""
    for _ in range(MOST_STAGES):
        if not isinstance(recipe, Mapping):
            return
        yield recipe
        recipe = recipe.get("base")


def _class_of(recipe: Recipe | None) -> int | None:
    """Of the picture, else of the small one that an unconditional upsampler enlarged."""
    classes = [_whole(stage.get("class")) for stage in _stages(recipe)]
    return next((label for label in classes if label is not None), None)


def _whole(value: object) -> int | None:
    return value if type(value) is int else None


def _guides(recipes: Iterable[Recipe | None]) -> set[str]:
    shas = [stage.get("classifier_sha256") for recipe in recipes for stage in _stages(recipe)]
    return {sha for sha in shas if isinstance(sha, str)}


def _check_name(path: Path, recipe: Recipe | None, known: Mapping[int, str]) -> None:
    """Raises UsageError where an id means one class to the pictures' maker, another here."""
    label, name = _class_of(recipe), (recipe or {}).get("class_name")
    mine = None if label is None else known.get(label)
    if isinstance(name, str) and mine is not None and name != mine:
        raise UsageError(
            f"class {label} is {name:.60} to the pictures of {path}, but {mine} to the "
            f"classifier: expected one that was trained on the same classes"
        )


def _why_none(path: Path, said: Sequence[int | None], known: Mapping[int, str]) -> str:
    there = sorted({label for label in said if label is not None})
    if not there:
        return (
            f"the pictures of {path} say no class: expected a run, an npz with arr_1, pictures "
            f"of adm, or each class in a folder of its own"
        )
    return (
        f"the classifier knows none of the classes of {path} ({_some(there)}): expected some of "
        f"its own {len(known)} ({_some(sorted(known))})"
    )


def _some(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")
