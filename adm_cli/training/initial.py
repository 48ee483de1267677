"""What a training begins with and what its model is recommended with: the weights of ``--init``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import fields

import torch
import torch.nn.functional as F
from torch import Tensor

from adm_cli.checkpoints.finding import find_weights
from adm_cli.checkpoints.format import check_finite
from adm_cli.checkpoints.header import ModelFile, ModelInfo
from adm_cli.checkpoints.loading import describe_mismatch, expected_shapes
from adm_cli.checkpoints.presets import DETAIL_STEPS, PRESETS
from adm_cli.checkpoints.tensors import stream_tensors
from adm_cli.config import ClassifierConfig, Recommended, UNetConfig
from adm_cli.errors import CheckpointError, how_many, one_of
from adm_cli.models.classifier import NoisyClassifier
from adm_cli.training.setup import ModelConfig, Settings, same_classes

# How models trained here are sampled unless something else is asked for: measured on the embedded
# ones (docs/sweeps.md). `defaults.resolve` limits the guidance to an interval where it must.
DRAWN = Recommended(sampler="dpm++2m", steps="20")
DRAWN_FREE = dataclasses.replace(DRAWN, cfg=2.0)  # where it can also draw without a class
UPSAMPLED = Recommended(sampler="ddim", steps="ddim10", scale=0.0)
DETAILED = Recommended(sampler="dpm++2m", steps=DETAIL_STEPS, scale=0.0, temperature=0.9)


def initial_weights(
    settings: Settings, classes: Mapping[int, str], file: ModelFile | None
) -> tuple[dict[str, Tensor] | None, list[str]]:
    """The weights of ``file``, that of ``--init``, for this run's model; what had to begin anew.

    Rows for classes follow the classes' names where their ids are not those of the file, and begin
    anew where no name is the same; those for more classes and for "no class" are added as the mean
    of the others, and are 0 where the model knew no classes. Raises CheckpointError if anything
    else does not fit.
    """
    if file is None:
        return None, []
    tensors = {}
    for name, value in stream_tensors(file):
        check_finite(file.path, name, value)
        tensors[name] = value.float()
    anew: list[str] = []
    theirs = file.info.classes
    if isinstance(settings.config, ClassifierConfig) and isinstance(file.info.config, UNetConfig):
        tensors = _encoder(settings, file.info.config, file.info.classes, tensors)
        anew.append("the encoder of a diffusion model; the pool begins anew")
        theirs = classes  # the pool's
    expected = expected_shapes(settings.config)
    same, named = same_classes(theirs, classes), _named_alike(theirs, classes)
    for name in _class_tensors(settings.config, tensors):
        value = tensors[name]
        fits = tuple(value.shape) == expected.get(name)
        if same and fits:
            continue
        if name not in expected:  # a conditional model goes on without classes
            anew.append(f"{name} left out")
            del tensors[name]
            continue
        if same or named:
            tensors[name], told = _moved(value, file.info, settings.config, None if same else named)
            anew.append(f"{name} got {told}")
            continue
        spread = float(value.std()) if value.numel() > 1 else 0.0
        generator = torch.Generator().manual_seed(settings.training.seed)
        tensors[name] = torch.randn(expected[name], generator=generator, dtype=torch.float32)
        tensors[name] *= spread
        anew.append(f"{name} begins anew: the classes are others")
    anew += _told_of_noise(settings.config, tensors)
    if (name := "label_emb.weight") in expected and file.info.config.num_classes is None:
        tensors[name] = torch.zeros(expected[name])  # so it begins as the model that knew none
        anew.append(f"{name} is new: the model knew no classes (--unconditional keeps it so)")
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if found != expected:
        raise CheckpointError(f"--init {file.path}: {describe_mismatch(expected, found)}")
    return tensors, anew


def _named_alike(theirs: Mapping[int, str], ours: Mapping[int, str]) -> dict[int, int]:
    """The id that each class of ours has in a file, by names that only one class has."""
    ids = {name: i for i, name in theirs.items() if list(theirs.values()).count(name) == 1}
    return {i: ids[name] for i, name in ours.items() if name in ids}


def _moved(
    value: Tensor, theirs: ModelInfo, config: ModelConfig, named: Mapping[int, int] | None
) -> tuple[Tensor, str]:
    """Rows [K, ...] for other or more classes, by ``named``, or by their places; what was done.

    New ones are the mean of those there are; "no class" stays last.
    """
    count, wanted = theirs.config.num_classes, config.num_classes
    assert count is not None  # or there were no such tensors
    assert wanted is not None
    old, nothing = value[:count], value[count:]
    used = old[list(theirs.classes)] if theirs.classes else old
    mean = used.mean(dim=0, keepdim=True)
    places = {i: i for i in range(min(count, wanted))} if named is None else named
    rows = mean.repeat(wanted, *[1] * (value.dim() - 1))
    rows[list(places)] = old[list(places.values())]
    told = [] if named is None else [f"{how_many(len(places), 'row')} by the names of the classes"]
    if more := wanted - len(places):
        told.append(f"{how_many(more, 'row')} for new classes")
    if isinstance(config, UNetConfig) and config.null_class and not len(nothing):
        nothing = mean
        told.append("a row for no class")
    return torch.cat([rows, nothing]), one_of(told, "and")


def _encoder(
    settings: Settings,
    config: UNetConfig,
    classes: Mapping[int, str],
    tensors: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """The encoder of a diffusion model, as it sees a picture of no class, and a new pool.

    A denoiser's inner features tell classes apart at all noise levels (arXiv 2112.03126 uses them
    for segmentation). What its label embedding adds for "no class", or the mean of the classes
    where there is no such row, becomes a part of the time embedding's bias.
    """
    assert isinstance(settings.config, ClassifierConfig)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.training.seed)
        fresh = NoisyClassifier(settings.config).state_dict()
    taken = {n: v if n.startswith("out.") else tensors[n] for n, v in fresh.items()}
    labels = tensors.get("label_emb.weight")  # [K, E]
    if labels is not None:
        rows = labels[-1:] if config.null_class else labels[list(classes)] if classes else labels
        bias = "time_embed.2.bias"
        taken[bias] = taken[bias] + rows.mean(dim=0)
    return taken


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
    assert isinstance(settings.config, UNetConfig)
    if settings.kind == "upsampler":
        return UPSAMPLED if settings.config.detail_scale is None else DETAILED
    return DRAWN_FREE if settings.config.null_class else DRAWN
