"""The classes of a batch of images as tensors: of one class each, of mixtures, and led away from.

P classes of N images; K classes that a classifier knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adm_cli.devices import send

Parts = Sequence[tuple[int | None, float]]  # the classes of an image, and their shares


@dataclass(frozen=True)
class Labels:
    """What a model is told of N images of P classes each."""

    ids: Tensor  # int64 [P, N]
    shares: Tensor | None  # float32 [P, N], an image's sum to 1; None where P is 1

    def same(self, label: int) -> Tensor:
        """Another label for every image, int64 [N]."""
        return torch.full_like(self.ids[0], label)


def model_labels(images: Sequence[Parts], no_class: int, device: torch.device) -> Labels:
    """Of images that have equally many classes; ``no_class`` stands for None."""
    rows = [[no_class if i is None else i for i, _ in parts] for parts in images]
    ids = send(torch.tensor(rows, dtype=torch.int64, device="cpu").T.contiguous(), device)
    if len(ids) == 1:
        return Labels(ids, None)
    rows_of_shares = [[share for _, share in parts] for parts in images]
    shares = torch.tensor(rows_of_shares, dtype=torch.float32, device="cpu")
    return Labels(ids, send(shares.T.contiguous(), device))


def classifier_target(
    images: Sequence[Parts], negative: int | None, num_classes: int, device: torch.device
) -> Tensor | None:
    """What `guidance.classifier_gradient` leads to; None where an image has no class.

    int64 [N] ids, or where there are mixtures or a ``negative`` class float32 [N, K]: an image's
    shares, and -1 of the negative one.
    """
    if any(class_id is None for parts in images for class_id, _ in parts):
        return None
    if negative is None and all(len(parts) == 1 for parts in images):
        ids = [class_id for ((class_id, _),) in images]
        return send(torch.tensor(ids, dtype=torch.int64, device="cpu"), device)
    weights = torch.zeros(len(images), num_classes, dtype=torch.float32, device="cpu")
    for row, parts in zip(weights, images, strict=True):
        for class_id, share in parts:
            row[class_id] = share
        if negative is not None:
            row[negative] -= 1
    return send(weights, device)
