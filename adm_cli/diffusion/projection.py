"""Back projection: an enlarged picture made to agree with the small one it was made from."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def back_project(x: Tensor, low_res: Tensor, passes: int) -> Tensor:
    """``x`` [N, C, H, W] changed so that its averages of areas become ``low_res`` [N, C, h, w].

    x + enlarge(low_res - shrink(x)), clamped to [-1, 1], as often as ``passes`` says: iterative
    back-projection (Irani & Peleg 1991). Shrinks by area averages, as upsamplers are trained, and
    enlarges bicubically. Where nothing is clamped, a pass leaves at most 0.6 of the difference, and
    less of what is smooth.
    """
    for _ in range(passes):
        missing = low_res - F.interpolate(x, low_res.shape[2:], mode="area")
        x = (x + F.interpolate(missing, x.shape[2:], mode="bicubic")).clamp(-1, 1)
    return x
