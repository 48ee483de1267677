"""Reference files: statistics and features of a set of images, measured once.

Safetensors that describe themselves and hold a hash of their own content, as weights files do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from adm_cli.errors import CheckpointError
from adm_cli.storage.checkpoints import read_tensors, write_tensors

FORMAT, FORMAT_VERSION = "adm-reference", "1"
MOST_FEATURES = 10_000  # of the published reference batches

_FACTS = ("features", "features_sha256", "images", "size", "source", "pixels_sha256")


@dataclass(frozen=True)
class Reference:
    """What samples are measured against. D features, D' spatial ones, n images kept."""

    features: str  # the network: "inception" or "classifier"
    features_sha256: str  # of its weights
    images: int | None  # behind the statistics; None where a published file does not say
    size: tuple[int, int]
    source: str  # the data's name
    pixels_sha256: str  # of all uint8 values in order
    mu: Tensor  # float64 [D]
    sigma: Tensor  # float64 [D, D]
    mu_s: Tensor | None  # [D']
    sigma_s: Tensor | None  # [D', D']
    kept: Tensor  # float32 [n, D]: features for precision, recall and the like


def save_reference(path: Path, reference: Reference) -> str:
    """Writes it, atomically; returns its content hash. Raises OutputError."""
    tensors = {"mu": reference.mu, "sigma": reference.sigma, "kept": reference.kept}
    if reference.mu_s is not None and reference.sigma_s is not None:
        tensors |= {"mu_s": reference.mu_s, "sigma_s": reference.sigma_s}
    facts = {name: getattr(reference, name) for name in _FACTS}
    metadata = {"format": FORMAT, "format_version": FORMAT_VERSION, "reference": json.dumps(facts)}
    return write_tensors(path, tensors, metadata)


def is_reference(path: Path) -> bool:
    """Whether a file says that it is a reference; False for anything that cannot be read."""
    try:
        with safetensors.safe_open(path, framework="pt") as handle:
            return (handle.metadata() or {}).get("format") == FORMAT
    except (OSError, MemoryError, safetensors.SafetensorError):
        return False


def read_reference(path: Path) -> Reference:
    """Raises CheckpointError for anything but a whole reference file of ours."""
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is not a reference file: adm reference DATA -o FILE makes one"
        )
    if metadata.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format version {metadata.get('format_version')}, this adm reads "
            f"{FORMAT_VERSION}; a newer adm may be needed"
        )
    try:
        reference = _parse(json.loads(metadata["reference"]), tensors)
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged reference ({error})") from None
    return reference


def describe_reference(reference: Reference) -> dict[str, Any]:
    """What it says of itself, without its numbers."""
    facts = {name: getattr(reference, name) for name in _FACTS}
    return facts | {"size": list(reference.size), "kept": len(reference.kept)}


def _parse(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Reference:
    height, width = facts["size"]
    images = facts["images"]
    reference = Reference(
        features=str(facts["features"]),
        features_sha256=str(facts["features_sha256"]),
        images=None if images is None else int(images),
        size=(int(height), int(width)),
        source=str(facts["source"]),
        pixels_sha256=str(facts["pixels_sha256"]),
        mu=tensors["mu"],
        sigma=tensors["sigma"],
        mu_s=tensors.get("mu_s"),
        sigma_s=tensors.get("sigma_s"),
        kept=tensors["kept"],
    )
    for mean, covariance in ((reference.mu, reference.sigma), (reference.mu_s, reference.sigma_s)):
        if (mean is None) != (covariance is None):
            raise ValueError("statistics without their other half")
        if mean is not None and covariance is not None:
            _check(mean, (len(mean),), torch.float64)
            _check(covariance, (len(mean), len(mean)), torch.float64)
    _check(reference.kept, (len(reference.kept), len(reference.mu)), torch.float32)
    return reference


def _check(tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if tuple(tensor.shape) != shape or tensor.dtype != dtype:
        raise ValueError(f"{tensor.dtype} {list(tensor.shape)}, expected {dtype} {list(shape)}")
    if not bool(tensor.isfinite().all()):
        raise ValueError("NaN or infinite values")
