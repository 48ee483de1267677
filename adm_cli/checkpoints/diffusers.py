"""ADM's UNet as the `UNet2DModel` of diffusers, and back: names, settings, and what does not fit.

A folder of it holds ``unet/config.json`` with its weights beside it, and
``scheduler/scheduler_config.json``. Both files are read as settings and no more: the classes that
they name are compared with what is known here, never loaded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from adm_cli.checkpoints.diffusers_names import from_diffusers, to_diffusers
from adm_cli.checkpoints.format import check_state, load_original
from adm_cli.checkpoints.header import ModelInfo, read_metadata
from adm_cli.config import ClassifierConfig, DiffusionConfig, Prediction, UNetConfig
from adm_cli.errors import CheckpointError, ConfigError, UsageError, one_of, trim, why_unread
from adm_cli.files.budget import parse_json, whole_text
from adm_cli.files.disk import file_stamp, read_file
from adm_cli.files.strict import as_json, config_from_json, config_to_json, read_config

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_MOST_JSON = 2**20
_PREDICTIONS: dict[str, Prediction] = {
    "epsilon": "eps",
    "sample": "x_start",
    "v_prediction": "v",
}
# Attention of diffusers before 0.17, by its names of today.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
# Settings of theirs that ADM has one way only: what we write, and what an older file leaves out.
_FIXED: dict[str, Any] = {
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "mid_block_type": "UNetMidBlock2D",
    "mid_block_scale_factor": 1,
    "downsample_padding": 1,
    "act_fn": "silu",
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "class_embed_type": None,
}


def misfits(config: UNetConfig, diffusion: DiffusionConfig) -> list[str]:
    """In words, what a UNet has that `UNet2DModel` and its schedulers have not."""
    found = [
        (config.low_res_size is not None, "it is an upsampler, which also sees a small picture"),
        (config.patch != 1, f"it folds patches of {config.patch}x{config.patch} pixels"),
        (config.attention_window is not None, "its attention has windows"),
        (config.rescale_residual, "its residual sums are scaled"),
        (config.concat_embedding, "it concatenates the embedding"),
        (
            not (config.resblock_updown or config.conv_resample),
            "it resamples without convolutions",
        ),
        (
            config.level_channels[0] != config.model_channels,
            f"its first level has {config.level_channels[0]} channels, the timestep's embedding "
            f"{config.model_channels}",
        ),
        (len(_head_widths(config)) > 1, "its attention heads are of several widths"),
        (
            diffusion.rescale_timesteps and diffusion.num_timesteps != 1000,
            f"it sees {diffusion.num_timesteps} timesteps as 1000",
        ),
        (
            config.learned_variance != (diffusion.variance == "learned_range"),
            "its variance is not what it gives out",
        ),
    ]
    return [text for wrong, text in found if wrong]


def _head_widths(config: UNetConfig) -> set[int]:
    """Channels of an attention head, over all blocks that have attention."""
    levels = config.level_channels
    blocks = [(ch, heads) for i, ch in enumerate(levels) if config.attends(i)
              for heads in (None, config.num_heads_upsample)]  # fmt: skip
    blocks += [(levels[-1], None)] if config.middle_attention else []
    return {ch // config.heads(ch, heads) for ch, heads in blocks}


def unet_settings(config: UNetConfig) -> dict[str, Any]:
    """``unet/config.json``, for a configuration without `misfits`."""
    down, up = "Downsample", "Upsample"
    plain = {d: f"Resnet{d}Block2D" for d in (down, up)}
    if not config.resblock_updown:
        plain = {down: "DownBlock2D", up: "UpBlock2D"}
    attends = [config.attends(i) for i in range(len(config.level_channels))]
    kind = "resnet" if config.resblock_updown else "conv"
    return {
        "_class_name": "UNet2DModel",
        "sample_size": list(config.image_size),
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "time_embedding_dim": config.embedding_dim,
        "down_block_types": ["AttnDownBlock2D" if a else plain[down] for a in attends],
        "up_block_types": ["AttnUpBlock2D" if a else plain[up] for a in reversed(attends)],
        "block_out_channels": list(config.level_channels),
        "layers_per_block": config.num_res_blocks,
        "downsample_type": kind,
        "upsample_type": kind,
        "dropout": config.dropout,
        "attention_head_dim": min(_head_widths(config), default=None),
        "attn_norm_num_groups": 32,
        "add_attention": config.middle_attention,
        "resnet_time_scale_shift": "scale_shift" if config.scale_shift_norm else "default",
        "num_class_embeds": None if config.num_classes is None else config.num_labels,
        **_FIXED,
    }


def scheduler_settings(diffusion: DiffusionConfig) -> dict[str, Any]:
    """``scheduler/scheduler_config.json`` of their `DDPMScheduler`."""
    cosine = diffusion.noise_schedule == "cosine"
    first, last = _linear_ends(diffusion.num_timesteps)
    return {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": diffusion.num_timesteps,
        "beta_schedule": "squaredcos_cap_v2" if cosine else "linear",
        "beta_start": first,
        "beta_end": last,
        "trained_betas": None,
        "prediction_type": next(
            theirs for theirs, ours in _PREDICTIONS.items() if ours == diffusion.prediction
        ),
        "variance_type": diffusion.variance,
        "clip_sample": True,
        "clip_sample_range": 1.0,
        "thresholding": False,
        "timestep_spacing": "linspace",  # as the original's respacing
        "steps_offset": 0,
        "rescale_betas_zero_snr": False,
    }


def _linear_ends(timesteps: int) -> tuple[float, float]:
    """The first and the last beta of the linear schedule (`diffusion.schedule`)."""
    return 0.0001 * 1000 / timesteps, 0.02 * 1000 / timesteps


def metadata(info: ModelInfo) -> dict[str, str]:
    """What the weights say of themselves beside: theirs, and what `read_folder` restores."""
    assert isinstance(info.config, UNetConfig)
    ours = {
        "qkv_order": info.config.qkv_order,
        "null_class": info.config.null_class,
        "diffusion": config_to_json(info.diffusion),
        "classes": {str(i): name for i, name in sorted(info.classes.items())},
    }
    return {"format": "pt", "adm": json.dumps(ours)}


@dataclass(frozen=True)
class FoundModel:
    """What a folder holds, in our terms."""

    weights: Path
    config: UNetConfig | ClassifierConfig
    diffusion: DiffusionConfig
    tensors: Mapping[str, Tensor]
    classes: Mapping[int, str] | None  # that the folder names
    stamp: tuple[int, ...]  # of the weights before they were read
    notes: tuple[str, ...] = ()
    imagenet: bool = False  # 1,000 classes without names are those


def read_folder(path: Path) -> FoundModel:
    """A UNet of diffusers, from its pipeline's folder or its own.

    Raises UsageError for a folder without one, CheckpointError for one that is no ADM or damaged.
    """
    unet = path / "unet" if (path / "unet" / "config.json").is_file() else path
    places = [path / "scheduler", path, unet.parent / "scheduler"]
    noise = [p / "scheduler_config.json" for p in places if (p / "scheduler_config.json").is_file()]
    weights = [unet / name for name in WEIGHTS if (unet / name).is_file()]
    if not (unet / "config.json").is_file() or not weights:
        raise UsageError(
            f"{path} is a folder without config.json and {WEIGHTS[0]}, or unet/ with them: "
            f"expected an original .pt, or a UNet2DModel of diffusers"
        )
    if not noise:
        raise UsageError(
            f"{path} has no scheduler/scheduler_config.json, which says the "
            f"noise schedule: download the whole folder"
        )
    said = read_metadata(weights[0]) if weights[0].suffix == ".safetensors" else {}
    try:
        ours = dict(parse_json(said["adm"])) if "adm" in said else {}
        config = _read_unet(folder_settings(unet / "config.json"), ours)
        diffusion = read_scheduler(folder_settings(noise[0]), learned=config.learned_variance)
        if "diffusion" in ours:
            diffusion = config_from_json(DiffusionConfig, ours["diffusion"])
        named = ours.get("classes")
        classes = None if named is None else {whole_text(i): str(name) for i, name in named.items()}
    except (ConfigError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is no ADM that adm can draw with: {why_unread(error)}"
        ) from None
    stamp = file_stamp(weights[0])
    state = check_state(weights[0], load_original(weights[0]))
    tensors = {_new_name(name): value for name, value in state.items()}
    try:
        found = from_diffusers(tensors, config)
    except KeyError as error:
        name = error.args[0]
        raise CheckpointError(f"{weights[0]} does not fit its config.json: no {name}") from None
    except (RuntimeError, IndexError) as error:
        raise CheckpointError(f"{weights[0]} does not fit its config.json: {error}") from None
    if extra := set(tensors) - set(to_diffusers(found, config)):
        raise CheckpointError(f"{weights[0]} does not fit its config.json: it has {min(extra)}")
    return FoundModel(weights[0], config, diffusion, found, classes, stamp)


def folder_settings(path: Path) -> dict[str, Any]:
    """One of a folder's files of settings; raises ValueError or TypeError for what is none."""
    try:
        found = parse_json(read_file(path, _MOST_JSON))
    except ValueError as error:
        raise ValueError(f"{path.name} is no JSON ({why_unread(error)})") from None
    if not isinstance(found, dict):
        raise TypeError(f"{path.name} holds no JSON object")
    return found


