"""The tensors of a safetensors file into memory that nobody else writes to.

A file that is mapped shows what others write into it, hours after its hash was checked, and the
process is killed (SIGBUS) where they cut it short. So tensors are read, and what becomes of the
file later changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import IO, Any

import torch
from torch import Tensor

from adm_cli.errors import trim

TYPES = {  # by their names there
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8},
    **{"U8": torch.uint8, "BOOL": torch.bool, "C64": torch.complex64},
    **{"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2},
}


def read_stored(
    file: IO[bytes], header: Mapping[str, Any], digest: hashlib._Hash | None = None
) -> dict[str, Tensor]:
    """The tensors of a checked ``header``, without gaps from where ``file`` stands.

    Their bytes are added to ``digest``. Raises OSError if the file ends before them, ValueError
    for a type that torch has not.
    """
    found = {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype = TYPES.get(entry["dtype"])
        if dtype is None:
            raise ValueError(f"{trim(name, 80)} is of an unknown type, {trim(entry['dtype'], 20)}")
        begin, end = entry["data_offsets"]
        data = torch.empty(end - begin, dtype=torch.uint8, device="cpu")
        if not fill(file, data):
            raise OSError("it was cut short while it was read")
        if digest is not None:
            digest.update(data.numpy())
        found[name] = data.view(dtype).reshape(entry["shape"])
    return found


def fill(file: IO[bytes], data: Tensor) -> bool:
    """Reads until ``data``, uint8 [n], is full; False if the file ends before."""
    view, done = memoryview(data.numpy()), 0
    while done < len(view):
        count = file.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            return False
        done += count
    return True
