"""What a batch is drawn from: noise, classes, what an upsampler enlarges, what is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from adm_cli.config import DiffusionConfig, SamplingConfig
from adm_cli.devices import send
from adm_cli.diffusion.noise import (
    Toward,
    noise_source,
    noisy_low_res,
    source_between,
    upsampling_seed,
)
from adm_cli.diffusion.projection import back_project
from adm_cli.diffusion.steps import ModelFn
from adm_cli.models.unet import UNet
from adm_cli.sampling.editing import EditedBatch, Editing
from adm_cli.sampling.guiding import Network, labelled


def enlarging(
    model: UNet, config: SamplingConfig, seeds: Sequence[int], low_res: Tensor | None
) -> Network:
    """``model``, an upsampler with the small pictures ``low_res`` [N, 3, h, w] that it enlarges."""
    if low_res is None:
        return model
    if (level := config.low_res_noise) is None:
        return partial(model, low_res=low_res)
    noisy = noisy_low_res(low_res, level, seeds)
    return partial(model, low_res=noisy, low_res_noise=low_res.new_full((len(seeds),), level))


def for_classes(
    net: Network,
    model: UNet,
    diffusion: DiffusionConfig,
    config: SamplingConfig,
    classes: Sequence[int | None],
    cfgs: Sequence[float],
    weak: UNet | None,
) -> ModelFn:
    """``net``, which is ``model``, as a function of x_t and t alone: see `guiding.labelled`."""
    labels, no_class = None, model.config.num_classes  # the row after the classes: none of them
    if no_class is not None:
        ids = [no_class if c is None else c for c in classes]
        device = next(model.parameters()).device
        labels = send(torch.tensor(ids, dtype=torch.int64), device)
    return labelled(net, diffusion, config, labels, no_class, cfgs, weak=weak)


def for_source(
    net: Network,
    model: UNet,
    diffusion: DiffusionConfig,
    config: SamplingConfig,
    classes: Sequence[int | None],
    how: Editing,
) -> ModelFn:
    """Likewise for what is on a picture that is inverted, guided by nothing.

    Where that is not known and the model cannot go without a class, for those that are drawn.
    """
    if how.from_class is not None or model.config.null_class:
        classes = [how.from_class] * len(classes)
    alone = replace(config, weak_scale=1.0)
    return for_classes(net, model, diffusion, alone, classes, [1.0] * len(classes), None)


def own_noise(
    seeds: Sequence[int], toward: Sequence[Toward] | None, shape: tuple[int, ...], *, enlarges: bool
) -> Callable[[], Tensor]:
    """Each image's own, an upsampler's independent of that of the same seed."""
    if enlarges:
        seeds = [upsampling_seed(seed) for seed in seeds]
        toward = toward and [to._replace(seed=upsampling_seed(to.seed)) for to in toward]
    return source_between(seeds, toward, shape) if toward else noise_source(seeds, shape)


def finished(
    x: Tensor, low_res: Tensor | None, passes: int, edit: EditedBatch | None
) -> Tensor:  # fmt: skip
    """The last step's x: it agrees with what was enlarged, and what is kept is as it was."""
    if low_res is not None:
        x = back_project(x, low_res, passes)
    return x if edit is None else edit.with_kept(x)
