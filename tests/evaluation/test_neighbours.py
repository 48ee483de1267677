"""Precision and recall, density and coverage: golden values, brute force, what they must see."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from adm_cli.evaluation.neighbours import density_coverage, nearest_radii, precision_recall
from tests.evaluation.test_metrics import normal
from tests.golden_arrays import arrays, close

GOLDEN = "evaluator/precision_recall.safetensors"
CASES = sorted({name.split(".")[0] for name in arrays(GOLDEN).names()})


def plain_radii(x: Tensor, k: int) -> Tensor:
    return torch.cdist(x.double(), x.double()).square().sort(dim=1).values[:, k]


@pytest.mark.parametrize("case", CASES)
def test_exact_decisions(case: str) -> None:
    golden = arrays(GOLDEN)
    reference, samples = golden[f"{case}.ref"], golden[f"{case}.sample"]
    close(nearest_radii(reference, 3), golden[f"{case}.radii_ref_exact"], relative=1e-5)
    close(nearest_radii(samples, 3), golden[f"{case}.radii_sample_exact"], relative=1e-5)
    found = precision_recall(samples, reference)
    expected = [
        golden[f"{case}.{who}_manifold_exact"].double().mean().item()
        for who in ("sample_in_ref", "ref_in_sample")
    ]
    assert [found.precision.value, found.recall.value] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_the_originals_half_precision(case: str) -> None:
    golden = arrays(GOLDEN)
    reference, samples = golden[f"{case}.ref"], golden[f"{case}.sample"]
    radii = golden[f"{case}.radii_ref"][:, 0]
    close(nearest_radii(reference, 3, half=True), radii, relative=2e-3)  # two steps of float16
    found = precision_recall(samples, reference, half=True)
    expected = golden[f"{case}.precision_recall"].tolist()
    # of 100 images one near-tie may fall otherwise: sums round in another order
    assert [found.precision.value, found.recall.value] == pytest.approx(expected, abs=0.0101)
    if case == "fp16_path":
        assert torch.equal(nearest_radii(reference, 3, half=True), radii)
        assert [found.precision.value, found.recall.value] == expected


@pytest.mark.parametrize("k", [1, 3, 5])
def test_radii_are_those_of_brute_force_in_any_blocks(k: int) -> None:
    x = normal(50, 4)
    for block in (1, 7, 50, 64):
        close(nearest_radii(x, k, block=block), plain_radii(x, k), relative=1e-12)


def test_blocks_do_not_matter() -> None:
    samples, reference = normal(61, 5).float(), normal(43, 5, seed=1).float()
    for measure in (precision_recall, partial(precision_recall, half=True), density_coverage):
        found = {measure(samples, reference, block=block) for block in (8, 13, 100)}
        assert len(found) == 1


def test_density_and_coverage_are_those_of_brute_force() -> None:
    samples, reference = normal(40, 3), normal(30, 3, seed=1) * 1.5
    inside = torch.cdist(samples, reference).square() <= plain_radii(reference, 5)
    found = density_coverage(samples, reference, block=11)
    assert found.density.value == pytest.approx(float(inside.double().sum(dim=1).mean()) / 5)
    assert found.coverage.value == pytest.approx(float(inside.any(dim=0).double().mean()))


@pytest.mark.parametrize(
    "x",
    [
        normal(30, 6).float(),
        torch.ones(30, 6),
        normal(10, 6).float().repeat(3, 1) + 1000,
        normal(30, 6).float() + 1e4,
    ],
    ids=["plain", "blank", "threefold", "offset"],
)
def test_equal_sets_have_all_of_each_other(x: Tensor) -> None:
    assert [e.value for e in precision_recall(x, x, block=8)] == [1, 1]
    assert density_coverage(x, x, block=8).coverage.value == 1


def test_mode_collapse_is_seen_by_recall_and_not_by_precision() -> None:
    modes = torch.tensor([[0.0, 0.0], [40.0, 0.0]])
    reference = normal(200, 2).float() + modes.repeat(100, 1)
    collapsed = normal(200, 2, seed=1).float() + modes[0]
    precision, recall = precision_recall(collapsed, reference)
    assert precision.value > 0.9
    assert 0.4 < recall.value <= 0.5
    assert recall.error == pytest.approx((recall.value * (1 - recall.value) / 200) ** 0.5)
    assert density_coverage(collapsed, reference).coverage.value <= 0.5


def test_strangers_have_none_of_each_other() -> None:
    x = normal(30, 2)
    assert [e.value for e in precision_recall(x, x + 1000)] == [0, 0]
    assert [e.value for e in density_coverage(x, x + 1000)] == [0, 0]


def test_too_few_images() -> None:
    with pytest.raises(ValueError, match="more than 3 images, got 3"):
        precision_recall(normal(3, 2), normal(10, 2))


@pytest.mark.parametrize("measure", [precision_recall, density_coverage])
@pytest.mark.parametrize("damaged", [0, 1])
def test_features_that_are_no_numbers_have_no_share(measure: Any, damaged: int) -> None:
    sets = [normal(10, 4, seed=seed) for seed in (0, 1)]
    sets[damaged][0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinite"):
        measure(*sets)
