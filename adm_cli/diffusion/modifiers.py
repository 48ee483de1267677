"""What may be changed about how a model is sampled, beyond the original's settings.

One home for each: a field here is a setting of `SamplingConfig`, of a run's `Stage` and so of every
recipe, and an axis of a sweep. What is as here changes nothing, and is not written down. `Changes`
and `Swept` say what `adm_cli.sample` and `adm_cli.sweep` take for it, ``commands/options`` what is
typed, in a name alike: ``EpsScale``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypedDict, get_args

from adm_cli.errors import ConfigError, UsageError, did_you_mean, one_of, trim
from adm_cli.files.strict import check_types

GuideBy = Literal["log-p", "rkl", "fkl", "js"]
Spacing = Literal["uniform", "trailing", "quadratic", "log-snr", "rho", "lsun"]
ScaleSchedule = Literal["constant", "linear", "cosine", "sine"]
ClassifierOn = Literal["xt", "x0"]

_RANGES: dict[str, tuple[float, float]] = {
    "divergence_weight": (0, 1000),
    "guide_every": (1, 10**6),
    "negative_class": (0, 10**6),
    "weak_scale": (-1000, 1000),
    "sag_scale": (-1000, 1000),
    "pag_scale": (-1000, 1000),
    "eps_scale": (0.5, 2),
    "threshold": (0.5, 1),
    "churn": (0, 10**6),
    "churn_noise": (0, 2),
    "churn_min": (0, 10**6),
    "churn_max": (0, 10**6),
    "temperature": (0, 2),
}
_CHOICES: dict[str, tuple[str, ...]] = {
    "guide_by": get_args(GuideBy),
    "classifier_on": get_args(ClassifierOn),
    "scale_schedule": get_args(ScaleSchedule),
    "spacing": get_args(Spacing),
}
_ALSO_CALLED = {"karras": "rho", "edm": "rho", "linspace": "uniform", "leading": "uniform"}
_WHOLE = ("guide_every", "negative_class")  # numbers
_BETAS = re.compile(r"(0(?:\.\d{1,9})?)/(0(?:\.\d{1,9})?)", re.ASCII)
# These have no meaning without a classifier ...
OF_GUIDANCE = ("guide_by", "divergence_weight", "guide_every", "guide_adam", "classifier_on")
# ... and these where neither it nor the model itself guides.
OF_EITHER_GUIDANCE = ("scale_schedule", "negative_class")
# These are not about guidance at all: an upsampler takes them too.
OF_CHURN = ("churn", "churn_noise", "churn_min", "churn_max")
OF_TRAJECTORY = ("spacing", "eps_scale", "threshold", *OF_CHURN, "temperature")
# These say more of another one, and have no meaning where that is off.
PART_OF: Mapping[str, str] = MappingProxyType(
    {"divergence_weight": "guide_by", **dict.fromkeys(OF_CHURN[1:], "churn")}
)


@dataclass(frozen=True, kw_only=True)
class Modifiers:
    """Changes of the guidance and of the trajectory; by default there are none.

    Raises ConfigError for values that cannot be.
    """

    guide_by: GuideBy = "log-p"  # what the classifier's gradient is of: see `guidance.divergence`
    divergence_weight: float = 1.0  # of that divergence, beside log p
    guide_every: int = 1  # that many steps apart, where the classifier guides at all
    guide_adam: str | None = None  # betas, "0.9/0.995": see `guidance.adaptive_moments`
    classifier_on: ClassifierOn = "xt"  # what it sees: x_t, or the predicted x_0
    scale_schedule: ScaleSchedule = "constant"  # over noise: see `guidance.schedule_factor`
    negative_class: int | None = None  # led away from; of --cfg, instead of no class
    weak_scale: float = 1.0  # of autoguidance; 1 is off: see `guidance.worse`
    sag_scale: float = 1.0  # of self-attention guidance; 1 is off: see `self_attention`
    pag_scale: float = 1.0  # of perturbed-attention guidance; 1 is off: as autoguidance
    spacing: Spacing = "uniform"  # of the timesteps, for a number of steps: see `spacing`
    eps_scale: float = 1.0  # divides the predicted noise: see `process.scaled_eps`
    threshold: float | None = None  # quantile of `process.dynamic_threshold`; None: none
    churn: float = 0.0  # of `multistep.heun_sample`, over all its steps
    churn_noise: float = 1.0  # multiplies the noise of churn: EDM's S_noise
    churn_min: float = 0.05  # churn acts where sigma is from here to churn_max: S_tmin ...
    churn_max: float = 50.0  # ... and S_tmax of arXiv 2206.00364, table 5, for ADM's ImageNet-64
    temperature: float | None = 1.0  # of all noise; None: not chosen

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                said = f"{name} must be {one_of(choices)}, got {trim(value, 40)}"
                raise ConfigError(said + _meant(value, choices))
        check_types(self)
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:  # NaN is not either
                raise ConfigError(f"{name} must be from {low:,} to {high:,}, got {value:g}")
        if self.guide_adam is not None:
            adam_betas(self.guide_adam)
        if self.churn_min > self.churn_max:
            raise ConfigError(
                f"churn_min {self.churn_min:g} is above churn_max {self.churn_max:g}: no step "
                f"would be churned"
            )
        if self.guide_every > 1 and self.churn > 0:
            raise ConfigError(
                "guide_every counts the timesteps of the steps, and churn evaluates at others: "
                "leave one out"
            )


def _meant(value: object, choices: tuple[str, ...]) -> str:
    """A guess at what was meant, or nothing."""
    meant = _ALSO_CALLED.get(str(value))
    return f": here it is {meant}" if meant in choices else did_you_mean(str(value), choices)


def adam_betas(text: str) -> tuple[float, float]:
    """``0.9/0.995`` as numbers; raises ConfigError for anything but two in [0, 1)."""
    found = _BETAS.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"guide_adam must be two betas below 1, such as 0.9/0.995, got {trim(text, 40)}"
        )
    return float(found[1]), float(found[2])


NEUTRAL: Mapping[str, Any] = MappingProxyType(
    {field.name: field.default for field in dataclasses.fields(Modifiers)}
)
NUMBERS = tuple(name for name in NEUTRAL if name in _RANGES and name != "negative_class")


OFF = "none"  # what is typed for None where that is neutral, as None is what nobody asked for
UNASKED: Mapping[str, Any] = MappingProxyType(dict.fromkeys(NEUTRAL))


class Changes(TypedDict, total=False):
    """Modifiers as `adm_cli.sample` takes them; None is what nobody asked for."""

    guide_by: str | None
    divergence_weight: float | None
    guide_every: int | None
    guide_adam: str | None
    classifier_on: str | None
    scale_schedule: str | None
    negative_class: str | int | None  # an id or a name
    weak_scale: float | None
    sag_scale: float | None
    pag_scale: float | None
    spacing: str | None
    eps_scale: float | None
    threshold: float | str | None
    churn: float | None
    churn_noise: float | None
    churn_min: float | None
    churn_max: float | None
    temperature: float | None


class Swept(TypedDict, total=False):
    """Modifiers as `adm_cli.sweep` takes them: a value or several; "1,1.5" are two."""

    guide_by: str | Sequence[str] | None
    divergence_weight: str | float | Sequence[float] | None
    guide_every: str | int | Sequence[int] | None
    guide_adam: str | Sequence[str] | None
    classifier_on: str | Sequence[str] | None
    scale_schedule: str | Sequence[str] | None
    negative_class: str | int | Sequence[str | int] | None
    weak_scale: str | float | Sequence[float] | None
    sag_scale: str | float | Sequence[float] | None
    pag_scale: str | float | Sequence[float] | None
    spacing: str | Sequence[str] | None
    eps_scale: str | float | Sequence[float] | None
    threshold: str | float | Sequence[float] | None
    churn: str | float | Sequence[float] | None
    churn_noise: str | float | Sequence[float] | None
    churn_min: str | float | Sequence[float] | None
    churn_max: str | float | Sequence[float] | None
    temperature: str | float | Sequence[float] | None


def modifiers(of: Modifiers) -> dict[str, Any]:
    """Every modifier of a configuration that has them."""
    return {name: getattr(of, name) for name in NEUTRAL}


def modified(of: Modifiers) -> dict[str, Any]:
    """Those that are not neutral."""
    return {name: value for name, value in modifiers(of).items() if value != NEUTRAL[name]}


def unused_parts(of: Modifiers) -> dict[str, Any]:
    """The parts of what is off, neutral."""
    off = [part for part, whole in PART_OF.items() if getattr(of, whole) == NEUTRAL[whole]]
    return {name: NEUTRAL[name] for name in off}


def check_parts(of: Modifiers) -> None:
    """Raises UsageError for a part of a modifier that is off."""
    for name, value in unused_parts(of).items():
        if getattr(of, name) != value:
            whole = option_name(PART_OF[name])
            raise UsageError(f"{option_name(name)} has no meaning without {whole}: pass that, too")


def option_name(keyword: str) -> str:
    """``guide_by`` as it is typed, ``--guide-by``."""
    return "--" + keyword.replace("_", "-")


def read_modifier(name: str, text: str) -> Any:
    """A value as it is typed; raises ConfigError for what is no number where one is meant."""
    if NEUTRAL[name] is None and text.strip().lower() == OFF:
        return None
    if name in _CHOICES:
        return text.strip().lower()
    if name == "guide_adam":
        return text.strip()
    kind = int if name in _WHOLE else float
    try:
        return kind(text)
    except ValueError:
        whole = "whole " if kind is int else ""
        raise ConfigError(f"{name} must be a {whole}number, got {trim(text, 40)}") from None
