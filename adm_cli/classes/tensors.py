"""Class ids in tensors, checked before a network's own index error."""

from __future__ import annotations

import torch
from torch import Tensor


def check_class_ids(y: Tensor, count: int) -> None:
    """Raises ValueError unless all of ``y`` are whole numbers from 0 to ``count`` - 1.

    Nothing is said of ids whose values are not at hand: on a GPU, which a sampler's steps would
    wait for, and of a tensor that is compiled or mapped.
    """
    if y.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"expected class ids as int64, got {y.dtype}")
    if y.device.type != "cpu" or torch.compiler.is_compiling() or not y.numel():
        return
    try:
        low, high = (int(value) for value in torch.aminmax(y))
    except RuntimeError:  # of torch.func.vmap, which hides them
        return
    if low < 0 or high >= count:
        wrong = low if low < 0 else high
        raise ValueError(f"expected class ids from 0 to {count - 1}, got {wrong}")
