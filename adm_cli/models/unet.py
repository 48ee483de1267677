"""The diffusion UNet, its super-resolution form, and the encoder the classifier shares.

B batch, C channels, H W image, E embedding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adm_cli.classes.tensors import check_class_ids
from adm_cli.config import EncoderConfig, UNetConfig
from adm_cli.models.detail import Detail
from adm_cli.models.layers import (
    AttentionBlock,
    Conv2d,
    Downsample,
    GroupNorm32,
    ResBlock,
    Upsample,
    normal,
    timestep_embedding,
    zeroed,
)


class EmbedSequential(nn.Sequential):
    """Layers in a row; the residual blocks among them also get the embedding."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # type: ignore[override]
        for layer in self:
            x = layer(x, emb) if isinstance(layer, ResBlock) else layer(x)
        return x


def build_time_embed(config: EncoderConfig) -> nn.Sequential:
    width = config.embedding_dim
    return nn.Sequential(
        nn.Linear(config.model_channels, width), nn.SiLU(), nn.Linear(width, width)
    )


def build_label_embedding(num_labels: int, width: int) -> nn.Embedding:
    weight = normal(num_labels, width)
    return nn.Embedding.from_pretrained(weight, freeze=False)  # type: ignore[no-untyped-call,no-any-return]


def build_encoder(config: EncoderConfig, in_channels: int) -> tuple[nn.ModuleList, list[int]]:
    """The downsampling half, and the channels that each of its blocks gives out."""
    ch = config.level_channels[0]
    first = Conv2d(in_channels * config.patch**2, ch, 3, padding=1)
    blocks = nn.ModuleList([EmbedSequential(first)])
    channels = [ch]
    for level, out in enumerate(config.level_channels):
        for _ in range(config.num_res_blocks):
            layers: list[nn.Module] = [ResBlock(config, ch, out)]
            ch = out
            if config.attends(level):
                layers.append(AttentionBlock(config, ch))
            blocks.append(EmbedSequential(*layers))
            channels.append(ch)
        if level < len(config.level_channels) - 1:
            blocks.append(
                EmbedSequential(
                    ResBlock(config, ch, ch, resample="down")
                    if config.resblock_updown
                    else Downsample(ch, conv=config.conv_resample)
                )
            )
            channels.append(ch)
    return blocks, channels


def build_middle(config: EncoderConfig, ch: int, *, attention: bool = True) -> EmbedSequential:
    between = [AttentionBlock(config, ch)] if attention else []
    return EmbedSequential(ResBlock(config, ch, ch), *between, ResBlock(config, ch, ch))


def build_decoder(config: UNetConfig, skips: list[int]) -> nn.ModuleList:
    """The upsampling half; every block first concatenates the matching encoder output."""
    blocks = nn.ModuleList()
    skips = list(skips)
    ch = skips[-1]
    for level, out in reversed(list(enumerate(config.level_channels))):
        for i in range(config.num_res_blocks + 1):
            layers: list[nn.Module] = [ResBlock(config, ch + skips.pop(), out)]
            ch = out
            if config.attends(level):
                layers.append(AttentionBlock(config, ch, config.num_heads_upsample))
            if level and i == config.num_res_blocks:
                layers.append(
                    ResBlock(config, ch, ch, resample="up")
                    if config.resblock_updown
                    else Upsample(ch, conv=config.conv_resample)
                )
            blocks.append(EmbedSequential(*layers))
    return blocks


def fold(x: Tensor, patch: int) -> Tensor:
    """[B, C, H, W] to [B, C * patch^2, H / patch, W / patch]: blocks of pixels become channels.

    The torso then works on a smaller map, as in SiD2 (arXiv 2410.19324, section 3.2).
    """
    return x if patch == 1 else F.pixel_unshuffle(x, patch)


def check_shape(x: Tensor, channels: int, stride: int = 1) -> None:
    """Raises ValueError for what is no batch of noisy images of so many channels."""
    shape = list(x.shape)
    sides = shape[2:]
    if len(shape) != 4 or shape[1] != channels or any(side % stride for side in sides):
        multiples = f", H and W multiples of {stride}" if stride > 1 else ""
        raise ValueError(f"expected images as [B, {channels}, H, W]{multiples}, got {shape}")
    if not x.is_floating_point():
        raise ValueError(f"expected images as floats of about [-1, 1], got {x.dtype}")


