"""A model's settings as flags of the original, which `flags.model` reads back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from adm_cli.checkpoints.flags.model import CHANNEL_MULT, UPSAMPLER_CHANNEL_MULT
from adm_cli.config import ClassifierConfig, DiffusionConfig, EncoderConfig, UNetConfig

_LABELS = 1000  # the original's NUM_CLASSES
_HEAD_CHANNELS = 64  # of every classifier of the original


def write_flags(config: UNetConfig | ClassifierConfig, diffusion: DiffusionConfig) -> str:
    """The line of flags by which the original's scripts build a model that has no `lacks`."""
    flags = dict(_classifier(config) if isinstance(config, ClassifierConfig) else _unet(config))
    flags |= _process(diffusion)
    return " ".join(f"--{name} {value}" for name, value in flags.items())


def _unet(config: UNetConfig) -> Iterator[tuple[str, Any]]:
    size = config.image_size[0]
    if config.low_res_size is None:
        yield "image_size", size
    else:
        yield from (("large_size", size), ("small_size", config.low_res_size[0]))
    yield "num_channels", config.model_channels
    yield "num_res_blocks", config.num_res_blocks
    if not _is_default(config):
        yield "channel_mult", _joined(config.channel_mult)
    yield "attention_resolutions", _resolutions(config)
    yield "num_heads", config.num_heads
    yield "num_head_channels", _or_less(config.num_head_channels)
    yield "num_heads_upsample", _or_less(config.num_heads_upsample)
    if config.low_res_size is None or config.qkv_order == "new":  # no flag of upsamplers
        yield "use_new_attention_order", config.qkv_order == "new"
    yield "use_scale_shift_norm", config.scale_shift_norm
    yield "resblock_updown", config.resblock_updown
    yield "dropout", f"{config.dropout:g}"
    yield "class_cond", config.num_classes is not None
    if config.num_classes is not None and config.num_labels != _LABELS:
        yield "num_classes", config.num_labels
    yield "use_fp16", config.use_fp16
    yield "use_checkpoint", config.gradient_checkpointing


def _classifier(config: ClassifierConfig) -> Iterator[tuple[str, Any]]:
    yield "image_size", config.image_size[0]
    yield "classifier_width", config.model_channels
    yield "classifier_depth", config.num_res_blocks
    if not _is_default(config):
        yield "classifier_channel_mult", _joined(config.channel_mult)
    yield "classifier_attention_resolutions", _resolutions(config)
    yield "classifier_use_scale_shift_norm", config.scale_shift_norm
    yield "classifier_resblock_updown", config.resblock_updown
    yield "classifier_pool", config.pool
    if config.num_head_channels != _HEAD_CHANNELS:
        yield "classifier_num_head_channels", _or_less(config.num_head_channels)
    if config.qkv_order == "new":
        yield "classifier_use_new_attention_order", True
    if config.num_classes != _LABELS:
        yield "num_classes", config.num_classes
    yield "classifier_use_fp16", config.use_fp16


def _process(diffusion: DiffusionConfig) -> dict[str, Any]:
    return {
        "learn_sigma": diffusion.variance == "learned_range",
        **({"sigma_small": True} if diffusion.variance == "fixed_small" else {}),
        "diffusion_steps": diffusion.num_timesteps,
        "noise_schedule": diffusion.noise_schedule,
        **({"timestep_respacing": diffusion.respacing} if diffusion.respacing else {}),
        "predict_xstart": diffusion.prediction == "x_start",
        "use_kl": diffusion.loss in ("kl", "rescaled_kl"),
        "rescale_learned_sigmas": diffusion.loss == "rescaled_mse",
        "rescale_timesteps": diffusion.rescale_timesteps,
    }


def _is_default(config: EncoderConfig) -> bool:
    """Whether the original multiplies channels so for that size, without being told."""
    table = UPSAMPLER_CHANNEL_MULT if _is_upsampler(config) else CHANNEL_MULT
    return table.get(config.image_size[0]) == _joined(config.channel_mult)


