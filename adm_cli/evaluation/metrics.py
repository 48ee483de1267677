"""Statistics of features, and the distances and scores made of them.

Everything is float64 from the statistics on. N images, D features, K classes, G jackknife groups.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from adm_cli.errors import AdmError

GROUPS = 10  # of the jackknife
IS_SPLIT = 5000  # images a split of the original evaluator's Inception Score
KID_MOST = 10_000  # images of a set that are compared each with each
_KERNEL_ROWS = 1024

_EPS = torch.finfo(torch.float64).eps  # times D, of the largest eigenvalue: below it is rounding
_NEGATIVE = 1e-3  # likewise, of matrices that were stored in half precision

OnPart = Callable[[int, int], None]  # parts done, parts in all


class Estimate(NamedTuple):
    """A number and its standard error; NaN where one cannot be had."""

    value: float
    error: float


class Gaussian(NamedTuple):
    """Mean [D] and covariance [D, D] (divided by N - 1), float64."""

    mean: Tensor
    covariance: Tensor


class _Dealer:
    """Puts images into groups of equal size, at random by a fixed seed, in whatever batches."""

    def __init__(self, groups: int) -> None:
        self.groups = groups
        self._generator = torch.Generator().manual_seed(0)
        self._left = torch.zeros(0, dtype=torch.int64)

    def deal(self, count: int) -> Tensor:
        """The groups of the next ``count`` images."""
        rounds = max(0, -(-(count - len(self._left)) // self.groups))
        dealt = [torch.randperm(self.groups, generator=self._generator) for _ in range(rounds)]
        members = torch.cat([self._left, *dealt])
        self._left = members[count:]
        return members[:count]


class Moments:
    """Mean and covariance of features that come in batches, for all and without each group.

    Memory is G D^2, whatever the number of images. Sums are taken about the first batch's mean,
    so that a large common offset costs no digits. ``groups`` 1 keeps no groups apart.
    """

    def __init__(self, groups: int = GROUPS) -> None:
        self.groups = groups
        self.shift: Tensor | None = None  # [D]
        self.counts = torch.zeros(groups, dtype=torch.int64)
        self._dealer = _Dealer(groups)

    def add(self, features: Tensor) -> None:
        """``features`` [n, D] of the next images."""
        x = features.to(_double_device(features), torch.float64)
        if self.shift is None:
            dim = x.shape[1]
            self.shift = x.mean(dim=0)
            self.sums = x.new_zeros(self.groups, dim)
            self.products = x.new_zeros(self.groups, dim, dim)
        x = x - self.shift
        member = self._dealer.deal(len(x))
        for group in set(member.tolist()):
            rows = x[(member == group).nonzero()[:, 0].to(x.device)]
            self.counts[group] += len(rows)
            self.sums[group] += rows.sum(dim=0)
            self.products[group].addmm_(rows.T, rows)

    @property
    def count(self) -> int:
        return int(self.counts.sum())

    def gaussian(self, without: int | None = None) -> Gaussian:
        """Of all images, or of all but one group's. Raises ValueError for fewer than two."""
        keep = [g for g in range(self.groups) if g != without]
        n = int(self.counts[keep].sum())
        if n < 2 or self.shift is None:
            raise ValueError(f"a covariance needs at least 2 images, got {n}")
        sums, products = self.sums.sum(dim=0), self.products.sum(dim=0)
        if without is not None:
            sums, products = sums - self.sums[without], products - self.products[without]
        mean = sums / n
        covariance = (products - n * torch.outer(mean, mean)) / (n - 1)
        return Gaussian(mean + self.shift, (covariance + covariance.T) / 2)


def _double_device(x: Tensor) -> torch.device:
    """Where float64 exists: MPS has none."""
    return torch.device("cpu") if x.device.type == "mps" else x.device


