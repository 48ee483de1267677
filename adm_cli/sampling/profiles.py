"""``adm sample --profile``: a word for many settings, which somebody measured.

``paper`` is how the paper samples (arXiv 2105.05233, tables 4 to 6 and 14); ``fast`` takes few
evaluations; ``best`` gives the best pictures that are known of the same weights. What nobody asked
for is theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adm_cli.checkpoints.presets import ENLARGEMENTS, Preset, find_preset
from adm_cli.errors import UsageError, did_you_mean
from adm_cli.events import as_words
from adm_cli.sampling.defaults import EVERYWHERE

Contents = Mapping[str, Any]  # keywords of `sample.sample`
PROFILES = ("paper", "fast", "best")
_SECOND_STAGE = ("upsampler", "keep_base", "upsample_sampler", "upsample_steps",
                 "upsample_project", "upsample_noise", "upsample_temperature")  # fmt: skip
_OF_SCALE = ("guide_interval", "entropy_scaling")
_ANCESTRAL: Contents = {"sampler": "ddpm", "steps": "250", "cfg": 1.0, "temperature": 1.0}
_PAPERS_UPSAMPLER: Contents = {
    "upsample_sampler": "ddpm", "upsample_steps": "250", "upsample_project": 0,
    "upsample_temperature": 1.0,
}  # fmt: skip
_25_STEPS: Contents = {"sampler": "ddim", "steps": "ddim25", "eta": 0.0}
_NOISY_20: Contents = {"sampler": "dpm++2m", "steps": "20", "eta": 1.0, "cfg": 4.0}
_SECTIONS: Contents = {"sampler": "ddpm", "steps": "90,60,60,20,20"}
# By preset. FID in the order in which they are named: of `paper`, then of what is here.
_FAST: Mapping[str, Contents] = {
    # weights/README.md: the classifier adds nothing that a judge could tell
    "tiny": {"steps": "7", "scale": 0.0},
    "tiny-stack": {"steps": "7", "scale": 0.0},
    "imagenet64": {**_25_STEPS, "scale": 1.0},
    "imagenet128": {**_25_STEPS, "scale": 1.25},  # 2.97, 5.98: tables 5 and 14
    # 4.59, 5.44 at scale 2.5 (likewise); 4.76 with entropy scaling: arXiv 2206.11474
    "imagenet256": {**_25_STEPS, "scale": 1.5, "entropy_scaling": True},
    "imagenet256-uncond": {**_25_STEPS, "scale": 10.0},
    "imagenet512": {**_25_STEPS, "scale": 9.0},  # 7.72, 8.41: tables 5 and 14
    "imagenet256-stack": {
        **_25_STEPS, "scale": 1.0, "upsample_sampler": "ddim", "upsample_steps": "ddim25",
    },
    "imagenet512-stack": {  # 3.85, 5.96: table 6
        **_25_STEPS, "scale": 1.25, "upsample_sampler": "ddim", "upsample_steps": "ddim25",
    },
    # 250 steps in five sections instead of 1000: table 15
    "lsun-bedroom": _SECTIONS, "lsun-cat": _SECTIONS, "lsun-horse": _SECTIONS,
    "lsun-horse-nodropout": _SECTIONS,
}  # fmt: skip
_BEST: Mapping[str, Contents] = {
    # in twice the steps noise pays, and so does the upsampler, as a judge has it: the model card
    "tiny": {**_NOISY_20, "upsampler": "tiny_upsampler"},
    "tiny-stack": _NOISY_20,
    # 4.59, 3.96: arXiv 2206.11474, with these weights
    "imagenet256": {"scale": 0.75, "entropy_scaling": True},
}
_UNKNOWN_FAST: Contents = {"sampler": "dpm++2m", "steps": "20"}  # of a file


def profile_contents(name: str, model: str, *, guided: bool = False) -> Contents:
    """What a profile sets for a model, by the keywords of `sample.sample`.

    ``model`` is a preset, checkpoint or file, ``guided`` whether a classifier was given to it.
    Raises UsageError for an unknown profile.
    """
    if name not in PROFILES:
        hint = did_you_mean(name, PROFILES)
        raise UsageError(f"unknown --profile {name!r}{hint} (there are {', '.join(PROFILES)})")
    preset = find_preset(model)
    if name == "paper":
        return _paper(preset, guided=guided)
    if preset is None:
        return _UNKNOWN_FAST if name == "fast" else {}
    if name == "fast":
        return _FAST[preset.name]
    best = _BEST.get(preset.name, {})
    return best if preset.model == "tiny" else {**_paper(preset, guided=guided), **best}


def _paper(preset: Preset | None, *, guided: bool) -> Contents:
    """DDPM with every setting of the paper's; its scale where it is one of its models."""
    theirs = preset is not None and preset.model != "tiny"
    found = dict(_ANCESTRAL)
    if guided or (preset is not None and preset.classifier is not None):
        found["scale"] = preset.scale if preset is not None and theirs else 1.0
        found["guide_interval"] = EVERYWHERE
    if preset is not None and theirs:
        found["steps"] = preset.steps
    second = preset is not None and preset.upsampler not in (None, *ENLARGEMENTS)
    return {**found, **(_PAPERS_UPSAMPLER if second else {})}


def fill_profile(contents: Contents, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of `sample.sample` with a profile's where nothing was asked for.

    Guidance is left out without a class, and what belongs to it where it was turned off; a
    sampler's own options where another was asked for; and all about the second stage where anything
    was said of it.
    """
    hidden: set[str] = set()
    if asked["no_upsample"] or any(asked[name] not in (None, False) for name in _SECOND_STAGE):
        hidden.update(_SECOND_STAGE)
    if asked["sampler"] is not None:
        hidden.add("eta")
    if as_words(asked["class_"]) == ["none"]:
        hidden.update(("scale", "cfg", *_OF_SCALE))
    if asked["scale"] == 0 or (asked["scale"] is None and contents.get("scale") == 0):
        hidden.update(_OF_SCALE)
    return {
        **asked,
        **{n: v for n, v in contents.items() if n not in hidden and asked[n] is None},
    }


def in_words(contents: Contents) -> str:
    """``--sampler ddim --steps ddim25``: as somebody would type it."""
    words = []
    for name, value in contents.items():
        option = "--" + name.replace("_", "-")
        text = ",".join(f"{v:g}" for v in value) if isinstance(value, tuple) else value
        text = f"{text:g}" if isinstance(text, float) else str(text)
        words.append(option if value is True else f"{option} {text}")
    return " ".join(words)
