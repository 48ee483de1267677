"""Which images of a batch overflowed on the way: without waiting for the device at every step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from adm_cli.diffusion.steps import ModelFn


class FiniteWatch:
    """What was not finite for one of B images, wherever it happened, is seen in `marked`.

    The formulas of a step pass NaN on from pixel to pixel, to the last step's x. What they may
    leave out is the rest of a network's output, such as variances that a sampler does not use.
    """

    def __init__(self) -> None:
        self._finite: Tensor | None = None  # bool [B], on the device

    def watched(self, function: ModelFn) -> ModelFn:
        """``function``, a network or a guidance, its output [B, ...] looked at."""

        def watching(x_t: Tensor, t: Tensor) -> Tensor:
            found = function(x_t, t)
            self._see(found)
            return found

        return watching

    def marked(self, x: Tensor) -> Tensor:
        """``x`` [B, C, H, W], NaN in every place of an image that was not finite somewhere."""
        finite = self._see(x)
        return torch.where(finite[:, None, None, None], x, math.nan)

    def _see(self, values: Tensor) -> Tensor:
        finite = finite_images(values)
        self._finite = finite if self._finite is None else self._finite & finite
        return self._finite


def finite_images(x: Tensor) -> Tensor:
    """bool [B]: which of ``x`` [B, ...] hold neither NaN nor infinite values."""
    return x.isfinite().flatten(1).all(dim=1)
