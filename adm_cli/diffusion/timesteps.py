"""Which timesteps to train on: uniformly, spread evenly over each batch, or more often where the
loss is large.

T timesteps, B images.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class TimestepSampler(Protocol):
    """Draws timesteps, learns from their losses, and has a state that can be saved."""

    def probabilities(self) -> Tensor: ...  # float64 [T], sums to 1

    def update(self, t: Tensor, losses: Tensor) -> None: ...

    def state(self) -> dict[str, Tensor]: ...

    def load(self, state: dict[str, Tensor]) -> None: ...


def stratified(uniform: Tensor) -> Tensor:
    """Uniform numbers in [0, 1) [B] moved so that each B-th of [0, 1) holds one of them, in order.

    Each is uniform still, but a batch covers all noise levels: its mean loss varies less
    (arXiv 2107.00630, appendix I).
    """
    count = len(uniform)
    return ((torch.arange(count) + uniform.double()) / count).clamp(max=1 - 1e-9)


def draw_timesteps(sampler: TimestepSampler, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Timesteps int64 [B] for uniform numbers in [0, 1) [B], and their loss weights float32 [B].

    A weight is 1 / (T p(t)), which keeps the expected loss that of uniform sampling
    (arXiv 2102.09672, equation 18).
    """
    p = sampler.probabilities()
    cdf = p.cumsum(0)
    t = torch.searchsorted(cdf / cdf[-1], uniform.double(), right=True).clamp(max=len(p) - 1)
    return t, (1.0 / (len(p) * p[t])).float()


class UniformTimesteps:
    """Every timestep equally often."""

    def __init__(self, num_timesteps: int) -> None:
        self.num_timesteps = num_timesteps

    def probabilities(self) -> Tensor:
        return torch.full((self.num_timesteps,), 1.0 / self.num_timesteps, dtype=torch.float64)

    def update(self, t: Tensor, losses: Tensor) -> None:
        pass

    def state(self) -> dict[str, Tensor]:
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        pass


class LossSecondMomentTimesteps:
    """p(t) proportional to sqrt(E[loss^2]) of its last losses (arXiv 2102.09672, equation 18).

    Uniform until every timestep has ``history`` of them; ``uniform`` is the probability shared
    out evenly ever after, so that no timestep is forgotten. Meant for the variational loss.
    """

    def __init__(self, num_timesteps: int, history: int = 10, uniform: float = 0.001) -> None:
        self.uniform = uniform
        self.losses = torch.zeros(num_timesteps, history, dtype=torch.float64)  # oldest first
        self.counts = torch.zeros(num_timesteps, dtype=torch.int64)

    def probabilities(self) -> Tensor:
        count, history = self.losses.shape
        weights = torch.ones(count, dtype=torch.float64)
        if bool((self.counts == history).all()):
            weights = (self.losses**2).mean(dim=1).sqrt()
            weights = weights / weights.sum() * (1 - self.uniform) + self.uniform / count
        return weights / weights.sum()

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Losses [B], already without the sampler's weights, of timesteps t [B]."""
        for i, loss in zip(t.tolist(), losses.tolist(), strict=True):
            n = int(self.counts[i])
            if n == self.losses.shape[1]:
                self.losses[i] = self.losses[i].roll(-1)
                self.losses[i, -1] = loss
            else:
                self.losses[i, n] = loss
                self.counts[i] += 1

    def state(self) -> dict[str, Tensor]:
        return {"losses": self.losses.clone(), "counts": self.counts.double()}

    def load(self, state: dict[str, Tensor]) -> None:
        self.losses = state["losses"].clone()
        self.counts = state["counts"].long()


TIMESTEP_SAMPLERS: dict[str, type[UniformTimesteps] | type[LossSecondMomentTimesteps]] = {
    "uniform": UniformTimesteps,
    "stratified": UniformTimesteps,  # of `stratified` numbers
    "loss-second-moment": LossSecondMomentTimesteps,
}
