"""What may be changed about how a model is sampled, beyond the original's settings.

One home for each: a field here is a setting of `SamplingConfig`, of a run's `Stage` and so of every
recipe, and an axis of a sweep. What is as here changes nothing, and is not written down.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args

from adm_cli.errors import ConfigError

GuideBy = Literal["log-p", "rkl", "fkl", "js"]
Spacing = Literal["uniform", "trailing", "quadratic", "log-snr", "lsun"]

_RANGES: dict[str, tuple[float, float]] = {
    "divergence_weight": (0, 1000),
    "guide_every": (1, 10**6),
    "weak_scale": (-1000, 1000),
    "eps_scale": (0.5, 2),
    "threshold": (0.5, 1),
    "temperature": (0, 2),
}
_CHOICES: dict[str, tuple[str, ...]] = {"guide_by": get_args(GuideBy), "spacing": get_args(Spacing)}
OF_GUIDANCE = (
    "guide_by",
    "divergence_weight",
    "guide_every",
)  # have no meaning without a classifier


@dataclass(frozen=True, kw_only=True)
class Modifiers:
    """Changes of the guidance and of the trajectory; by default there are none.

    Raises ConfigError for values that cannot be.
    """

    guide_by: GuideBy = "log-p"  # what the classifier's gradient is of: see `guidance.divergence`
    divergence_weight: float = 1.0  # of that divergence, beside log p
    guide_every: int = 1  # that many steps apart, where the classifier guides at all
    weak_scale: float = 1.0  # of autoguidance; 1 is off: see `guidance.autoguidance`
    spacing: Spacing = "uniform"  # of the timesteps, for a number of steps: see `spacing`
    eps_scale: float = 1.0  # divides the predicted noise: see `process.scaled_eps`
    threshold: float | None = None  # quantile of `process.dynamic_threshold`; None: none
    temperature: float | None = 1.0  # of all noise; None: not chosen

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise ConfigError(f"{name} is one of {', '.join(choices)}, got {value!r:.40}")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None:
                _check_number(name, value, low, high)


def _check_number(name: str, value: object, low: float, high: float) -> None:
    whole = type(NEUTRAL[name]) is int
    if type(value) not in ((int,) if whole else (int, float)):
        raise ConfigError(f"{name} is a {'whole ' if whole else ''}number, got {value!r:.40}")
    assert isinstance(value, (int, float))
    if not low <= value <= high:  # NaN is not either
        raise ConfigError(f"{name} must be from {low:g} to {high:g}, got {value:g}")


NEUTRAL: Mapping[str, Any] = MappingProxyType(
    {field.name: field.default for field in dataclasses.fields(Modifiers)}
)


def modifiers(of: Modifiers) -> dict[str, Any]:
    """Every modifier of a configuration that has them."""
    return {name: getattr(of, name) for name in NEUTRAL}


def modified(of: Modifiers) -> dict[str, Any]:
    """Those that are not neutral."""
    return {name: value for name, value in modifiers(of).items() if value != NEUTRAL[name]}


def read_modifier(name: str, text: str) -> Any:
    """A value as it is typed; raises ConfigError for what is no number where one is meant."""
    if name in _CHOICES:
        return text.strip().lower()
    kind = int if type(NEUTRAL[name]) is int else float
    try:
        return kind(text)
    except ValueError:
        whole = "whole " if kind is int else ""
        raise ConfigError(f"{name} is a {whole}number, got {text!r:.40}") from None
