"""Layers that round an image alike at every place of a batch, whatever number of threads.

torch cuts a batch at even shares of its values, one for each thread of a CPU, and what lies at a
cut is rounded otherwise; so what an image becomes would depend on its neighbours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_GRAIN = 2**15  # values that torch gives a thread at the least
_VECTOR = 64  # values; what is left of a share beyond whole ones is not computed by vectors


def compute_alike(model: nn.Module) -> None:
    """Let the layers of ``model``, which is on a CPU, compute each image alike."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.__class__ = AlikeLinear
        elif isinstance(module, nn.SiLU):
            module.__class__ = AlikeSiLU


def silu(x: Tensor, *, inplace: bool = False) -> Tensor:
    """Of maps [B, ...]; ``inplace`` only spares memory."""
    threads = min(torch.get_num_threads(), -(-x.numel() // _GRAIN))
    if threads > 1 and -(-x.numel() // threads) % _VECTOR:
        return torch.cat([F.silu(image) for image in torch.split(x, 1)])
    return F.silu(x, inplace=inplace)


class AlikeSiLU(nn.SiLU):
    def forward(self, x: Tensor) -> Tensor:
        return silu(x)


class AlikeLinear(nn.Linear):
    """Rows of one product for all differ (MKL, by two threads: of 5 to 7 and of 9 to 11 rows), so
    each is a product of its own."""

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.requires_grad:  # expanded, its gradient would be there for each row
            return super().forward(x)
        b, weight = x.shape[0], self.weight.t()
        return torch.bmm(x[:, None], weight.expand(b, *weight.shape))[:, 0] + self.bias
