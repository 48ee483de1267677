"""How often a classifier names the class asked for, beside the same on real pictures.

N samples, M real pictures, K outputs of the classifier, D features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from adm_cli.evaluation.metrics import (
    Estimate,
    Gaussian,
    Moments,
    OnPart,
    drawn,
    frechet_estimate,
)
from adm_cli.evaluation.neighbours import share


class Beside(NamedTuple):
    """A number of samples, the same of real pictures, and the one over the other."""

    samples: Estimate
    real: Estimate
    ratio: Estimate


def best_class(logits: Tensor, classes: Sequence[int]) -> Tensor:
    """The most likely of some classes: ids int64 [N] from logits [N, K].

    Raises ValueError for a class that is not among the K, or for none.
    """
    if not classes or not 0 <= min(classes) <= max(classes) < logits.shape[1]:
        raise ValueError(f"expected some classes from 0 to {logits.shape[1] - 1}, got {classes}")
    ids = torch.tensor(sorted(classes), device=logits.device)
    return ids[logits[:, ids].argmax(dim=1)]


def agreement(predicted: Tensor, labels: Tensor) -> Estimate:
    """Share of class ids [N] that equal the labels [N]; its error is binomial.

    Raises ValueError unless there is one of each.
    """
    if len(predicted) != len(labels) or not len(labels):
        raise ValueError(f"{len(predicted)} predictions for {len(labels)} labels")
    return share(predicted == labels)


def ratio(samples: Estimate, real: Estimate) -> Estimate:
    """The one over the other, two independent numbers; its error to first order.

    NaN where the second is 0.
    """
    if real.value == 0:
        return Estimate(math.nan, math.nan)
    value = samples.value / real.value
    return Estimate(value, math.hypot(samples.error, value * real.error) / abs(real.value))


def beside(samples: Estimate, real: Estimate) -> Beside:
    """Both and their `ratio`."""
    return Beside(samples, real, ratio(samples, real))


def frechet_beside_real(
    samples: Tensor, real: Tensor, reference: Gaussian, on_group: OnPart | None = None
) -> Beside:
    """Fréchet distances to one reference of as many samples [N, D] as real pictures [M, D].

    Of the larger set a part is drawn by a fixed seed: the bias of few images is then the same on
    both sides, so that samples as good as real pictures have the ratio 1. Errors are the
    jackknife's, for another draw of the images, not of the reference. Raises ValueError for fewer
    than 2 images.
    """
    count = min(len(samples), len(real))
    found = []
    for features in (samples, real):
        moments = Moments()
        moments.add(drawn(features, count))
        found.append(frechet_estimate(moments, reference, on_group))
    return beside(*found)


class ClassCounts(NamedTuple):
    """Pictures of a class, and how many of them were taken for it."""

    images: int
    right: tuple[int, ...]  # for each of the predictions


def class_counts(labels: Tensor, *predicted: Tensor) -> dict[int, ClassCounts]:
    """By class id, ascending, of labels [N] and any number of predictions [N]."""
    found = {}
    for class_id in sorted(set(labels.tolist())):
        mine = labels == class_id
        right = tuple(int((p[mine] == class_id).sum()) for p in predicted)
        found[class_id] = ClassCounts(int(mine.sum()), right)
    return found
