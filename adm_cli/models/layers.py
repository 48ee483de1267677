"""Building blocks of ADM. Module and parameter names are those of the published checkpoints.

B batch, C channels, H W feature map, E embedding, L positions, N heads, D channels of a head.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from adm_cli.config import NORM_GROUPS, EncoderConfig, QkvOrder


def timestep_embedding(
    t: Tensor, dim: int, *, max_period: float = 10000.0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Sinusoidal embedding of timesteps, cosines first (arXiv 1706.03762, section 3.5).

    ``t`` [B] may be fractional; returns [B, dim] of ``dtype``, the last column zero if dim is odd.
    """
    half = dim // 2
    steps = torch.arange(half, dtype=dtype, device=t.device)
    angles = t[:, None].to(dtype) * torch.exp(-math.log(max_period) * steps / half)  # [B, dim/2]
    embedding = torch.cat([angles.cos(), angles.sin()], dim=-1)
    return F.pad(embedding, (0, dim % 2))


class GroupNorm32(nn.GroupNorm):
    """Group norm over 32 groups, computed in the precision of its own parameters (float32)."""

    def __init__(self, channels: int) -> None:
        super().__init__(NORM_GROUPS, channels)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


class _ComputesInInputDtype:
    """A convolution in its input's dtype: in training, a half-precision torso keeps float32
    parameters."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        bias = None if bias is None else bias.to(x.dtype)
        return super()._conv_forward(x, weight.to(x.dtype), bias)  # type: ignore[misc,no-any-return]


class Conv1d(_ComputesInInputDtype, nn.Conv1d):
    pass


class Conv2d(_ComputesInInputDtype, nn.Conv2d):
    pass


def zeroed(module: nn.Module) -> nn.Module:
    """Start a residual branch at zero, so that a new block is the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def residual_sum(x: Tensor, h: Tensor, rescale: bool) -> Tensor:
    """x + h, times 1/sqrt(2) if ``rescale`` (arXiv 2011.13456, appendix H)."""
    return (x + h) * math.sqrt(0.5) if rescale else x + h


def normal(*shape: int, std: float = 1.0) -> Tensor:
    """Normal initial values."""
    values = torch.empty(shape)
    if not values.is_meta:  # there, drawing them costs a second of imports for nothing
        nn.init.normal_(values, std=std)
    return values


class Upsample(nn.Module):
    """Nearest-neighbour x2, then a 3x3 convolution if ``conv``."""

    def __init__(self, channels: int, *, conv: bool) -> None:
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, padding=1) if conv else None

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W] -> [B, C, 2H, 2W]
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return x if self.conv is None else self.conv(x)


class Downsample(nn.Module):
    """A 3x3 convolution of stride 2 if ``conv``, else the mean of each 2x2."""

    def __init__(self, channels: int, *, conv: bool) -> None:
        super().__init__()
        self.op = Conv2d(channels, channels, 3, stride=2, padding=1) if conv else nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W] -> [B, C, H/2, W/2]
        return self.op(x)  # type: ignore[no-any-return]


