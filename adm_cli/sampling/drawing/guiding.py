"""What a sampler is given for a batch: a network that knows its labels, and the guidance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from adm_cli.config import DiffusionConfig, SamplingConfig
from adm_cli.diffusion.guidance import (
    Difference,
    Factor,
    Guidance,
    PredictedStart,
    adaptive_moments,
    classifier_free,
    classifier_guidance,
    guidance_at,
    guidance_on_xstart,
    led_away,
    limited_guidance,
    mixed_classes,
    scaled_guidance,
    schedule_factor,
    worse,
)
from adm_cli.diffusion.modifiers import adam_betas
from adm_cli.diffusion.process import (
    DenoisedFn,
    clip_xstart,
    dynamic_threshold,
    predicted_xstart,
    rescaled,
    scaled_eps,
)
from adm_cli.diffusion.schedule import NoiseSchedule, common_timestep, timestep_everywhere
from adm_cli.diffusion.self_attention import blurred
from adm_cli.diffusion.steps import ModelFn
from adm_cli.errors import UsageError
from adm_cli.models.attention import watching_attention, without_attention
from adm_cli.models.classifier import NoisyClassifier
from adm_cli.models.unet import UNet
from adm_cli.sampling.drawing.labels import Labels, Parts, classifier_target

Network = Callable[..., Tensor]  # of x_t, t and, where the model takes them, labels


GuidanceKind = tuple[bool, bool, int]


def guidance_kind(scale: float, cfg: float, parts: int = 1) -> GuidanceKind:
    """Without classifier, without classifier-free guidance, of so many classes.

    Images of one batch are of one kind.
    """
    return scale == 0, cfg == 1, parts


def guided_by(
    classifier: Network,
    diffusion: DiffusionConfig,
    config: SamplingConfig,
    y: Tensor,
    scales: Sequence[float],
    dtype: torch.dtype,
    schedule: NoiseSchedule | None = None,
    pred_xstart: PredictedStart | None = None,
) -> Guidance:
    """The gradient of ``classifier`` for a target ``y``, times a scale for each image.

    ``y`` as in `classifier_gradient`. Of ``schedule`` at all steps that the guidance's interval
    holds, or every so many of them; of ``pred_xstart`` where ``config`` says so.
    """
    column = _column(scales, y.device, dtype)
    guidance = classifier_guidance(
        _sees_model_timesteps(classifier, diffusion),
        y,
        column if config.guide_adam is None else 1.0,
        entropy_scaling=config.entropy_scaling,
        guide_by=config.guide_by,
        divergence_weight=config.divergence_weight,
    )
    if config.classifier_on == "x0":
        assert pred_xstart is not None
        guidance = guidance_on_xstart(guidance, pred_xstart)
    if config.guide_adam is not None:
        guidance = _times(adaptive_moments(guidance, *adam_betas(config.guide_adam)), column)
    if (factor := _factor(config, diffusion)) is not None:
        guidance = scaled_guidance(guidance, factor)
    first, last = _timesteps(config.guide_interval or (0.0, 1.0), diffusion)
    if config.guide_every > 1 and schedule is not None:
        falling = reversed(schedule.timesteps.tolist())
        acting = [t for t in falling if first <= t <= last]
        return guidance_at(guidance, frozenset(acting[:: config.guide_every]))
    if config.guide_interval is None:
        return guidance
    return limited_guidance(guidance, first, last)


def guided_to(
    classifier: NoisyClassifier | None,
    diffusion: DiffusionConfig,
    config: SamplingConfig,
    parts: Sequence[Parts],
    scales: Sequence[float],
    dtype: torch.dtype,
    schedule: NoiseSchedule,
    pred_xstart: PredictedStart,
) -> Guidance:
    """`guided_by` to the classes of images, away from a negative one.

    Raises UsageError where there is no classifier, or an image has no class.
    """
    y = None
    if classifier is not None:
        device = next(classifier.parameters()).device
        count = classifier.config.num_classes
        y = classifier_target(parts, config.negative_class, count, device)
    if classifier is None or y is None:
        raise UsageError("a guidance scale needs a classifier: pass --classifier, or --scale 0")
    return guided_by(classifier, diffusion, config, y, scales, dtype, schedule, pred_xstart)


def labelled(
    net: Network,
    diffusion: DiffusionConfig,
    config: SamplingConfig,
    labels: Labels | None,
    no_class: int | None,
    cfgs: Sequence[float],
    *,
    weak: UNet | None = None,
    schedule: NoiseSchedule | None = None,
) -> ModelFn:
    """``net`` as a function of x_t and t alone, for ``labels``; None of an unconditional model.

    Classifier-free guidance where any of ``cfgs``, a weight for each image, is not 1;
    ``no_class`` is the label that stands for none. Before that, what `self_guided` does.
    """
    seen = self_guided(net, diffusion, config, weak=weak, schedule=schedule)
    if labels is None:
        return seen
    if all(cfg == 1 for cfg in cfgs):
        return mixed_classes(seen, labels.ids, labels.shares)
    away = no_class if config.negative_class is None else config.negative_class
    assert away is not None  # else `sources.check_cfg` has refused
    first, last = _timesteps(config.cfg_interval or (0.0, 1.0), diffusion)
    return classifier_free(
        seen,
        labels.ids,
        labels.same(away),
        torch.tensor(cfgs, dtype=torch.float64, device="cpu")[:, None, None, None],
        first=first,
        last=last,
        shares=labels.shares,
        factor=_factor(config, diffusion),
    )


def self_guided(
    net: Network,
    diffusion: DiffusionConfig,
    config: SamplingConfig,
    *,
    weak: UNet | None,
    schedule: NoiseSchedule | None,
) -> Network:
    """``net`` of original timesteps, led away from worse ones: a weaker model, itself without
    attention, what it says of a blurred picture. The differences are the plain model's, and add up.
    """
    plain = seen = _sees_model_timesteps(net, diffusion)
    away: list[tuple[float, Difference]] = []
    if config.weak_scale != 1:
        assert weak is not None  # else `settings.sampling_config` has refused
        away.append((config.weak_scale, worse(_weak(weak, diffusion))))
    if config.pag_scale != 1:
        assert isinstance(net, UNet)
        perturbed = _sees_model_timesteps(without_attention(net), diffusion)
        away.append((config.pag_scale, worse(perturbed)))
    if config.sag_scale != 1:
        assert isinstance(net, UNet)
        assert schedule is not None
        watched, attention = watching_attention(net)
        seen = _sees_model_timesteps(watched, diffusion)
        other = blurred(plain, attention.salient, schedule, diffusion.prediction)
        away.append((config.sag_scale, other))
    return led_away(seen, away) if away else seen


def predicted_start(
    schedule: NoiseSchedule, diffusion: DiffusionConfig, config: SamplingConfig
) -> PredictedStart:
    """What a classifier sees in place of x_t: the model's x_0, clamped as the sampler does it."""
    denoised_fn = thresholding(config)

    def predict(output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        process, index = schedule.place(common_timestep(t))
        i = timestep_everywhere(index, x_t)
        output = output[:, : x_t.shape[1]]
        x_0 = predicted_xstart(process, output, x_t, i, diffusion.prediction)
        x_0 = x_0 if denoised_fn is None else denoised_fn(x_0)
        return clip_xstart(x_0) if config.clip_denoised else x_0

    return PredictedStart(predict)


def modified_model(
    model_fn: ModelFn, schedule: NoiseSchedule, diffusion: DiffusionConfig, config: SamplingConfig
) -> ModelFn:
    """``model_fn`` with the predicted noise scaled, after all guidance by models."""
    if config.eps_scale == 1:
        return model_fn

    def scaled(x: Tensor, t: Tensor) -> Tensor:
        process, index = schedule.place(common_timestep(t))
        i = timestep_everywhere(index, x)
        return scaled_eps(process, model_fn(x, t), x, i, diffusion.prediction, config.eps_scale)

    return scaled


def thresholding(config: SamplingConfig) -> DenoisedFn | None:
    """What is done to each predicted x_0 before it is clamped."""
    if config.threshold is None:
        return None
    return partial(dynamic_threshold, quantile=config.threshold)


def _weak(weak: UNet, diffusion: DiffusionConfig) -> Network:
    """The weak model, which may take no labels."""
    seen = _sees_model_timesteps(weak, diffusion)
    if weak.config.num_classes is not None:
        return seen
    return lambda x, t, *_labels: seen(x, t)


def _factor(config: SamplingConfig, diffusion: DiffusionConfig) -> Factor | None:
    """By the timestep, what guidance scales are multiplied with; None where they are constant."""
    if config.scale_schedule == "constant":
        return None
    last = max(1, diffusion.num_timesteps - 1)
    return lambda t: schedule_factor(config.scale_schedule, t / last)


def _times(guidance: Guidance, column: float | Tensor) -> Guidance:
    return lambda x, t: guidance(x, t) * column


def _timesteps(interval: tuple[float, float], diffusion: DiffusionConfig) -> tuple[float, float]:
    """An interval of noise levels, 0 to 1, as original timesteps."""
    first, last = (place * (diffusion.num_timesteps - 1) for place in interval)
    return first, last


def _column(scales: Sequence[float], device: torch.device, dtype: torch.dtype) -> float | Tensor:
    """One number if all are the same, else [N, 1, 1, 1]; an image's product is the same bits."""
    if len(set(scales)) == 1:
        return scales[0]
    return torch.tensor(scales, device=device, dtype=dtype)[:, None, None, None]


def _sees_model_timesteps(net: Network, diffusion: DiffusionConfig) -> Network:
    """``net`` as a function of original timesteps, which some models see rescaled."""
    if not diffusion.rescale_timesteps:
        return net
    return lambda x, t, *labels: net(x, rescaled(t, diffusion.num_timesteps), *labels)
