"""The copy test: brute force, parts and blocks that change nothing, mirrors and twins."""

from __future__ import annotations

import math

import pytest
import torch

from adm_cli.evaluation import copies
from adm_cli.evaluation.copies import TwoNearest, copied_share
from tests.evaluation.test_metrics import normal


def test_brute_force_in_any_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    samples, training = normal(30, 5, seed=1), normal(50, 5, seed=2)
    d = torch.cdist(samples.double(), training.double())
    expected = d.sort(dim=1)
    monkeypatch.setattr(copies, "_ROWS", 7)
    for size in (1, 7, 50):
        nearest = TwoNearest(samples)
        for part in training.split(size):  # type: ignore[no-untyped-call]
            nearest.add(part)
        assert torch.equal(nearest.places, expected.indices[:, :2])
        ratios = expected.values[:, 0] / expected.values[:, 1]
        assert torch.allclose(nearest.ratios(), ratios, atol=1e-4)
    share = copied_share(ratios, 0.9)
    p = int((ratios < 0.9).sum()) / 30
    assert 0 < p < 1
    assert share == pytest.approx((p, math.sqrt(p * (1 - p) / 30)))


def test_what_is_a_copy() -> None:
    training = torch.tensor([[0.0, 0], [10, 0], [0, 10]])
    samples = torch.tensor([[0.0, 0], [2, 0], [3, 0], [5, 0]])
    nearest = TwoNearest(samples)
    nearest.add(training)
    assert nearest.ratios().tolist() == pytest.approx([0, 2 / 8, 3 / 7, 1], abs=1e-4)
    assert copied_share(nearest.ratios()).value == 0.5


def test_a_picture_that_is_there_twice_is_a_copy_all_the_same() -> None:
    nearest = TwoNearest(torch.tensor([[1.0, 2], [1, 3]]))
    nearest.add(torch.tensor([[1.0, 2], [1, 2], [9, 9]]))
    assert nearest.ratios()[0] == 0
    assert nearest.ratios()[1] == 1


def test_large_pictures_are_told_from_rounding() -> None:
    generator = torch.Generator().manual_seed(0)
    training = torch.randint(0, 256, (8, 3 * 64 * 64), dtype=torch.uint8, generator=generator)
    training[4] = training[3]
    samples = training.clone()
    samples[5] = (samples[5].float() + 3).clamp(max=255).to(torch.uint8)
    nearest = TwoNearest(samples)
    for row in training.split(3):  # type: ignore[no-untyped-call]
        nearest.add(row)
    ratios = nearest.ratios()
    assert ratios[[0, 1, 2, 3, 4, 6, 7]].tolist() == [0] * 7
    assert ratios[5] == pytest.approx(3 / 104, rel=0.05)  # sqrt(2 * 255^2 / 12) = 104 apart


def test_bytes_and_mirror_images() -> None:
    generator = torch.Generator().manual_seed(0)
    training = torch.randint(0, 256, (9, 4, 4, 3), dtype=torch.uint8, generator=generator)
    samples = training[[4, 2]].flip(2)
    plain, both = (
        TwoNearest(samples.flatten(1)),
        TwoNearest(samples.flatten(1), samples.flip(2).flatten(1)),
    )
    for nearest in (plain, both):
        nearest.add(training.flatten(1))
    assert both.ratios().tolist() == [0, 0]
    assert both.places[:, 0].tolist() == [4, 2]
    assert float(plain.ratios().min()) > 0.5


def test_what_cannot_be_compared() -> None:
    nearest = TwoNearest(torch.zeros(2, 3))
    nearest.add(torch.ones(1, 3))
    with pytest.raises(ValueError, match="at least 2 training pictures, got 1"):
        nearest.ratios()
    for views in ((torch.zeros(0, 3),), (torch.zeros(2, 3), torch.zeros(3, 3)), (torch.zeros(3),)):
        with pytest.raises(ValueError, match="all views of one shape"):
            TwoNearest(*views)
