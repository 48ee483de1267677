"""Known models as typed rows, each beside the number it reaches.

`CHECKPOINTS` are single weights files: the embedded ones and the 15 published ones (`ORIGINALS` is
where, `TERMS` on which terms). `INCEPTION` is the network that FID is measured with. `PRESETS` are
what `--model` takes: a diffusion model, its classifier, perhaps an upsampler behind them (a stack),
and how the paper samples them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from adm_cli.config import (
    ClassifierConfig,
    DiffusionConfig,
    Kind,
    Recommended,
    UNetConfig,
)
from adm_cli.errors import UsageError, did_you_mean

ORIGINALS = "https://openaipublic.blob.core.windows.net/diffusion/jul-2021"
ENLARGEMENTS = ("bicubic", "lanczos", "back-projection")  # for an upsampler: filters, no weights
ENLARGEMENT_FACTOR = 2  # of theirs, each side
TERMS = (
    "OpenAI's checkpoints are for research only, not for commercial use (model card: "
    "https://github.com/openai/guided-diffusion/blob/main/model-card.md)"
)
EMBEDDED_TERMS = (
    "trained on pictures of ImageNet: for research, not for commercial use "
    "(LicenseRef-ImageNet-research-only)"
)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One weights file. Sizes and hashes are of the original ``<name>.pt``, where known."""

    name: str
    config: UNetConfig | ClassifierConfig
    diffusion: DiffusionConfig
    parameters: int
    embedded: bool = False  # ships with the program
    file_bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None

    @property
    def kind(self) -> Kind:
        return self.config.kind

    @property
    def size(self) -> int:
        """Bytes of the original: exact where known, else of its float32 parameters alone."""
        return self.file_bytes or 4 * self.parameters


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """A file that is used as it was published."""

    name: str
    url: str
    file_bytes: int
    sha256: str
    terms: str


