"""Judging pictures: judges whose answers are known, real pictures beside, and the notes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from adm_cli.errors import AdmError, UsageError
from adm_cli.evaluation.inception import Features
from adm_cli.evaluation.metrics import Gaussian
from adm_cli.pictures.labelled import LabelledPixels, open_labelled
from adm_cli.reports.agreement import Judge, agreement_notes, load_judge, measure_agreement
from adm_cli.reports.measure import Extractor
from tests.conftest import Toys

CLASSES = {0: "circle", 1: "square", 2: "moon", 3: "star"}
SEEN: list[tuple[int, ...]] = []  # shapes that a judge was shown


def by_brightness(images: Tensor) -> Features:
    """Sees the class in the picture: its values are 50 times the class, give or take noise."""
    SEEN.append(tuple(images.shape))
    means = images.float().flatten(1).mean(dim=1)
    logits = -(means[:, None] - 50 * torch.arange(5)).square()
    pool = images.float().flatten(1)[:, :3]
    return Features(pool, None, logits)


def always_star(images: Tensor) -> Features:
    return replace_logits(by_brightness(images), 3)


def replace_logits(found: Features, best: int) -> Features:
    logits = torch.zeros_like(found.logits)
    logits[:, best] = 1
    return found._replace(logits=logits)


def judge(network: object = by_brightness, noised: bool | None = False) -> Judge:
    extractor = Extractor(
        "classifier", "made-up", "ab" * 32, (8, 8), torch.device("cpu"), network, 7  # type: ignore[arg-type]
    )  # fmt: skip
    return Judge(extractor, CLASSES, noised)


def pictures(
    path: Path, labels: list[int], shown: list[int] | None = None, size: int = 8, seed: int = 0
) -> LabelledPixels:
    """Labelled as ``labels`` say, showing what ``shown`` says."""
    rng = np.random.default_rng(seed)
    values = 50 * np.array(shown or labels)[:, None, None, None]
    data = (values + rng.integers(0, 20, (len(labels), size, size, 3))).astype(np.uint8)
    np.savez(path, arr_0=data, arr_1=np.array(labels))
    return open_labelled(path, CLASSES)


def test_a_perfect_judge_counts_what_is_shown(tmp_path: Path) -> None:
    asked, shown = [0, 1, 3] * 10, [0, 1, 1, 0, 1, 2] * 5
    found = measure_agreement(pictures(tmp_path / "a.npz", asked, shown), judge())
    assert found.asked == [0, 1, 3]
    assert found.among_asked.samples == pytest.approx((5 / 6, math.sqrt(5 / 36 / 30)))
    assert found.among_known.samples.value == pytest.approx(2 / 3)
    assert found.samples.among_known.tolist() == shown
    assert 2 not in found.samples.among_asked.tolist()
    assert math.isnan(found.among_asked.real.value)
    assert math.isnan(found.among_asked.ratio.value)
    assert found.samples.counts() == {0: (10, (10, 10)), 1: (10, (10, 10)), 3: (10, (5, 0))}


def test_among_fewer_classes_a_judge_errs_less(tmp_path: Path) -> None:
    """Moons are not among what was asked for, so stars that look like moons are stars."""
    found = measure_agreement(pictures(tmp_path / "a.npz", [0, 3] * 10, [0, 2] * 10), judge())
    assert found.among_asked.samples.value == 1
    assert found.among_known.samples.value == 0.5


def test_a_judge_of_one_answer(tmp_path: Path) -> None:
    samples = pictures(tmp_path / "a.npz", [0, 1, 3, 3] * 5)
    found = measure_agreement(samples, judge(always_star))
    assert found.among_asked.samples.value == 0.5


def test_permuted_labels(tmp_path: Path) -> None:
    labels = [0, 1, 2, 3] * 10
    wrong = measure_agreement(pictures(tmp_path / "a.npz", labels, [*labels[1:], 0]), judge())
    assert wrong.among_known.samples.value == 0


def test_real_pictures_beside(tmp_path: Path) -> None:
    samples = pictures(tmp_path / "a.npz", [0, 1] * 20, [0, 1, 0, 0] * 10)
    real = pictures(tmp_path / "b.npz", [0, 1, 1, 2, 2] * 10, [0, 1, 1, 2, 0] * 10, seed=1)
    found = measure_agreement(samples, judge(), real)
    assert found.real is not None
    assert found.real.labels.unique().tolist() == [0, 1]  # type: ignore[no-untyped-call]
    assert found.among_asked.samples.value == 0.75
    assert (found.among_asked.real.value, found.among_asked.ratio.value) == (1, 0.75)
    shares = found.among_asked.samples, found.among_asked.real
    relative = [share.error / share.value for share in shares]  # independent: squares add up
    assert found.among_asked.ratio.error == pytest.approx(0.75 * math.hypot(*relative))
    assert relative[1] > 0  # twenty right of twenty do not prove that all are
    assert found.frechet is not None
    assert found.frechet_images == 15  # half of the thirty
    against = Gaussian(torch.zeros(3).double(), torch.eye(3).double())
    other = measure_agreement(samples, judge(), real, reference=against)
    assert other.frechet_images == 30
    assert other.frechet is not None
    assert other.frechet.real.value > 1000


def test_the_same_pictures_are_as_good_as_real_ones(tmp_path: Path) -> None:
    labels = [0, 1, 3] * 100
    samples = pictures(tmp_path / "a.npz", labels)
    found = measure_agreement(samples, judge(), pictures(tmp_path / "b.npz", labels, seed=1))
    assert found.frechet is not None
    ratio = found.frechet.ratio
    assert abs(ratio.value - 1) < 3 * ratio.error
    bad = measure_agreement(
        pictures(tmp_path / "c.npz", labels, [0, 0, 0] * 100),
        judge(),
        pictures(tmp_path / "b.npz", labels, seed=1),
    )
    assert bad.frechet is not None
    assert bad.frechet.ratio.value > 10


def test_pictures_are_shown_at_the_judges_size(tmp_path: Path) -> None:
    SEEN.clear()
    large = pictures(tmp_path / "a.npz", [0, 1, 3] * 5, size=20)
    assert measure_agreement(large, judge()).among_known.samples.value == 1
    assert SEEN == [(7, 8, 8, 3), (7, 8, 8, 3), (1, 8, 8, 3)]


def test_what_a_reader_must_know(tmp_path: Path) -> None:
    samples = pictures(tmp_path / "a.npz", [0, 1] * 10)
    found = measure_agreement(samples, judge())
    assert agreement_notes(found, judge(), samples, None) == []
    guided = replace(samples, guides=frozenset(["ab" * 32]))
    (note,) = agreement_notes(found, judge(), guided, None)
    assert note.startswith("made-up guided these samples")
    (note,) = agreement_notes(found, judge(noised=True), samples, None)
    assert "was trained on noisy pictures" in note
    assert "adm train-classifier --no-noise" in note
    (note,) = agreement_notes(found, judge(noised=None), samples, None)
    assert "does not say whether it was trained on noisy pictures" in note
    labels = samples.labels.copy()
    labels[:3] = -1
    (note,) = agreement_notes(found, judge(), replace(samples, labels=labels), None)
    assert note.startswith("left out: 3 samples of no class")


def test_notes_on_real_pictures(tmp_path: Path) -> None:
    samples = pictures(tmp_path / "a.npz", [0, 1, 3] * 10)
    real = pictures(tmp_path / "b.npz", [0] * 9 + [1])
    found = measure_agreement(samples, judge(), real)
    notes = agreement_notes(found, judge(), samples, real)
    assert notes[0] == "no real pictures of 3 (star)"
    assert notes[1].startswith("the classes have other shares among the real pictures")
    assert notes[2] == "too few real pictures for a Fréchet distance"
    others = pictures(tmp_path / "c.npz", [2] * 9)
    with pytest.raises(AdmError, match=r"pictures of none of the samples' 3 classes: .*0 \(circle"):
        measure_agreement(samples, judge(), others)


def test_a_judge_that_computes_nonsense(tmp_path: Path) -> None:
    def broken(images: Tensor) -> Features:
        found = by_brightness(images)
        found.pool[found.pool[:, 0] > 100] = math.nan
        return found

    samples = pictures(tmp_path / "a.npz", [0] * 9 + [3])
    samples.labels[4] = -1  # which is passed over, and counted all the same
    with pytest.raises(AdmError, match="features of image 9 are NaN"):
        measure_agreement(samples, judge(broken), None)


def test_judges_by_name(toys: Toys) -> None:
    embedded = load_judge("classifier", device="cpu")
    assert (embedded.noised, len(embedded.classes), embedded.size) == (True, 10, (32, 32))
    unknown = load_judge(str(toys.classifier), device="cpu")
    assert (unknown.noised, unknown.classes) == (None, {0: "circle", 1: "square", 3: "star"})
    with pytest.raises(UsageError, match="holds a diffusion model"):
        load_judge(str(toys.model))
    with pytest.raises(UsageError, match="expected a classifier's file"):
        load_judge("inception")
