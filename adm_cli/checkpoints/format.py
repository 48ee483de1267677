"""Weights files: safetensors that describe themselves (`header`), and the original's `.pt`."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adm_cli.checkpoints.header import (
    DTYPES,
    NO_HASH,
    ModelInfo,
    begin_hash,
    info_metadata,
    is_pytorch,
    read_header,
    refuse_state,
)
from adm_cli.checkpoints.pickles import load_pickle
from adm_cli.checkpoints.stored import read_stored
from adm_cli.errors import CheckpointError, kind_of, trim, why_unread
from adm_cli.files.disk import atomic_write, open_file
from adm_cli.files.foreign import START, describe_foreign

_MOST_SHARED = 8  # names for the same data, such as tied weights
_DTYPE_NAMES = {getattr(torch, kind): name for name, kind in DTYPES.items()}


def save_model(
    path: Path,
    tensors: Mapping[str, Tensor],
    info: ModelInfo,
    last_look: Callable[[], None] = lambda: None,
) -> str:
    """Write a weights file, atomically and one tensor at a time; returns its content hash.

    Raises OutputError if it cannot be written, and what ``last_look`` raises when all is written
    but its name; the old file, if any, is then untouched.
    """
    return write_tensors(path, tensors, info_metadata(info), last_look)


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    last_look: Callable[[], None] = lambda: None,
) -> str:
    """Write safetensors with a content hash in their metadata; as `save_model` otherwise."""
    # wide types first, so that every tensor starts on a multiple of its item size
    ordered = sorted(tensors.items(), key=lambda item: -item[1].element_size())
    # the hash first, so that it is found before anything looks like it
    header: dict[str, Any] = {"__metadata__": {"content_sha256": NO_HASH, **metadata}}
    offset = 0
    for name, tensor in ordered:
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-(8 + len(raw)) % 64)  # tensors start where kernels like them to
    start = struct.pack("<Q", len(raw)) + raw
    digest = hashlib.sha256(start)
    with atomic_write(path) as file:
        file.write(start)
        for _, tensor in ordered:
            data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            digest.update(data)
            file.write(data)
        file.seek(start.index(NO_HASH.encode()))
        file.write(digest.hexdigest().encode())
        last_look()
    return digest.hexdigest()


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and metadata that `write_tensors` wrote, hash checked.

    Raises CheckpointError for anything else.
    """
    header = read_header(path)
    metadata = dict(header.pop("__metadata__", None) or {})
    recorded = str(metadata.get("content_sha256", ""))
    try:
        with open_file(path) as file:
            digest = begin_hash(file, recorded)
            tensors = read_stored(file, header, digest)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {why_unread(error)}") from None
    if digest.hexdigest() != recorded:
        raise CheckpointError(f"{path} is damaged: its content hash is not what it records")
    return tensors, metadata


def read_original(path: Path, *, ignore: str | None = None) -> dict[str, Tensor]:
    """The state dict of an original `.pt` (zip or old format), or of bare safetensors.

    Tensors whose names end in ``ignore`` are left out. Raises CheckpointError for anything but a
    dictionary of finite floating-point tensors.
    """
    state = load_original(path)
    if ignore is not None and isinstance(state, dict):
        state = {k: v for k, v in state.items() if not (isinstance(k, str) and k.endswith(ignore))}
    return check_state(path, state)


def load_original(path: Path) -> object:
    """Whatever an original `.pt` or bare safetensors hold, unpickled as `pickles` says."""
    try:
        with open_file(path) as file:
            start = file.read(START)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from None
    if is_pytorch(start):
        return load_pickle(path, zipped=start[:2] == b"PK")
    if foreign := describe_foreign(start, path.name):
        raise CheckpointError(f"{path} {foreign}")
    header = read_header(path)
    refuse_state(path, header.pop("__metadata__", None))
    try:
        with open_file(path) as file:
            file.seek(8 + int.from_bytes(file.read(8), "little"))
            return read_stored(file, header)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {why_unread(error)}") from None


def check_state(path: Path, state: object) -> dict[str, Tensor]:
    """``state``, if it is a dictionary of finite floating-point tensors; else CheckpointError."""
    if not isinstance(state, dict) or not state:
        raise CheckpointError(f"{path}: expected a dictionary of tensors, got {_called(state)}")
    said = held = 0
    storages: set[int] = set()
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            if name in ("state", "param_groups"):
                raise CheckpointError(
                    f"{path} holds an optimizer's state (opt*.pt): give the model or ema file"
                )
            raise CheckpointError(
                f"{path}: expected only tensors, got {kind_of(tensor)} under {trim(name)}"
            )
        if tensor.layout != torch.strided or tensor.is_meta or _expanded(tensor):
            raise CheckpointError(f"{path}: {name} is not a plain tensor")
        if tensor.dtype not in _DTYPE_NAMES:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(f"{path}: {name} is {kind}, expected floating point")
        said += tensor.numel() * tensor.element_size()
        storage = tensor.untyped_storage()
        held += 0 if storage.data_ptr() in storages else storage.nbytes()
        storages.add(storage.data_ptr())
        if said > _MOST_SHARED * held:  # names cost nothing, looking at each value does
            raise CheckpointError(f"{path}: {said:,} bytes of tensors in {held:,} bytes of data")
        check_finite(path, name, tensor)
    return state


def _called(state: object) -> str:
    return "an empty one" if state == {} else kind_of(state)


def check_finite(path: Path, name: str, tensor: Tensor) -> None:
    """Raises CheckpointError if a tensor holds NaN or infinite values."""
    if tensor.numel():  # one pass and no mask as large as the tensor; NaN shows in either
        low, high = torch.aminmax(tensor.detach())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise CheckpointError(f"{path}: {name} holds NaN or infinite values")


def _expanded(tensor: Tensor) -> bool:
    """Larger than its storage: a tiny file could ask for any amount of memory."""
    return tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()
