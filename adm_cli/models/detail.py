"""An upsampler that predicts only what a small picture lacks: the detail over its enlargement.

The detail is learned alone, as in SRDiff (arXiv 2104.14951); what it is scaled by at each noise is
the preconditioning of EDM (arXiv 2206.00364, section 5), around the enlarged picture instead of
around 0. B batch, C channels, H W the large picture, h w the small one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_PASSES = 4  # of the correction: each leaves at most 0.6 of what the one before left


def enlarge_exactly(low_res: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, C, h, w] enlarged to [B, C, H, W] whose averages of areas are ``low_res`` again.

    Bicubic, corrected by iterative back projection (Irani & Peleg 1991); what is left after the
    passes is added evenly. H and W must be multiples of h and w.
    """
    x = F.interpolate(low_res, size, mode="bicubic")
    for _ in range(_PASSES):
        x = x + F.interpolate(low_res - _averages(x, low_res), size, mode="bicubic")
    return x + F.interpolate(low_res - _averages(x, low_res), size, mode="nearest")


def without_averages(x: Tensor, low_res: Tensor) -> Tensor:
    """``x`` [B, C, H, W] less its averages over the areas that are ``low_res``'s pixels."""
    return x - F.interpolate(_averages(x, low_res), x.shape[2:], mode="nearest")


def _averages(x: Tensor, low_res: Tensor) -> Tensor:
    return F.interpolate(x, low_res.shape[2:], mode="area")


def cosine_signal_and_noise(t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(abar_t) and sqrt(1 - abar_t) of the cosine schedule of 1000 steps, [B, 1, 1, 1] each.

    ``t`` [B], fractions allowed, in the dtype of ``like`` (arXiv 2102.09672, equation 17). The
    second is no difference of numbers near 1, so it is exact where there is little noise.
    """
    start = 0.008 / 1.008 * math.pi / 2
    angle = ((t.to(like.dtype) + 1) / 1000 + 0.008) / 1.008 * (math.pi / 2)
    signal = torch.cos(angle).clamp(min=0) / math.cos(start)
    noise = (torch.sin(angle - start) * torch.sin(angle + start)).clamp(min=0).sqrt()
    noise = noise / math.cos(start)
    return signal[:, None, None, None], noise[:, None, None, None]


@dataclass(frozen=True)
class Detail:
    """What the network of such an upsampler sees, and what its output stands for.

    x_t = a x_0 + s noise, and x_0 = enlarged + scale * detail, whose averages over ``low_res``'s
    pixels are 0. So what x_t differs from a * enlarged by is the noisy detail, but for averages,
    which are noise alone.
    """

    enlarged: Tensor  # [B, C, H, W]
    noisy: Tensor  # [B, C, H, W] the detail and its noise, of variance 1
    average: Tensor  # [B, C, H, W] the noise's averages
    signal: Tensor  # [B, 1, 1, 1], a
    noise: Tensor  # [B, 1, 1, 1], s
    scale: float  # standard deviation of the detail
    low_res: Tensor  # [B, C, h, w]

    @classmethod
    def of(cls, x: Tensor, t: Tensor, low_res: Tensor, scale: float) -> Detail:
        """For x_t [B, C, H, W] at timesteps ``t`` [B]."""
        a, s = cosine_signal_and_noise(t, x)
        enlarged = enlarge_exactly(low_res, (x.shape[2], x.shape[3]))
        over = x - a * enlarged
        fine = without_averages(over, low_res)
        noisy = fine / torch.sqrt((a * scale) ** 2 + s**2)
        return cls(enlarged, noisy, (over - fine) / s, a, s, scale, low_res)

    def v(self, output: Tensor) -> Tensor:
        """v of the whole picture (arXiv 2202.00512) where ``output`` [B, C, H, W] is the detail's.

        v = a noise - s x_0, written out so that only the noise's averages were divided by s.
        """
        a, s, scale = self.signal, self.noise, self.scale
        width = torch.sqrt((a * scale) ** 2 + s**2)
        fine = without_averages(output, self.low_res) * scale / width
        fine = fine + self.noisy * (a * s * (1 - scale**2) / width)
        return a * self.average - s * self.enlarged + fine