def _is_upsampler(config: EncoderConfig) -> bool:
    return isinstance(config, UNetConfig) and config.low_res_size is not None


def _joined(numbers: tuple[float, ...]) -> str:
    return ",".join(f"{number:g}" for number in numbers)


def _or_less(number: int | None) -> int:
    return -1 if number is None else number


def _resolutions(config: EncoderConfig) -> str:
    """Sizes of the maps with attention; where no level has any, one that never comes."""
    size = config.image_size[0]
    inside = [size // factor for factor in config.attention_factors if factor <= size]
    return ",".join(map(str, inside or [1]))


def lacks(config: UNetConfig | ClassifierConfig, diffusion: DiffusionConfig) -> list[str]:
    """In words, what a model has that the original's code has not."""
    height, width = config.image_size
    unet = isinstance(config, UNetConfig)
    learned = isinstance(config, UNetConfig) and config.learned_variance
    found = [
        (height != width, f"pictures of {height}x{width}, which are not square"),
        (config.patch != 1, f"patches of {config.patch}x{config.patch} pixels"),
        (config.attention_window is not None, "attention in windows"),
        (config.rescale_residual, "scaled residual sums"),
        (config.concat_embedding, "the embedding concatenated"),
        (config.in_channels != 3, f"pictures of {config.in_channels} channels"),
        (
            not (config.resblock_updown or config.conv_resample),
            "resampling without convolutions",
        ),
        (
            any(size // (size // f) != f for size in (height,) for f in config.attention_factors
                if f <= size),
            "attention at sizes that do not divide the picture",
        ),
        (
            unet and diffusion.prediction == "v",
            "v-prediction (one trained with --set prediction=eps can)",
        ),
        (
            unet and learned != (diffusion.variance == "learned_range"),
            "a variance that is not what it gives out",
        ),
    ]  # fmt: skip
    if isinstance(config, UNetConfig):
        found += [
            (config.low_res_noise is not None, "an input that tells the small picture's noise"),
            (config.detail_scale is not None, "the detail alone predicted"),
            (not config.middle_attention, "a middle without attention"),
        ]
    else:
        counted = config.num_head_channels is None and config.num_heads != 1
        found.append((counted, f"a classifier's {config.num_heads} heads, whatever the width"))
    return [text for wrong, text in found if wrong]


def edits(config: UNetConfig | ClassifierConfig, diffusion: DiffusionConfig) -> list[str]:
    """What has to be changed in the original's ``script_util.py``, for flags that it has not."""
    classifier = isinstance(config, ClassifierConfig)
    labels = config.num_classes if isinstance(config, ClassifierConfig) else config.num_labels
    builder = "create_classifier" if classifier else "sr_create_model"
    mult = "classifier_channel_mult" if classifier else "channel_mult"
    found = []
    if labels not in (None, 0, _LABELS):
        found.append(f"NUM_CLASSES = {labels}, and no --num_classes")
    if (classifier or _is_upsampler(config)) and not _is_default(config):
        values = _joined(config.channel_mult)
        found.append(f"channel_mult = ({values},) in {builder}, and no --{mult}")
    elif not _is_default(config) and any(m != int(m) for m in config.channel_mult):
        found.append("float instead of int where create_model reads --channel_mult")
    if (classifier or _is_upsampler(config)) and config.qkv_order == "new":
        flag = f"{'classifier_' if classifier else ''}use_new_attention_order"
        found.append(f"use_new_attention_order=True in {builder}, and no --{flag}")
    if classifier and config.num_head_channels != _HEAD_CHANNELS:
        heads = _or_less(config.num_head_channels)
        found.append(
            f"num_head_channels={heads} in {builder}, and no --classifier_num_head_channels"
        )
    if diffusion.variance == "fixed_small":
        found.append("sigma_small=True in create_gaussian_diffusion's call, and no --sigma_small")
    return found
