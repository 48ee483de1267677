"""Class agreement: closed forms, and what the ratio to real pictures holds."""

from __future__ import annotations

import math

import pytest
import torch

from adm_cli.evaluation.agreement import (
    agreement,
    beside,
    best_class,
    class_counts,
    frechet_beside_real,
    ratio,
)
from adm_cli.evaluation.metrics import Estimate, Gaussian
from tests.evaluation.test_metrics import normal


def test_the_best_among_some() -> None:
    logits = torch.tensor([[9.0, 1, 2, 8], [0, 3, 1, 2]])
    assert best_class(logits, [0, 1, 2, 3]).tolist() == [0, 1]
    assert best_class(logits, [3, 2]).tolist() == [3, 3]
    for classes in ([], [4], [-1]):
        with pytest.raises(ValueError, match="classes from 0 to 3"):
            best_class(logits, classes)


def test_a_constant_answer_is_right_as_often_as_its_class_occurs() -> None:
    labels = torch.tensor([5] * 30 + [7] * 70)
    found = agreement(torch.full((100,), 5), labels)
    assert found.value == pytest.approx(0.3)
    assert found.error == pytest.approx(math.sqrt(0.3 * 0.7 / 100))
    perfect = agreement(labels, labels)
    assert perfect.value == 1
    half = 0.5 / 100  # of a picture fewer: a hundred are no certainty
    assert perfect.error == pytest.approx(math.sqrt(half * (1 - half) / 100))
    assert agreement(labels[:12], labels[:12]).error > 0.05
    assert agreement(labels.roll(30), labels).value == pytest.approx(0.4)  # 40 stay sevens
    with pytest.raises(ValueError, match="2 predictions for 100 labels"):
        agreement(labels[:2], labels)
    with pytest.raises(ValueError, match="0 predictions"):
        agreement(labels[:0], labels[:0])


def test_a_ratio_and_its_error() -> None:
    found = ratio(Estimate(0.6, 0.03), Estimate(0.8, 0.02))
    assert found.value == pytest.approx(0.75)
    relative = math.sqrt((0.03 / 0.6) ** 2 + (0.02 / 0.8) ** 2)
    assert found.error == pytest.approx(0.75 * relative)
    assert ratio(Estimate(0, 0), Estimate(0.8, 0.02)) == (0, 0)
    assert math.isnan(ratio(Estimate(0.5, 0.1), Estimate(0, 0)).value)
    assert beside(Estimate(1, 0), Estimate(1, 0)) == ((1, 0), (1, 0), (1, 0))


def test_the_error_of_a_ratio_is_what_other_draws_show() -> None:
    generator = torch.Generator().manual_seed(0)
    hits = torch.rand(2000, 2, 400, generator=generator) < torch.tensor([[0.5], [0.8]])
    shares = hits.double().mean(dim=2)
    spread = float((shares[:, 0] / shares[:, 1]).std())
    told = [
        ratio(*(agreement(h.long(), torch.ones(400, dtype=torch.int64)) for h in both)).error
        for both in hits[:50]
    ]
    assert sum(told) / 50 == pytest.approx(spread, rel=0.05)


def test_as_good_as_real_pictures_is_a_distance_of_ratio_one() -> None:
    reference = Gaussian(torch.zeros(4).double(), torch.eye(4).double())
    good, real = normal(3000, 4, seed=1), normal(300, 4, seed=2)
    found = frechet_beside_real(good, real, reference)
    assert found.ratio.value == pytest.approx(1, abs=3 * found.ratio.error)
    assert found.samples.value == frechet_beside_real(good, real * 2, reference).samples.value
    bad = frechet_beside_real(good + 1, real, reference)
    assert bad.ratio.value > 10
    same = frechet_beside_real(real, real, reference)
    assert same.samples == same.real
    with pytest.raises(ValueError, match="at least 2 images"):
        frechet_beside_real(good[:1], real, reference)


def test_counts_by_class() -> None:
    labels = torch.tensor([3, 1, 3, 3])
    found = class_counts(labels, torch.tensor([3, 3, 3, 1]), torch.tensor([0, 1, 0, 0]))
    assert found == {1: (1, (0, 1)), 3: (3, (2, 0))}
    assert list(found) == [1, 3]
