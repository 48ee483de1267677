"""What a batch is drawn from: noise, classes, what an upsampler enlarges, what is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from adm_cli.checkpoints.sources import Sources
from adm_cli.config import DiffusionConfig, SamplingConfig, UNetConfig
from adm_cli.diffusion.noise import (
    Toward,
    noise_source,
    noisy_low_res,
    source_between,
    upsampling_seed,
)
from adm_cli.diffusion.projection import back_project
from adm_cli.diffusion.schedule import NoiseSchedule
from adm_cli.diffusion.steps import ModelFn
from adm_cli.errors import UsageError
from adm_cli.models.unet import UNet
from adm_cli.pictures.images import Pixels, to_model_range
from adm_cli.sampling.drawing.edited_batch import EditedBatch
from adm_cli.sampling.drawing.guiding import Network, labelled
from adm_cli.sampling.drawing.labels import Parts, model_labels
from adm_cli.sampling.editing import Editing


class Pictures(Protocol):
    """Pictures by index, uint8 [H, W, 3] each: a tensor or array, or read as they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor | Pixels: ...


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
    images: Sequence[Parts],
    cfgs: Sequence[float],
    weak: UNet | None,
    schedule: NoiseSchedule | None = None,
) -> ModelFn:
    """``net``, which is ``model``, as a function of x_t and t alone: see `guiding.labelled`."""
    labels, no_class = None, model.config.num_classes  # the row after the classes: none of them
    if no_class is not None:
        labels = model_labels(images, no_class, next(model.parameters()).device)
    return labelled(net, diffusion, config, labels, no_class, cfgs, weak=weak, schedule=schedule)


def for_source(
    net: Network,
    model: UNet,
    diffusion: DiffusionConfig,
    config: SamplingConfig,
    images: Sequence[Parts],
    how: Editing,
) -> ModelFn:
    """Likewise for what is on a picture that is inverted, guided by nothing.

    Where that is not known and the model cannot go without a class, for those that are drawn.
    """
    if how.from_class is not None or model.config.null_class:
        images = [((how.from_class, 1.0),)] * len(images)
    alone = replace(config, weak_scale=1.0, pag_scale=1.0, sag_scale=1.0)
    return for_classes(net, model, diffusion, alone, images, [1.0] * len(images), None)


def own_noise(
    seeds: Sequence[int], toward: Sequence[Toward] | None, shape: tuple[int, ...], *, enlarges: bool
) -> Callable[[], Tensor]:
    """Each image's own, an upsampler's independent of that of the same seed."""
    if enlarges:
        seeds = [upsampling_seed(seed) for seed in seeds]
        toward = toward and [to._replace(seed=upsampling_seed(to.seed)) for to in toward]
    return source_between(seeds, toward, shape) if toward else noise_source(seeds, shape)


def finished(
    x: Tensor, low_res: Tensor | None, config: SamplingConfig, edit: EditedBatch | None
) -> Tensor:  # fmt: skip
    """The last step's x: it agrees with what was enlarged, and what is kept is as it was."""
    if low_res is not None:
        assert config.project is not None
        x = back_project(x, low_res, config.project)
    return x if edit is None else edit.with_kept(x)


def read_small(sources: Sources, pictures: Pictures, first: int, count: int, size: int) -> Tensor:
    """``count`` pictures for an upsampler, padded to ``size``: [size, 3, h, w] in [-1, 1]."""
    config = sources.model.info.config
    expected = config.low_res_size if isinstance(config, UNetConfig) else None
    images = [_tensor(i, pictures[i]) for i in range(first, first + count)]
    for i, image in enumerate(images):
        if expected is None or image.dtype != torch.uint8 or image.shape != (*expected, 3):
            raise UsageError(
                f"picture {first + i} is {image.dtype} {list(image.shape)}, "
                f"{sources.called} enlarges uint8 {[*(expected or ()), 3]}"
            )
    images += images[-1:] * (size - count)
    return to_model_range(torch.stack(images))


def _tensor(i: int, image: object) -> Tensor:
    if isinstance(image, np.ndarray):
        return torch.from_numpy(image.copy())
    if not isinstance(image, Tensor):
        kind = type(image).__name__
        raise UsageError(f"picture {i} is of type {kind}, expected a tensor or an array of numpy")
    return image
