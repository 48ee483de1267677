"""Statistics, Fréchet distance, Inception Score and KID: golden values, closed forms, errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from adm_cli.evaluation.metrics import (
    Gaussian,
    InceptionScore,
    Moments,
    frechet_distance,
    frechet_estimate,
    inception_score,
    jackknife,
    kernel_distance,
)
from tests.golden_arrays import ROOT, arrays, close

FRECHET = "evaluator/frechet.safetensors"
CASES = sorted({name.split(".")[0] for name in arrays(FRECHET).names()})


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def moments(x: Tensor, batch: int = 37) -> Moments:
    found = Moments()
    for begin in range(0, len(x), batch):
        found.add(x[begin : begin + batch])
    return found


def test_moments_are_numpys_even_about_a_large_offset() -> None:
    x = normal(300, 5) @ normal(5, 5, seed=1) + 1e6
    found = moments(x).gaussian()
    close(found.mean, x.mean(dim=0), relative=1e-15)
    close(found.covariance, torch.from_numpy(np.cov(x.numpy(), rowvar=False)), relative=1e-9)


def test_moments_without_a_group_are_those_of_the_others() -> None:
    x = normal(200, 3)
    found = moments(x)
    generator = torch.Generator().manual_seed(0)
    member = torch.cat([torch.randperm(10, generator=generator) for _ in range(20)])
    for group in range(10):
        rest = x[member != group]
        mean, covariance = found.gaussian(without=group)
        close(mean, rest.mean(dim=0), absolute=1e-12)
        close(covariance, torch.from_numpy(np.cov(rest.numpy(), rowvar=False)), absolute=1e-12)


def test_batches_do_not_matter() -> None:
    x = normal(100, 4)
    one, other = moments(x, 100).gaussian(), moments(x, 7).gaussian()
    close(one.mean, other.mean, absolute=1e-14)
    close(one.covariance, other.covariance, absolute=1e-14)


def test_too_few_images_for_a_covariance() -> None:
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        moments(normal(1, 3)).gaussian()


@pytest.mark.parametrize("case", CASES)
def test_frechet_distance_is_the_originals(case: str) -> None:
    golden = arrays(FRECHET)
    samples, reference = (moments(golden[f"{case}.{x}"]).gaussian() for x in ("sample", "ref"))
    close(samples.mean, golden[f"{case}.mu_sample"].double(), absolute=1e-6)  # stored as float32
    if f"{case}.sigma_sample" in golden:
        close(samples.covariance, golden[f"{case}.sigma_sample"], relative=1e-12)
    found = frechet_distance(samples, reference)
    assert found == pytest.approx(golden[f"{case}.frechet_exact"].item(), rel=1e-7, abs=1e-9)
    assert found == pytest.approx(golden[f"{case}.frechet"].item(), rel=1e-6, abs=1e-6)
    assert frechet_distance(reference, samples) == pytest.approx(found, rel=1e-7, abs=1e-9)


def test_frechet_distance_of_two_gaussians_with_common_axes() -> None:
    rotation = torch.linalg.qr(normal(6, 6)).Q
    a, b = torch.arange(1.0, 7.0).double(), torch.tensor([4.0, 0.0, 9.0, 1.0, 0.0, 2.0]).double()
    gap = normal(6, seed=2)
    one = Gaussian(gap, rotation @ a.diag() @ rotation.T)
    other = Gaussian(torch.zeros(6).double(), rotation @ b.diag() @ rotation.T)
    expected = float(gap @ gap + (a.sqrt() - b.sqrt()).square().sum())
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-10)
    # the root of what should be 0, b's missing directions, is the root of rounding
    assert frechet_distance(other, one) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("count", [3, 10, 200])
def test_equal_sets_are_at_distance_0(count: int) -> None:
    same = moments(100 * normal(count, 40)).gaussian()
    assert frechet_distance(same, same) < 1e-8 * float(same.covariance.trace())


def test_blank_images_have_a_distance_too() -> None:
    blank = moments(torch.ones(20, 3)).gaussian()
    other = moments(normal(50, 3)).gaussian()
    gap = float((other.mean - 1).square().sum())
    expected = gap + float(other.covariance.trace())
    assert frechet_distance(blank, blank) == 0
    assert frechet_distance(blank, other) == pytest.approx(expected, rel=1e-12)
    assert frechet_distance(other, blank) == pytest.approx(expected, rel=1e-12)


def test_the_error_of_a_distance_is_what_other_samples_would_change() -> None:
    reference = Gaussian(torch.tensor([20.0, 0.0]).double(), torch.eye(2).double())
    estimates = [
        frechet_estimate(moments(normal(400, 2, seed=s), 400), reference) for s in range(40)
    ]
    spread = float(np.std([e.value for e in estimates], ddof=1))
    assert spread == pytest.approx(2 * 20 / math.sqrt(400), rel=0.3)  # mostly the mean's
    assert float(np.mean([e.error for e in estimates])) == pytest.approx(spread, rel=0.3)


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    x = normal(10)
    total = float(x.sum())
    found = jackknife(lambda g: (total - float(x[g])) / 9, torch.ones(10))
    assert found == pytest.approx(float(x.std()) / math.sqrt(10), rel=1e-12)
    assert math.isnan(jackknife(lambda g: 0.0, torch.tensor([3, 0])))


def plain_score(logits: Tensor, split: int) -> float:
    scores = []
    for begin in range(0, len(logits), split):
        p = logits[begin : begin + split].double().softmax(dim=1)
        scores.append(float((p * (p.log() - p.mean(dim=0).log())).sum(dim=1).mean().exp()))
    return float(np.mean(scores))


@pytest.mark.parametrize("split", [64, 100, 5000])
def test_inception_score_is_the_mean_over_consecutive_parts(split: int) -> None:
    logits = 3 * normal(230, 12)
    score = InceptionScore(split)
    for begin in range(0, 230, 50):
        score.add(logits[begin : begin + 50])
    assert score.value() == pytest.approx(plain_score(logits, split), rel=1e-12)
    assert inception_score(logits, split).value == pytest.approx(score.value(), rel=1e-12)


def test_inception_score_is_the_originals() -> None:
    if not (ROOT / "evaluator/inception_score.safetensors").is_file():
        pytest.skip("only in the full reference")
    golden = arrays("evaluator/inception_score.safetensors")
    for name in golden.names("score.split"):
        split = int(name.removeprefix("score.split"))
        found = inception_score(golden["logits"], split).value
        assert found == pytest.approx(golden[f"score_exact.split{split}"].item(), rel=1e-12)
        assert found == pytest.approx(golden[name].item(), rel=1e-6)  # float32 there


def test_inception_score_runs_from_1_to_the_number_of_classes() -> None:
    assert inception_score(torch.zeros(50, 8)).value == pytest.approx(1)
    sure = 1000 * torch.eye(8).repeat(20, 1)
    assert inception_score(sure).value == pytest.approx(8)


def plain_kernel_distance(x: Tensor, y: Tensor) -> float:
    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    n, m = len(x), len(y)
    xx, yy = kernel(x, x), kernel(y, y)
    own = float((xx.sum() - xx.trace()) / (n * (n - 1)) + (yy.sum() - yy.trace()) / (m * (m - 1)))
    return own - 2 * float(kernel(x, y).mean())


def test_kernel_distance_is_the_unbiased_squared_mmd() -> None:
    x, y = normal(53, 6), normal(31, 6, seed=1) + 0.5
    found = kernel_distance(x, y)
    assert found.value == pytest.approx(plain_kernel_distance(x, y), rel=1e-12)
    single = kernel_distance(x.float(), y.float())
    assert single.value == pytest.approx(found.value, rel=1e-5)


@pytest.mark.parametrize(("shift", "low", "high"), [(0.0, 1.0, 2.0), (1.0, 0.6, 1.5)])
def test_the_error_of_a_kernel_distance(shift: float, low: float, high: float) -> None:
    y = normal(1000, 6, seed=99)
    found = [kernel_distance(normal(200, 6, seed=s) + shift, y) for s in range(30)]
    values = np.array([e.value for e in found])
    errors = float(np.mean([e.error for e in found]))
    assert low < errors / values.std() < high
    if shift == 0:
        assert abs(values.mean()) < errors


def test_kernel_distance_needs_two_images() -> None:
    with pytest.raises(ValueError, match="at least 2 images"):
        kernel_distance(normal(1, 3), normal(5, 3))
