"""Training losses, variational-bound terms and bits per dimension.

Losses are [B], one an image. Nats become bits per dimension by the mean over an image's values
and division by ln 2.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from adm_cli.config import Loss, Prediction, Variance
from adm_cli.diffusion.process import (
    p_mean_variance,
    predict_eps_from_xstart,
    q_mean_variance,
    q_posterior_mean_variance,
    q_sample,
    v_target,
)
from adm_cli.diffusion.schedule import NoiseSchedule, timestep_everywhere
from adm_cli.diffusion.steps import ModelFn, NoiseFn, timesteps_at


class TrainingLoss(NamedTuple):
    """``loss`` [B]; ``mse`` and ``vb`` [B] are its parts, None where the loss has no such part."""

    loss: Tensor
    mse: Tensor | None
    vb: Tensor | None


class VbTerm(NamedTuple):
    """A term of the variational bound in bits per dimension [B], and the x_0 behind it."""

    bits: Tensor
    pred_xstart: Tensor


class BitsPerDim(NamedTuple):
    """Bound on the negative log-likelihood: total, prior [B]; terms [B, S], last step first."""

    total: Tensor
    prior: Tensor
    vb: Tensor
    xstart_mse: Tensor
    mse: Tensor


def normal_kl(mean1: Tensor, log_var1: Tensor, mean2: Tensor, log_var2: Tensor) -> Tensor:
    """KL(N(mean1, e^log_var1) || N(mean2, e^log_var2)) elementwise, in nats."""
    return 0.5 * (
        -1.0
        + log_var2
        - log_var1
        + torch.exp(log_var1 - log_var2)
        + (mean1 - mean2) ** 2 * torch.exp(-log_var2)
    )


def approx_standard_normal_cdf(x: Tensor) -> Tensor:
    """The tanh approximation of the standard normal CDF that ADM's likelihoods use."""
    return 0.5 * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def discretized_gaussian_log_likelihood(x: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
    """Log-probability, in nats, of 8-bit values under a Gaussian (arXiv 2006.11239, equation 13).

    ``x`` in [-1, 1] on the grid of 2/255; ``log_scales`` are half log-variances. Probabilities
    are floored at 1e-12.
    """
    centred = x - means
    inverse = torch.exp(-log_scales)
    cdf_plus = approx_standard_normal_cdf(inverse * (centred + 1.0 / 255.0))
    cdf_minus = approx_standard_normal_cdf(inverse * (centred - 1.0 / 255.0))
    inside = cdf_plus - cdf_minus
    probability = torch.where(x < -0.999, cdf_plus, torch.where(x > 0.999, 1 - cdf_minus, inside))
    return probability.clamp(min=1e-12).log()


def prior_bits_per_dim(schedule: NoiseSchedule, x_start: Tensor) -> Tensor:
    """KL(q(x_T | x_0) || N(0, 1)) in bits per dimension, [B]: what no training can change."""
    t = timestep_everywhere(len(schedule) - 1, x_start)
    q = q_mean_variance(schedule, x_start, t)
    zero = torch.zeros((), dtype=x_start.dtype, device=x_start.device)
    return _bits(normal_kl(q.mean, q.log_variance, zero, zero))


def vb_term(
    schedule: NoiseSchedule,
    model_output: Tensor,
    x_start: Tensor,
    x_t: Tensor,
    t: Tensor,
    *,
    prediction: Prediction = "eps",
    variance: Variance = "learned_range",
    clip_denoised: bool = True,
) -> VbTerm:
    """One term of the variational bound (arXiv 2006.11239, equation 5).

    KL between the true posterior and the model's, or at index 0 the decoder's negative
    log-likelihood.
    """
    true = q_posterior_mean_variance(schedule, x_start, x_t, t)
    p = p_mean_variance(
        schedule,
        model_output,
        x_t,
        t,
        prediction=prediction,
        variance=variance,
        clip_denoised=clip_denoised,
    )
    kl = _bits(normal_kl(true.mean, true.log_variance, p.mean, p.log_variance))
    log_scales = (0.5 * p.log_variance).expand_as(p.mean)
    nll = _bits(-discretized_gaussian_log_likelihood(x_start, p.mean, log_scales))
    return VbTerm(torch.where(t.to(nll.device) == 0, nll, kl), p.pred_xstart)


def training_loss(
    schedule: NoiseSchedule,
    model_fn: ModelFn,
    x_start: Tensor,
    t: Tensor,
    model_t: Tensor,
    noise: Tensor,
    *,
    prediction: Prediction = "eps",
    variance: Variance = "learned_range",
    loss: Loss = "mse",
) -> TrainingLoss:
    """The loss of `model_fn` at ``t`` [B], for which it sees timesteps ``model_t``.

    "mse" with a learned variance is the hybrid loss (arXiv 2102.09672, equation 16, the
    variational term without its factor); "rescaled_mse" weights that term by S / 1000; "kl" is the
    variational term alone and "rescaled_kl" S times it, an estimate of the whole bound.
    """
    x_t = q_sample(schedule, x_start, t, noise)
    output = model_fn(x_t, model_t)
    if loss in ("kl", "rescaled_kl"):
        term = vb_term(
            schedule, output, x_start, x_t, t,
            prediction=prediction, variance=variance, clip_denoised=False,
        ).bits  # fmt: skip
        return TrainingLoss(term * (len(schedule) if loss == "rescaled_kl" else 1), None, None)
    channels = x_start.shape[1]
    vb = None
    if variance == "learned_range":
        # the bound trains the variance only: its mean sees no gradient
        frozen = torch.cat([output[:, :channels].detach(), output[:, channels:]], dim=1)
        vb = vb_term(
            schedule, frozen, x_start, x_t, t,
            prediction=prediction, variance=variance, clip_denoised=False,
        ).bits  # fmt: skip
        if loss == "rescaled_mse":
            vb = vb * (len(schedule) / 1000.0)
    if prediction == "v":
        target = v_target(schedule, x_start, t, noise)
    else:
        target = noise if prediction == "eps" else x_start
    mse = _mean((target - output[:, :channels]) ** 2)
    return TrainingLoss(mse if vb is None else mse + vb, mse, vb)


@torch.no_grad()
def bits_per_dim(
    schedule: NoiseSchedule,
    model_fn: ModelFn,
    x_start: Tensor,
    *,
    noise: NoiseFn,
    prediction: Prediction = "eps",
    variance: Variance = "learned_range",
    clip_denoised: bool = True,
) -> BitsPerDim:
    """The variational bound on -log p(x_start), over all steps of the schedule.

    ``model_fn`` sees original timesteps; ``noise(i, like)`` as for a sampler. ``x_start``
    [B, C, H, W] are 8-bit images as x / 127.5 - 1.
    """
    vb, xstart_mse, mse = [], [], []
    for i in reversed(range(len(schedule))):
        t, model_t = timesteps_at(schedule, i, x_start)
        eps = noise(i, x_start)
        x_t = q_sample(schedule, x_start, t, eps)
        term = vb_term(
            schedule, model_fn(x_t, model_t), x_start, x_t, t,
            prediction=prediction, variance=variance, clip_denoised=clip_denoised,
        )  # fmt: skip
        vb.append(term.bits)
        xstart_mse.append(_mean((term.pred_xstart - x_start) ** 2))
        mse.append(_mean((predict_eps_from_xstart(schedule, x_t, t, term.pred_xstart) - eps) ** 2))
    prior = prior_bits_per_dim(schedule, x_start)
    terms = torch.stack(vb, dim=1)  # [B, S]
    total = terms.sum(dim=1) + prior
    return BitsPerDim(total, prior, terms, torch.stack(xstart_mse, 1), torch.stack(mse, 1))


def _mean(x: Tensor) -> Tensor:  # [B, ...] -> [B]
    return x.flatten(1).mean(dim=1)


def _bits(nats: Tensor) -> Tensor:  # [B, ...] -> [B], bits per dimension
    return _mean(nats) / math.log(2.0)
