"""The recipe of a picture: everything that made it, written into it, and read back to remake it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import PIL
import torch

from adm_cli import __version__
from adm_cli.batches import ImageBatch
from adm_cli.config import SamplingConfig
from adm_cli.defaults import EVERYWHERE, choose_schedule
from adm_cli.devices import cpu_threads
from adm_cli.errors import AdmError, ConfigError
from adm_cli.pipeline import Pipeline
from adm_cli.presets import ENLARGEMENT_FACTOR, ENLARGEMENTS
from adm_cli.sources import Sources
from adm_cli.storage.plans import Item, Plan

MOST_STAGES = 8  # of a recipe within a recipe

# What may differ between two machines, or two times, and what to call it.
_INPUTS = {
    "model_sha256": "the model's weights",
    "classifier_sha256": "the classifier's weights",
    "small_sha256": "the small picture",
    "adm": "the version of adm",
    "torch": "the version of torch",
    "pillow": "the version of Pillow",
    "device": "the device",
    "dtype": "the precision",
    "batch_size": "the batch size",
}
# What of a run may change between its images without being another run.
_ENVIRONMENT = ("adm", "torch", "model", "classifier")
ENLARGING = ("project", "low_res_noise")  # of an upsampler, where it has them
MODIFIERS = ("guide_interval", "entropy_scaling")  # of guidance, where there are any
CLASSIFIER_FREE = ("cfg", "cfg_interval")  # where it is on: an image without has a cfg of 1
# What is read back from a picture, which anyone may have written.
_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("model", "model_sha256", "dtype", "device", "sampler", "steps"), (str,)),
    "classifier": (str, type(None)),
    "class": (int, type(None)),
    "seed": (int,),
    "scale": (int, float),
    "eta": (int, float, type(None)),
    "batch_size": (int,),
    "clip_denoised": (bool,),
}
_OPTIONAL_TYPES: dict[str, tuple[type, ...]] = {"cfg": (int, float)}
_ENLARGED_TYPES: dict[str, tuple[type, ...]] = {
    "small_sha256": (str,),
    "resized": (bool,),
    "base": (dict, type(None)),
}
_PLAIN_TYPES: dict[str, tuple[type, ...]] = {"model": (str,), "class": (int, type(None))}


def run_recipe(pipeline: Pipeline, config: SamplingConfig) -> dict[str, Any]:
    """What all images of a run have in common."""
    return _common(pipeline.sources, config, pipeline.device, pipeline.dtype)


def run_plan(
    sources: Sources,
    config: SamplingConfig,
    items: Sequence[Item],
    device: torch.device,
    dtype: torch.dtype,
    *,
    kind: str,
    format: str,
) -> Plan:
    """What ``run.json`` holds of a run that draws ``items``; ``config`` has its resolved settings.

    A batch size of None is to be chosen once the models are loaded.
    """
    common = _common(sources, config, device, dtype)
    environment = {name: common.pop(name) for name in _ENVIRONMENT}
    settings = {
        **common,
        "threads": cpu_threads(device),
        "batch_size": config.batch_size,
        "format": format,
    }
    return Plan(kind, settings, environment, items)


# What of the upsampler's settings is not the base model's too, or without meaning for it.
_UPSAMPLING = ("model_sha256", "sampler", "steps", "num_steps", "eta", "clip_denoised", "dtype")


def stack_plan(base: Plan, upsampling: Plan) -> Plan:
    """The plan of a run that draws as ``base`` says and enlarges as ``upsampling`` says."""
    mine = upsampling.settings
    names = (*_UPSAMPLING, *(name for name in ENLARGING if name in mine))
    later = {f"upsampler_{name}": mine[name] for name in names}
    return Plan(
        "stack",
        {
            **base.settings,
            **later,
            "num_steps": base.settings["num_steps"] + upsampling.settings["num_steps"],
            "size": upsampling.settings["size"],
        },
        {**base.environment, "upsampler": upsampling.environment["model"]},
        base.items,
    )


def split_plan(plan: Plan, small: Sequence[int]) -> tuple[Plan, Plan]:
    """What `stack_plan` made one of, ``small`` being the height and width of the base's pictures.

    The second plan and its items have no guidance: an upsampler is not guided.
    """
    optional = (name for name in ENLARGING if f"upsampler_{name}" in plan.settings)
    later = {name: plan.settings[f"upsampler_{name}"] for name in (*_UPSAMPLING, *optional)}
    first = {n: v for n, v in plan.settings.items() if not n.startswith("upsampler_")}
    steps = first["num_steps"] - later["num_steps"]
    names = {n: v for n, v in plan.environment.items() if n != "upsampler"}
    unguided = {"classifier": None, "model": plan.environment["upsampler"]}
    items = [
        Item(item.file, {n: v for n, v in item.facts.items() if n not in ("scale", "cfg")})
        for item in plan.items
    ]
    common = {n: v for n, v in first.items() if n not in CLASSIFIER_FREE}
    return (
        Plan("sample", {**first, "num_steps": steps, "size": list(small)}, names, plan.items),
        Plan("upsample", {**common, **later, "scale": 0.0}, {**names, **unguided}, items),
    )


def plain_stack_plan(base: Plan, method: str) -> Plan:
    """The plan of a run that draws as ``base`` says and enlarges without weights."""
    size = [ENLARGEMENT_FACTOR * side for side in base.settings["size"]]
    return Plan(
        "stack",
        {**base.settings, "upsampler": method, "size": size},
        {**base.environment, "pillow": PIL.__version__},
        base.items,
    )


def plain_base_plan(plan: Plan, small: Sequence[int]) -> Plan:
    """What `plain_stack_plan` was made of, ``small`` being the size of the base's pictures."""
    settings = {n: v for n, v in plan.settings.items() if n != "upsampler"}
    names = {n: v for n, v in plan.environment.items() if n != "pillow"}
    return Plan("sample", {**settings, "size": list(small)}, names, plan.items)


