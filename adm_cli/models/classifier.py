"""The classifier of noisy images, the UNet's encoder with a pool on top.

B batch, C channels, H W feature map, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adm_cli.config import ClassifierConfig
from adm_cli.models.layers import AttentionPool2d, Conv2d, GroupNorm32, zeroed
from adm_cli.models.unet import (
    TorsoModel,
    build_encoder,
    build_middle,
    build_time_embed,
    check_shape,
    fold,
)

_SPATIAL_WIDTH = 2048  # hidden width of the two spatial pools


class NoisyClassifier(TorsoModel):
    """Logits of p(y | x_t, t) (arXiv 2105.05233, section 4.1).

    ``forward(x, t)``: x [B, 3, H, W] noisy images, t [B] original timesteps; returns [B, K]. The
    attention pool has one position embedding a cell, so such a classifier takes only its own
    image size.
    """

    config: ClassifierConfig

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.time_embed = build_time_embed(config)
        self.input_blocks, channels = build_encoder(config, config.in_channels)
        self.middle_block = build_middle(config, channels[-1])
        self.out = _build_pool(config, channels[-1], sum(channels) + channels[-1])

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.out(self._encode(x, t))  # type: ignore[no-any-return]

    def features(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """What the last layer sees, [B, D], and the logits [B, K] that it makes of that."""
        layers = list(self.out)
        pool = layers.pop()
        h = self._encode(x, t)
        if isinstance(pool, nn.Flatten):  # the adaptive pool flattens last
            pool = layers.pop()
        for layer in layers:
            h = layer(h)
        if isinstance(pool, AttentionPool2d):
            h, pool = pool.attend(h), pool.c_proj
        return h.flatten(1), pool(h).flatten(1)

    def _encode(self, x: Tensor, t: Tensor) -> Tensor:
        """[B, C, H', W'], or for the spatial pools [B, sum of C]."""
        check_shape(x, self.config.in_channels)
        if self.config.pool == "attention" and tuple(x.shape[2:]) != self.config.image_size:
            size = "x".join(map(str, self.config.image_size))
            raise ValueError(f"this classifier takes {size} images, got {tuple(x.shape[2:])}")
        emb = self.embed_time(t)
        spatial = self.config.pool.startswith("spatial")
        means = []
        h = fold(x, self.config.patch).to(self.torso_dtype)
        for block in self.input_blocks:
            h = block(h, emb)
            if spatial:
                means.append(h.to(x.dtype).mean(dim=(2, 3)))
        h = self.middle_block(h, emb).to(x.dtype)
        if spatial:
            h = torch.cat([*means, h.mean(dim=(2, 3))], dim=-1)  # [B, sum of C]
        return h


def _build_pool(config: ClassifierConfig, channels: int, all_channels: int) -> nn.Sequential:
    """``channels`` of the middle block; ``all_channels`` summed over input and middle blocks."""
    if config.pool == "attention":
        height, width = (side // config.stride for side in config.image_size)
        pool = AttentionPool2d(
            (height, width), channels, config.heads(channels), config.num_classes
        )
        return nn.Sequential(GroupNorm32(channels), nn.SiLU(), pool)
    if config.pool == "adaptive":
        return nn.Sequential(
            GroupNorm32(channels),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d((1, 1)),
            zeroed(Conv2d(channels, config.num_classes, 1)),
            nn.Flatten(),
        )
    hidden = nn.Linear(all_channels, _SPATIAL_WIDTH)
    logits = nn.Linear(_SPATIAL_WIDTH, config.num_classes)
    if config.pool == "spatial":
        return nn.Sequential(hidden, nn.ReLU(), logits)
    return nn.Sequential(hidden, GroupNorm32(_SPATIAL_WIDTH), nn.SiLU(), logits)
