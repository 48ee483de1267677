"""What a model costs: floating-point operations and memory, without running it."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from adm_cli.config import ClassifierConfig, UNetConfig
from adm_cli.models.classifier import NoisyClassifier
from adm_cli.models.unet import SuperResUNet, UNet

# Tensors as large as a residual block's output: what autograd keeps of one for a gradient of
# the input, and what is alive at once beside the skips without gradients. Measured, rounded up.
_SAVED_PER_BLOCK = 11
_ALIVE = 8


def forward_gflops(model: UNet | NoisyClassifier) -> float:
    """GFLOP (2 a multiply-add) of one evaluation on one image."""
    with torch.device("meta"):  # shapes flow through, numbers do not
        twin: UNet | NoisyClassifier = type(model)(model.config)  # type: ignore[arg-type]
        x = torch.zeros(1, model.config.in_channels, *model.config.image_size)
        t = torch.zeros(1, dtype=torch.int64)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            if isinstance(twin, NoisyClassifier):
                twin(x, t)
            else:
                labels = None if twin.config.num_classes is None else t
                if isinstance(twin, SuperResUNet):
                    twin(x, t, labels, x)
                else:
                    twin(x, t, labels)
    return float(counter.get_total_flops()) / 1e9


def activation_bytes(config: UNetConfig | ClassifierConfig) -> int:
    """About the peak bytes of activations for one image in float32.

    For a classifier, what its gradient needs; for a UNet, its skips and the widest blocks.
    """
    cells = config.image_size[0] * config.image_size[1] // config.patch**2
    blocks = [config.level_channels[0] * cells]  # values that each block of the encoder makes
    for level, channels in enumerate(config.level_channels):
        blocks += [channels * cells // 4**level] * (config.num_res_blocks + 1)
    if isinstance(config, ClassifierConfig):
        return 4 * _SAVED_PER_BLOCK * (sum(blocks) + 2 * blocks[-1])
    widest = max([blocks[0], *(4 * size for size in blocks[config.num_res_blocks + 2 :])])
    return 4 * (sum(blocks) + _ALIVE * widest)


def training_bytes(config: UNetConfig | ClassifierConfig, parameters: int, images: int) -> int:
    """About the peak bytes of training with ``images`` at once in float32.

    Weights, gradients, two moments and one average, and what autograd keeps of the activations.
    """
    cells = config.image_size[0] * config.image_size[1] // config.patch**2
    blocks = [config.level_channels[0] * cells]
    for level, channels in enumerate(config.level_channels):
        size = channels * cells // 4**level
        blocks += [size] * (config.num_res_blocks + 1)
        if isinstance(config, UNetConfig):  # the way up: one block more, on twice the channels
            blocks += [2 * size] * (config.num_res_blocks + 1)
    kept = _SAVED_PER_BLOCK * sum(blocks)
    if config.gradient_checkpointing:
        kept = 2 * sum(blocks) + _SAVED_PER_BLOCK * max(blocks)
    return 5 * 4 * parameters + 4 * kept * images
