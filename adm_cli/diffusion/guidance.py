"""Steering a sampler: by the gradient of a classifier (arXiv 2105.05233, section 4), by the
model's own output without a class (arXiv 2207.12598), or by a weaker model's (arXiv 2406.02507).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from adm_cli.classes.tensors import check_class_ids
from adm_cli.diffusion.modifiers import GuideBy, ScaleSchedule
from adm_cli.diffusion.schedule import common_timestep, timestep_everywhere

ClassifierFn = Callable[[Tensor, Tensor], Tensor]  # (x_t, original t) -> logits [B, K]
Guidance = Callable[[Tensor, Tensor], Tensor]  # (x_t, original t) -> scaled gradient, like x_t
LabelledFn = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x_t, original t, labels) -> raw output
Factor = Callable[[int], float]  # original t -> what a scale is multiplied with there
# (x_t, original t, a model's raw output, labels) -> its difference from a worse one, like x_t
Difference = Callable[..., Tensor]


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

    ``y`` [B] int64 class ids, or weights [B, K]: then the gradient of the sum of weight * log p
    over the K classes, as for mixtures (shares that sum to 1) and classes to lead away from
    (-1). The images of a batch do not influence each other, so the sum of
    their log-probabilities is differentiated once. ``entropy_scaling`` multiplies each image's
    gradient by log K over the entropy of the classifier's K probabilities (arXiv 2206.11474,
    section 3.2), which keeps guidance alive where the classifier is sure already. ``guide_by`` a
    `divergence` takes the gradient of log p minus ``divergence_weight`` times that instead.
    Raises ValueError for labels of other shapes and, on a CPU, ids that the classifier has not.
    """
    _check_labels(y, x_t)
    with torch.inference_mode(False):  # which also turns gradients on
        x, y = _lasting(x_t).detach().requires_grad_(True), _lasting(y)
        log_probs = F.log_softmax(classifier(x, t), dim=-1)  # [B, K]
        if y.dim() == 1:
            check_class_ids(y, log_probs.shape[1])
        chosen = _chosen(log_probs, y)
        if guide_by != "log-p":
            chosen = chosen - divergence_weight * divergence(log_probs, y, guide_by)[:, None]
        (gradient,) = torch.autograd.grad(chosen.sum(), x)
    return gradient * _entropy_factor(log_probs.detach()) if entropy_scaling else gradient


def _lasting(x: Tensor) -> Tensor:
    """As autograd may keep it: nothing that was made in `torch.inference_mode`."""
    return x.clone() if x.is_inference() else x


def _check_labels(y: Tensor, x_t: Tensor) -> None:
    shape = list(y.shape) if isinstance(y, Tensor) else []  # a number is no label for each
    if len(shape) not in (1, 2) or shape[0] != len(x_t) or shape[1:] == [1]:
        raise ValueError(
            f"y must hold a class id for each of {len(x_t)} images, [{len(x_t)}], or weights of "
            f"all classes, [{len(x_t)}, K]; got {shape or y}"
        )


def _chosen(log_probs: Tensor, y: Tensor) -> Tensor:
    """[B, 1], the log-probabilities of ids [B], or sums of weights [B, K] times them."""
    if y.dim() == 1:
        return log_probs.gather(1, y[:, None])
    return torch.where(y == 0, 0, y * log_probs).sum(-1, keepdim=True)


