"""A mixture of Gaussians whose noise prediction and noisy classifier are known exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from adm_cli.diffusion.schedule import NoiseSchedule


@dataclass(frozen=True)
class Mixture:
    """x_0 of class k is N(means[k], variance); all classes are equally likely."""

    schedule: NoiseSchedule
    means: Tensor  # [K, C, H, W]
    variance: float = 0.1

    def at(self, t: Tensor) -> tuple[float, float]:
        """abar, and the variance of each class's x_t, at original timestep ``t`` [B]."""
        place = self.schedule.timesteps.tolist().index(int(t[0]))
        abar = float(self.schedule.alphas_cumprod[place])
        return abar, abar * self.variance + 1 - abar

    def logits(self, x: Tensor, t: Tensor) -> Tensor:
        """[B, K], the exact classifier of x_t."""
        abar, total = self.at(t)
        away = x[:, None] - math.sqrt(abar) * self.means  # [B, K, C, H, W]
        return -(away**2).flatten(2).sum(-1) / (2 * total)

    def pulls(self, x: Tensor, t: Tensor) -> Tensor:
        """[B, K, C, H, W], the gradient of each logit."""
        abar, total = self.at(t)
        return (math.sqrt(abar) * self.means - x[:, None]) / total

    def eps(self, x: Tensor, t: Tensor) -> Tensor:
        """The exact noise prediction without a class."""
        p = self.logits(x, t).softmax(-1)[:, :, None, None, None]
        score = (p * self.pulls(x, t)).sum(1)
        return -math.sqrt(1 - self.at(t)[0]) * score

    def eps_of(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """That of the classes ``y`` [B]."""
        score = self.pulls(x, t)[torch.arange(len(y)), y]
        return -math.sqrt(1 - self.at(t)[0]) * score


def three_classes(timesteps: int = 100) -> Mixture:
    means = torch.tensor([[-0.8, 0.2], [0.1, 0.9], [0.7, -0.6]], dtype=torch.float64)
    return Mixture(NoiseSchedule.linear(timesteps), means.reshape(3, 1, 1, 2))


def noisy(mixture: Mixture, t: int, count: int = 8) -> tuple[Tensor, Tensor]:
    """Some x_t, and t for each."""
    generator = torch.Generator().manual_seed(t)
    x = torch.randn(count, *mixture.means.shape[1:], generator=generator, dtype=torch.float64)
    return x, torch.full((count,), t)
