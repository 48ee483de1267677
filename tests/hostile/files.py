"""Hostile files, made by rule. Each maker returns a file's bytes, or writes it to a path."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from adm_cli.checkpoints.format import write_tensors
from adm_cli.checkpoints.header import ModelInfo
from adm_cli.checkpoints.header import info_metadata as metadata_of


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
    packer, block, total = zlib.compressobj(9, wbits=-15), bytes(1 << 20), 1
    piece = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    for _ in range(count >> 20):
        total = zlib.adler32(block, total)
    return b"\x78\xda" + piece * (count >> 20) + packer.flush() + struct.pack(">I", total)


def npy(
    data: bytes = b"",
    descr: object = "|u1",
    shape: object = (8, 8, 8, 3),
    *,
    fortran: object = False,
    header: bytes | None = None,
    length: int | None = None,
    version: int = 1,
) -> bytes:
    """An array whose header says what it is told to, and whose length may lie."""
    if header is None:
        fields = {"descr": descr, "fortran_order": fortran, "shape": shape}
        header = f"{fields!r}".encode("utf-8", "surrogatepass").ljust(117) + b"\n"
    form = "<H" if version == 1 else "<I"
    said = len(header) if length is None else length
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack(form, said) + header + data


def npz(*members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of these, also of two that have one name."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as file:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, data in members:
            file.writestr(name, data)
    return buffer.getvalue()


def zeros_in_zip(name: str, start: bytes, megabytes: int) -> bytes:
    """A member that begins so, and unfolds to a thousand times its size."""
    packer, zeros = zlib.compressobj(9, wbits=-15), bytes(1 << 20)
    body = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    body += (packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)) * megabytes + packer.flush()
    crc = zlib.crc32(start)
    for _ in range(megabytes):
        crc = zlib.crc32(zeros, crc)
    data = patched_headers(npz((name, body)), 8, struct.pack("<H", 8))
    data = patched_headers(data, 14, struct.pack("<I", crc))
    return patched_headers(data, 22, struct.pack("<I", len(start) + (megabytes << 20)))


def patched_headers(data: bytes, place: int, value: bytes) -> bytes:
    """A field of every local and central zip header, at its place in the local one."""
    changed = bytearray(data)
    for magic, offset in ((b"PK\x03\x04", place), (b"PK\x01\x02", place + 2)):
        start = data.find(magic)
        while start >= 0:
            changed[start + offset : start + offset + len(value)] = value
            start = data.find(magic, start + 4)
    return bytes(changed)
