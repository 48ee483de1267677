"""Modifiers among the arguments of a Python function, as `settings.StageOptions` takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from adm_cli.checkpoints.sources import Sources
from adm_cli.diffusion.modifiers import NEUTRAL
from adm_cli.sampling.select import one_class
from adm_cli.sampling.settings import StageOptions


def asked_modifiers(given: Mapping[str, Any]) -> dict[str, Any]:
    """All but the negative class, which `with_negative_class` finds when the models are."""
    found = {name: given[name] for name in NEUTRAL if name != "negative_class"}
    return {**found, "weak_scale": 1.0 if given["weak_scale"] is None else given["weak_scale"]}


def with_negative_class(
    options: StageOptions, spec: str | int | None, sources: Sources
) -> StageOptions:
    """Raises UsageError for what is no class of the models'."""
    if spec is None:
        return options
    return replace(options, negative_class=one_class("--negative-class", spec, sources))