class FrechetTo:
    """The Frechet distance of any Gaussian to one reference, whose root is taken once."""

    def __init__(self, reference: Gaussian) -> None:
        self.reference = reference
        self.root = _factor(reference.covariance)  # [D, R]

    def __call__(self, samples: Gaussian) -> float:
        """|mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)) (arXiv 1706.08500, equation 6).

        The trace of the root is the sum of the roots of the eigenvalues of R' S_1 R, where
        S_2 = R R'. That matrix is symmetric, so nothing turns complex, and singular covariances
        need no additions to their diagonals.
        """
        mean, covariance = (t.to(self.root) for t in samples)
        target = self.reference.covariance.to(self.root)
        gap = mean - self.reference.mean.to(self.root)
        inner = self.root.T @ covariance @ self.root
        eigenvalues = torch.linalg.eigvalsh((inner + inner.T) / 2)
        overlap = eigenvalues.clamp(min=0).sqrt().sum()
        distance = gap @ gap + covariance.trace() + target.trace() - 2 * overlap
        return max(float(distance), 0.0)  # NaN stays


def frechet_distance(samples: Gaussian, reference: Gaussian) -> float:
    """FID on Inception's pool features, sFID on its spatial ones; see `FrechetTo`.

    A `Gaussian` of features [N, D] is what `Moments` makes of them, ``add``ed in batches. Raises
    ValueError for the features themselves.
    """
    if any(isinstance(given, Tensor) for given in (samples, reference)):
        raise ValueError("expected two Gaussians, got features: Moments makes them, by add")
    return FrechetTo(reference)(samples)


def _factor(covariance: Tensor) -> Tensor:
    """R [D, R] with R R' = covariance; directions of no variance are left out.

    Cholesky where the matrix has full rank, the eigenvectors otherwise, which take far longer.
    Raises AdmError for a matrix that is no covariance.
    """
    lower: Tensor
    info: Tensor
    lower, info = torch.linalg.cholesky_ex(covariance)
    pivots, rounding = lower.diagonal().square(), _EPS * len(covariance)
    if int(info) == 0 and bool(pivots.min() > rounding * pivots.max()):
        return lower
    eigenvalues: Tensor
    vectors: Tensor
    eigenvalues, vectors = torch.linalg.eigh(covariance)
    if bool(eigenvalues[0] < -_NEGATIVE * eigenvalues[-1].abs()):
        raise AdmError(
            f"not a covariance: its eigenvalues go from {float(eigenvalues[0]):.3g} to "
            f"{float(eigenvalues[-1]):.3g}, expected none below 0"
        )
    kept = eigenvalues > rounding * eigenvalues.max().clamp(min=0)
    return vectors[:, kept] * eigenvalues[kept].sqrt()


def frechet_estimate(
    samples: Moments, reference: Gaussian, on_group: OnPart | None = None
) -> Estimate:
    """The distance and its error by the delete-a-group jackknife.

    The error is the samples' alone: what another draw of as many images would change. It does
    not hold the bias, which falls as 1/N; compare only equal numbers of images.
    """
    distance = FrechetTo(reference)
    value = distance(samples.gaussian())
    error = jackknife(lambda g: distance(samples.gaussian(g)), samples.counts, on_group)
    return Estimate(value, error)


def jackknife(
    without: Callable[[int], float], counts: Tensor, on_group: OnPart | None = None
) -> float:
    """Standard error of a statistic from its values ``without(g)`` each group (Efron, 1982).

    ``counts`` [G] are the groups' images; NaN unless each has some.
    """
    groups = len(counts)
    if groups < 2 or int(counts.min()) < 1:
        return float("nan")
    values = []
    for group in range(groups):
        values.append(without(group))
        if on_group is not None:
            on_group(group + 1, groups)
    spread = torch.tensor(values, dtype=torch.float64)
    spread = (spread - spread.mean()).square().sum()
    return float((spread * (groups - 1) / groups).sqrt())


