"""How a run's pictures are edited: settings of its first stage."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from adm_cli.diffusion.edit_steps import count_steps, steps_left
from adm_cli.errors import ConfigError, trim

_MOST = 1000  # of resampling, and of a jump


@dataclass(frozen=True, kw_only=True)
class Editing:
    """What a trajectory begins with; by default noise. Raises ConfigError for what cannot be."""

    strength: float | None = None  # share of the steps that is taken; None: nothing is edited
    invert: bool = False  # begins with the picture's latent, not with noise on it
    from_class: int | None = None  # what is on the picture, to the inversion; None: no class
    resample: int = 1  # times that each stretch of a masked picture's is drawn
    jump: int = 1  # steps of such a stretch

    def __post_init__(self) -> None:
        if self.strength is not None and not 0 <= self.strength <= 1:  # NaN is not either
            raise ConfigError(f"strength must be from 0 to 1, got {self.strength:g}")
        for name in ("resample", "jump"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= _MOST:
                raise ConfigError(f"{name} must be from 1 to {_MOST}, got {trim(value, 40)}")
        if self.from_class is not None and not self.invert:
            raise ConfigError("from_class is of an inversion: pass invert, too")

    def edited_steps(self, steps: int) -> int:
        """Evaluations of the network, of a schedule of ``steps``."""
        if self.strength is None:
            return steps
        left = steps_left(steps, self.strength)
        if left == 0:
            return 1
        return count_steps(left, invert=self.invert, resample=self.resample, jump=self.jump)


UNEDITED: Mapping[str, Any] = MappingProxyType(
    {field.name: field.default for field in dataclasses.fields(Editing)}
)


def editing(of: Editing) -> Editing:
    """That part of a stage's settings."""
    return Editing(**{name: getattr(of, name) for name in UNEDITED})
