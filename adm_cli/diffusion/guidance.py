"""Steering a sampler by the gradient of a classifier (arXiv 2105.05233, section 4)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

ClassifierFn = Callable[[Tensor, Tensor], Tensor]  # (x_t, original t) -> logits [B, K]
Guidance = Callable[[Tensor, Tensor], Tensor]  # (x_t, original t) -> scaled gradient, like x_t


def classifier_gradient(classifier: ClassifierFn, x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """The gradient of log p(y | x_t, t) with respect to x_t, [B, C, H, W].

    ``y`` [B] int64 class ids. The images of a batch do not influence each other, so the sum of
    their log-probabilities is differentiated once.
    """
    with torch.enable_grad():
        x = x_t.detach().requires_grad_(True)
        log_probs = F.log_softmax(classifier(x, t), dim=-1)  # [B, K]
        chosen = log_probs.gather(1, y[:, None])
        (gradient,) = torch.autograd.grad(chosen.sum(), x)
    return gradient


def classifier_guidance(classifier: ClassifierFn, y: Tensor, scale: float | Tensor) -> Guidance:
    """``classifier_gradient`` for fixed labels, times ``scale``: one, or [B, 1, 1, 1] of them.

    A sampler takes any function of this form, so a modifier (an interval, an entropy-dependent
    scale) wraps one and returns another.
    """

    def guidance(x_t: Tensor, t: Tensor) -> Tensor:
        return classifier_gradient(classifier, x_t, t, y) * scale

    return guidance
