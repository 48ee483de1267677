"""Steering a sampler: by the gradient of a classifier (arXiv 2105.05233, section 4), or by the
model's own output without a class (arXiv 2207.12598).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from adm_cli.diffusion.schedule import common_timestep

ClassifierFn = Callable[[Tensor, Tensor], Tensor]  # (x_t, original t) -> logits [B, K]
Guidance = Callable[[Tensor, Tensor], Tensor]  # (x_t, original t) -> scaled gradient, like x_t
LabelledFn = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x_t, original t, labels) -> raw output


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
        if first <= common_timestep(t) <= last:
            return guidance(x_t, t)
        return torch.zeros_like(x_t)

    return limited


def classifier_free(
    model_fn: LabelledFn,
    y: Tensor,
    no_class: Tensor,
    weight: float | Tensor,
    *,
    first: float = -math.inf,
    last: float = math.inf,
) -> Callable[[Tensor, Tensor], Tensor]:
    """A model function with classifier-free guidance (arXiv 2207.12598, equation 6).

    The output for the labels ``y`` [B] plus ``weight`` - 1 (one, or [B, 1, 1, 1] of them) times
    its difference from that for ``no_class`` [B]: 1 is the model itself, 0 the model without a
    class. (The paper's own w is ``weight`` - 1.) Right for predictions of eps, x_0 and v alike,
    as each is affine in the others and the two outputs' weights sum to 1. Variance channels,
    those beyond x_t's, stay ``y``'s.

    Both outputs come from one evaluation of 2B images. At original timesteps outside of ``first``
    to ``last``, both included, there is one of B images with ``y`` alone (arXiv 2404.07724).
    """
    labels = torch.cat([y, no_class])
    # In float64, so that an image's product is the same bits with one weight and with many.
    excess = torch.as_tensor(weight, dtype=torch.float64) - 1
    moved: dict[tuple[torch.device, torch.dtype], Tensor] = {}  # once for each place

    def guided(x_t: Tensor, t: Tensor) -> Tensor:
        if not first <= common_timestep(t) <= last:
            return model_fn(x_t, t, y)
        channels = x_t.shape[1]
        both = model_fn(torch.cat([x_t, x_t]), torch.cat([t, t]), labels)  # [2B, C or 2C, H, W]
        with_class, without = both.chunk(2)
        difference = (with_class - without)[:, :channels]
        place = (both.device, both.dtype)
        if place not in moved:
            moved[place] = excess.to(both)
        prediction = with_class[:, :channels] + moved[place] * difference
        return torch.cat([prediction, with_class[:, channels:]], dim=1)

    return guided