def _new_name(name: str) -> str:
    """Of a tensor that an older version of theirs wrote."""
    block, _, leaf = name.rpartition(".")
    place, _, part = block.rpartition(".")
    return f"{place}.{_OLD_ATTENTION[part]}.{leaf}" if part in _OLD_ATTENTION else name


def _read_unet(said: Mapping[str, Any], ours: Mapping[str, Any]) -> UNetConfig:
    """``config.json`` as a configuration; raises ValueError for what ADM has not."""
    _expect(said, "_class_name", "UNet2DModel")
    for name, value in _FIXED.items():
        _expect(said, name, value)
    size, channels = said["sample_size"], said["block_out_channels"]
    blocks = [said[name] for name in _BLOCKS]
    if not all(type(c) is int and c > 0 for c in channels) or not channels:
        raise ValueError(
            f"block_out_channels is {as_json(channels)}, expected a list of whole numbers from 1"
        )
    if not all(len(b) == len(channels) and all(type(n) is str for n in b) for b in blocks):
        raise ValueError(f"expected {len(channels)} down_block_types and up_block_types")
    attends = [text.startswith("Attn") for text in blocks[0]]
    labels, null = said.get("num_class_embeds"), ours.get("null_class", False)
    facts = {
        "image_size": [size, size] if type(size) is int else size,
        "in_channels": said["in_channels"],
        "out_channels": said["out_channels"],
        "model_channels": channels[0],
        "channel_mult": [c / channels[0] for c in channels],
        "num_res_blocks": said["layers_per_block"],
        "attention_factors": [2**i for i, yes in enumerate(attends) if yes],
        "num_heads": 1,
        "num_head_channels": said.get("attention_head_dim", 8),
        "qkv_order": ours.get("qkv_order", "new"),
        "scale_shift_norm": said.get("resnet_time_scale_shift") == "scale_shift",
        "resblock_updown": said.get("downsample_type") == "resnet",
        "dropout": said.get("dropout", 0.0),
        "num_classes": labels - 1 if type(labels) is int and null is True else labels,
        "null_class": null,
        "middle_attention": said.get("add_attention", True),
    }
    config = read_config(UNetConfig, facts)
    wanted = unet_settings(config)
    if not config.middle_attention or not config.scale_shift_norm:
        wanted["attn_norm_num_groups"] = said.get("attn_norm_num_groups", 32)
    for block, own, inside in zip(blocks, _BLOCKS, (attends[-1], attends[0]), strict=True):
        if not inside and block[-1] in _PLAIN:  # the last does not resample, whatever its name
            wanted[own][-1] = block[-1]
    for name in (
        "time_embedding_dim", "attn_norm_num_groups", "resnet_time_scale_shift", "upsample_type",
        "downsample_type", *_BLOCKS,
    ):  # fmt: skip
        _expect(said, name, wanted[name])
    return config


