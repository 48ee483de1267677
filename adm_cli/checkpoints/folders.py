"""Folders of ADM as others converted it, the diffusion model in ``unet/``, its classifier beside.

A ``config.json`` of diffusers' own UNet is read by `diffusers.read_folder`. One with the original's
flags (``num_channels``, ``classifier_width``) or its networks' arguments (``model_channels``) is
read here: weights under the original's names, perhaps behind a prefix; the process as flags or as
settings of a scheduler of diffusers; names of classes as ``id2label``. What the files name as
classes, modules or pipelines is never looked for.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adm_cli.checkpoints.diffusers import (
    WEIGHTS,
    FoundModel,
    folder_settings,
    read_folder,
    read_scheduler,
)
from adm_cli.checkpoints.finding import MODEL_PARTS
from adm_cli.checkpoints.flags.model import read_flags
from adm_cli.checkpoints.loading import kind_of_tensors
from adm_cli.checkpoints.originals import read_weights
from adm_cli.config import ClassifierConfig, UNetConfig
from adm_cli.errors import CheckpointError, ConfigError, UsageError, one_of, why_unread
from adm_cli.files.budget import whole_text
from adm_cli.files.disk import file_stamp

_DESCRIBES = frozenset(("num_channels", "classifier_width", "model_channels"))
_FILES = (*WEIGHTS, "model.safetensors", "pytorch_model.bin")
_MOST_FLAGS = 50_000  # characters
# What flags say in other words; a UNet's channels follow from them.
_OF_SCHEDULER = {"steps": "diffusion_steps"}
_FOLLOWS = ("in_channels", "out_channels")


def read_model_folder(path: Path) -> FoundModel:
    """The model of a folder: its UNet, or its classifier where it has no other.

    Raises UsageError for a folder without one, CheckpointError for one that is no ADM or damaged.
    """
    part = next(
        (path / name for name in MODEL_PARTS if (path / name / "config.json").is_file()), path
    )
    settings = part / "config.json"
    try:
        said = folder_settings(settings) if settings.is_file() else {}
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{part}: {why_unread(error)}") from None
    if not _DESCRIBES & set(said):
        return read_folder(path)
    weights = [part / name for name in _FILES if (part / name).is_file()]
    if not weights:
        raise UsageError(f"{part} has a config.json and no weights: expected {one_of(_FILES)}")
    return _read_flagged(path, part, said, weights[0])


def _read_flagged(path: Path, part: Path, said: Mapping[str, Any], weights: Path) -> FoundModel:
    stamp = file_stamp(weights)
    found = read_weights(weights)
    kind = kind_of_tensors({name: tuple(value.shape) for name, value in found.tensors.items()})
    try:
        noise, labels = _beside(path, part)
        theirs = "num_train_timesteps" in noise  # of diffusers, not the original's
        flags = {"noise_schedule": "linear"}  # the original's default, unless a file says another
        flags |= {} if theirs else dict(_plain(noise, _OF_SCHEDULER))
        flags |= dict(_plain(said, {}))
        text = json.dumps(flags)
        if len(text) > _MOST_FLAGS:
            raise ValueError(
                f"{len(text):,} characters of settings, expected at most {_MOST_FLAGS:,}"
            )
        reading = read_flags(text, kind)
        process = reading.diffusion
        if theirs:
            config = reading.config
            learned = isinstance(config, ClassifierConfig) or config.learned_variance
            process = read_scheduler(noise, learned=learned)
        names = _class_names(labels or said.get("id2label"), reading.config)
    except (ConfigError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is no ADM that adm can draw with: {why_unread(error)}"
        ) from None
    notes = [*found.notes, *reading.notes]
    if not noise:
        notes.append("no scheduler_config.json: the original's noise schedule is taken")
    if part.name == "unet" and (path / "classifier" / "config.json").is_file():
        notes.append(f"its classifier: adm convert {shlex.quote(str(path / 'classifier'))}")
    return FoundModel(
        weights, reading.config, process, found.tensors, names, stamp, tuple(notes), imagenet=True
    )


def _beside(path: Path, part: Path) -> tuple[Mapping[str, Any], Any]:
    """Settings of the process, none where there are none, and names of the classes."""
    noise: Mapping[str, Any] = {}
    for place in (path / "scheduler", part, part.parent / "scheduler"):
        if (place / "scheduler_config.json").is_file():
            noise = folder_settings(place / "scheduler_config.json")
            break
    for place in (path, part.parent):
        if (place / "model_index.json").is_file():
            return noise, folder_settings(place / "model_index.json").get("id2label")
    return noise, None


def _plain(said: Mapping[str, Any], renamed: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """The settings that are flags or arguments; not those of whoever wrote the file."""
    constructor = "model_channels" in said
    for name, value in said.items():
        if name.startswith("_") or isinstance(value, dict):
            continue
        if constructor or name not in _FOLLOWS:
            yield renamed.get(name, name), value


def _class_names(
    labels: Mapping[str, str] | None, config: UNetConfig | ClassifierConfig
) -> Mapping[int, str] | None:
    """By id, where they are all named; an example in a file may name a few."""
    if labels is None or config.num_classes is None:
        return None
    names = {whole_text(i): str(name) for i, name in labels.items()}
    return names if sorted(names) == list(range(config.num_classes)) else None
