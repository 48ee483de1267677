"""The arguments of Python functions that sample, as `settings.StageOptions` takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from adm_cli.checkpoints.sources import Sources, find_sources
from adm_cli.config import DEFAULT_MODEL
from adm_cli.diffusion.modifiers import NEUTRAL, OFF, read_modifier
from adm_cli.errors import UsageError, trim
from adm_cli.sampling.arguments import comma_list
from adm_cli.sampling.choosing.select import negative_class
from adm_cli.sampling.settings import Interval, StageOptions

_UNASKED = StageOptions()


def asked_stage(given: Mapping[str, Any], *, guided: bool) -> tuple[Sources, StageOptions]:
    """The weights that are asked for, and the settings; raises UsageError or ConfigError."""
    options, model = asked_options(given), given["model"]
    sources = find_sources(
        DEFAULT_MODEL if model is None else model, given["classifier"], guided=guided,
        weak=choose_weak(given["weak_model"], [given["weak_scale"]]),
        noisy=given["classifier_on"] != "x0",
    )  # fmt: skip
    return sources, with_negative_class(options, given["negative_class"], sources)


def asked_options(given: Mapping[str, Any]) -> StageOptions:
    """The settings, without the negative class, which is found when the models are."""
    return StageOptions(
        **{name: given[name] for name in ("sampler", "scale", "eta", "cfg")},
        steps=comma_list(given["steps"]),
        clip=given.get("clip") is not False,
        entropy_scaling=bool(given["entropy_scaling"]),
        guide_interval=read_interval(given["guide_interval"]),
        cfg_interval=read_interval(given["cfg_interval"], "--cfg-interval"),
        **asked_modifiers(given),
    )


def asked_modifiers(given: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for; texts as they are typed.

    Without the negative class, which `with_negative_class` finds when the models are. Raises
    ConfigError for what is no number where one is meant.
    """
    asked = {name: given[name] for name in NEUTRAL if name in given and name != "negative_class"}
    return {
        name: getattr(_UNASKED, name)
        if value is None
        else read_modifier(name, value)
        if type(value) is str
        else value
        for name, value in asked.items()
    }


def with_negative_class(
    options: StageOptions, spec: str | int | None, sources: Sources
) -> StageOptions:
    """Raises UsageError for what is no class of the models'."""
    if spec in (None, OFF):
        return options
    return replace(options, negative_class=negative_class(spec, sources))


def read_interval(text: str | Interval | None, option: str = "--guide-interval") -> Interval | None:
    """``0.2,0.8`` as numbers; raises UsageError for anything but two of them."""
    if text is None:
        return None
    try:
        first, last = (float(part) for part in (text.split(",") if isinstance(text, str) else text))
    except (ValueError, TypeError):
        raise UsageError(f"{option} {trim(text)}: expected two numbers such as 0.2,0.8") from None
    return first, last


def choose_weak(name: str | Path | None, scales: Sequence[float | None]) -> str | Path | None:
    """The weak model, if a scale uses it. Raises UsageError where it has none."""
    if name is not None and all(scale is None for scale in scales):
        raise UsageError(f"--weak-model {name} needs a --weak-scale, such as 1.5")
    return None if all(scale in (None, 1) for scale in scales) else name
