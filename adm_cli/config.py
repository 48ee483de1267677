"""Settings as frozen dataclasses, checked when they are made.

A model's settings travel as JSON inside its weights file: `files.strict` writes and reads it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from adm_cli.checkpoints.flags.spellings import spell_sampling
from adm_cli.classes.mixtures import Mixture, read_mixture
from adm_cli.diffusion.modifiers import Modifiers
from adm_cli.errors import ConfigError, how_many, size_words
from adm_cli.files.strict import check_types

Kind = Literal["diffusion", "classifier", "upsampler"]
QkvOrder = Literal["legacy", "new"]
Pool = Literal["attention", "adaptive", "spatial", "spatial_v2"]
ScheduleName = Literal["linear", "cosine"]
Prediction = Literal["eps", "x_start", "v"]
Variance = Literal["learned_range", "fixed_large", "fixed_small"]
Loss = Literal["mse", "rescaled_mse", "kl", "rescaled_kl"]

DEFAULT_MODEL = "tiny"
DEFAULT_NUM = 4  # images of each class, where nobody says how many
DEFAULT_ROWS = 10  # images of each cell on a sweep's contact sheet
NORM_GROUPS = 32  # of every group norm in ADM
LEAST_CROP = 0.8  # smallest side of the original's random crops, of the picture's shorter side

# Far above any real model, low enough that a hostile file cannot make us build for hours.
_MAX_SIDE, _MAX_CHANNELS, _MAX_BLOCKS, _MAX_LEVELS, _MAX_CLASSES = 16384, 16384, 64, 12, 10**6
_MAX_DEPTH, _MAX_PASSES = 128, 100
MOST_BATCH = 4096  # images computed at once


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """What the diffusion UNet and the noisy classifier share (arXiv 2105.05233, section 3).

    ``attention_factors`` are downsampling factors: 1 is full resolution, 8 an eighth of it. (The
    original's command line gives image sizes instead; `openai_flags` translates.) The middle
    block has attention whatever they say.
    """

    image_size: tuple[int, int]  # height, width; each divisible by `stride`
    model_channels: int
    num_res_blocks: int
    channel_mult: tuple[float, ...]  # one per resolution level; fractions allowed
    attention_factors: tuple[int, ...]
    num_heads: int = 4
    num_head_channels: int | None = None  # if given, wins over every head count
    qkv_order: QkvOrder = "legacy"  # "new" only in the published 64x64 diffusion model
    attention_window: int | None = None  # side of local attention windows; None: whole map
    scale_shift_norm: bool = True  # AdaGN; False adds the embedding instead
    resblock_updown: bool = False  # BigGAN residual blocks resample
    conv_resample: bool = True  # without resblock_updown: convolve when resampling
    rescale_residual: bool = False  # residual sums times 1/sqrt(2), as in arXiv 2011.13456
    dropout: float = 0.0
    in_channels: int = 3
    use_fp16: bool = False  # the published recipe computes the torso in float16 (on a GPU)
    gradient_checkpointing: bool = False  # recompute blocks in the backward pass
    patch: int = 1  # side of the pixel blocks folded into channels before the first convolution
    # the embedding as further channels, neither AdaGN nor addition
    concat_embedding: bool = field(default=False, metadata={"omit_default": True})

    def __post_init__(self) -> None:
        check_types(self)
        for side in self.image_size:
            _in_range("image_size", side, 1, _MAX_SIDE)
        _in_range("model_channels", self.model_channels, 1, _MAX_CHANNELS)
        _in_range("num_res_blocks", self.num_res_blocks, 1, _MAX_BLOCKS)
        _in_range("in_channels", self.in_channels, 1, _MAX_CHANNELS)
        _in_range("num_heads", self.num_heads, 1, _MAX_CHANNELS)
        _in_range("patch", self.patch, 1, _MAX_SIDE)
        _in_range("number of channel_mult", len(self.channel_mult), 1, _MAX_LEVELS)
        if not all(0 < mult <= _MAX_CHANNELS for mult in self.channel_mult):  # NaN is not either
            raise ConfigError(
                f"channel_mult must be above 0 and finite, at most {_MAX_CHANNELS}, got "
                f"{self.channel_mult}"
            )
        depth = self.num_res_blocks * len(self.channel_mult)
        _in_range("num_res_blocks over all levels", depth, 1, _MAX_DEPTH)
        if self.concat_embedding and self.scale_shift_norm:
            raise ConfigError(
                "concat_embedding takes the place of AdaGN: scale_shift_norm must be false"
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be in [0, 1), got {self.dropout}")
        if any(side % self.stride for side in self.image_size):
            folded = f", patches of {self.patch}x{self.patch}" if self.patch > 1 else ""
            raise ConfigError(
                f"image size {size_words(self.image_size)} is not divisible by the model's total "
                f"stride {self.stride} ({len(self.channel_mult)} levels of channel_mult{folded})"
            )
        for channels in self.level_channels:
            if not 0 < channels <= _MAX_CHANNELS or channels % NORM_GROUPS:
                raise ConfigError(
                    f"every level needs a multiple of {NORM_GROUPS} channels for its group norms, "
                    f"got {channels} (model_channels {self.model_channels} x channel_mult)"
                )
        for level, channels in enumerate(self.level_channels):
            if level == len(self.level_channels) - 1 or self.attends(level):
                self._check_attention(channels, self.patch * 2**level)

    def _check_attention(self, channels: int, factor: int) -> None:
        self.heads(channels)
        if self.attention_window is None:
            return
        _in_range("attention_window", self.attention_window, 1, _MAX_SIDE)
        for side in self.image_size:
            window = min(self.attention_window, side // factor)
            if (side // factor) % window:
                raise ConfigError(
                    f"attention_window {self.attention_window} does not divide the "
                    f"{side // factor} cells of the feature map at 1/{factor} of the image"
                )

    def heads(self, channels: int, num_heads: int | None = None) -> int:
        """Attention heads of a block with ``channels`` channels.

        Raises ConfigError if the channels cannot be shared out evenly.
        """
        by_width = self.num_head_channels is not None
        per = self.num_head_channels if by_width else (num_heads or self.num_heads)
        if per is None or per < 1 or channels % per:
            what = "num_head_channels" if by_width else "num_heads"
            raise ConfigError(
                f"attention over {channels} channels is not divisible by {what} {per}"
            )
        return channels // per if by_width else per

    @property
    def level_channels(self) -> tuple[int, ...]:
        return tuple(int(mult * self.model_channels) for mult in self.channel_mult)

    def attends(self, level: int) -> bool:
        """Whether the blocks of a resolution level have attention."""
        return self.patch * 2**level in self.attention_factors

    @property
    def stride(self) -> int:
        """Total downsampling, patch * 2^(levels - 1)."""
        return int(self.patch * 2 ** (len(self.channel_mult) - 1))

    @property
    def embedding_dim(self) -> int:
        return self.model_channels * 4


@dataclass(frozen=True, kw_only=True)
class UNetConfig(EncoderConfig):
    """The diffusion model; with ``low_res_size`` an upsampler that also sees a small image."""

    out_channels: int = 3  # twice in_channels when the variance is learned
    num_classes: int | None = None  # None: unconditional
    null_class: bool = False  # one more label, "none": the model can also draw without a class
    num_heads_upsample: int | None = None  # heads of the output blocks, if not num_heads
    low_res_size: tuple[int, int] | None = None
    low_res_noise: float | None = None  # largest, on the small image in training; None: untold
    middle_attention: bool = True  # as in all of ADM; False for convolutions alone
    # of the detail over the enlarged picture, where that is all that is predicted (models.detail)
    detail_scale: float | None = field(default=None, metadata={"omit_default": True})

    def __post_init__(self) -> None:
        super().__post_init__()
        fixed, learned = self.in_channels, 2 * self.in_channels
        if self.out_channels not in (fixed, learned):
            raise ConfigError(
                f"out_channels must be {fixed} (fixed variance) or {learned} (learned), "
                f"got {self.out_channels}"
            )
        _in_range("num_classes", self.num_classes, 1, _MAX_CLASSES)
        if self.null_class and self.num_classes is None:
            raise ConfigError("null_class means a label for no class: it needs num_classes")
        for side in self.low_res_size or ():
            _in_range("low_res_size", side, 1, _MAX_SIDE)
        for name in ("low_res_noise", "detail_scale"):
            _in_interval(name, value := getattr(self, name), 10)
            if value == 0 or (value is not None and self.low_res_size is None):
                raise ConfigError(f"{name} must be above 0, and is for upsamplers only")
        low = self.low_res_size if self.detail_scale is not None else None
        uneven = any(a % b for a, b in zip(self.image_size, low or (1, 1), strict=True))
        if uneven or (low is not None and self.low_res_noise is not None):
            raise ConfigError(
                "detail_scale keeps what it enlarges: image_size must be a multiple of "
                "low_res_size, low_res_noise null"
            )
        _in_range("num_heads_upsample", self.num_heads_upsample, 1, _MAX_CHANNELS)
        for level, channels in enumerate(self.level_channels):
            if self.num_heads_upsample is not None and self.attends(level):
                self.heads(channels, self.num_heads_upsample)

    @property
    def learned_variance(self) -> bool:
        return self.out_channels == 2 * self.in_channels

    @property
    def num_labels(self) -> int:
        """Rows of the label embedding; the last means "no class" if ``null_class``."""
        return (self.num_classes or 0) + self.null_class

    @property
    def kind(self) -> Kind:
        return "diffusion" if self.low_res_size is None else "upsampler"


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(EncoderConfig):
    """The noisy-image classifier: the UNet's downsampling half and a pool (section 4)."""

    num_classes: int = 1000
    pool: Pool = "attention"
    num_head_channels: int | None = 64
    kind: ClassVar[Kind] = "classifier"

    def __post_init__(self) -> None:
        super().__post_init__()
        _in_range("num_classes", self.num_classes, 1, _MAX_CLASSES)
        if self.pool == "attention" and self.num_head_channels is None:
            raise ConfigError(
                "the attention pool needs num_head_channels (64 in the published models)"
            )


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """The diffusion process a model was trained for, and the steps it is best sampled with."""

    noise_schedule: ScheduleName = "linear"
    num_timesteps: int = 1000  # T of the original, unspaced process
    prediction: Prediction = "eps"
    variance: Variance = "learned_range"
    rescale_timesteps: bool = False  # the network sees t * 1000 / T, as a float
    loss: Loss = "mse"  # "mse" with learned_range is the hybrid loss of arXiv 2102.09672
    respacing: str | None = None  # recommended steps, e.g. "250" or "ddim25"; None: all of them

    def __post_init__(self) -> None:
        check_types(self)
        _in_range("num_timesteps", self.num_timesteps, 1, 10**6)
        if self.noise_schedule == "linear" and self.num_timesteps < 20:
            raise ConfigError(
                f"a linear schedule needs at least 20 timesteps (its last beta is 20/T), "
                f"got {self.num_timesteps}"
            )


@dataclass(frozen=True, kw_only=True)
class Recommended:
    """How a model is best sampled, for what nobody asked otherwise."""

    sampler: str = "ddpm"
    steps: str | None = None  # respacing; None: `DiffusionConfig.respacing`, or all
    eta: float | None = None  # of that sampler, where none is asked for
    scale: float = 1.0  # of classifier guidance, where there is a classifier
    guide_interval: tuple[float, float] | None = None  # None: as the schedule needs it
    cfg: float = 1.0  # weight of classifier-free guidance; 1 is off
    cfg_interval: tuple[float, float] | None = None
    temperature: float = 1.0  # of all noise; below 1 smoother

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("scale", "cfg", "temperature"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"{name} must be a finite number, got {getattr(self, name)}")
        _check_eta_and_intervals(self)


@dataclass(frozen=True, kw_only=True)
class SamplingConfig(Modifiers):
    """What to draw: one entry of ``seeds`` and of ``classes`` an image.

    One class stands for all, as ``207`` or ``(207,)``; ``seeds`` may be any sequence or one number,
    ``steps`` a number, and a sampler spelt otherwise ("DPM++ 2M"): they become what is declared,
    sequences tuples. What is None becomes what the preset or the model's file recommends
    (`defaults.resolve`); the `Modifiers` are settings, too.
    """

    seeds: Sequence[int]  # 0 <= seed < 2^64
    classes: Sequence[int | None]  # class ids; None for unconditional, unguided images
    sampler: str | None = None  # a name of diffusion.samplers.SAMPLERS
    steps: str | None = None  # respacing, such as "250" or "ddim25"
    scale: float | None = None  # of classifier guidance; 0 is off, negative repels from the class
    eta: float | None = None  # of ddim and dpm++2m: 0 deterministic (None), 1 as noisy as DDPM
    batch_size: int | None = None  # images computed at once; None: as many as fit, at most 16
    clip_denoised: bool = True
    scales: tuple[float, ...] | None = None  # a guidance scale for each image, instead of `scale`
    cfg: float | None = None  # of classifier-free guidance (arXiv 2207.12598); 1 is off
    cfgs: tuple[float, ...] | None = None  # such a weight for each image, instead of `cfg`
    mixtures: tuple[str | None, ...] | None = None  # of images with several: "207*0.7+281*0.3"
    guide_interval: tuple[float, float] | None = None  # only there; 0 no noise, 1 timestep T - 1
    entropy_scaling: bool = False  # of the guidance: stronger where the classifier is sure
    cfg_interval: tuple[float, float] | None = None  # as guide_interval, of cfg
    project: int | None = None  # passes of back projection onto what an upsampler enlarges
    low_res_noise: float | None = None  # laid on that, in [-1, 1]; None: as the model recommends
    temperature: float | None = None

    def __post_init__(self) -> None:
        written = spell_sampling(self.seeds, self.classes, self.sampler, self.steps)
        for name, value in written.items():
            object.__setattr__(self, name, value)
        super().__post_init__()
        if not self.seeds or len(self.seeds) != len(self.classes):
            raise ConfigError(
                f"expected as many classes as seeds and at least one, "
                f"got {how_many(len(self.seeds), 'seed')} and "
                f"{how_many(len(self.classes), 'class', 'classes')}"
            )
        for seed in self.seeds:
            if not 0 <= seed < 2**64:
                raise ConfigError(f"a seed must be a whole number from 0 to 2^64 - 1, got {seed}")
        if self.mixtures is not None and len(self.mixtures) != len(self.seeds):
            images = how_many(len(self.seeds), "image")
            raise ConfigError(f"{how_many(len(self.mixtures), 'mixture')} for {images}")
        self._check_guidance()
        _check_eta_and_intervals(self)
        _in_range("project", self.project, 0, _MAX_PASSES)
        _in_interval("low_res_noise", self.low_res_noise, 10)
        _in_range("the batch size", self.batch_size, 1, MOST_BATCH)

    def _check_guidance(self) -> None:
        scales, cfgs = self.image_scales, self.image_cfgs
        if self.negative_class is not None and self.negative_class in self.all_classes:
            raise ConfigError(
                f"class {self.negative_class} is both asked for and led away from: choose another "
                f"--negative-class"
            )
        for name, values, off in (("scale", scales, 0), ("cfg", cfgs, 1)):
            if len(values) != len(self.seeds):
                images = how_many(len(self.seeds), "image")
                raise ConfigError(f"{how_many(len(values), name)} for {images}")
            if wrong := [value for value in dict.fromkeys(values) if not math.isfinite(value)]:
                raise ConfigError(f"the guidance {name} must be a finite number, got {wrong[0]}")
            if any(c is None and v != off for c, v in zip(self.classes, values, strict=True)):
                raise ConfigError(
                    f"guidance needs a class for every image: pass --class, or --{name} {off}"
                )

    @property
    def image_parts(self) -> tuple[Mixture | tuple[tuple[int | None, float]], ...]:
        """The classes of every image, each with its share; most images have one.

        Raises ConfigError for a mixture that is none.
        """
        mixtures = self.mixtures or (None,) * len(self.seeds)
        return tuple(
            ((class_id, 1.0),) if mixture is None else read_mixture(mixture)
            for class_id, mixture in zip(self.classes, mixtures, strict=True)
        )

    @property
    def all_classes(self) -> tuple[int | None, ...]:
        """Every class of any image, once."""
        return tuple(dict.fromkeys(i for parts in self.image_parts for i, _ in parts))

    @property
    def most_parts(self) -> int:
        """Classes of the image that has most."""
        return 1 if self.mixtures is None else max(map(len, self.image_parts))

    @property
    def image_scales(self) -> tuple[float, ...]:
        """The guidance scale of every image; 0 while it is not resolved."""
        return (self.scale or 0.0,) * len(self.seeds) if self.scales is None else self.scales

    @property
    def guided(self) -> bool:
        """Whether any image needs the classifier."""
        return any(self.image_scales)

    @property
    def image_cfgs(self) -> tuple[float, ...]:
        """The weight of classifier-free guidance of every image; 1 while it is not resolved."""
        common = 1.0 if self.cfg is None else self.cfg
        return (common,) * len(self.seeds) if self.cfgs is None else self.cfgs

    @property
    def classifier_free(self) -> bool:
        """Whether any image takes the model's outputs with and without its class."""
        return any(cfg != 1 for cfg in self.image_cfgs)


def _check_eta_and_intervals(of: Recommended | SamplingConfig) -> None:
    _in_interval("eta", of.eta, 1)
    for name in ("guide_interval", "cfg_interval"):
        low, high = getattr(of, name) or (0, 1)
        if not 0 <= low <= high <= 1:
            raise ConfigError(f"{name} must be two rising numbers in [0, 1], got {low:g},{high:g}")


def _in_range(name: str, value: int | None, low: int, high: int) -> None:
    if value is not None and not low <= value <= high:
        raise ConfigError(f"{name} must be from {low} to {high}, got {value}")


def _in_interval(name: str, value: float | None, high: float) -> None:
    if value is not None and not 0 <= value <= high:  # False for NaN too
        raise ConfigError(f"{name} must be in [0, {high}], got {value}")