def divergence(log_probs: Tensor, y: Tensor, kind: GuideBy) -> Tensor:
    """How far a classifier's probabilities p are from a target q of the classes ``y``, [B] nats.

    D_f(q || p) = sum_i q_i f(p_i / q_i), as arXiv 2511.05844 has it, where guidance is the gradient
    of log p_y - weight * D_f: class i's gradient of log p_i counts -weight * p_i f'(p_i / q_i).
    "rkl", f(r) = -log r, is KL(q || p), which minds every class; "fkl", f(r) = r log r, is
    KL(p || q), which minds those that p names; "js" is the Jensen-Shannon divergence, the mean of
    both from their middle m = (p + q) / 2, f'(r) = log(2r / (1 + r)) / 2. (Which KL is called
    reverse is the paper's word.) The target is the paper's label with smoothing, so that its
    distance never vanishes where p is 1: 0.9, a choice of ours, for the class and 0.1 shared out
    over all K. The paper's temperatures of the classifier are not part of this: both are 1.

    ``log_probs`` [B, K], ``y`` [B] int64, or weights [B, K], of which the positive ones share the
    0.9.
    """
    count = log_probs.shape[-1]
    q = torch.full_like(log_probs, (1 - _TARGET) / count)
    if y.dim() == 1:
        q = q.scatter_add(1, y[:, None], torch.full_like(q[:, :1], _TARGET))
    else:
        q = q + _TARGET * y.clamp(min=0)
    log_probs = log_probs.clamp(min=-1e4)  # 0 * log 0 is 0
    p, log_q = log_probs.exp(), q.log()
    if kind == "rkl":
        return (q * (log_q - log_probs)).sum(-1)
    if kind == "fkl":
        return (p * (log_probs - log_q)).sum(-1)
    if kind != "js":
        raise ValueError(f"unknown divergence {kind!r}: expected rkl, fkl or js")
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
    and returns another. Raises ValueError for scales of another shape.
    """
    _check_scale(scale)

    def guidance(x_t: Tensor, t: Tensor) -> Tensor:
        gradient = classifier_gradient(
            classifier, x_t, t, y,
            entropy_scaling=entropy_scaling, guide_by=guide_by, divergence_weight=divergence_weight,
        )  # fmt: skip
        return gradient * scale

    return guidance


def _check_scale(scale: float | Tensor) -> None:
    """[B] would be a scale for each column of as wide an image."""
    if isinstance(scale, Tensor) and scale.dim() not in (0, 4):
        raise ValueError(
            f"a scale must be one number or [B, 1, 1, 1], got {list(scale.shape)}: "
            f"scale.reshape(-1, 1, 1, 1) makes it so"
        )


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


def adaptive_moments(guidance: Guidance, beta1: float, beta2: float) -> Guidance:
    """``guidance`` over its own size, by Adam's moments (AdamCG, arXiv 2603.16797, eqs. 10 and 11).

    Every value g of the gradient becomes m / (sqrt(v) + 1e-8), where m and v are the running means
    of g and g^2 by ``beta1`` and ``beta2``, in [0, 1), over the calls so far, each divided by
    1 - beta^k after k calls. The first call gives signs alone, and all are about 1 large: a scale
    for it is far smaller than for a gradient (the paper's best is 0.029). One of these is for one
    trajectory of a batch, whose values do not influence each other.
    """
    m = v = torch.zeros((), device="cpu")
    calls = 0

    def normalised(x_t: Tensor, t: Tensor) -> Tensor:
        nonlocal m, v, calls
        gradient = guidance(x_t, t)
        m, v = m.to(gradient), v.to(gradient)
        m = beta1 * m + (1 - beta1) * gradient
        v = beta2 * v + (1 - beta2) * gradient**2
        calls += 1
        return m / (1 - beta1**calls) / ((v / (1 - beta2**calls)).sqrt() + 1e-8)

    return normalised


def schedule_factor(schedule: ScaleSchedule, level: float) -> float:
    """What a guidance scale is multiplied with at noise ``level``, from 0, none, to 1, T - 1.

    All have the mean 1 over the levels. "linear", 2 (1 - level), and "cosine", 1 + cos(pi level),
    rise while the noise falls (as in arXiv 2404.13040); "sine", pi / 2 sin(pi level), is
    strongest in the middle.
    """
    if schedule == "linear":
        return 2 * (1 - level)
    if schedule == "cosine":
        return 1 + math.cos(math.pi * level)
    return math.pi / 2 * math.sin(math.pi * level) if schedule == "sine" else 1.0


def scaled_guidance(guidance: Guidance, factor: Factor) -> Guidance:
    """``guidance`` times a factor of the timestep."""
    return lambda x_t, t: guidance(x_t, t) * factor(common_timestep(t))


def guidance_on_xstart(
    guidance: Guidance, pred_xstart: Callable[[Tensor, Tensor], Tensor]
) -> Guidance:
    """``guidance`` of the x_0 that the model predicts, as if it were x_t and there were no noise.

    For classifiers of clean pictures. The gradient is that with respect to the prediction, and
    stands for the one with respect to x_t, as in EluCD (ICLR 2024, its published code): nothing is
    differentiated through the model. So a step costs what it does otherwise, where going through
    the UNet would cost its gradient and its memory, too. ``pred_xstart`` of x_t and original t
    [B], such as `PredictedStart`.
    """

    def on_xstart(x_t: Tensor, t: Tensor) -> Tensor:
        return guidance(pred_xstart(x_t, t), timestep_everywhere(0, x_t))

    return on_xstart


class PredictedStart:
    """The x_0 of a model's latest output: samplers call the model, then the guidance, with one x_t.

    ``predict`` makes x_0 of an output, x_t and original t. Called with another x_t than the
    `watched` function saw last it raises ValueError.
    """

    def __init__(self, predict: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        self._predict = predict
        self._seen: tuple[Tensor, Tensor] | None = None

    def watched(self, model_fn: Callable[[Tensor, Tensor], Tensor]) -> Guidance:
        def watching(x_t: Tensor, t: Tensor) -> Tensor:
            output = model_fn(x_t, t)
            self._seen = x_t, output
            return output

        return watching

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        if self._seen is None or self._seen[0] is not x_t:
            raise ValueError("the guidance was called before the model: there is no x_0")
        return self._predict(self._seen[1], x_t, t)


def led_away(
    model_fn: Callable[..., Tensor], differences: Sequence[tuple[float, Difference]]
) -> Callable[..., Tensor]:
    """A model function plus, for each of ``differences``, weight - 1 times it.

    All are differences from what the model itself says, which is evaluated once. Right for eps,
    x_0 and v alike; variance channels, those beyond x_t's, stay the model's.
    """

    def guided(x_t: Tensor, t: Tensor, *labels: Tensor) -> Tensor:
        channels = x_t.shape[1]
        output = model_fn(x_t, t, *labels)
        prediction = output[:, :channels]
        for weight, difference in differences:
            prediction = prediction + (weight - 1) * difference(x_t, t, output, *labels)
        return torch.cat([prediction, output[:, channels:]], dim=1)

    return guided


def worse(weak_fn: Callable[..., Tensor]) -> Difference:
    """The difference from a weaker model function that predicts the same, for autoguidance.

    `led_away` from its errors (arXiv 2406.02507, equation 3) the weight 1 is the model itself;
    both take x_t, original t and, where they know any, labels.
    """

    def difference(x_t: Tensor, t: Tensor, output: Tensor, *labels: Tensor) -> Tensor:
        channels = x_t.shape[1]
        return output[:, :channels] - weak_fn(x_t, t, *labels)[:, :channels]

    return difference


def mixed_classes(
    model_fn: LabelledFn, y: Tensor, shares: Tensor | None
) -> Callable[[Tensor, Tensor], Tensor]:
    """A model function for several classes of an image: their outputs' sum, each by its share.

    ``y`` and ``shares`` [P, B], of P classes of B images; shares of an image sum to 1. Scores add
    up so for the product of the classes' densities, each to the power of its share, as in
    arXiv 2206.01714. One evaluation of P * B images; without ``shares`` P is 1.
    """

    flat, parts = y.flatten(), len(y) if y.dim() > 1 else 1

    def mixed(x_t: Tensor, t: Tensor) -> Tensor:
        output = model_fn(torch.cat([x_t] * parts), torch.cat([t] * parts), flat)
        return _mixture(output, shares)

    return mixed if shares is not None else lambda x_t, t: model_fn(x_t, t, flat)


def _mixture(outputs: Tensor, shares: Tensor | None) -> Tensor:
    """[P * B, ...] to [B, ...], by shares [P, B]."""
    if shares is None:
        return outputs
    weights = shares.to(outputs).reshape(*shares.shape, 1, 1, 1)
    return (weights * outputs.reshape(*shares.shape, *outputs.shape[1:])).sum(0)


def classifier_free(
    model_fn: LabelledFn,
    y: Tensor,
    no_class: Tensor,
    weight: float | Tensor,
    *,
    first: float = -math.inf,
    last: float = math.inf,
    shares: Tensor | None = None,
    factor: Factor | None = None,
) -> Callable[[Tensor, Tensor], Tensor]:
    """A model function with classifier-free guidance (arXiv 2207.12598, equation 6).

    The output for the labels ``y`` [B] plus ``weight`` - 1 (one, or [B, 1, 1, 1] of them) times
    its difference from that for ``no_class`` [B]: 1 is the model itself, 0 the model without a
    class. (The paper's own w is ``weight`` - 1.) Right for predictions of eps, x_0 and v alike,
    as each is affine in the others and the two outputs' weights sum to 1. Variance channels,
    those beyond x_t's, stay ``y``'s.

    Both outputs come from one evaluation of 2B images. At original timesteps outside of ``first``
    to ``last``, both included, there is one of B images with ``y`` alone (arXiv 2404.07724).

    With ``shares``, ``y`` is [P, B] as in `mixed_classes`, and there are P + 1 outputs. With
    another class in place of ``no_class`` images are led away from that. ``factor`` multiplies
    ``weight`` - 1, by the timestep. Raises ValueError for weights of another shape.
    """
    _check_scale(weight)
    labels = torch.cat([y.flatten(), no_class])
    times = len(labels) // len(no_class)
    alone = mixed_classes(model_fn, y, shares)
    # In float64, so that an image's product is the same bits with one weight and with many.
    excess = torch.as_tensor(weight, dtype=torch.float64, device="cpu") - 1
    moved: dict[tuple[torch.device, torch.dtype], Tensor] = {}  # once for each place

    def guided(x_t: Tensor, t: Tensor) -> Tensor:
        if not first <= common_timestep(t) <= last:
            return alone(x_t, t)
        channels = x_t.shape[1]
        both = model_fn(torch.cat([x_t] * times), torch.cat([t] * times), labels)  # [2B, ...]
        with_class, without = _mixture(both[: -len(x_t)], shares), both[-len(x_t) :]
        difference = (with_class - without)[:, :channels]
        place = (both.device, both.dtype)
        if place not in moved:
            moved[place] = excess.to(both)
        more = moved[place] if factor is None else moved[place] * factor(common_timestep(t))
        prediction = with_class[:, :channels] + more * difference
        return torch.cat([prediction, with_class[:, channels:]], dim=1)

    return guided