def plan_config(plan: Plan, items: Sequence[Item]) -> SamplingConfig:
    """The settings that draw some of a plan's items; raises AdmError if they are damaged."""
    common = {**plan.environment, **plan.settings}
    scales = cfgs = None
    try:
        first = {name: items[0].facts[name] for name in ("class", "seed")}
        first |= {name: v for name, v in items[0].facts.items() if name in ("scale", "cfg")}
        if any("scale" in item.facts for item in items):
            scales = tuple(item.facts.get("scale", common["scale"]) for item in items)
        if any("cfg" in item.facts for item in items):
            cfgs = tuple(item.facts.get("cfg", common.get("cfg", 1.0)) for item in items)
        return dataclasses.replace(
            config_from_recipe({**common, **first}),
            seeds=tuple(item.facts["seed"] for item in items),
            classes=tuple(item.facts["class"] for item in items),
            scale=common["scale"],
            cfg=common.get("cfg", 1.0),
            scales=scales,
            cfgs=cfgs,
        )
    except (KeyError, TypeError, OverflowError) as error:
        raise AdmError(f"the run's settings are damaged: {error}") from None


def batch_sizes(kind: str, recipe: Mapping[str, Any] | None) -> dict[str, int]:
    """How many images were computed at once with one of a run: settings as of its plan.

    Memory may have run out meanwhile, also between the two stages of a stack. Empty without a
    whole recipe.
    """
    if recipe is None or whole_recipe(recipe) is None:
        return {}
    if is_plain(recipe):
        return {"base_batch_size": recipe["base"]["batch_size"]} if recipe["base"] else {}
    base = recipe.get("base") if kind == "stack" else None
    small = {} if base is None else {"base_batch_size": base["batch_size"]}
    return {"batch_size": recipe["batch_size"], **small}


