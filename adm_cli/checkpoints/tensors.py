"""Weights of ours, one tensor after the other, into memory that nobody else writes to.

They are read once, and the bytes that are hashed are those that are computed with (`stored`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from adm_cli.checkpoints.header import ModelFile, begin_hash, read_model_file
from adm_cli.checkpoints.stored import fill
from adm_cli.errors import CheckpointError
from adm_cli.files.disk import open_file

_CHUNK = 1 << 24


def stream_tensors(file: ModelFile) -> Iterator[tuple[str, Tensor]]:
    """Every tensor by name, in the file's order, each in memory of its own.

    Raises CheckpointError, at the latest after the last one, if the file cannot be read or its
    content is not that of ``file.content_sha256``: believe none of them before. A tensor may not
    be changed before the next one is asked for and returned: it is being hashed.
    """
    try:
        with open_file(file.path) as opened, ThreadPoolExecutor(1) as beside:
            digest = begin_hash(opened, file.content_sha256)
            hashed: Future[None] | None = None  # of the last tensor, while the next one is read
            whole = True
            for name, shape in file.shapes.items():
                dtype: torch.dtype = getattr(torch, file.dtypes[name])
                data = torch.empty(
                    math.prod(shape) * dtype.itemsize, dtype=torch.uint8, device="cpu"
                )
                whole = fill(opened, data)
                if hashed is not None:
                    hashed.result()
                if not whole:
                    break
                hashed = beside.submit(digest.update, data.numpy())
                yield name, data.view(dtype).reshape(shape)
            if hashed is not None:
                hashed.result()
            while chunk := opened.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise CheckpointError(f"cannot read {file.path}: {error.strerror or error}") from None
    if whole and digest.hexdigest() == file.content_sha256:
        return
    if _is_another_now(file):
        raise CheckpointError(
            f"{file.path} holds other weights than when its header was read, or it was changed "
            f"while it was read: run the same command again"
        )
    raise CheckpointError(
        f"{file.path} is damaged: its content hash is {digest.hexdigest()[:12]}, expected "
        f"{file.content_sha256[:12]}, or it was changed while it was read: convert or download "
        f"it again"
    )


def _is_another_now(file: ModelFile) -> bool:
    """Whether others stand under the name, as where a training has saved its model again."""
    try:
        return read_model_file(file.path).content_sha256 != file.content_sha256
    except CheckpointError:
        return False
