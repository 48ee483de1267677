"""Steering a sampler: by the gradient of a classifier (arXiv 2105.05233, section 4), by the
model's own output without a class (arXiv 2207.12598), or by a weaker model's (arXiv 2406.02507).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import torch
import torch.nn.functional as F
from torch import Tensor

from adm_cli.diffusion.modifiers import GuideBy
from adm_cli.diffusion.schedule import common_timestep

ClassifierFn = Callable[[Tensor, Tensor], Tensor]  # (x_t, original t) -> logits [B, K]
Guidance = Callable[[Tensor, Tensor], Tensor]  # (x_t, original t) -> scaled gradient, like x_t
LabelledFn = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x_t, original t, labels) -> raw output


_LEAST_ENTROPY = 1e-6  # nats; there the gradient is nothing but rounding
_TARGET = 0.9  # probability of the class in what divergences compare with, the rest shared by all


def classifier_gradient(
    classifier: ClassifierFn,
    x_t: Tensor,
    t: Tensor,
    y: Tensor,
    *,
    entropy_scaling: bool = False,
    guide_by: GuideBy = "log-p",
    divergence_weight: float = 1.0,
) -> Tensor:
    """The gradient of log p(y | x_t, t) with respect to x_t, [B, C, H, W].

    ``y`` [B] int64 class ids. The images of a batch do not influence each other, so the sum of
    their log-probabilities is differentiated once. ``entropy_scaling`` multiplies each image's
    gradient by log K over the entropy of the classifier's K probabilities (arXiv 2206.11474,
    section 3.2), which keeps guidance alive where the classifier is sure already. ``guide_by`` a
    `divergence` takes the gradient of log p minus ``divergence_weight`` times that instead.
    """
    with torch.enable_grad():
        x = x_t.detach().requires_grad_(True)
        log_probs = F.log_softmax(classifier(x, t), dim=-1)  # [B, K]
        chosen = log_probs.gather(1, y[:, None])
        if guide_by != "log-p":
            chosen = chosen - divergence_weight * divergence(log_probs, y, guide_by)[:, None]
        (gradient,) = torch.autograd.grad(chosen.sum(), x)
    return gradient * _entropy_factor(log_probs.detach()) if entropy_scaling else gradient


def divergence(log_probs: Tensor, y: Tensor, kind: GuideBy) -> Tensor:
    """How far a classifier's probabilities p are from a target q of the classes ``y``, [B] nats.

    q is 0.9 for the class and 0.1 shared out over all K, so that its distance never vanishes where
    p is 1 (arXiv 2511.05844, section 3). "rkl" is KL(q || p), which minds every class; "fkl" is
    KL(p || q), which minds those that p names; "js" is the mean of both ways from their middle.
    (Which KL is called reverse is the paper's word.) ``log_probs`` [B, K], ``y`` [B] int64.
    """
    count = log_probs.shape[-1]
    q = torch.full_like(log_probs, (1 - _TARGET) / count)
    q = q.scatter_add(1, y[:, None], torch.full_like(q[:, :1], _TARGET))
    log_probs = log_probs.clamp(min=-1e4)  # 0 * log 0 is 0
    p, log_q = log_probs.exp(), q.log()
    if kind == "rkl":
        return (q * (log_q - log_probs)).sum(-1)
    if kind == "fkl":
        return (p * (log_probs - log_q)).sum(-1)
    log_middle = torch.logaddexp(log_probs, log_q) - math.log(2)
    return (p * (log_probs - log_middle) + q * (log_q - log_middle)).sum(-1) / 2


def _entropy_factor(log_probs: Tensor) -> Tensor:
    """log K / H(p), at least 1, [B, 1, 1, 1] of [B, K]."""
    terms = log_probs.exp() * log_probs.clamp(min=-1e4)  # 0 * log 0 is 0
    entropy = -terms.sum(-1)
    factor = math.log(log_probs.shape[-1]) / entropy.clamp(min=_LEAST_ENTROPY)
    return factor.reshape(-1, 1, 1, 1)


def classifier_guidance(
    classifier: ClassifierFn,
    y: Tensor,
    scale: float | Tensor,
    *,
    entropy_scaling: bool = False,
    guide_by: GuideBy = "log-p",
    divergence_weight: float = 1.0,
) -> Guidance:
    """`classifier_gradient` for fixed labels, times ``scale``: one, or [B, 1, 1, 1] of them.

    A sampler takes any function of this form, so a modifier such as `limited_guidance` wraps one
    and returns another.
    """

    def guidance(x_t: Tensor, t: Tensor) -> Tensor:
        gradient = classifier_gradient(
            classifier, x_t, t, y,
            entropy_scaling=entropy_scaling, guide_by=guide_by, divergence_weight=divergence_weight,
        )  # fmt: skip
        return gradient * scale

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


def guidance_at(guidance: Guidance, timesteps: Collection[int]) -> Guidance:
    """``guidance`` at these original timesteps alone; in between there is none, nor a call.

    Gradients are not kept for the steps in between, as an old one belongs to another x_t: with
    every second step guided the scale must be twice as large for as much guidance in all.
    """

    def at_times(x_t: Tensor, t: Tensor) -> Tensor:
        return guidance(x_t, t) if common_timestep(t) in timesteps else torch.zeros_like(x_t)

    return at_times


def autoguidance(
    model_fn: Callable[..., Tensor], weak_fn: Callable[..., Tensor], weight: float
) -> Callable[..., Tensor]:
    """A model function led away from a weaker one's errors (arXiv 2406.02507, equation 3).

    Both functions take x_t, original t and, where they know any, labels; the output is the first
    one's plus ``weight`` - 1 times its difference from the second's: 1 is the model itself. Right
    for eps, x_0 and v alike, as in `classifier_free`, which may guide the result in turn. Both
    must predict the same; variance channels, those beyond x_t's, stay the first one's.
    """

    def guided(x_t: Tensor, t: Tensor, *labels: Tensor) -> Tensor:
        channels = x_t.shape[1]
        output = model_fn(x_t, t, *labels)
        strong, weak = output[:, :channels], weak_fn(x_t, t, *labels)[:, :channels]
        return torch.cat([strong + (weight - 1) * (strong - weak), output[:, channels:]], dim=1)

    return guided


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
