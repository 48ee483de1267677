"""The recipe of a picture: everything that made it, written into it, and read back to remake it.

A flat object of the settings of the last stage, the recipe of what it enlarged in ``base``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from adm_cli.checkpoints.presets import ENLARGEMENT_FACTOR, ENLARGEMENTS
from adm_cli.config import SamplingConfig
from adm_cli.diffusion.modifiers import NEUTRAL, OF_EITHER_GUIDANCE, OF_GUIDANCE, modifiers
from adm_cli.errors import AdmError, ConfigError, why_unread
from adm_cli.files.budget import finite_number
from adm_cli.files.strict import as_json, read_config
from adm_cli.pictures.images import MOST_STAGES, open_picture
from adm_cli.sampling.choosing.images import (
    ORIGIN,
    Image,
    Images,
    check_way,
    mixtures_of,
    recorded_image,
)
from adm_cli.sampling.defaults import EVERYWHERE
from adm_cli.sampling.editing import UNEDITED
from adm_cli.sampling.recipes.no_recipe import why_no_recipe
from adm_cli.sampling.run import UNSAID, Filter, Run, Stage

_GUIDANCE = ("guide_interval", "entropy_scaling", *OF_GUIDANCE)  # have no meaning at scale 0
_CLASSIFIER_FREE = ("cfg", "cfg_interval")  # nor these where cfg is 1
_STAGE = [field.name for field in dataclasses.fields(Stage) if field.name != "upsampler"]
# What is read back from a picture, which anyone may have written.
_IMAGE_TYPES: dict[str, tuple[type, ...]] = {
    "class": (int, type(None)),
    "seed": (int,),
    "batch_size": (int,),
    "device": (str,),
}
_ENLARGED_TYPES: dict[str, tuple[type, ...]] = {
    "small_sha256": (str,),
    "resized": (bool,),
    "base": (dict, type(None)),
}
_PLAIN_TYPES: dict[str, tuple[type, ...]] = {"model": (str,), "class": (int, type(None))}


def stage_recipe(run: Run, stage: Stage) -> dict[str, Any]:
    """What the recipes of all images of a run have in common, after one of its stages."""
    facts = dataclasses.asdict(stage)
    known = {name: facts[name] for name in RECIPE_ORDER if facts[name] != UNSAID.get(name, ...)}
    for name in ("guide_interval", "cfg_interval", "size"):
        if name in known:
            known[name] = list(known[name])
    dtype = known.pop("dtype")
    return {
        "adm": run.versions.get("adm"),
        **known,
        "device": run.device,
        "dtype": dtype,
        "torch": run.versions.get("torch"),
    }


RECIPE_ORDER = (
    "model", "model_sha256", "classifier", "classifier_sha256", "weak_model", "weak_model_sha256",
    "scale", "guide_interval",
    "entropy_scaling", "cfg", "cfg_interval", *NEUTRAL, "sampler", "steps", "num_steps", "eta",
    "clip_denoised", *UNEDITED, "project", "low_res_noise", "size", "dtype", "plain",
)  # fmt: skip


def run_recipe(run: Run) -> dict[str, Any]:
    """What all images of a run have in common, that of a stack's first stage in ``base``."""
    base, *later = (
        stage_recipe(run, stage) if isinstance(stage, Stage) else dataclasses.asdict(stage)
        for stage in run.stages
    )
    base |= {"batch_size": run.batch_size}
    return {**later[0], "batch_size": run.batch_size, "base": base} if later else base


def image_recipe(
    common: Mapping[str, Any], image: Image, class_name: str | None, batch_size: int
) -> dict[str, Any]:
    """The recipe of an image after a stage; ``common`` is that stage's `stage_recipe`."""
    scale = common["scale"] if image.scale is None else image.scale
    cfg = common.get("cfg", 1.0) if image.cfg is None else image.cfg
    off = (() if scale else _GUIDANCE) + (_CLASSIFIER_FREE if cfg == 1 else ())
    off += () if scale or cfg != 1 else OF_EITHER_GUIDANCE
    unguided = {} if scale else {"classifier": None, "classifier_sha256": None}
    return {
        **{name: value for name, value in common.items() if name not in off},
        **unguided,
        "scale": scale,
        **({} if cfg == 1 else {"cfg": cfg}),
        "class": image.class_id,
        **({} if image.mixture is None else {"mixture": image.mixture}),
        "class_name": class_name,
        "seed": image.seed,
        **image.origin(),
        "batch_size": batch_size,
    }


