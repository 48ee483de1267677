"""The recipe of a picture: everything that made it, written into it, and read back to remake it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from adm_cli import __version__
from adm_cli.batches import ImageBatch
from adm_cli.config import SamplingConfig
from adm_cli.devices import cpu_threads
from adm_cli.errors import AdmError, ConfigError
from adm_cli.pipeline import Pipeline, choose_schedule
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
    "device": "the device",
    "dtype": "the precision",
    "batch_size": "the batch size",
}
# What of a run may change between its images without being another run.
_ENVIRONMENT = ("adm", "torch", "model", "classifier")
MODIFIERS = ("guide_interval", "entropy_scaling")  # of guidance, where there are any
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
_ENLARGED_TYPES: dict[str, tuple[type, ...]] = {
    "small_sha256": (str,),
    "resized": (bool,),
    "base": (dict, type(None)),
}


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
    later = {f"upsampler_{name}": upsampling.settings[name] for name in _UPSAMPLING}
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

    The second plan's items have no guidance scale of their own: an upsampler is not guided.
    """
    later = {name: plan.settings[f"upsampler_{name}"] for name in _UPSAMPLING}
    first = {n: v for n, v in plan.settings.items() if not n.startswith("upsampler_")}
    steps = first["num_steps"] - later["num_steps"]
    names = {n: v for n, v in plan.environment.items() if n != "upsampler"}
    unguided = {"classifier": None, "model": plan.environment["upsampler"]}
    items = [
        Item(item.file, {n: v for n, v in item.facts.items() if n != "scale"})
        for item in plan.items
    ]
    return (
        Plan("sample", {**first, "num_steps": steps, "size": list(small)}, names, plan.items),
        Plan("upsample", {**first, **later, "scale": 0.0}, {**names, **unguided}, items),
    )


def plan_config(plan: Plan, items: Sequence[Item]) -> SamplingConfig:
    """The settings that draw some of a plan's items; raises AdmError if they are damaged."""
    common = {**plan.environment, **plan.settings}
    scales = None
    try:
        first = {name: items[0].facts[name] for name in ("class", "seed")}
        if any("scale" in item.facts for item in items):
            scales = tuple(item.facts.get("scale", common["scale"]) for item in items)
        return dataclasses.replace(
            config_from_recipe({**common, **first}),
            seeds=tuple(item.facts["seed"] for item in items),
            classes=tuple(item.facts["class"] for item in items),
            scales=scales,
        )
    except (KeyError, TypeError) as error:
        raise AdmError(f"the run's settings are damaged: {error}") from None


def batch_sizes(kind: str, recipe: Mapping[str, Any] | None) -> dict[str, int]:
    """How many images were computed at once with one of a run: settings as of its plan.

    Memory may have run out meanwhile, also between the two stages of a stack. Empty without a
    whole recipe.
    """
    if recipe is None or whole_recipe(recipe) is None:
        return {}
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
    if config.guide_interval is not None:
        modifiers["guide_interval"] = list(config.guide_interval)
    if config.entropy_scaling:
        modifiers["entropy_scaling"] = True
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
        "size": list(sources.model.info.config.image_size),
        "device": device.type,
        "dtype": str(dtype).removeprefix("torch."),
        "torch": torch.__version__,
    }


def image_recipe(
    run: Mapping[str, Any], pipeline: Pipeline, batch: ImageBatch, i: int
) -> dict[str, Any]:
    """The recipe of image ``i`` of a batch."""
    class_id, scale = batch.classes[i], batch.scales[i]
    unguided = {} if scale else {"classifier": None, "classifier_sha256": None}
    return {
        **{name: value for name, value in run.items() if scale or name not in MODIFIERS},
        **unguided,
        "scale": scale,
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


def is_enlarged(recipe: Mapping[str, Any]) -> bool:
    """Whether a recipe is of an upsampler's picture."""
    return "small_sha256" in recipe


def whole_recipe(found: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """A recipe that was found in a file, if all is there to draw from it again, else None."""
    recipe: Any = found
    for _ in range(MOST_STAGES):
        try:
            config_from_recipe(recipe)
        except (AdmError, TypeError):
            return None
        recipe = recipe.get("base")
        if recipe is None:
            return found
    return None


def config_from_recipe(recipe: Mapping[str, Any]) -> SamplingConfig:
    """The settings that draw the recipe's one image again; raises AdmError if it is damaged."""
    try:
        expected = _TYPES | (_ENLARGED_TYPES if is_enlarged(recipe) else {})
        for name, types in expected.items():
            if type(recipe[name]) not in types:
                raise TypeError(f"{name} is {recipe[name]!r:.60}")
        names = {field.name for field in dataclasses.fields(SamplingConfig)} & set(recipe)
        settings = {name: recipe[name] for name in names}
        if settings.get("guide_interval") is not None:
            settings["guide_interval"] = tuple(settings["guide_interval"])
        return SamplingConfig(seeds=(recipe["seed"],), classes=(recipe["class"],), **settings)
    except KeyError as error:
        raise AdmError(f"the picture's recipe is damaged: it has no {error}") from None
    except (TypeError, ValueError, ConfigError) as error:
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