_BLOCKS = ("down_block_types", "up_block_types")
_PLAIN = ("DownBlock2D", "UpBlock2D", "ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")
# What `UNet2DModel` takes where a file does not say.
_DEFAULTS: dict[str, Any] = {
    "time_embedding_dim": None,
    "attn_norm_num_groups": None,
    "resnet_time_scale_shift": "default",
    "upsample_type": "conv",
    "downsample_type": "conv",
    **_FIXED,
}


def _expect(said: Mapping[str, Any], name: str, value: Any) -> None:
    found = said.get(name, _DEFAULTS.get(name))
    if name == "time_embedding_dim" and found is None:
        return
    if found != value or isinstance(found, bool) != isinstance(value, bool):
        raise ValueError(f"{name} is {as_json(found)}, expected {as_json(value)}")


def read_scheduler(said: Mapping[str, Any], *, learned: bool) -> DiffusionConfig:
    """``scheduler_config.json`` as a process; raises ValueError for what ADM has not."""
    timesteps, kind = said["num_train_timesteps"], said.get("beta_schedule")
    if type(timesteps) is not int or timesteps < 1:
        raise ValueError(
            f"num_train_timesteps is {as_json(timesteps)}, expected a whole number from 1"
        )
    for name in ("trained_betas", "rescale_betas_zero_snr"):
        if said.get(name):
            raise ValueError(f"{name} is set, which is another noise schedule")
    if kind == "linear":
        ends = float(said["beta_start"]), float(said["beta_end"])
        wanted = _linear_ends(timesteps)
        if not all(math.isclose(a, b, rel_tol=1e-6) for a, b in zip(ends, wanted, strict=True)):
            raise ValueError(
                f"betas from {ends[0]:g} to {ends[1]:g}, expected ADM's, {wanted[0]:g} to "
                f"{wanted[1]:g}"
            )
    elif kind != "squaredcos_cap_v2":
        raise ValueError(f"beta_schedule is {trim(kind, 40)}, expected linear or squaredcos_cap_v2")
    prediction = said.get("prediction_type", "epsilon")
    if prediction not in _PREDICTIONS:
        expected = one_of(_PREDICTIONS)
        raise ValueError(f"prediction_type is {trim(prediction, 40)}, expected {expected}")
    small = said.get("variance_type", "fixed_small").startswith("fixed_small")
    return DiffusionConfig(
        noise_schedule="linear" if kind == "linear" else "cosine",
        num_timesteps=timesteps,
        prediction=_PREDICTIONS[prediction],
        variance="learned_range" if learned else "fixed_small" if small else "fixed_large",
    )
