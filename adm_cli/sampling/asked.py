"""Modifiers among the arguments of a Python function, as `settings.StageOptions` takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from adm_cli.checkpoints.sources import Sources
from adm_cli.diffusion.modifiers import NEUTRAL, OFF, read_modifier
from adm_cli.sampling.select import one_class
from adm_cli.sampling.settings import StageOptions

_UNASKED = StageOptions()


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
    return replace(options, negative_class=one_class("--negative-class", spec, sources))
