"""Precision and recall, density and coverage: who lies among whose nearest neighbours.

Distances are squared throughout, and computed in blocks: memory does not grow with their number.
N samples, M reference images, D features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from adm_cli.evaluation.metrics import Estimate, OnPart

PR_NEIGHBOURS, DC_NEIGHBOURS = 3, 5  # as published

_BLOCK = 2048
_HALF_BLOCK = 10_000  # the original evaluator's, which decides where float16 overflows
_ROUNDING = 1e-6  # of |u|^2 + |v|^2: float32 cannot tell a smaller squared distance from 0


class PrecisionRecall(NamedTuple):
    precision: Estimate
    recall: Estimate


class DensityCoverage(NamedTuple):
    density: Estimate
    coverage: Estimate


def precision_recall(
    samples: Tensor, reference: Tensor, *, k: int = PR_NEIGHBOURS, half: bool = False,
    block: int | None = None, on_block: OnPart | None = None,
) -> PrecisionRecall:  # fmt: skip
    """Improved precision and recall (arXiv 1904.06991) of [N, D] against [M, D].

    Precision is the share of samples within some reference image's distance to its k-th nearest
    other, recall the same with the sets exchanged. ``half`` computes distances in float16 as the
    original evaluator does, which can decide near-ties otherwise. Errors are binomial, given the
    other set. Raises ValueError unless both sets have more than k images, and for features that
    are not finite.
    """
    _check_finite(samples, reference)
    radii = [nearest_radii(x, k, half=half, block=block, on_block=on_block)
             for x in (samples, reference)]  # fmt: skip
    among_reference = torch.zeros(len(samples), dtype=torch.bool, device=samples.device)
    among_samples = torch.zeros(len(reference), dtype=torch.bool, device=samples.device)
    for rows, columns, d in _pairs(reference, samples, half, block, on_block):
        among_reference[columns] |= (d <= radii[1][rows, None]).any(dim=0)
        among_samples[rows] |= (d <= radii[0][columns]).any(dim=1)
    return PrecisionRecall(share(among_reference), share(among_samples))


def density_coverage(
    samples: Tensor, reference: Tensor, *, k: int = DC_NEIGHBOURS, block: int | None = None,
    on_block: OnPart | None = None,
) -> DensityCoverage:  # fmt: skip
    """Density and coverage (arXiv 2002.09797, section 3) of [N, D] against [M, D].

    Density is how many reference neighbourhoods a sample lies in, over k; coverage the share of
    reference images with a sample in their neighbourhood. Raises ValueError unless the reference
    has more than k images, and for features that are not finite.
    """
    _check_finite(samples, reference)
    radii = nearest_radii(reference, k, block=block, on_block=on_block)
    around = torch.zeros(len(samples), dtype=torch.float64, device=samples.device)
    covered = torch.zeros(len(reference), dtype=torch.bool, device=samples.device)
    for rows, columns, d in _pairs(reference, samples, False, block, on_block):
        inside = d <= radii[rows, None]
        around[columns] += inside.sum(dim=0)
        covered[rows] |= inside.any(dim=1)
    around /= k
    error = float(around.std() / len(around) ** 0.5) if len(around) > 1 else math.nan
    return DensityCoverage(Estimate(float(around.mean()), error), share(covered))


def _check_finite(*sets: Tensor) -> None:
    """NaN is within no distance: a share of 0 would look like a result."""
    for features in sets:
        if not bool(features.isfinite().all()):
            raise ValueError("features that are NaN or infinite have no neighbours")


def nearest_radii(
    features: Tensor, k: int, *, half: bool = False, block: int | None = None,
    on_block: OnPart | None = None,
) -> Tensor:  # fmt: skip
    """Squared distance [N] of each of [N, D] to its k-th nearest other.

    Raises ValueError unless there are more than k.
    """
    if len(features) <= k:
        raise ValueError(f"{k} neighbours need more than {k} images, got {len(features)}")
    nearest = features.new_full((len(features), k + 1), math.inf)  # the point itself is the first
    for rows, columns, d in _pairs(features, features, half, block, on_block, once=not half):
        nearest[rows] = _smallest(nearest[rows], d)
        if not half and rows != columns:
            nearest[columns] = _smallest(nearest[columns], d.T)
    return nearest[:, k]


def _pairs(
    u: Tensor, v: Tensor, half: bool, block: int | None, on_block: OnPart | None, *,
    once: bool = False,
) -> Iterator[tuple[slice, slice, Tensor]]:  # fmt: skip
    """Distances of every block of rows of ``u`` to every one of ``v``; ``once``: not both ways."""
    step = block or (_HALF_BLOCK if half else _BLOCK)
    centre = v.mean(dim=0)  # distances stay, and rounding is least about it
    places = [
        (i, j)
        for i in range(0, len(u), step)
        for j in range(i if once else 0, len(v), step)
    ]  # fmt: skip
    for done, (i, j) in enumerate(places):
        rows, columns = slice(i, min(i + step, len(u))), slice(j, min(j + step, len(v)))
        if half:
            d = _half_distances(u[rows], v[columns])
        else:
            d = squared_distances(u[rows] - centre, v[columns] - centre)
        yield rows, columns, d
        if on_block is not None:
            on_block(done + 1, len(places))


def squared_distances(u: Tensor, v: Tensor) -> Tensor:
    """|u|^2 - 2 u.v + |v|^2, [n, m]; what rounding alone could have made is 0, as of equals."""
    scale = u.square().sum(dim=1, keepdim=True) + v.square().sum(dim=1)
    d = torch.addmm(scale, u, v.T, alpha=-2)
    return d.masked_fill_(d < scale.mul_(_ROUNDING), 0)


def _half_distances(u: Tensor, v: Tensor) -> Tensor:
    """As the original evaluator: in float16, or in float32 a block in which that overflows."""
    a, b = u.half(), v.half()
    norms = [x.square().float().sum(dim=1).half() for x in (a, b)]
    product = (a.float() @ b.float().T).half()
    d = norms[0][:, None] - 2 * product + norms[1]
    if bool(d.isfinite().all()):
        return d.clamp(min=0).float()
    d = u.square().sum(dim=1, keepdim=True) - 2 * (u @ v.T) + v.square().sum(dim=1)
    return d.clamp(min=0)


def _smallest(nearest: Tensor, d: Tensor) -> Tensor:
    """The smallest of [n, k] and [n, m] together, ascending: [n, k]."""
    k = nearest.shape[1]
    found = d.topk(min(k, d.shape[1]), dim=1, largest=False).values
    return torch.cat([nearest, found], dim=1).sort(dim=1).values[:, :k]


def share(members: Tensor) -> Estimate:
    """How many are, and the standard error of a proportion.

    Where none or all are, the error is that of half a one more or less: few say little.
    """
    count, right = len(members), float(members.double().sum())
    p = min(max(right, 0.5), count - 0.5) / count
    return Estimate(right / count, math.sqrt(p * (1 - p) / count))
