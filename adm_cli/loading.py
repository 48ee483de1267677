"""From names and files to ready modules, and why a checkpoint does not fit a configuration."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from adm_cli.config import ClassifierConfig, UNetConfig
from adm_cli.errors import CheckpointError, ConfigError, MissingWeightsError, UsageError
from adm_cli.models.classifier import NoisyClassifier
from adm_cli.models.unet import SuperResUNet, UNet
from adm_cli.presets import CHECKPOINTS, Checkpoint, find_checkpoint, find_preset
from adm_cli.storage.checkpoints import ModelFile, open_tensors, read_model_file, verify_content
from adm_cli.storage.files import adm_home, weights_folder

Model = UNet | NoisyClassifier
Shapes = Mapping[str, tuple[int, ...]]

ORIGINALS = "https://openaipublic.blob.core.windows.net/diffusion/jul-2021"


def build_model(config: UNetConfig | ClassifierConfig) -> Model:
    """A freshly initialised model on torch's current default device."""
    if isinstance(config, ClassifierConfig):
        return NoisyClassifier(config)
    return UNet(config) if config.low_res_size is None else SuperResUNet(config)


def expected_shapes(config: UNetConfig | ClassifierConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a model's parameters, in order; allocates nothing."""
    with torch.device("meta"):
        model = build_model(config)
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def checkpoint_path(row: Checkpoint) -> Path:
    """Where a known checkpoint's weights are, or would be."""
    folder = weights_folder() if row.embedded else adm_home() / "models"
    return folder / f"{row.name}.safetensors"


def find_weights(name: str | Path) -> ModelFile:
    """The weights file for a path, a preset or a checkpoint name, its header checked.

    Raises UsageError for an unknown name, MissingWeightsError for a known one whose file is not
    here, CheckpointError for a bad file.
    """
    path = Path(name)
    if path.is_file():
        return read_model_file(path)
    text = str(name)
    if os.sep in text or path.suffix in (".safetensors", ".pt"):
        raise UsageError(f"no such file: {text}")
    known = {row.name for row in CHECKPOINTS}
    row = find_checkpoint(text if text in known else find_preset(text).model)
    path = checkpoint_path(row)
    if not path.is_file():
        raise MissingWeightsError(_how_to_get(row, path))
    return read_model_file(path)


def _how_to_get(row: Checkpoint, path: Path) -> str:
    if row.embedded:
        return f"the embedded weights {path} are missing: install adm again"
    gigabytes = (row.file_bytes or row.parameters * 4) / 1e9
    return (
        f"the weights of {row.name} are not on this machine ({gigabytes:.1f} GB, research use): "
        f"download {ORIGINALS}/{row.name}.pt and run: adm convert {row.name}.pt --preset {row.name}"
    )


def load_model(
    name: str | Path | ModelFile,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Model:
    """A ready model: hash and shapes checked, in evaluation mode, no gradients for parameters.

    ``dtype`` float32, float64, or bfloat16/float16 for the torso's convolutions. Tensors that
    need no change of type stay mapped from the file. Raises as `find_weights`, and
    CheckpointError if the content is damaged or does not fit its own configuration.
    """
    file = name if isinstance(name, ModelFile) else find_weights(name)
    with torch.device("meta"):
        model = build_model(file.info.config)
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    if dict(file.shapes) != expected:
        raise CheckpointError(f"{file.path}: {describe_mismatch(expected, file.shapes)}")
    verify_content(file)
    torso = set(model.torso_parameters())
    rest = torch.float64 if dtype == torch.float64 else torch.float32
    with open_tensors(file) as handle:
        state = {
            key: handle.get_tensor(key).to(device=device, dtype=dtype if key in torso else rest)
            for key in expected
        }
    model.load_state_dict(state, strict=True, assign=True)
    model.torso_dtype = dtype
    return model.eval().requires_grad_(False)


def describe_mismatch(expected: Shapes, found: Shapes, limit: int = 4) -> str:
    """Missing, unexpected and misshapen tensors, a few of each by name."""
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    wrong = [
        f"{name} is {list(found[name])}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    parts = []
    for what, names in (("missing", missing), ("unexpected", unexpected), ("misshapen", wrong)):
        if names:
            more = f", ... ({len(names)} in all)" if len(names) > limit else ""
            parts.append(f"{what}: {', '.join(names[:limit])}{more}")
    return "the tensors do not fit the configuration; " + "; ".join(parts)


def mismatches(expected: Shapes, found: Shapes) -> int:
    """How many tensors are missing, unexpected or misshapen."""
    both = set(expected) & set(found)
    wrong = sum(tuple(expected[name]) != tuple(found[name]) for name in both)
    return len(set(expected) ^ set(found)) + wrong


def explain_mismatch(config: UNetConfig | ClassifierConfig, found: Shapes) -> list[str]:
    """The flags of the original that would make a configuration fit better, best last step first.

    Changes one setting at a time, keeps the change that mends most, and repeats until none helps.
    """
    advice: list[str] = []
    left = mismatches(expected_shapes(config), found)
    while left and len(advice) < 6:
        tried: list[tuple[int, str, UNetConfig | ClassifierConfig]] = []
        for flag, change in _variations(config, found):
            try:
                candidate = replace(config, **change)
                tried.append((mismatches(expected_shapes(candidate), found), flag, candidate))
            except ConfigError:
                continue  # an impossible combination explains nothing
        best = min(tried, key=lambda item: item[0], default=None)
        if best is None or best[0] >= left:
            break
        left, flag, config = best
        advice.append(flag)
    return advice


def _variations(
    config: UNetConfig | ClassifierConfig, found: Shapes
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Changes of one flag, with values read off the shapes where they show there."""
    classifier = isinstance(config, ClassifierConfig)
    prefix = "classifier_" if classifier else ""
    flipped = not config.scale_shift_norm
    yield f"--{prefix}use_scale_shift_norm {flipped}", {"scale_shift_norm": flipped}
    flipped = not config.resblock_updown
    yield f"--{prefix}resblock_updown {flipped}", {"resblock_updown": flipped}
    for depth in range(1, 6):
        flag = "classifier_depth" if classifier else "num_res_blocks"
        yield f"--{flag} {depth}", {"num_res_blocks": depth}
    if width := _first(found, "time_embed.0.weight", 1):
        flag = "classifier_width" if classifier else "num_channels"
        yield f"--{flag} {width}", {"model_channels": width}
    levels = range(len(config.channel_mult))
    for first in levels:
        for last in levels[first:]:
            sizes = ",".join(str(config.image_size[0] >> k) for k in range(first, last + 1))
            factors = tuple(2**k for k in range(first, last + 1))
            yield f"--{prefix}attention_resolutions {sizes}", {"attention_factors": factors}
    for row in CHECKPOINTS:
        if not row.embedded and row.kind == "diffusion":
            size, mult = row.config.image_size, row.config.channel_mult
            yield f"--image_size {size[0]}", {"image_size": size, "channel_mult": mult}
    if isinstance(config, ClassifierConfig):
        yield from _classifier_variations(found)
    else:
        yield from _unet_variations(config, found)


def _unet_variations(config: UNetConfig, found: Shapes) -> Iterator[tuple[str, dict[str, Any]]]:
    classes = _first(found, "label_emb.weight", 0)
    count = f" --num_classes {classes}" if classes not in (None, 1000) else ""
    yield f"--class_cond {classes is not None}{count}", {"num_classes": classes}
    out = _first(found, "out.2.weight", 0)
    yield f"--learn_sigma {out == 6}", {"out_channels": out or 3}
    if _first(found, "input_blocks.0.0.weight", 1) == 2 * config.in_channels:
        large, small = config.image_size[0], config.image_size[0] // 4
        flag = f"--large_size {large} --small_size {small}"
        yield flag, {"low_res_size": (small, small)}


def _classifier_variations(found: Shapes) -> Iterator[tuple[str, dict[str, Any]]]:
    for pool in ("attention", "adaptive", "spatial", "spatial_v2"):
        yield f"--classifier_pool {pool}", {"pool": pool}
    for last in ("out.2.c_proj.weight", "out.3.weight", "out.2.weight"):
        if classes := _first(found, last, 0):
            yield f"--num_classes {classes}", {"num_classes": classes}


def _first(found: Shapes, name: str, axis: int) -> int | None:
    shape = found.get(name)
    return shape[axis] if shape is not None and len(shape) > axis else None