@dataclass(frozen=True, kw_only=True)
class Preset(Recommended):
    """How to sample a model; FID as published, where ``fid_note`` says how it was reached."""

    name: str
    model: str  # names of checkpoints
    classifier: str | None = None
    steps: str | None = "250"
    scale: float = 0.0
    upsampler: str | None = None  # enlarges what the model draws: a checkpoint or an enlargement
    upsampler_sampler: str = "ddpm"
    upsampler_steps: str = "250"
    upsampler_temperature: float = 1.0
    fid: float | None = None
    fid_note: str = ""

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The weights it needs, in the order of their use."""
        names = (self.model, self.classifier, self.upsampler)
        return tuple(name for name in names if name is not None and name not in ENLARGEMENTS)


_EMBEDDED_DIFFUSION = DiffusionConfig(noise_schedule="cosine", prediction="v")
_LINEAR = DiffusionConfig(noise_schedule="linear", respacing="250")
_COSINE = DiffusionConfig(noise_schedule="cosine", respacing="250")
_LSUN = DiffusionConfig(noise_schedule="linear", respacing="1000")

_TINY = UNetConfig(
    image_size=(32, 32),
    model_channels=32,
    num_res_blocks=2,
    channel_mult=(1, 2, 4),
    attention_factors=(4,),
    num_head_channels=32,
    qkv_order="new",
    resblock_updown=True,
    num_classes=1000,
    null_class=True,
    out_channels=6,
)
_TINY_UPSAMPLER = UNetConfig(
    image_size=(64, 64),
    low_res_size=(32, 32),
    detail_scale=0.32,
    patch=2,
    model_channels=64,
    num_res_blocks=1,
    channel_mult=(1, 2),
    attention_factors=(),
    middle_attention=False,
)
_TINY_CLASSIFIER = ClassifierConfig(  # the encoder of tiny, with which it began
    image_size=(32, 32),
    model_channels=32,
    num_res_blocks=2,
    channel_mult=(1, 2, 4),
    attention_factors=(4,),
    num_head_channels=32,
    qkv_order="new",
    resblock_updown=True,
    dropout=0.1,
)
_64 = UNetConfig(
    image_size=(64, 64),
    model_channels=192,
    num_res_blocks=3,
    channel_mult=(1, 2, 3, 4),
    attention_factors=(2, 4, 8),
    num_head_channels=64,
    qkv_order="new",
    resblock_updown=True,
    dropout=0.1,
    num_classes=1000,
    out_channels=6,
    use_fp16=True,
)
_128 = UNetConfig(
    image_size=(128, 128),
    model_channels=256,
    num_res_blocks=2,
    channel_mult=(1, 1, 2, 3, 4),
    attention_factors=(4, 8, 16),
    num_heads=4,
    resblock_updown=True,
    num_classes=1000,
    out_channels=6,
    use_fp16=True,
)
_256 = replace(
    _128,
    image_size=(256, 256),
    channel_mult=(1, 1, 2, 2, 4, 4),
    attention_factors=(8, 16, 32),
    num_head_channels=64,
)
_256_UNCOND = replace(_256, num_classes=None)
_LSUN_256 = replace(_256_UNCOND, dropout=0.1)
_512 = replace(
    _256,
    image_size=(512, 512),
    channel_mult=(0.5, 1, 1, 2, 2, 4, 4),
    attention_factors=(16, 32, 64),
    use_fp16=False,
)
_64_256 = replace(_256, model_channels=192, num_head_channels=None, low_res_size=(64, 64))
_128_512 = replace(
    _64_256,
    image_size=(512, 512),
    low_res_size=(128, 128),
    num_head_channels=64,
    attention_factors=(16, 32),
)


def _classifier(of: UNetConfig, depth: int = 2) -> ClassifierConfig:
    """The published classifier for a diffusion model: same levels, half or less the width."""
    return ClassifierConfig(
        image_size=of.image_size,
        model_channels=128,
        num_res_blocks=depth,
        channel_mult=of.channel_mult,
        attention_factors=of.attention_factors,
        num_heads=1,
        resblock_updown=True,
    )


CHECKPOINTS: tuple[Checkpoint, ...] = (
    Checkpoint(
        name="tiny",
        config=_TINY,
        diffusion=_EMBEDDED_DIFFUSION,
        parameters=4_553_190,
        embedded=True,
    ),
    Checkpoint(
        name="tiny_classifier",
        config=_TINY_CLASSIFIER,
        diffusion=_EMBEDDED_DIFFUSION,
        parameters=1_993_064,
        embedded=True,
    ),
    Checkpoint(
        name="tiny_upsampler",
        config=_TINY_UPSAMPLER,
        diffusion=replace(_EMBEDDED_DIFFUSION, variance="fixed_small"),
        parameters=2_761_484,
        embedded=True,
    ),
    Checkpoint(name="64x64_diffusion", config=_64, diffusion=_COSINE, parameters=295_904_454),
    Checkpoint(
        name="64x64_classifier",
        config=_classifier(_64, depth=4),
        diffusion=_COSINE,
        parameters=65_438_568,
    ),
    Checkpoint(name="128x128_diffusion", config=_128, diffusion=_LINEAR, parameters=421_529_606),
    Checkpoint(
        name="128x128_classifier",
        config=_classifier(_128),
        diffusion=_LINEAR,
        parameters=42_568_040,
    ),
    Checkpoint(
        name="256x256_diffusion",
        config=_256,
        diffusion=_LINEAR,
        parameters=553_838_086,
        file_bytes=2_215_479_544,
        md5="d94f30fb1afb2fe821c24bef2043717e",
    ),
    Checkpoint(
        name="256x256_diffusion_uncond",
        config=_256_UNCOND,
        diffusion=_LINEAR,
        parameters=552_814_086,
        file_bytes=2_211_383_297,
        sha256="a37c32fffd316cd494cf3f35b339936debdc1576dad13fe57c42399a5dbc78b1",
        md5="fd9dd2335b8736d521de0aed54bd90ca",
    ),
    Checkpoint(
        name="256x256_classifier",
        config=_classifier(_256),
        diffusion=_LINEAR,
        parameters=54_096_360,
    ),
    Checkpoint(name="512x512_diffusion", config=_512, diffusion=_LINEAR, parameters=558_997_638),
    Checkpoint(
        name="512x512_classifier",
        config=_classifier(_512),
        diffusion=_LINEAR,
        parameters=54_448_360,
    ),
    Checkpoint(name="64_256_upsampler", config=_64_256, diffusion=_LINEAR, parameters=311_795_910),
    Checkpoint(
        name="128_512_upsampler", config=_128_512, diffusion=_LINEAR, parameters=308_835_270
    ),
    Checkpoint(name="lsun_bedroom", config=_LSUN_256, diffusion=_LSUN, parameters=552_814_086),
    Checkpoint(name="lsun_cat", config=_LSUN_256, diffusion=_LSUN, parameters=552_814_086),
    Checkpoint(name="lsun_horse", config=_LSUN_256, diffusion=_LSUN, parameters=552_814_086),
    Checkpoint(
        name="lsun_horse_nodropout",
        config=_256_UNCOND,
        diffusion=_LSUN,
        parameters=552_814_086,
    ),
)

INCEPTION = PublishedFile(
    name="inception",
    url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth",
    file_bytes=95_628_359,
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    terms="the FID Inception weights are published by pytorch-fid (Apache License 2.0)",
)

# Eight timesteps, closer together where there is little noise, for upsamplers of detail alone: what
# they draw is lost in noise from early on (in sections of 50 of 1,000; docs/upsampling.md).
DETAIL_STEPS = "1,1,1,0,1,0,1,0,0,1,0,0,1,0,0,0,1,0,0,0"

# Steps and scales are the README's; FIDs are the paper's tables 4 to 6 (50,000 images).
# Those of tiny were chosen by what an outside judge says of 100 pictures (the model card): it names
# more of what a filter enlarges than of what the upsampler does.
_TINY_PRESET = Preset(
    name="tiny",
    model="tiny",
    classifier="tiny_classifier",
    upsampler="back-projection",
    upsampler_sampler="dpm++2m",
    upsampler_steps=DETAIL_STEPS,
    upsampler_temperature=0.9,  # the model card
    sampler="unipc",
    steps="10",
    scale=4.0,
    guide_interval=(0.0, 0.85),
    cfg=5.0,
    cfg_interval=(0.0, 0.8),
)
PRESETS: tuple[Preset, ...] = (
    _TINY_PRESET,
    replace(_TINY_PRESET, name="tiny-stack", upsampler="tiny_upsampler"),
    Preset(
        name="imagenet64",
        model="64x64_diffusion",
        classifier="64x64_classifier",
        scale=1.0,
        fid=2.07,
        fid_note="(unguided)",
    ),
    Preset(
        name="imagenet128",
        model="128x128_diffusion",
        classifier="128x128_classifier",
        scale=0.5,
        fid=2.97,
    ),
    Preset(
        name="imagenet256",
        model="256x256_diffusion",
        classifier="256x256_classifier",
        scale=1.0,
        fid=4.59,
    ),
    Preset(
        name="imagenet256-uncond",
        model="256x256_diffusion_uncond",
        classifier="256x256_classifier",
        scale=10.0,
        fid=12.00,
    ),
    Preset(
        name="imagenet512",
        model="512x512_diffusion",
        classifier="512x512_classifier",
        scale=4.0,
        fid=7.72,
    ),
    # table 6: guided small models, then the upsamplers with 250 steps
    Preset(
        name="imagenet256-stack",
        model="64x64_diffusion",
        classifier="64x64_classifier",
        scale=1.0,
        upsampler="64_256_upsampler",
        fid=3.94,
    ),
    Preset(
        name="imagenet512-stack",
        model="128x128_diffusion",
        classifier="128x128_classifier",
        scale=0.5,
        upsampler="128_512_upsampler",
        fid=3.85,  # with another 128x128 classifier, which was not published
    ),
    Preset(name="lsun-bedroom", model="lsun_bedroom", steps="1000", fid=1.90),
    Preset(name="lsun-cat", model="lsun_cat", steps="1000", fid=5.57),
    Preset(name="lsun-horse", model="lsun_horse", steps="1000", fid=2.57),
    Preset(name="lsun-horse-nodropout", model="lsun_horse_nodropout", steps="1000", fid=2.95),
)


def find_checkpoint(name: str) -> Checkpoint:
    """The row of that name; raises UsageError with the nearest ones."""
    for row in CHECKPOINTS:
        if row.name == name:
            return row
    for preset in PRESETS:
        if preset.name == name:
            parts = (preset.model, preset.classifier, preset.upsampler)
            several = " or ".join(part for part in parts if part)
            raise UsageError(f"{name} is no single checkpoint: expected {several}")
    raise UsageError(
        f"unknown checkpoint {name!r}{did_you_mean(name, [row.name for row in CHECKPOINTS])} "
        f"(adm fetch all --dry-run lists the published ones)"
    )


def known_weights() -> set[str]:
    """The names of presets and checkpoints, which no file needs to be named for."""
    return {row.name for row in PRESETS} | {row.name for row in CHECKPOINTS}


def find_preset(name: str | Path) -> Preset | None:
    """The preset of that name, or of that diffusion checkpoint, if there is one."""
    return next((row for row in PRESETS if str(name) in (row.name, row.model)), None)
