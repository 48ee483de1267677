"""Whether a file is the published one itself, or another model of its shapes."""

from __future__ import annotations

from pathlib import Path

import torch

from adm_cli.checkpoints.originals import Weights
from adm_cli.checkpoints.partial import file_digests
from adm_cli.checkpoints.presets import Checkpoint
from adm_cli.errors import CheckpointError

# A `.pt` holds its float32 parameters and, for each tensor, 160 bytes (torch before 1.6) to 243
# (torch 2.13) of names and padding; the two published files whose size is known have 224.
_TENSOR_BYTES = (100, 400)


def byte_range(row: Checkpoint, tensors: int) -> tuple[int, int]:
    """The least and most bytes of the published file, with so many tensors."""
    if row.file_bytes is not None:
        return row.file_bytes, row.file_bytes
    low, high = (4 * row.parameters + n * tensors for n in _TENSOR_BYTES)
    return low, high


def is_published(path: Path, row: Checkpoint, found: Weights) -> bool:
    """Whether the file is the published one, by its type, its length, and its hash if one is known.

    All that was published is float32, with nothing around or beside it. Where neither hash nor
    exact length are known the file must bear the name.
    """
    if found.notes or any(tensor.dtype != torch.float32 for tensor in found.tensors.values()):
        return False
    low, high = byte_range(row, len(found.tensors))
    if not low <= path.stat().st_size <= high:
        return False
    wrong = _wrong_hash(path, row)
    if wrong is not None:
        return not wrong
    return row.file_bytes is not None or path.stem == row.name


def check_published(path: Path, row: Checkpoint) -> None:
    """Raises CheckpointError for a file of the published one's length that is not that.

    Re-saved files differ in length and are fine if every tensor fits.
    """
    if path.stat().st_size == row.file_bytes and (wrong := _wrong_hash(path, row)):
        raise CheckpointError(
            f"{path} is not {row.name} as published: its {wrong}; download it again, or if it "
            f"is another model, rename it and leave out --preset"
        )


def _wrong_hash(path: Path, row: Checkpoint) -> str | None:
    """In words, how a hash differs; empty where it is right, None where none is known."""
    known = {"sha256": row.sha256, "md5": row.md5}
    algorithm = next((name for name, digest in known.items() if digest is not None), None)
    if algorithm is None:
        return None
    digest, expected = file_digests(path, [algorithm])[algorithm], known[algorithm]
    if digest == expected:
        return ""
    name = "SHA-256" if algorithm == "sha256" else "MD5"
    return f"{name} is {digest[:12]}..., expected {expected:.12}..."
