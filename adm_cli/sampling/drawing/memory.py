"""How many images fit into memory at once, and which weights beside them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from adm_cli.checkpoints.sources import Sources
from adm_cli.devices import free_bytes
from adm_cli.models.cost import activation_bytes

MAX_AUTO_BATCH = 16
_SHARE = 0.6  # of the memory that is free: what a batch takes is counted, not measured
AUTO_BATCH = f"as many as fit into {_SHARE:.0%} of what is free, at most {MAX_AUTO_BATCH}"


def classifier_dtype(compute: torch.dtype) -> torch.dtype:
    """The classifier's beside a model in ``compute``."""
    return torch.float32 if compute == torch.float16 else compute


def fitting_batch(
    costs: Sequence[int], device: torch.device, images: int, *, weights: int = 0, processes: int = 1
) -> int:
    """As many images as fit at once, at most 16, shared out evenly.

    ``costs`` are the bytes that each network takes for one image, ``weights`` those of what is
    still to be loaded, in each of ``processes``.
    """
    fitting = int((free_bytes(device) / processes - weights) * _SHARE / max(costs))
    most = max(1, min(MAX_AUTO_BATCH, fitting))
    batches = -(-images // most)
    return -(-images // batches)


def fit_together(weights: int, activations: int, device: torch.device, processes: int = 1) -> bool:
    """Whether so many bytes of weights, and those of one image's activations, fit into memory.

    In each of ``processes``.
    """
    return (weights + activations) * processes < free_bytes(device) * 0.9


def image_costs(
    sources: Sources, *, guided: bool, classifier_free: bool, parts: int = 1
) -> list[int]:
    """Bytes of activations that each network of a stage takes for one image.

    Classifier-free guidance runs the model once more: with each of the image's ``parts``, its
    classes, and without.
    """
    at_once = parts + classifier_free
    costs = [at_once * activation_bytes(sources.model.info.config)]
    if sources.weak is not None:
        costs.append(at_once * activation_bytes(sources.weak.info.config))
    if guided and sources.classifier is not None:
        costs.append(activation_bytes(sources.classifier.info.config))
    return costs


def weight_bytes(sources: Sources, dtype: torch.dtype, *, guided: bool) -> int:
    """Bytes that the weights of a stage take once they are loaded."""
    count = sources.model.parameters * dtype.itemsize
    if sources.weak is not None:
        count += sources.weak.parameters * dtype.itemsize
    if not guided or sources.classifier is None:
        return count
    return count + sources.classifier.parameters * classifier_dtype(dtype).itemsize
