"""What a training begins with and what its model is recommended with: the weights of ``--init``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import fields

import torch
import torch.nn.functional as F
from torch import Tensor

from adm_cli.checkpoints.format import ModelFile, check_finite
from adm_cli.checkpoints.loading import describe_mismatch, expected_shapes, find_weights
from adm_cli.checkpoints.presets import PRESETS
from adm_cli.checkpoints.tensors import stream_tensors
from adm_cli.config import Recommended, UNetConfig
from adm_cli.errors import CheckpointError
from adm_cli.training.setup import ModelConfig, Settings, same_classes

# How models trained here are sampled unless something else is asked for: measured on the embedded
# ones (docs/sweeps.md). `defaults.resolve` limits the guidance to an interval where it must.
DRAWN = Recommended(sampler="dpm++2m", steps="20")
DRAWN_FREE = dataclasses.replace(DRAWN, cfg=2.0)  # where it can also draw without a class
UPSAMPLED = Recommended(sampler="ddim", steps="ddim10", scale=0.0)


def initial_weights(
    settings: Settings, classes: Mapping[int, str], file: ModelFile | None
) -> tuple[dict[str, Tensor] | None, list[str]]:
    """The weights of ``file``, that of ``--init``, for this run's model; what had to begin anew.

    Rows for classes begin anew where the classes are not those of the file; a "no class" row is
    added as the mean of the others. Raises CheckpointError if anything else does not fit.
    """
    if file is None:
        return None, []
    tensors = {}
    for name, value in stream_tensors(file):
        check_finite(file.path, name, value)
        tensors[name] = value.float()
    expected = expected_shapes(settings.config)
    theirs = file.info.classes
    same = same_classes(theirs, classes)
    anew: list[str] = []
    for name in _class_tensors(settings.config, tensors):
        value = tensors[name]
        fits = tuple(value.shape) == expected.get(name)
        if same and fits:
            continue
        if name not in expected:  # a conditional model goes on without classes
            anew.append(f"{name} left out")
            del tensors[name]
            continue
        if same and name == "label_emb.weight" and len(value) + 1 == expected[name][0]:
            used = value[list(theirs)] if theirs else value
            tensors[name] = torch.cat([value, used.mean(dim=0, keepdim=True)])
            anew.append(f"{name} got a row for no class")
            continue
        spread = float(value.std()) if value.numel() > 1 else 0.0
        generator = torch.Generator().manual_seed(settings.training.seed)
        tensors[name] = torch.randn(expected[name], generator=generator) * spread
        anew.append(f"{name} begins anew: the classes are others")
    anew += _told_of_noise(settings.config, tensors)
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if found != expected:
        raise CheckpointError(f"--init {file.path}: {describe_mismatch(expected, found)}")
    return tensors, anew


def _told_of_noise(config: ModelConfig, tensors: dict[str, Tensor]) -> list[str]:
    """Adds a channel of zeros for the noise on the small pictures, where a model had none."""
    name = "input_blocks.0.0.weight"
    value = tensors.get(name)
    if not isinstance(config, UNetConfig) or config.low_res_noise is None or value is None:
        return []
    folded = config.patch**2
    if value.dim() != 4 or value.shape[1] != 2 * config.in_channels * folded:
        return []
    tensors[name] = F.pad(value, (0, 0, 0, 0, 0, folded))
    return [f"{name} got a channel for the noise on the small pictures"]


def _class_tensors(config: ModelConfig, tensors: Mapping[str, Tensor]) -> list[str]:
    """Tensors with a row a class."""
    if isinstance(config, UNetConfig):
        return [name for name in ("label_emb.weight",) if name in tensors]
    last = {"attention": "out.2.c_proj", "adaptive": "out.3", "spatial": "out.2"}
    prefix = last.get(config.pool, "out.3")
    return [f"{prefix}.{leaf}" for leaf in ("weight", "bias") if f"{prefix}.{leaf}" in tensors]


def recommended_sampling(settings: Settings) -> Recommended | None:
    """How the model of a run will be best sampled: as the one it was begun with, if that says.

    None for classifiers.
    """
    if settings.kind == "classifier":
        return None
    if "init" in settings.options:
        theirs = find_weights(settings.options["init"])
        for preset in PRESETS:
            if settings.kind == "diffusion" and theirs.name == preset.model:
                return Recommended(**{f.name: getattr(preset, f.name) for f in fields(Recommended)})
        if theirs.info.recommended is not None:
            return theirs.info.recommended
    if settings.kind == "upsampler":
        return UPSAMPLED
    assert isinstance(settings.config, UNetConfig)
    return DRAWN_FREE if settings.config.null_class else DRAWN
