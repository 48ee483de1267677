"""Class ids in tensors, checked before a network's own index error: on CUDA that ends the process.

Looking at a tensor on a GPU waits for it, so one that was found good is not looked at again.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

_GOOD = WeakIdKeyDictionary()  # of ids that were looked at: how many classes, and their version


def check_class_ids(y: Tensor, count: int) -> None:
    """Raises ValueError unless all of ``y`` are whole numbers from 0 to ``count`` - 1.

    Nothing is said of values that cannot be read: of a tensor that is compiled, captured or mapped.
    """
    if y.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"expected class ids as int64, got {y.dtype}")
    if not _readable(y) or not y.numel():
        return
    state = (count, None if y.is_inference() else y._version)
    if y in _GOOD and _GOOD[y] == state:
        return
    try:
        low, high = torch.stack(torch.aminmax(y.detach())).tolist()
    except RuntimeError:  # of torch.func.vmap
        return
    if low < 0 or high >= count:
        wrong = low if low < 0 else high
        raise ValueError(f"expected class ids from 0 to {count - 1}, got {wrong}")
    _GOOD[y] = state


def _readable(y: Tensor) -> bool:
    if y.is_meta or torch.compiler.is_compiling():
        return False
    return not (y.is_cuda and torch.cuda.is_current_stream_capturing())