class InceptionScore:
    """exp E KL(p(y|x) || p(y)) (arXiv 1606.03498), its splits as in the original evaluator.

    Consecutive parts of ``split`` images, the last one shorter, none shuffled; the score is the
    plain mean over the parts. Only sums are kept: memory does not grow with a part.
    """

    def __init__(self, split: int = IS_SPLIT, groups: int = GROUPS) -> None:
        self.split, self.groups = split, groups
        self.counts = torch.zeros(groups, dtype=torch.int64)
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []  # [G], [G], [G, K]
        self._dealer = _Dealer(groups)

    @property
    def count(self) -> int:
        return int(self.counts.sum())

    def add(self, logits: Tensor) -> None:
        """``logits`` [n, K], in the order of the images."""
        logits = logits.to(_double_device(logits), torch.float64)
        while len(logits):
            room = self.split - self.count % self.split
            self._add_to_part(logits[:room])
            logits = logits[room:]

    def _add_to_part(self, logits: Tensor) -> None:
        if self.count % self.split == 0:
            zeros = logits.new_zeros(self.groups)
            empty = logits.new_zeros(self.groups, logits.shape[1])
            self._parts.append((zeros, zeros.clone(), empty))
        counts, entropies, totals = self._parts[-1]
        member = self._dealer.deal(len(logits))
        log_p = logits.log_softmax(dim=1)
        p = log_p.exp()
        self.counts += member.bincount(minlength=self.groups)
        member = member.to(logits.device)
        counts.index_add_(0, member, torch.ones_like(p[:, 0]))
        entropies.index_add_(0, member, (p * log_p).sum(dim=1))
        totals.index_add_(0, member, p)

    def value(self, without: int | None = None) -> float:
        """The score of all images, or of all but one group's."""
        keep = [g for g in range(self.groups) if g != without]
        scores = []
        for counts, entropies, totals in self._parts:
            n = counts[keep].sum()
            if n == 0:
                continue
            mean = totals[keep].sum(dim=0) / n
            scores.append((entropies[keep].sum() / n - torch.xlogy(mean, mean).sum()).exp())
        return float(torch.stack(scores).mean())

    def estimate(self) -> Estimate:
        """The score, and its error by the jackknife."""
        return Estimate(self.value(), jackknife(self.value, self.counts))


def inception_score(logits: Tensor, split: int = IS_SPLIT) -> Estimate:
    """The score of logits [N, K] that are all there; see `InceptionScore`."""
    score = InceptionScore(split)
    score.add(logits)
    return score.estimate()


def kernel_distance(samples: Tensor, reference: Tensor, *, groups: int = GROUPS) -> Estimate:
    """KID (arXiv 1801.01401): the unbiased squared MMD under (x.y / D + 1)^3.

    Of [N, D] and [M, D], each image with each other, not of subsets; of sets above 10,000 that
    many are drawn by a fixed seed. Products are taken in the features' own precision, sums in
    float64. The error is the jackknife's, for the samples alone; about half too wide where the
    sets are alike. Raises ValueError for fewer than 2 images.
    """
    x, y = drawn(samples), drawn(reference)
    if min(len(x), len(y)) < 2:
        raise ValueError(f"KID needs at least 2 images of each set, got {min(len(x), len(y))}")
    parts = x.tensor_split(groups)  # drawn at random, so any parts are random groups
    counts = torch.tensor([len(part) for part in parts], dtype=torch.float64)
    within = torch.tensor([[_kernel_sum(a, b) for b in parts] for a in parts], dtype=torch.float64)
    itself = torch.tensor([_kernel_of_itself(part) for part in parts], dtype=torch.float64)
    within -= itself.diag()
    across = torch.tensor([_kernel_sum(part, y) for part in parts], dtype=torch.float64)
    m = len(y)
    target = (_kernel_sum(y, y) - _kernel_of_itself(y)) / (m * (m - 1))

    def value(without: int | None = None) -> float:
        keep = [g for g in range(groups) if g != without]
        n = float(counts[keep].sum())
        own = float(within[keep][:, keep].sum()) / (n * (n - 1))
        return own - 2 * float(across[keep].sum()) / (n * m) + target

    return Estimate(value(), jackknife(value, counts))


def drawn(features: Tensor, most: int = KID_MOST) -> Tensor:
    """At most so many rows, in a random order by a fixed seed."""
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(features), generator=generator)[:most]
    return features[order.to(features.device)]


def _kernel_sum(a: Tensor, b: Tensor) -> float:
    total = 0.0
    for begin in range(0, len(a), _KERNEL_ROWS):
        rows = a[begin : begin + _KERNEL_ROWS]
        kernel = (rows @ b.T).div_(a.shape[1]).add_(1).pow_(3)
        total += float(kernel.to(_double_device(kernel)).sum(dtype=torch.float64))
    return total


def _kernel_of_itself(a: Tensor) -> float:
    return float((a.double().square().sum(dim=1) / a.shape[1] + 1).pow(3).sum())
