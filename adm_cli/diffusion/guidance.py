"""Steering a sampler by the gradient of a classifier (arXiv 2105.05233, section 4)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

ClassifierFn = Callable[[Tensor, Tensor], Tensor]  # (x_t, original t) -> logits [B, K]
Guidance = Callable[[Tensor, Tensor], Tensor]  # (x_t, original t) -> scaled gradient, like x_t


_LEAST_ENTROPY = 1e-6  # nats; there the gradient is nothing but rounding


def classifier_gradient(
    classifier: ClassifierFn, x_t: Tensor, t: Tensor, y: Tensor, *, entropy_scaling: bool = False
) -> Tensor:
    """The gradient of log p(y | x_t, t) with respect to x_t, [B, C, H, W].

    ``y`` [B] int64 class ids. The images of a batch do not influence each other, so the sum of
    their log-probabilities is differentiated once. ``entropy_scaling`` multiplies each image's
    gradient by log K over the entropy of the classifier's K probabilities (arXiv 2206.11474,
    section 3.2), which keeps guidance alive where the classifier is sure already.
    """
    with torch.enable_grad():
        x = x_t.detach().requires_grad_(True)
        log_probs = F.log_softmax(classifier(x, t), dim=-1)  # [B, K]
        chosen = log_probs.gather(1, y[:, None])
        (gradient,) = torch.autograd.grad(chosen.sum(), x)
    return gradient * _entropy_factor(log_probs.detach()) if entropy_scaling else gradient


def _entropy_factor(log_probs: Tensor) -> Tensor:
    """log K / H(p), at least 1, [B, 1, 1, 1] of [B, K]."""
    terms = log_probs.exp() * log_probs.clamp(min=-1e4)  # 0 * log 0 is 0
    entropy = -terms.sum(-1)
    factor = math.log(log_probs.shape[-1]) / entropy.clamp(min=_LEAST_ENTROPY)
    return factor.reshape(-1, 1, 1, 1)


def classifier_guidance(
    classifier: ClassifierFn, y: Tensor, scale: float | Tensor, *, entropy_scaling: bool = False
) -> Guidance:
    """`classifier_gradient` for fixed labels, times ``scale``: one, or [B, 1, 1, 1] of them.

    A sampler takes any function of this form, so a modifier such as `limited_guidance` wraps one
    and returns another.
    """

    def guidance(x_t: Tensor, t: Tensor) -> Tensor:
        return classifier_gradient(classifier, x_t, t, y, entropy_scaling=entropy_scaling) * scale

    return guidance


def limited_guidance(guidance: Guidance, first: float, last: float) -> Guidance:
    """``guidance`` at original timesteps from ``first`` to ``last``, both included, else none.

    Harmful where noise is high, needless where it is low (arXiv 2404.07724). All images of a
    batch are at the same timestep; where there is no guidance the classifier is not called.
    """

    def limited(x_t: Tensor, t: Tensor) -> Tensor:
        if first <= int(t[0]) <= last:
            return guidance(x_t, t)
        return torch.zeros_like(x_t)

    return limited
