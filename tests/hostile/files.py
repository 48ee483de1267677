"""Hostile files, made by rule. Each maker returns a file's bytes, or writes it to a path."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from adm_cli.storage.checkpoints import ModelInfo, write_tensors
from adm_cli.storage.checkpoints import _metadata as metadata_of


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with this header (JSON, or bytes as they are) and a length that may lie."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(**changes: Any) -> dict[str, Any]:
    """A tensor's entry: four float32, with changes; None leaves a key out."""
    fields = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **changes}
    return {name: value for name, value in fields.items() if value is not None}


def weights(
    path: Path, info: ModelInfo, tensors: Mapping[str, torch.Tensor], **metadata: str
) -> Path:
    """A weights file whose content hash is right and whose metadata are as given."""
    write_tensors(path, tensors, {**metadata_of(info), **metadata})
    return path


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int = 8,
    height: int = 8,
    *,
    depth: int = 8,
    colour: int = 2,
    extra: bytes = b"",
    pixels: bytes | None = None,
) -> bytes:
    """A PNG from its parts, which need not agree."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    if pixels is None:
        pixels = b"".join(b"\0" + bytes(3 * width) for _ in range(height))
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            png_chunk(b"IHDR", header),
            extra,
            png_chunk(b"IDAT", zlib.compress(pixels)),
            png_chunk(b"IEND", b""),
        )
    )


def zeros_deflated(count: int) -> bytes:
    """``count`` zero bytes as a zlib stream a thousandth as long."""
    packer, out = zlib.compressobj(9), io.BytesIO()
    block = bytes(1 << 20)
    for _ in range(count >> 20):
        out.write(packer.compress(block))
    out.write(packer.flush())
    return out.getvalue()
