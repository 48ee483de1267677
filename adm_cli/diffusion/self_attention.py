"""Self-attention guidance (SAG, arXiv 2210.00939): away from a picture blurred where the model
looks most.

B batch, C channels, H W image, h w feature map.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from adm_cli.config import Prediction
from adm_cli.diffusion.guidance import Difference
from adm_cli.diffusion.process import clip_xstart, predicted_xstart
from adm_cli.diffusion.schedule import (
    NoiseSchedule,
    common_timestep,
    gather,
    timestep_everywhere,
)

_BLUR = 3 / 128  # deviation of the blur over the image's shorter side, the paper's at 128x128


def blurred(
    model_fn: Callable[..., Tensor],
    salient: Callable[[], Tensor],
    schedule: NoiseSchedule,
    prediction: Prediction,
) -> Difference:
    """How a model's output differs from that for x_t blurred where it attends.

    The predicted x_0 is clamped, and blurred where ``salient`` [B, 1, h, w], of the model's latest
    output, is true; the predicted noise on it makes another x_t, whose predicted noise is the worse
    one. Written out for x_0 and v, so that nothing is divided by a small sqrt(abar_t). ``model_fn``
    is evaluated once more; ``schedule`` knows the original timesteps.
    """

    def difference(x_t: Tensor, t: Tensor, output: Tensor, *labels: Tensor) -> Tensor:
        process, index = schedule.place(common_timestep(t))
        i = timestep_everywhere(index, x_t)
        output = output[:, : x_t.shape[1]]
        x_0 = predicted_xstart(process, output, x_t, i, prediction)
        clear = clip_xstart(x_0)
        where = F.interpolate(salient().to(x_t), x_t.shape[2:], mode="nearest") > 0.5
        lost = x_0 - torch.where(where, gaussian_blur(clear), clear)
        x_blurred = x_t - gather(process.sqrt_alphas_cumprod, i, x_t) * lost  # the same noise
        other = model_fn(x_blurred, t, *labels)[:, : x_t.shape[1]]
        if prediction == "x_start":
            return x_0 - lost - other
        if prediction == "v":
            return output - other + gather(process.sqrt_one_minus_alphas_cumprod, i, x_t) * lost
        return output - other

    return difference


def gaussian_blur(x: Tensor) -> Tensor:
    """[B, C, H, W] blurred by 3/128 of its shorter side, mirrored at its borders."""
    sigma = _BLUR * min(x.shape[2:])
    radius = min(max(1, math.ceil(3 * sigma)), min(x.shape[2:]) - 1)
    places = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    kernel = torch.softmax(-(places**2) / (2 * sigma**2), 0)
    channels = x.shape[1]
    x = F.pad(x, (radius,) * 4, mode="reflect")
    x = F.conv2d(x, kernel.expand(channels, 1, 1, -1), groups=channels)
    return F.conv2d(x, kernel[:, None].expand(channels, 1, -1, 1), groups=channels)
