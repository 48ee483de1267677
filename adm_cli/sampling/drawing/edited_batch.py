"""A batch of pictures that are edited: where its trajectory begins, and what is kept of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from adm_cli.config import DiffusionConfig
from adm_cli.diffusion.edit_steps import count_steps, steps_left
from adm_cli.diffusion.editing import Sampling, inverted, noised, resampled
from adm_cli.diffusion.schedule import NoiseSchedule
from adm_cli.diffusion.steps import ModelFn, NoiseFn, SampleStep
from adm_cli.sampling.editing import Editing


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
        how, left = self.how, self._left(schedule)
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

    def walked(self, schedule: NoiseSchedule) -> NoiseSchedule:
        """The part of ``schedule`` that is taken; all of it where that is nothing."""
        left = self._left(schedule)
        return schedule.keep(range(left)) if 0 < left < len(schedule) else schedule

    def _left(self, schedule: NoiseSchedule) -> int:
        strength = self.how.strength
        return steps_left(len(schedule), 1.0 if strength is None else strength)

    def with_kept(self, x: Tensor) -> Tensor:
        """A finished x, with what is kept as it was."""
        return x if self.drawn is None else torch.where(self.drawn, x, self._exact())

    def _exact(self) -> Tensor:
        """The pictures, so that the very same values are cut from them (`images.to_uint8`)."""
        return self.x_0 + 0.5 / 127.5
