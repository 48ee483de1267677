"""What a sampler is given for a batch: a network that knows its labels, and the guidance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from adm_cli.config import DiffusionConfig, SamplingConfig
from adm_cli.diffusion.guidance import (
    Guidance,
    autoguidance,
    classifier_free,
    classifier_guidance,
    guidance_at,
    limited_guidance,
)
from adm_cli.diffusion.process import DenoisedFn, dynamic_threshold, rescaled, scaled_eps
from adm_cli.diffusion.schedule import NoiseSchedule, common_timestep, timestep_everywhere
from adm_cli.diffusion.steps import ModelFn
from adm_cli.models.unet import UNet

Network = Callable[..., Tensor]  # of x_t, t and, where the model takes them, labels


def guidance_kind(scale: float, cfg: float) -> tuple[bool, bool]:
    """Without classifier, without classifier-free guidance: images of one batch are of one kind."""
    return scale == 0, cfg == 1


def guided_by(
    classifier: Network,
    diffusion: DiffusionConfig,
    config: SamplingConfig,
    y: Tensor,
    scales: Sequence[float],
    dtype: torch.dtype,
    schedule: NoiseSchedule | None = None,
) -> Guidance:
    """The gradient of ``classifier`` for the classes ``y`` [N], times a scale for each image.

    Of ``schedule`` at all steps that the guidance's interval holds, or every so many of them.
    """
    guidance = classifier_guidance(
        _sees_model_timesteps(classifier, diffusion),
        y,
        _column(scales, y.device, dtype),
        entropy_scaling=config.entropy_scaling,
        guide_by=config.guide_by,
        divergence_weight=config.divergence_weight,
    )
    first, last = _timesteps(config.guide_interval or (0.0, 1.0), diffusion)
    if config.guide_every > 1 and schedule is not None:
        falling = reversed(schedule.timesteps.tolist())
        acting = [t for t in falling if first <= t <= last]
        return guidance_at(guidance, frozenset(acting[:: config.guide_every]))
    if config.guide_interval is None:
        return guidance
    return limited_guidance(guidance, first, last)


def labelled(
    net: Network,
    diffusion: DiffusionConfig,
    config: SamplingConfig,
    labels: Tensor | None,
    no_class: int | None,
    cfgs: Sequence[float],
    *,
    weak: UNet | None = None,
) -> ModelFn:
    """``net`` as a function of x_t and t alone, for ``labels`` [N]; None of an unconditional model.

    Classifier-free guidance where any of ``cfgs``, a weight for each image, is not 1;
    ``no_class`` is the label that stands for none. Before that, autoguidance away from ``weak``
    where ``config`` has any.
    """
    seen = _sees_model_timesteps(net, diffusion)
    if config.weak_scale != 1:
        assert weak is not None  # else `settings.sampling_config` has refused
        seen = autoguidance(seen, _weak(weak, diffusion), config.weak_scale)
    if labels is None:
        return seen
    if all(cfg == 1 for cfg in cfgs):
        return lambda x, t: seen(x, t, labels)
    assert no_class is not None  # else `sources.check_cfg` has refused
    first, last = _timesteps(config.cfg_interval or (0.0, 1.0), diffusion)
    return classifier_free(
        seen,
        labels,
        torch.full_like(labels, no_class),
        torch.tensor(cfgs, dtype=torch.float64)[:, None, None, None],
        first=first,
        last=last,
    )


def modified_model(
    model_fn: ModelFn, schedule: NoiseSchedule, diffusion: DiffusionConfig, config: SamplingConfig
) -> ModelFn:
    """``model_fn`` with the predicted noise scaled, after all guidance by models."""
    if config.eps_scale == 1:
        return model_fn
    index = {t: i for i, t in enumerate(schedule.timesteps.tolist())}

    def scaled(x: Tensor, t: Tensor) -> Tensor:
        i = timestep_everywhere(index[common_timestep(t)], x)
        return scaled_eps(schedule, model_fn(x, t), x, i, diffusion.prediction, config.eps_scale)

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