class ResBlock(nn.Module):
    """Residual block conditioned on the timestep (and class) embedding: AdaGN, addition or
    concatenation.

    AdaGN(h, y) = y_s GroupNorm(h) + y_b (arXiv 2105.05233, section 3.1). Concatenated, the
    projected embedding is as many more channels after the second norm, the same at every pixel:
    within that norm, groups of such channels would keep little but their order. With ``resample``
    both branches are halved ("down") or doubled ("up") after the first norm and SiLU, as in BigGAN.
    """

    def __init__(
        self, config: EncoderConfig, channels: int, out_channels: int, resample: str | None = None
    ) -> None:
        super().__init__()
        self.scale_shift_norm = config.scale_shift_norm
        self.concat_embedding = config.concat_embedding
        self.rescale_residual = config.rescale_residual
        self.gradient_checkpointing = config.gradient_checkpointing
        self.in_layers = nn.Sequential(
            GroupNorm32(channels), nn.SiLU(), Conv2d(channels, out_channels, 3, padding=1)
        )
        self.resample: nn.Module | None = None
        if resample == "down":
            self.resample = Downsample(channels, conv=False)
        elif resample == "up":
            self.resample = Upsample(channels, conv=False)
        embedded = 2 * out_channels if config.scale_shift_norm else out_channels
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(config.embedding_dim, embedded))
        last = 2 * out_channels if config.concat_embedding else out_channels
        self.out_layers = nn.Sequential(
            GroupNorm32(out_channels),
            nn.SiLU(),
            nn.Dropout(config.dropout),
            zeroed(Conv2d(last, out_channels, 3, padding=1)),
        )
        self.skip_connection = (
            nn.Identity() if channels == out_channels else Conv2d(channels, out_channels, 1)
        )

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # [B, C, H, W], [B, E] -> [B, C', H', W']
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(self._forward, x, emb, use_reentrant=False)  # type: ignore[no-any-return]
        return self._forward(x, emb)

    def _forward(self, x: Tensor, emb: Tensor) -> Tensor:
        norm, act, conv = self.in_layers
        h = act(norm(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = conv(h)
        e = self.emb_layers(emb).to(h.dtype)[:, :, None, None]
        if self.scale_shift_norm:
            scale, shift = e.chunk(2, dim=1)
            h = self.out_layers[0](h) * (1 + scale) + shift
            h = self.out_layers[1:](h)
        elif self.concat_embedding:
            h = self.out_layers[1:](torch.cat([self.out_layers[0](h), e.expand_as(h)], dim=1))
        else:
            h = self.out_layers(h + e)
        return residual_sum(self.skip_connection(x), h, self.rescale_residual)


def qkv_attention(qkv: Tensor, num_heads: int, order: QkvOrder) -> Tensor:
    """Multi-head attention, [B, 3*N*D, L] -> [B, N*D, L].

    The channels of ``qkv`` are read as (head, {q, k, v}, D) in the "legacy" order and as
    ({q, k, v}, head, D) in the "new" one. Queries and keys together are scaled by 1/sqrt(D).
    """
    b, channels, length = qkv.shape
    q, k, v = split_heads(qkv, num_heads, order)
    out = softmax_attention(q, k, v)  # [B, N, L, D]
    return out.transpose(-1, -2).reshape(b, channels // 3, length)


def softmax_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention, [B, N, L, D] each; queries and keys together scaled by 1/sqrt(D).

    A GPU's fused kernels add up their gradients in an order that differs from run to run: where
    that shall not be (`devices.reproducible_kernels`), it is written out.
    """
    if q.requires_grad and q.device.type != "cpu" and torch.backends.cudnn.deterministic:
        return attention_by_products(q, k, v)
    return F.scaled_dot_product_attention(q, k, v)


def attention_by_products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`softmax_attention` of two matrix products, which holds all scores [B, N, L, L] at once."""
    return torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2), -1) @ v


def split_heads(qkv: Tensor, num_heads: int, order: QkvOrder) -> Tensor:
    """[B, 3*N*D, L] -> queries, keys and values [3, B, N, L, D], as `qkv_attention` reads them."""
    b, channels, length = qkv.shape
    d = channels // (3 * num_heads)
    if order == "legacy":
        split = qkv.view(b, num_heads, 3, d, length).permute(2, 0, 1, 4, 3)
    else:
        split = qkv.view(b, 3, num_heads, d, length).permute(1, 0, 2, 4, 3)
    return split.contiguous()  # the fused kernels want D innermost


def to_windows(x: Tensor, window: tuple[int, int]) -> Tensor:
    """Cut [B, C, H, W] into windows, [B * windows, C, window height * window width]."""
    b, c, h, w = x.shape
    wh, ww = window
    x = x.view(b, c, h // wh, wh, w // ww, ww)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(-1, c, wh * ww)


def from_windows(x: Tensor, window: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The inverse of `to_windows` for a map of ``size`` (H, W)."""
    (wh, ww), (h, w), c = window, size, x.shape[1]
    x = x.view(-1, h // wh, w // ww, c, wh, ww)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(-1, c, h, w)


class AttentionBlock(nn.Module):
    """Residual self-attention over the whole feature map, or within windows of it."""

    def __init__(self, config: EncoderConfig, channels: int, num_heads: int | None = None) -> None:
        super().__init__()
        self.num_heads = config.heads(channels, num_heads)
        self.order: QkvOrder = config.qkv_order
        self.window = config.attention_window
        self.rescale_residual = config.rescale_residual
        self.gradient_checkpointing = config.gradient_checkpointing
        self.norm = GroupNorm32(channels)
        self.qkv = Conv1d(channels, 3 * channels, 1)
        self.proj_out = zeroed(Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W] -> same
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(self._forward, x, use_reentrant=False)  # type: ignore[no-any-return]
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        window = (h, w) if self.window is None else (min(self.window, h), min(self.window, w))
        if h % window[0] or w % window[1]:
            raise ValueError(f"attention windows of {window} do not divide a {h}x{w} feature map")
        flat = to_windows(self.norm(x), window)  # [B', C, L]
        attended = self.proj_out(qkv_attention(self.qkv(flat), self.num_heads, self.order))
        return residual_sum(x, from_windows(attended, window, (h, w)), self.rescale_residual)


class AttentionPool2d(nn.Module):
    """Attention of the mean over all positions: [B, C, H, W] -> [B, out] (arXiv 2103.00020)."""

    def __init__(self, size: tuple[int, int], channels: int, num_heads: int, out: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        tokens = size[0] * size[1] + 1
        self.positional_embedding = nn.Parameter(normal(channels, tokens, std=channels**-0.5))
        self.qkv_proj = Conv1d(channels, 3 * channels, 1)
        self.c_proj = Conv1d(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(self.attend(x))[:, :, 0]  # type: ignore[no-any-return]

    def attend(self, x: Tensor) -> Tensor:
        """What the output projection sees: [B, C, 1]."""
        x = x.flatten(2)  # [B, C, L]
        x = torch.cat([x.mean(dim=-1, keepdim=True), x], dim=-1)
        x = x + self.positional_embedding
        x = qkv_attention(self.qkv_proj(x), self.num_heads, "new")  # [B, C, L + 1]
        return x[:, :, :1]
