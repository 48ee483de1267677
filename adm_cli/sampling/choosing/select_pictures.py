"""Which images `adm upsample` makes of which pictures, of which class and with which seed."""

from __future__ import annotations

import itertools
import re

from adm_cli.checkpoints.sources import Sources
from adm_cli.classes.imagenet import select_classes
from adm_cli.config import UNetConfig
from adm_cli.errors import UsageError
from adm_cli.sampling.choosing.asked_classes import choose_classes
from adm_cli.sampling.choosing.images import Image, Images
from adm_cli.sampling.choosing.inputs import InputPicture, InputPictures
from adm_cli.sampling.choosing.select import parse_seeds
from adm_cli.sampling.recipes.recipe import drawn_recipe, whole_recipe


def select_enlarged(
    pictures: InputPictures,
    sources: Sources,
    class_: str | None,
    seed: int | None,
    seeds: str | None,
    suffix: str,
) -> tuple[Images, dict[str, InputPicture]]:
    """The images to make, in the order of the inputs, and by file the picture each is made from."""
    if seed is not None and seeds is not None:
        raise UsageError("--seeds lists every seed: leave out --seed")
    each = None if seeds is None else list(itertools.chain(*parse_seeds(seeds)))
    given = _given_class(class_, sources)
    images: list[Image] = []
    made_of: dict[str, InputPicture] = {}
    for i, picture in enumerate(pictures.items):
        label, own_seed = _label_and_seed(picture)
        label = label if given is None else given[0]
        own_seed = own_seed if seed is None else seed + i
        if label is None:
            _check_unlabelled(picture, sources, given)
        elif given is None:
            _check_name(picture, sources, label)
        for number in each or [own_seed]:
            stem = tidy(picture.stem) + ("" if each is None else f"_seed{number:06d}")
            image = Image(
                f"{stem}{suffix}", label, number,
                input=picture.where.encode(errors="replace").decode(),
                small_sha256=picture.pixels_sha256,
            )  # fmt: skip
            if image.file in made_of:
                raise UsageError(
                    f"{made_of[image.file].where} and {picture.where} would both become "
                    f"{image.file}: enlarge them in two runs"
                )
            images.append(image)
            made_of[image.file] = picture
    return Images.of(images), made_of


def _given_class(spec: str | None, sources: Sources) -> tuple[int | None] | None:
    if spec is None:
        return None
    if not sources.classes:
        raise UsageError(
            f"{sources.called} is unconditional: --class would change nothing, leave it out"
        )
    if spec.strip().lower() == "none":
        return (None,)
    chosen = choose_classes(spec, sources, select_classes)
    if len(chosen) != 1:
        raise UsageError(f"--class {spec}: expected one class, for all pictures")
    return (chosen[0],)


def _label_and_seed(picture: InputPicture) -> tuple[int | None, int]:
    """What comes with a picture; without a seed, one made of its pixels, not of its place."""
    recipe = drawn_recipe(whole_recipe(picture.recipe) or {})
    label = picture.label if picture.label is not None else recipe.get("class")
    seed = picture.seed if picture.seed is not None else recipe.get("seed")
    return label, int(picture.pixels_sha256[:8], 16) if seed is None else seed


def _check_unlabelled(
    picture: InputPicture, sources: Sources, given: tuple[int | None] | None
) -> None:
    config = sources.model.info.config
    assert isinstance(config, UNetConfig)
    if config.num_classes is None or (config.null_class and given is not None):
        return
    also = ", or --class none" if config.null_class else ""
    raise UsageError(
        f"{picture.where} says no class, and {sources.called} needs one for every picture: "
        f"pass --class{also}"
    )


def _check_name(picture: InputPicture, sources: Sources, label: int) -> None:
    """Raises UsageError where an id means one class to the picture's maker, another here."""
    name, mine = (picture.recipe or {}).get("class_name"), sources.classes.get(label)
    if isinstance(name, str) and mine is not None and name != mine:
        raise UsageError(
            f"{picture.where} is of class {label}, {name:.60}, which is {mine} to "
            f"{sources.called}: pass --class"
        )


def tidy(stem: str) -> str:
    """A name that a run accepts."""
    text = stem.encode(errors="replace").decode()
    text = "".join(c if c.isprintable() else "_" for c in text)
    text = re.sub(r'[/\\:*?"<>|]', "_", text).lstrip(".")
    return text.encode()[:200].decode(errors="ignore") or "picture"
