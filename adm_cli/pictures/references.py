"""Reference files: statistics and features of a set of images, measured once.

Safetensors that describe themselves and hold a hash of their own content, as weights files do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adm_cli.checkpoints.format import read_tensors, write_tensors
from adm_cli.errors import CheckpointError, size_words, why_unread
from adm_cli.files.budget import parse_json

FORMAT, FORMAT_VERSION = "adm-reference", "1"
MOST_FEATURES = 10_000  # of the published reference batches
LARGEST = 1e12  # of a network's features and their products, so that no distance overflows
_ROUNDING = 1e-4  # of the largest value: half precision, if that is what it was stored in

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


def read_reference(path: Path) -> Reference:
    """Raises CheckpointError for anything but a whole reference file of ours."""
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is not a reference file: adm reference DATA -o FILE makes one"
        )
    if metadata.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format version {metadata.get('format_version', 'unknown')}, this adm reads "
            f"{FORMAT_VERSION}; a newer adm may be needed"
        )
    try:
        reference = _parse(parse_json(metadata["reference"]), tensors)
    except (KeyError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged reference ({why_unread(error)})") from None
    return reference


def describe_reference(reference: Reference) -> dict[str, Any]:
    """What it says of itself, without its numbers."""
    facts = {name: getattr(reference, name) for name in _FACTS}
    return facts | {"size": list(reference.size), "kept": len(reference.kept)}


def _parse(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Reference:
    height, width = map(int, facts["size"])
    images = None if facts["images"] is None else int(facts["images"])
    reference = Reference(
        features=str(facts["features"]),
        features_sha256=str(facts["features_sha256"]),
        images=images,
        size=(height, width),
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
            check_statistics(mean, covariance)
    _check(reference.kept, (len(reference.kept), len(reference.mu)), torch.float32)
    if height < 1 or width < 1 or (images is not None and images < 2):
        raise ValueError(f"{images} images of {size_words((height, width))}")
    return reference


def check_statistics(mean: Tensor, covariance: Tensor) -> None:
    """Raises ValueError unless they are float64 [D] and [D, D] and could be of numbers.

    That no variance is negative in any direction is seen when the root is taken.
    """
    dim = len(mean) if mean.ndim else 0
    _check(mean, (dim,), torch.float64)
    _check(covariance, (dim, dim), torch.float64)
    if not dim:
        raise ValueError("no numbers")
    largest = covariance.abs().max()
    if not bool((covariance - covariance.T).abs().max() <= _ROUNDING * largest):
        raise ValueError("the covariance is not symmetric")
    if bool(covariance.diagonal().min() < -_ROUNDING * largest):
        raise ValueError("a variance is negative")


def _check(tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if tuple(tensor.shape) != shape or tensor.dtype != dtype:
        kinds = [str(kind).removeprefix("torch.") for kind in (tensor.dtype, dtype)]
        raise ValueError(f"{kinds[0]} {list(tensor.shape)}, expected {kinds[1]} {list(shape)}")
    if not bool((tensor.abs() <= LARGEST).all()):
        raise ValueError(f"NaN, infinite, or values above {LARGEST:g}")
