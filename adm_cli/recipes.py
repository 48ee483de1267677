"""The recipe of a picture: everything that made it, written into it, and read back to remake it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from adm_cli import __version__
from adm_cli.config import SamplingConfig
from adm_cli.errors import AdmError, ConfigError
from adm_cli.pipeline import ImageBatch, Pipeline, choose_schedule

_MOST_STAGES = 8  # of nested recipes

# What may differ between two machines, or two times, and what to call it.
_INPUTS = {
    "model_sha256": "the model's weights",
    "classifier_sha256": "the classifier's weights",
    "adm": "the version of adm",
    "torch": "the version of torch",
    "device": "the device",
    "dtype": "the precision",
    "threads": "the number of CPU threads",
    "batch_size": "the batch size",
}
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
    sources = pipeline.sources
    guide = sources.classifier if pipeline.classifier is not None and config.scale else None
    steps = config.steps if config.steps is not None else pipeline.diffusion.respacing or ""
    return {
        "adm": __version__,
        "model": sources.model_name,
        "model_sha256": sources.model.content_sha256,
        "classifier": None if guide is None else guide.name,
        "classifier_sha256": None if guide is None else guide.content_sha256,
        "scale": config.scale,
        "sampler": config.sampler,
        "steps": steps,
        "num_steps": len(choose_schedule(pipeline.diffusion, config.steps)),
        "eta": config.eta,
        "clip_denoised": config.clip_denoised,
        "size": list(pipeline.model.config.image_size),
        "device": pipeline.device.type,
        "dtype": str(pipeline.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads() if pipeline.device.type == "cpu" else None,
        "torch": torch.__version__,
    }


def image_recipe(
    run: Mapping[str, Any], pipeline: Pipeline, batch: ImageBatch, i: int
) -> dict[str, Any]:
    """The recipe of image ``i`` of a batch."""
    class_id = batch.classes[i]
    return {
        **run,
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


def check_recipe(recipe: object) -> bool:
    """Whether ``recipe`` is one that can be drawn from again, its bases included."""
    for _ in range(_MOST_STAGES):
        if not isinstance(recipe, dict):
            return False
        try:
            config_from_recipe(recipe)
        except AdmError:
            return False
        if not is_enlarged(recipe) or recipe.get("base") is None:
            return True
        recipe = recipe["base"]
    return False


def config_from_recipe(recipe: Mapping[str, Any]) -> SamplingConfig:
    """The settings that draw the recipe's one image again; raises AdmError if it is damaged."""
    try:
        expected = _TYPES | (_ENLARGED_TYPES if is_enlarged(recipe) else {})
        for name, types in expected.items():
            if type(recipe[name]) not in types:
                raise TypeError(f"{name} is {recipe[name]!r:.60}")
        names = {field.name for field in dataclasses.fields(SamplingConfig)} & set(recipe)
        settings = {name: recipe[name] for name in names}
        return SamplingConfig(seeds=(recipe["seed"],), classes=(recipe["class"],), **settings)
    except KeyError as error:
        raise AdmError(f"the picture's recipe is damaged: it has no {error}") from None
    except (TypeError, ConfigError) as error:
        raise AdmError(f"the picture's recipe is damaged: {error}") from None


def differing_inputs(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """In words, which inputs of two recipes differ."""
    return [
        f"{what} ({_short(old.get(key))}, now {_short(new.get(key))})"
        for key, what in _INPUTS.items()
        if old.get(key) != new.get(key)
    ]


def _short(value: object) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text
