"""Samples that copy a training picture: far nearer to one than to any other.

N samples, m training pictures of a part, D features or pixel values.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from adm_cli.evaluation.metrics import Estimate
from adm_cli.evaluation.neighbours import share, squared_distances

COPY_RATIO = 1 / 3  # as in arXiv 2505.16959
_ROWS = 1024  # samples compared at once
_SAME = 1e-5  # of |x|^2: float32 sums of so many products cannot tell nearer pictures apart


class TwoNearest:
    """The two training pictures nearest to each sample, of pictures that come in parts.

    ``views`` are [N, D], of any type: the samples, and perhaps their mirror images in the same
    order. A training picture is as far from a sample as from the nearest of its views. Memory
    does not grow with the training pictures. Raises ValueError for no samples, and for views that
    differ in shape.
    """

    def __init__(self, *views: Tensor) -> None:
        shapes = {tuple(view.shape) for view in views}
        if len(shapes) != 1 or views[0].dim() != 2 or not len(views[0]):
            raise ValueError(f"expected samples [N, D], all views of one shape, got {shapes}")
        self.views, self.count = views, 0
        first = views[0]
        self.squared = torch.full((len(first), 2), math.inf, device=first.device)  # ascending
        self.places = torch.full_like(self.squared, -1, dtype=torch.int64)
        sums = [rows.float().sum(dim=0) for rows in torch.split(first, _ROWS)]
        # distances stay, and rounding is least about it
        self._centre = torch.stack(sums).sum(dim=0) / len(first)
        norms = [
            (rows.float() - self._centre).square().sum(dim=1) for rows in torch.split(first, _ROWS)
        ]
        self._norms = torch.cat(norms).cpu().double()  # |x|^2 [N]

    def add(self, part: Tensor) -> None:
        """``part`` [m, D], the next training pictures."""
        pictures = part.to(self._centre) - self._centre
        for begin in range(0, len(self.squared), _ROWS):
            rows = slice(begin, begin + _ROWS)
            d = torch.stack([
                squared_distances(view[rows].float() - self._centre, pictures)
                for view in self.views
            ]).amin(dim=0)  # [n, m]  # fmt: skip
            near = d.topk(min(2, len(part)), dim=1, largest=False)
            squared = torch.cat([self.squared[rows], near.values], dim=1)
            places = torch.cat([self.places[rows], near.indices + self.count], dim=1)
            order = squared.argsort(dim=1, stable=True)[:, :2]
            self.squared[rows] = squared.gather(1, order)
            self.places[rows] = places.gather(1, order)
        self.count += len(part)

    def ratios(self) -> Tensor:
        """Distance to the nearest over that to the second nearest: [N], 0 to 1, float64.

        0 for a sample that equals a training picture, be that there once or several times. Raises
        ValueError for fewer than two training pictures.
        """
        if self.count < 2:
            raise ValueError(f"expected at least 2 training pictures, got {self.count}")
        first, second = self.squared.cpu().double().unbind(dim=1)
        return torch.where(first <= _SAME * self._norms, 0.0, (first / second).sqrt())


def copied_share(ratios: Tensor, most: float = COPY_RATIO) -> Estimate:
    """Share of the ratios [N] of `TwoNearest` below ``most``; its error is binomial.

    The test of arXiv 2505.16959: |x - a_1| / |x - a_2| < k, with a_1 and a_2 the training pictures
    nearest to the sample x.
    """
    return share(ratios < most)