def _common(
    sources: Sources, config: SamplingConfig, device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    guide = sources.classifier if config.guided else None
    diffusion = sources.model.info.diffusion
    steps = config.steps if config.steps is not None else diffusion.respacing or ""
    modifiers: dict[str, Any] = {}  # of guidance; most images have none
    if config.guide_interval is not None and config.guide_interval != EVERYWHERE:
        modifiers["guide_interval"] = list(config.guide_interval)
    if config.entropy_scaling:
        modifiers["entropy_scaling"] = True
    if config.cfg != 1:
        modifiers["cfg"] = config.cfg
    if config.cfg_interval is not None and config.cfg_interval != EVERYWHERE:
        modifiers["cfg_interval"] = list(config.cfg_interval)
    changed = (n for n in ENLARGING if getattr(config, n) != getattr(SamplingConfig, n))
    enlarging = {name: getattr(config, name) for name in changed}
    return {
        "adm": __version__,
        "model": sources.model_name,
        "model_sha256": sources.model.content_sha256,
        "classifier": None if guide is None else guide.name,
        "classifier_sha256": None if guide is None else guide.content_sha256,
        "scale": config.scale,
        **modifiers,
        "sampler": config.sampler,
        "steps": steps,
        "num_steps": len(choose_schedule(diffusion, config.steps)),
        "eta": config.eta,
        "clip_denoised": config.clip_denoised,
        **enlarging,
        "size": list(sources.model.info.config.image_size),
        "device": device.type,
        "dtype": str(dtype).removeprefix("torch."),
        "torch": torch.__version__,
    }


def image_recipe(
    run: Mapping[str, Any], pipeline: Pipeline, batch: ImageBatch, i: int
) -> dict[str, Any]:
    """The recipe of image ``i`` of a batch."""
    class_id, scale, cfg = batch.classes[i], batch.scales[i], batch.cfgs[i]
    off = (() if scale else MODIFIERS) + (CLASSIFIER_FREE if cfg == 1 else ())
    unguided = {} if scale else {"classifier": None, "classifier_sha256": None}
    return {
        **{name: value for name, value in run.items() if name not in off},
        **unguided,
        "scale": scale,
        **({} if cfg == 1 else {"cfg": cfg}),
        "class": class_id,
        "class_name": None if class_id is None else pipeline.sources.classes.get(class_id),
        "seed": batch.seeds[i],
        "batch_size": batch.batch_size,
    }


def enlarged_recipe(
    recipe: Mapping[str, Any],
    *,
    small_sha256: str,
    base: Mapping[str, Any] | None,
    resized: bool = False,
) -> dict[str, Any]:
    """The recipe of an enlarged picture: an `image_recipe`, and where the small one came from.

    ``small_sha256`` is the hash of the small picture's values, ``base`` its own recipe where that
    is known, ``resized`` whether it was fitted to the upsampler first.
    """
    name = (base or {}).get("class_name")
    if recipe["class_name"] is None and isinstance(name, str):  # an unconditional upsampler
        recipe = {**recipe, "class_name": name}
    return {
        **recipe,
        "small_sha256": small_sha256,
        "resized": resized,
        "base": None if base is None else dict(base),
    }


def plain_recipe(
    method: str,
    size: Sequence[int],
    *,
    small_sha256: str,
    base: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The recipe of a picture enlarged without weights to ``size`` (height, width).

    The rest as in `enlarged_recipe`. Nothing was sampled, so it has no seed and no steps.
    """
    names = ("class", "class_name")
    return {
        "adm": __version__,
        "pillow": PIL.__version__,
        "model": method,
        "size": list(size),
        **{name: None if base is None else base.get(name) for name in names},
        "small_sha256": small_sha256,
        "resized": False,
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
        config_from_recipe(recipe)
        return
    try:
        _check_types(recipe, _PLAIN_TYPES | _ENLARGED_TYPES)
        if recipe["resized"]:
            raise TypeError("resized, although no filter needs that")
    except (KeyError, TypeError) as error:
        raise AdmError(f"the picture's recipe is damaged: {error}") from None


def _check_types(recipe: Mapping[str, Any], expected: Mapping[str, tuple[type, ...]]) -> None:
    for name, types in expected.items():
        if type(recipe[name]) not in types:
            raise TypeError(f"{name} is {recipe[name]!r:.60}")


def config_from_recipe(recipe: Mapping[str, Any]) -> SamplingConfig:
    """The settings that draw the recipe's one image again; raises AdmError if it is damaged."""
    try:
        optional = {name: types for name, types in _OPTIONAL_TYPES.items() if name in recipe}
        enlarged = _ENLARGED_TYPES if is_enlarged(recipe) else {}
        _check_types(recipe, _TYPES | enlarged | optional)
        names = {field.name for field in dataclasses.fields(SamplingConfig)} & set(recipe)
        settings = {"cfg": 1.0, **{name: recipe[name] for name in names}}
        for name in ("guide_interval", "cfg_interval"):  # what a recipe leaves out is decided too
            settings[name] = tuple(settings.get(name) or EVERYWHERE)
        return SamplingConfig(seeds=(recipe["seed"],), classes=(recipe["class"],), **settings)
    except KeyError as error:
        raise AdmError(f"the picture's recipe is damaged: it has no {error}") from None
    except (TypeError, ValueError, OverflowError, ConfigError) as error:
        raise AdmError(f"the picture's recipe is damaged: {error}") from None


def differing_inputs(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """In words, which inputs of two recipes differ, those of small pictures included."""
    mine = [
        f"{what} ({_short(old.get(key))}, now {_short(new.get(key))})"
        for key, what in _INPUTS.items()
        if old.get(key) != new.get(key)
    ]
    if not old.get("base") or not new.get("base"):
        return mine
    return mine + [
        f"of the small picture, {text}" for text in differing_inputs(old["base"], new["base"])
    ]


def _short(value: object) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text
