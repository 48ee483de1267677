"""How a run's pictures are edited: settings of its first stage, and a batch's trajectory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adm_cli.config import DiffusionConfig
from adm_cli.diffusion.editing import (
    Sampling,
    count_steps,
    inverted,
    noised,
    resampled,
    steps_left,
)
from adm_cli.diffusion.schedule import NoiseSchedule
from adm_cli.diffusion.steps import ModelFn, NoiseFn, SampleStep
from adm_cli.errors import ConfigError

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
                raise ConfigError(f"{name} must be from 1 to {_MOST}, got {value!r:.40}")
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


class EditedBatch(NamedTuple):
    """The pictures of a batch, in the model's range, and what is done with them."""

    x_0: Tensor  # [N, 3, H, W]
    drawn: Tensor | None  # bool [N, 1, H, W], what is drawn anew; None: all of it
    how: Editing

    def to(self, like: Tensor) -> EditedBatch:
        """Beside ``like``, in its precision."""
        drawn = None if self.drawn is None else self.drawn.to(like.device)
        return EditedBatch(self.x_0.to(like), drawn, self.how)

    def steps(
        self,
        sampling: Sampling,
        schedule: NoiseSchedule,
        x_T: Tensor,
        *,
        noise: NoiseFn,
        backwards: ModelFn,
        diffusion: DiffusionConfig,
    ) -> Iterator[SampleStep]:
        """Every step, counted down to 0.

        ``x_T`` is noise, ``backwards`` the model that inverts.
        """
        how = self.how
        left = steps_left(len(schedule), 1.0 if how.strength is None else how.strength)
        if left == 0:
            yield SampleStep(0, self._exact(), self._exact())
            return
        x, done = x_T, 0
        total = count_steps(left, invert=how.invert, resample=how.resample, jump=how.jump)
        if how.invert:
            x = self.x_0
            for step in inverted(
                backwards, schedule, x, left,
                prediction=diffusion.prediction, variance=diffusion.variance,
            ):  # fmt: skip
                x, done = step.x, done + 1
                yield step._replace(i=total - done)
        elif left < len(schedule):  # the whole way begins with nothing but noise
            x = noised(schedule, self.x_0, x_T, left)
        yield from resampled(
            sampling, schedule, x, left, noise=noise, resample=how.resample, jump=how.jump
        )

    def with_kept(self, x: Tensor) -> Tensor:
        """A finished x, with what is kept as it was."""
        return x if self.drawn is None else torch.where(self.drawn, x, self._exact())

    def _exact(self) -> Tensor:
        """The pictures, so that the very same values are cut from them (`images.to_uint8`)."""
        return self.x_0 + 0.5 / 127.5