class TorsoModel(nn.Module):
    """A model whose torso (input, middle and output blocks) may compute in half precision.

    As in the original, only the torso's convolutions become half; norms, embeddings, linear
    layers and everything in ``out`` keep their precision.
    """

    config: EncoderConfig
    torso_dtype: torch.dtype = torch.float32

    def torso_parameters(self) -> list[str]:
        """Names of the parameters that take the torso's dtype."""
        return [
            f"{name}.{leaf}"
            for name, module in self.named_modules()
            if name.split(".")[0] in ("input_blocks", "middle_block", "output_blocks")
            and isinstance(module, (nn.Conv1d, nn.Conv2d))
            for leaf in ("weight", "bias")
        ]

    def set_dtype(self, dtype: torch.dtype) -> None:
        """Compute in ``dtype``: float64 throughout, float32, or bfloat16/float16 in the torso."""
        self.to(torch.float64 if dtype == torch.float64 else torch.float32)
        torso = set(self.torso_parameters())
        for name, parameter in self.named_parameters():
            if name in torso:
                parameter.data = parameter.data.to(dtype)
        self.torso_dtype = dtype

    def embed_time(self, t: Tensor) -> Tensor:
        if not isinstance(t, Tensor) or t.dim() != 1:
            raise ValueError(f"expected t as a tensor of a timestep for every image, [B], got {t}")
        time_embed: nn.Sequential = self.time_embed  # type: ignore[assignment]
        weight = time_embed[0].weight
        assert isinstance(weight, Tensor)
        return time_embed(timestep_embedding(t, weight.shape[1], dtype=weight.dtype))  # type: ignore[no-any-return]


class UNet(TorsoModel):
    """ADM's denoiser (arXiv 2105.05233, section 3).

    ``forward(x, t, y=None)``: x [B, 3, H, W] roughly in [-1, 1] plus noise, t [B] original
    timesteps (fractions allowed), y [B] class ids where the model is class-conditional
    (``num_classes`` for no class, if ``config.null_class``). Returns
    [B, 3 or 6, H, W]: the prediction (eps, x_start or v), then the variance channels if learned.
    Raises ValueError if y is given to an unconditional model, or not given to a conditional one,
    for shapes that cannot be and, on a CPU, for class ids.
    """

    config: UNetConfig

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.time_embed = build_time_embed(config)
        self.label_emb = (
            None
            if config.num_classes is None
            else build_label_embedding(config.num_labels, config.embedding_dim)
        )
        in_channels = config.in_channels * (1 if config.low_res_size is None else 2)
        in_channels += config.low_res_noise is not None
        self.seen_channels = in_channels
        self.input_blocks, skips = build_encoder(config, in_channels)
        self.middle_block = build_middle(config, skips[-1], attention=config.middle_attention)
        self.output_blocks = build_decoder(config, skips)
        ch = config.level_channels[0]
        self.out = nn.Sequential(
            GroupNorm32(ch),
            nn.SiLU(),
            zeroed(Conv2d(ch, config.out_channels * config.patch**2, 3, padding=1)),
        )

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        if (y is None) != (self.label_emb is None):
            wants = "no labels" if self.label_emb is None else "a label for every image"
            raise ValueError(f"this model takes {wants}, got y={'None' if y is None else 'labels'}")
        shape = list(y.shape) if isinstance(y, Tensor) else y
        if y is not None and shape != list(x.shape[:1]):  # one would pass for all
            raise ValueError(f"expected a label for every image, [{len(x)}], got {shape}")
        check_shape(x, self.seen_channels, self.config.stride)
        emb = self.embed_time(t)  # [B, E]
        if self.label_emb is not None and y is not None:
            check_class_ids(y, self.config.num_labels)
            emb = emb + self.label_emb(y)
        h = fold(x, self.config.patch).to(self.torso_dtype)
        skips = []
        for block in self.input_blocks:
            h = block(h, emb)
            skips.append(h)
        h = self.middle_block(h, emb)
        for block in self.output_blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), emb)
        out = self.out(h.to(x.dtype))
        return out if self.config.patch == 1 else F.pixel_shuffle(out, self.config.patch)


class SuperResUNet(UNet):
    """An upsampler: a UNet that also sees the small image, enlarged and concatenated after x.

    ``forward(x, t, y=None, low_res=..., low_res_noise=None)`` with low_res [B, 3, h, w] in
    [-1, 1], and low_res_noise [B] the standard deviation of the noise on it, 0 if None. Where
    ``config.low_res_noise`` is set, one more channel tells the network: everywhere that level,
    as a part of the largest one. Raises ValueError for a level that it would not be told. Where
    ``config.detail_scale`` is set, it sees and predicts `Detail` alone, and v is what it returns.
    """

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        y: Tensor | None = None,
        low_res: Tensor | None = None,
        low_res_noise: Tensor | None = None,
    ) -> Tensor:
        if low_res is None:
            raise ValueError("an upsampler needs low_res, the small image to enlarge")
        largest = self.config.low_res_noise
        if largest is None and low_res_noise is not None:
            raise ValueError("this upsampler was trained without noise on the small image")
        if (scale := self.config.detail_scale) is not None:
            detail = Detail.of(x, t, low_res, scale)
            out = super().forward(torch.cat([detail.noisy, detail.enlarged], dim=1), t, y)
            channels = x.shape[1]
            return torch.cat([detail.v(out[:, :channels]), out[:, channels:]], dim=1)
        seen = [x, F.interpolate(low_res, x.shape[2:], mode="bilinear")]
        if largest is not None:
            level = x.new_zeros(len(x)) if low_res_noise is None else low_res_noise / largest
            seen.append(level.to(x)[:, None, None, None].expand(-1, 1, *x.shape[2:]))
        return super().forward(torch.cat(seen, dim=1), t, y)