def enlarged_recipe(
    recipe: Mapping[str, Any],
    *,
    small_sha256: str,
    base: Mapping[str, Any] | None,
    resized: bool = False,
    value_range: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """The recipe of an enlarged picture: an `image_recipe`, and where the small one came from.

    ``small_sha256`` is the hash of the small picture's values, ``base`` its own recipe where that
    is known, ``resized`` whether it was fitted to the upsampler first, ``value_range`` what of its
    16 bits was black and white.
    """
    name = (base or {}).get("class_name")
    if recipe["class_name"] is None and isinstance(name, str):  # an unconditional upsampler
        recipe = {**recipe, "class_name": name}
    return {
        **recipe,
        "small_sha256": small_sha256,
        "resized": resized,
        **ranged(value_range),
        "base": None if base is None else dict(base),
    }


def ranged(value_range: tuple[float, float] | None) -> dict[str, Any]:
    return {} if value_range is None else {"value_range": list(value_range)}


def value_range_text(recipe: Mapping[str, Any]) -> str | None:
    """The range of the small picture's values as ``--value-range`` takes it, if it had one.

    Raises AdmError for a damaged recipe.
    """
    found = recipe.get("value_range")
    if found is None:
        return None
    try:
        low, high = map(finite_number, found)
    except (TypeError, ValueError) as error:
        raise AdmError(
            f"the picture's recipe is damaged: value_range is {why_unread(error)}"
        ) from None
    return f"{low!r},{high!r}"


def plain_recipe(
    stage: Filter,
    versions: Mapping[str, str],
    *,
    small_sha256: str,
    base: Mapping[str, Any] | None,
    value_range: tuple[float, float] | None = None,
    kept: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """The recipe of a picture enlarged without weights; the rest as in `enlarged_recipe`.
    ``kept`` is `Image.origin` where a part of it is a picture's.

    Nothing was sampled, so it has no seed and no steps.
    """
    names = ("class", "class_name")
    return {
        "adm": versions.get("adm"),
        "pillow": versions.get("pillow"),
        "model": stage.model,
        "size": list(stage.size),
        **{name: None if base is None else base.get(name) for name in names},
        "small_sha256": small_sha256,
        "resized": False,
        **kept,
        **ranged(value_range),
        "base": None if base is None else dict(base),
    }


def is_plain(recipe: Mapping[str, Any]) -> bool:
    """Whether a recipe is of a picture enlarged without weights."""
    return (
        is_enlarged(recipe) and "model_sha256" not in recipe and recipe.get("model") in ENLARGEMENTS
    )


def drawn_recipe(recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    """The recipe of what was sampled, if it was enlarged without weights since; else itself."""
    return drawn_recipe(recipe["base"] or {}) if is_plain(recipe) else recipe


def is_enlarged(recipe: Mapping[str, Any]) -> bool:
    """Whether a recipe is of an upsampler's picture."""
    return "small_sha256" in recipe


def whole_recipe(found: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """A recipe that was found in a file, if all is there to draw from it again, else None."""
    recipe: Any = found
    for _ in range(MOST_STAGES):
        try:
            check_recipe(recipe)
        except (AdmError, TypeError):
            return None
        recipe = recipe.get("base")
        if recipe is None:
            return found
    return None


def check_recipe(recipe: Mapping[str, Any]) -> None:
    """Raises AdmError for a damaged recipe, of whatever kind."""
    if not is_plain(recipe):
        recorded_run(recipe)
        return
    try:
        _check_types(recipe, _PLAIN_TYPES | _ENLARGED_TYPES)
        _origin(recipe)
        if recipe["resized"]:
            raise TypeError("resized, although no filter needs that")
    except (KeyError, TypeError, ValueError) as error:
        raise AdmError(f"the picture's recipe is damaged: {why_unread(error)}") from None


def open_recipe(path: Path) -> dict[str, Any]:
    """The recipe of a picture; raises AdmError where it has none, or a damaged one."""
    recipe = open_picture(path)[1]
    if recipe is None:
        raise AdmError(why_no_recipe(path))
    check_recipe(recipe)
    return dict(recipe)


def _check_types(recipe: Mapping[str, Any], expected: Mapping[str, tuple[type, ...]]) -> None:
    for name, types in expected.items():
        if type(recipe[name]) not in types:
            raise TypeError(f"{name} is {as_json(recipe[name])}")


def recorded_run(recipe: Mapping[str, Any]) -> Run:
    """The run of one image and one stage that a recipe is; raises AdmError if it is damaged."""
    enlarged = is_enlarged(recipe)
    try:
        _check_types(recipe, _IMAGE_TYPES | (_ENLARGED_TYPES if enlarged else {}))
        facts = {name: recipe[name] for name in _STAGE if name in recipe}
        stage = read_config(Stage, {**facts, "upsampler": enlarged})
        image = recorded_image(recipe)._replace(**_origin(recipe))
        stage_config(stage, [image], recipe["batch_size"])
        versions = {name: str(recipe.get(name)) for name in ("adm", "torch")}
        return Run(
            stages=(stage,),
            images=Images.of([image]),
            device=recipe["device"],
            threads=None,
            batch_size=recipe["batch_size"],
            format="png",
            versions=versions,
        )
    except KeyError as error:
        raise AdmError(f"the picture's recipe is damaged: it has no {error}") from None
    except (TypeError, ValueError, OverflowError, ConfigError) as error:
        raise AdmError(f"the picture's recipe is damaged: {why_unread(error)}") from None


def _origin(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """`Image.origin`; raises KeyError, TypeError or ValueError for less than all of it."""
    check_way(recipe)
    edited = recipe.get("strength") is not None or "mask_sha256" in recipe
    names = [n for n in ORIGIN[:2] if n in recipe] + (["photo_sha256"] if edited else [])
    _check_types(recipe, dict.fromkeys(names, (str,)))
    return {name: recipe[name] for name in ORIGIN if name in recipe}


def recorded_filter(recipe: Mapping[str, Any], small: tuple[int, int]) -> Run:
    """Likewise, of a picture that was enlarged without weights from one of size ``small``."""
    size = (ENLARGEMENT_FACTOR * small[0], ENLARGEMENT_FACTOR * small[1])
    return Run(
        stages=(Filter(model=recipe["model"], size=size),),
        images=Images.of([Image("image.png", recipe["class"], 0, **_origin(recipe))]),
        device="cpu",
        threads=None,
        batch_size=1,
        format="png",
        versions={},
    )


def stage_config(stage: Stage, images: Sequence[Image], batch_size: int) -> SamplingConfig:
    """The settings that draw some images; raises ConfigError for what cannot be.

    Their own scales are of the stage that is guided, which an upsampler is not.
    """
    scales = cfgs = None
    if stage.upsampler:
        images = [image._replace(scale=None, cfg=None) for image in images]
    if any(image.scale is not None for image in images):
        scales = tuple(stage.scale if image.scale is None else image.scale for image in images)
    if any(image.cfg is not None for image in images):
        cfgs = tuple(stage.cfg if image.cfg is None else image.cfg for image in images)
    return SamplingConfig(
        seeds=tuple(image.seed for image in images),
        classes=tuple(image.class_id for image in images),
        sampler=stage.sampler,
        steps=stage.steps,
        scale=stage.scale,
        eta=stage.eta,
        batch_size=batch_size,
        clip_denoised=stage.clip_denoised,
        scales=scales,
        mixtures=mixtures_of(images),
        cfg=stage.cfg,
        cfgs=cfgs,
        guide_interval=stage.guide_interval or EVERYWHERE,
        entropy_scaling=stage.entropy_scaling,
        cfg_interval=stage.cfg_interval or EVERYWHERE,
        project=stage.project,
        low_res_noise=stage.low_res_noise,
        **modifiers(stage),
    )


def batch_sizes(recipe: Mapping[str, Any] | None, stages: int) -> dict[str, int]:
    """How many images were computed at once with one of a run of so many stages.

    For its line in a manifest, see `folder.BATCH_SIZES`: memory may have run out, also between the
    two stages of a stack. Empty without a whole recipe.
    """
    if recipe is None or whole_recipe(recipe) is None:
        return {}
    if is_plain(recipe):
        return {"base_batch_size": recipe["base"]["batch_size"]} if recipe["base"] else {}
    base = recipe.get("base") if stages > 1 else None
    small = {} if base is None else {"base_batch_size": base["batch_size"]}
    return {"batch_size": recipe["batch_size"], **small}
