"""Architectures to train: the paper's studies of them, and moderate ones for one's own pictures.

`ABLATIONS` are the rows of the paper's tables 1 to 3, `STARTERS` models by the pictures' size.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from adm_cli.config import (
    ClassifierConfig,
    DiffusionConfig,
    EncoderConfig,
    Kind,
    Prediction,
    ScheduleName,
    UNetConfig,
)
from adm_cli.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """A row of the paper's tables 1 to 3: ImageNet 128x128, batch 256, 250 sampling steps."""

    name: str
    config: UNetConfig
    fid_700k: float
    fid_1200k: float | None = None


# Table 1: one change at a time from the base, and all that helped together.
_BASE = UNetConfig(
    image_size=(128, 128),
    model_channels=160,
    num_res_blocks=2,
    channel_mult=(1, 1, 2, 3, 4),
    attention_factors=(8,),
    num_heads=1,
    num_classes=1000,
    out_channels=6,
)
_MULTI = (4, 8, 16)
# Tables 2 and 3: 128 channels, attention at three resolutions, BigGAN blocks, one head.
_HEADS = replace(_BASE, model_channels=128, attention_factors=_MULTI, resblock_updown=True)

ABLATIONS: tuple[Ablation, ...] = (
    Ablation(name="ablation-base", config=_BASE, fid_700k=15.33, fid_1200k=13.21),
    Ablation(
        name="ablation-depth4",
        config=replace(_BASE, model_channels=128, num_res_blocks=4),
        fid_700k=15.12,
        fid_1200k=12.73,
    ),
    Ablation(
        name="ablation-heads4",
        config=replace(_BASE, num_heads=4),
        fid_700k=14.79,
        fid_1200k=12.39,
    ),
    Ablation(
        name="ablation-multires",
        config=replace(_BASE, attention_factors=_MULTI),
        fid_700k=14.61,
        fid_1200k=12.55,
    ),
    Ablation(
        name="ablation-biggan",
        config=replace(_BASE, resblock_updown=True),
        fid_700k=14.13,
        fid_1200k=12.00,
    ),
    Ablation(
        name="ablation-rescale",
        config=replace(_BASE, rescale_residual=True),
        fid_700k=15.49,
        fid_1200k=13.46,
    ),
    Ablation(
        name="ablation-all",
        config=replace(_BASE, num_heads=4, attention_factors=_MULTI, resblock_updown=True),
        fid_700k=12.19,
        fid_1200k=10.21,
    ),
    Ablation(name="ablation-1-head", config=_HEADS, fid_700k=14.08),
    Ablation(name="ablation-2-heads", config=replace(_HEADS, num_heads=2), fid_700k=13.58),
    Ablation(name="ablation-4-heads", config=replace(_HEADS, num_heads=4), fid_700k=13.11),
    Ablation(name="ablation-8-heads", config=replace(_HEADS, num_heads=8), fid_700k=12.91),
    Ablation(
        name="ablation-32-per-head",
        config=replace(_HEADS, num_head_channels=32),
        fid_700k=12.72,
    ),
    Ablation(
        name="ablation-64-per-head",
        config=replace(_HEADS, num_head_channels=64),
        fid_700k=13.05,
    ),
    Ablation(
        name="ablation-128-per-head",
        config=replace(_HEADS, num_head_channels=128),
        fid_700k=13.00,
    ),
    Ablation(
        name="ablation-addition",
        config=replace(_HEADS, num_head_channels=64, scale_shift_norm=False),
        fid_700k=15.08,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Starter:
    """A model of moderate cost for a person's own pictures of one size."""

    size: int
    channels: int
    channel_mult: tuple[int, ...]
    attention_factors: tuple[int, ...]
    noise_schedule: ScheduleName = "cosine"


# Levels and attention as published for the size, with fewer channels; below 64 our own.
STARTERS: tuple[Starter, ...] = (
    Starter(size=8, channels=32, channel_mult=(1, 2), attention_factors=(2,)),
    Starter(size=16, channels=32, channel_mult=(1, 2, 4), attention_factors=(2, 4)),
    Starter(size=32, channels=32, channel_mult=(1, 2, 4), attention_factors=(4,)),
    Starter(size=64, channels=64, channel_mult=(1, 2, 3, 4), attention_factors=(4, 8)),
    Starter(
        size=128,
        channels=96,
        channel_mult=(1, 1, 2, 3, 4),
        attention_factors=(8, 16),
        noise_schedule="linear",
    ),
    Starter(
        size=256,
        channels=128,
        channel_mult=(1, 1, 2, 2, 4, 4),
        attention_factors=(16, 32),
        noise_schedule="linear",
    ),
)


def starter_unet(size: tuple[int, int], channels: int | None = None) -> UNetConfig:
    """A UNet for pictures of any size, after the nearest `Starter` by the shorter side."""
    row = _nearest(size)
    return UNetConfig(
        image_size=size,
        model_channels=channels or row.channels,
        num_res_blocks=2,
        channel_mult=row.channel_mult,
        attention_factors=row.attention_factors,
        num_head_channels=32,
        qkv_order="new",
        resblock_updown=True,
        out_channels=6,
    )


def starter_classifier(size: tuple[int, int], channels: int | None = None) -> ClassifierConfig:
    """A noisy classifier beside `starter_unet`: its levels, one block each, at most its width."""
    row = _nearest(size)
    return ClassifierConfig(
        image_size=size,
        model_channels=channels or min(row.channels, 64),
        num_res_blocks=1,
        channel_mult=row.channel_mult,
        attention_factors=row.attention_factors,
        num_head_channels=32,
        resblock_updown=True,
    )


def encoder_classifier(config: UNetConfig) -> ClassifierConfig:
    """A noisy classifier whose encoder is that of a diffusion model, which it can begin with.

    Raises ConfigError for upsamplers, which see two pictures, and where there is no attention in
    the middle.
    """
    if config.low_res_size is not None:
        raise ConfigError("a classifier can't begin with an upsampler, which sees two pictures")
    if not config.middle_attention:
        raise ConfigError("a classifier can't begin with a model without middle_attention")
    shared = {field.name: getattr(config, field.name) for field in fields(EncoderConfig)}
    return ClassifierConfig(
        **shared,
        num_classes=config.num_classes or 1,  # without classes the pictures decide
        pool="adaptive" if config.num_head_channels is None else "attention",
    )


def starter_diffusion(size: tuple[int, int], kind: Kind = "diffusion") -> DiffusionConfig:
    """The process of `starter_unet`: by v (arXiv 2202.00512), as eps of the highest noise says
    next to nothing of the picture, so that little training leaves noise and colour casts.

    A classifier predicts neither.
    """
    prediction: Prediction = "eps" if kind == "classifier" else "v"
    return DiffusionConfig(noise_schedule=_nearest(size).noise_schedule, prediction=prediction)


def _nearest(size: tuple[int, int]) -> Starter:
    return max((r for r in STARTERS if r.size <= max(min(size), 8)), key=lambda r: r.size)
