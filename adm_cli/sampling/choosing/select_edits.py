"""Which images `adm edit` makes of which pictures: of which classes, with which seeds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from adm_cli.checkpoints.sources import Sources
from adm_cli.errors import UsageError, how_many, size_words
from adm_cli.events import Note, OnEvent, ignore
from adm_cli.sampling.choosing.image_names import chosen_class, image_name
from adm_cli.sampling.choosing.images import MAX_IMAGES, Image, Images
from adm_cli.sampling.choosing.inputs import InputPicture, InputPictures
from adm_cli.sampling.choosing.photos import Photo, drawn_anew
from adm_cli.sampling.choosing.select import choice_name, parse_seeds, wanted_classes
from adm_cli.sampling.choosing.select_pictures import tidy
from adm_cli.sampling.recipes.recipe import drawn_recipe, whole_recipe


def select_edits(
    photos: Sequence[Photo],
    sources: Sources,
    classes: list[str] | None,
    seeds: Sequence[int],
    suffix: str,
) -> tuple[Images, dict[str, Photo]]:
    """Every picture as each of the classes with each seed, and by file what each is an edit of.

    Without ``classes`` a picture's own, where it says one. Raises UsageError.
    """
    wanted = wanted_classes(classes, sources)
    if classes and not wanted:
        raise UsageError("--class random: an edit needs a class that is known, such as 207")
    if len(photos) * max(1, len(wanted)) * len(seeds) > MAX_IMAGES:
        raise UsageError(f"over {MAX_IMAGES:,} images in one run")
    images: list[Image] = []
    made_of: dict[str, Photo] = {}
    for photo in photos:
        mine = wanted or [_own_class(photo.picture, sources)]
        for choice, seed in itertools.product(mine, seeds):
            image = _image(photo, choice, seed, sources, suffix)
            if image.file in made_of:
                raise UsageError(
                    f"{made_of[image.file].picture.where} and {photo.picture.where} would both "
                    f"become {image.file}: edit them in two runs"
                )
            images.append(image)
            made_of[image.file] = photo
    return Images.of(images), made_of


def chosen_seeds(seed: int | None, seeds: str | None, num: int | None) -> list[int]:
    """The seeds of each picture and class; raises UsageError."""
    if seeds is not None:
        if seed is not None or num is not None:
            raise UsageError("--seeds lists every seed: leave out --seed and --num")
        return list(itertools.chain(*parse_seeds(seeds)))
    count, first = 1 if num is None else num, 0 if seed is None else seed
    if not 1 <= count <= MAX_IMAGES:
        raise UsageError(f"--num must be from 1 to {MAX_IMAGES:,}, got {count}")
    return list(range(first, first + count))


def pair_masks(
    pictures: InputPictures, masks: InputPictures | None, on_event: OnEvent = ignore
) -> list[Photo]:
    """Each picture with its mask: one for all, or as many in the same order.

    A `Note` tells a mask that keeps nothing. Raises UsageError where they do not belong together,
    or nothing is to be drawn anew.
    """
    if masks is None:
        return [Photo(picture) for picture in pictures.items]
    if len(masks) not in (1, len(pictures)):
        raise UsageError(
            f"{how_many(len(masks), 'mask')} for {how_many(len(pictures), 'picture')}: expected "
            "one for all, or one for "
            f"each in the same order"
        )
    for i, mask in enumerate(masks.items):
        drawn = drawn_anew(masks[i], mask.size)
        if not drawn.any():
            raise UsageError(f"{mask.where} has no white, which says what is to be drawn anew")
        if drawn.all():
            why = "is white all over (what is transparent is white, too)"
            on_event(Note(f"{mask.where} {why}: nothing of the picture is kept"))
    rows = masks.items if len(masks) > 1 else [*masks.items] * len(pictures)
    for picture, mask in zip(pictures.items, rows, strict=True):
        if mask.size != picture.size:
            raise UsageError(
                f"the mask {mask.where} is {size_words(mask.size)}, and {picture.where} "
                f"{size_words(picture.size)}: expected a mask of the picture's size"
            )
    return [Photo(*pair) for pair in zip(pictures.items, rows, strict=True)]


def _image(
    photo: Photo, choice: int | str | None, seed: int, sources: Sources, suffix: str
) -> Image:  # fmt: skip
    picture, mask = photo
    label, class_id, mixture = chosen_class(choice, choice_name(choice, sources.classes))
    return Image(
        image_name(f"{tidy(picture.stem)}_{label}", seed, suffix), class_id, seed,
        mixture=mixture,
        input=_named(picture),
        photo_sha256=picture.pixels_sha256,
        mask=None if mask is None else _named(mask),
        mask_sha256=None if mask is None else mask.pixels_sha256,
    )  # fmt: skip


def _own_class(picture: InputPicture, sources: Sources) -> int | None:
    if not sources.classes:
        return None
    label = picture.label
    if label is None:
        label = drawn_recipe(whole_recipe(picture.recipe) or {}).get("class")
    if label is None:
        raise UsageError(f"{picture.where} says no class: pass --class, what it is to become")
    return label


def _named(picture: InputPicture) -> str:
    return picture.where.encode(errors="replace").decode()
