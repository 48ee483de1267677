"""What differs between two recipes, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adm_cli.files.differences import BESIDE, differences
from adm_cli.sampling.recipes.recipe import RECIPE_ORDER
from adm_cli.sampling.run import UNSAID

# What may differ between two machines, or two times, and what to call it.
_INPUTS = {
    "model_sha256": "the model's weights",
    "classifier_sha256": "the classifier's weights",
    "weak_model_sha256": "the weak model's weights",
    "small_sha256": "the small picture",
    "photo_sha256": "the picture that was edited",
    "mask_sha256": "its mask",
    "adm": "the version of adm",
    "torch": "the version of torch",
    "pillow": "the version of Pillow",
    "device": "the device",
    "dtype": "the precision",
    "batch_size": "the batch size",
}
# What names the weights, whose hashes are compared, or follows from other settings.
_FOLLOWING = ("model", "classifier", "weak_model", "num_steps", "size", "dtype")


def differing_inputs(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """In words, which inputs of two recipes differ, those of small pictures included."""
    mine = differences(old, new, BESIDE, _INPUTS)
    if not old.get("base") or not new.get("base"):
        return mine
    return mine + [
        f"of the small picture, {text}" for text in differing_inputs(old["base"], new["base"])
    ]


def differing_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """In words, which settings of two recipes of one stage differ, the seed apart."""
    apart = (*_INPUTS, *_FOLLOWING)
    names = {name: name for name in (*RECIPE_ORDER, "class", "mixture") if name not in apart}
    return differences({**UNSAID, **old}, {**UNSAID, **new}, BESIDE, names)


def agreeing_hashes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """The SHA-256 that two recipes have in common, by what they are of."""
    found = {
        what: str(old[key])
        for key, what in _INPUTS.items()
        if key.endswith("_sha256") and old.get(key) is not None and old[key] == new.get(key)
    }
    if old.get("base") and new.get("base"):
        inner = agreeing_hashes(old["base"], new["base"])
        found |= {f"of the small picture, {what}": digest for what, digest in inner.items()}
    return found
