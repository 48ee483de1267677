"""A UNet whose attention in the middle is taken out, or looked at; its weights are the same.

B batch, C channels, h w feature map, L positions, N heads, D channels of a head.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from adm_cli.models.fast import FastConv1d
from adm_cli.models.layers import (
    AttentionBlock,
    from_windows,
    residual_sum,
    split_heads,
    to_windows,
)
from adm_cli.models.unet import UNet


class IdentityAttention(nn.Module):
    """A block of attention in which every position attends to itself alone.

    The attention map is the identity, as in arXiv 2403.17377.
    """

    def __init__(self, block: AttentionBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:  # [B, C, h, w] -> the same
        block = self.block
        values = split_heads(_projected(block, x), block.num_heads, block.order)[2]  # [B, N, L, D]
        flat = values.transpose(-1, -2).reshape(x.shape[0], x.shape[1], -1)
        out = _convolved(block.proj_out, flat, x).reshape(x.shape)
        return residual_sum(x, out, block.rescale_residual)


class WatchedAttention(nn.Module):
    """A block of attention that remembers which positions were attended to most."""

    def __init__(self, block: AttentionBlock) -> None:
        super().__init__()
        self.block = block
        self._salient: Tensor | None = None

    def salient(self) -> Tensor:
        """Of the latest call, bool [B, 1, h, w]: which positions get more than their share of
        attention, over all heads and positions (arXiv 2210.00939).
        """
        assert self._salient is not None
        return self._salient

    def forward(self, x: Tensor) -> Tensor:
        self._salient = _attended(self.block, x) > 1
        return self.block(x)  # type: ignore[no-any-return]


def without_attention(model: UNet) -> UNet:
    """``model`` with the identity for its middle attention, which it must have."""
    return _with_middle(model, IdentityAttention(_middle(model)))


def watching_attention(model: UNet) -> tuple[UNet, WatchedAttention]:
    """``model``, and what sees its middle attention, which it must have."""
    watched = WatchedAttention(_middle(model))
    return _with_middle(model, watched), watched


def _middle(model: UNet) -> AttentionBlock:
    block = model.middle_block[1]
    assert isinstance(block, AttentionBlock)  # else `sources.check_middle_attention` has refused
    return block


def _with_middle(model: UNet, block: nn.Module) -> UNet:
    """A copy of the outermost shells alone: all other modules are the same objects."""
    clone, middle = copy.copy(model), copy.copy(model.middle_block)
    middle._modules = {**middle._modules, "1": block}
    clone._modules = {**clone._modules, "middle_block": middle}
    return clone


def _projected(block: AttentionBlock, x: Tensor) -> Tensor:
    """Queries, keys and values of a map, [B, 3C, L]."""
    return _convolved(block.qkv, block.norm(x).flatten(2), x)


def _convolved(convolution: nn.Module, flat: Tensor, like: Tensor) -> Tensor:
    """A convolution of kernel 1 over [B, C, L], of a map ``like`` [B, ..., h, w]."""
    if isinstance(convolution, FastConv1d):  # takes maps
        return convolution(flat.reshape(*flat.shape[:2], *like.shape[2:])).flatten(2)  # type: ignore[no-any-return]
    return convolution(flat)  # type: ignore[no-any-return]


def _attended(block: AttentionBlock, x: Tensor) -> Tensor:
    """How much each position is attended to, 1 on average, [B, 1, h, w] float32."""
    h, w = x.shape[2:]
    window = (h, w) if block.window is None else (min(block.window, h), min(block.window, w))
    flat = to_windows(_projected(block, x).reshape(len(x), -1, h, w), window)
    q, k, _ = split_heads(flat, block.num_heads, block.order).float()
    weights = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1)  # [B', N, L, L]
    return from_windows(weights.mean(1).sum(1)[:, None], window, (h, w))
