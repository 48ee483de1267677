"""A classifier's accuracy, calibration and confusions, against counting by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from adm_cli.checkpoints.loading import build_model
from adm_cli.config import DiffusionConfig
from adm_cli.diffusion.process import q_sample
from adm_cli.diffusion.schedule import NoiseSchedule
from adm_cli.errors import AdmError, UsageError
from adm_cli.models.classifier import NoisyClassifier
from adm_cli.pictures.datasets import ImageSet, open_images
from adm_cli.reports.classifier import (
    ClassifierReport,
    Guesses,
    Tally,
    even_timesteps,
    guesses,
)
from adm_cli.reports.pictures import noise_generators
from tests.conftest import TOY_CLASSES, TOY_CLASSIFIER, randomise
from tests.reports.test_likelihood import crops

DIFFUSION = DiffusionConfig(noise_schedule="linear", num_timesteps=100)


def network() -> NoisyClassifier:
    model = randomise(build_model(TOY_CLASSIFIER), 1).double().eval().requires_grad_(False)
    assert isinstance(model, NoisyClassifier)
    model.torso_dtype = torch.float64
    return model


def guess_all(images: ImageSet, timesteps: list[int], **options: Any) -> list[Guesses]:
    """About all pictures, a `Guesses` a timestep."""
    model = options.pop("model", None) or network()
    settings = {"batch_size": 3, "dtype": torch.float64, **options}
    parts = [g for _, g in guesses(model, DIFFUSION, images, timesteps, **settings)]
    return [
        Guesses(*(torch.cat(values) for values in zip(*each, strict=True)))
        for each in zip(*parts, strict=True)
    ]


def make_guesses(labels: list[int], predicted: list[int], confidence: list[float]) -> Guesses:
    right = torch.tensor([a == b for a, b in zip(labels, predicted, strict=True)]).float()
    sure = torch.tensor(confidence, dtype=torch.float64)
    return Guesses(
        torch.tensor(labels), torch.tensor(predicted), sure, -sure.log(), right, torch.ones(4)
    )


@pytest.fixture
def images(shapes: Path) -> ImageSet:
    return open_images([shapes])


def test_guesses_by_hand(images: ImageSet) -> None:
    (found,) = guess_all(images, [40])
    generators = noise_generators(images, 0, "guess", 40)
    noise = torch.stack([torch.randn(3, 8, 8, generator=g) for g in generators]).double()
    t = torch.full((8,), 40)
    logits = network()(q_sample(NoiseSchedule.linear(100), crops(images), t, noise), t)
    labels = torch.tensor([0] * 4 + [1] * 4)
    assert torch.equal(found.labels, labels)
    assert torch.equal(found.predicted, logits.argmax(dim=1))
    torch.testing.assert_close(found.loss, F.cross_entropy(logits, labels, reduction="none"))
    torch.testing.assert_close(found.confidence, logits.softmax(dim=1).max(dim=1).values)
    assert torch.equal(found.acc1, (logits.argmax(dim=1) == labels).float())
    assert (found.acc5 == 1).all()  # of five classes


def test_batches_other_timesteps_and_neighbours_change_nothing(images: ImageSet) -> None:
    alone = guess_all(images.part([6]), [40], batch_size=1)[0]
    among = guess_all(images, [0, 40, 99])[1]
    torch.testing.assert_close(alone.loss, among.loss[6:7], rtol=1e-10, atol=0)
    assert (guess_all(images, [40], seed=1)[0].loss != among.loss).all()


def test_progress_and_not_a_number(images: ImageSet) -> None:
    told: list[tuple[int, int]] = []
    guess_all(images.part([0, 1]), [0, 9], on_step=lambda n, left: told.append((n, left)))
    assert told == [(2, 1), (2, 0)]
    model = network()
    next(model.parameters()).data.fill_(torch.nan)
    with pytest.raises(AdmError, match=r"circle/0\.png at timestep 7: .* not a number"):
        guess_all(images, [7], model=model)


def test_infinite_logits_of_other_classes_are_no_guess(images: ImageSet) -> None:
    """The loss of the right class is then a number."""
    model = network()
    real = model.forward
    model.forward = lambda x, t: real(x, t).index_fill(1, torch.tensor([4]), -math.inf)  # type: ignore
    with pytest.raises(AdmError, match="output is not a number"):
        guess_all(images, [7], model=model)


def test_even_timesteps() -> None:
    assert even_timesteps(1, 1000) == [0]
    assert even_timesteps(3, 1000) == [0, 500, 999]
    spread = even_timesteps(20, 1000)
    assert [sum(t * 4 // 1000 == q for t in spread) for q in range(4)] == [5, 5, 5, 5]
    assert even_timesteps(100, 100) == list(range(100))
    for count in (0, 101):
        with pytest.raises(UsageError, match="from 1 to 100"):
            even_timesteps(count, 100)


def test_calibration_error_by_hand() -> None:
    tally = Tally()
    tally.add(make_guesses([0, 0, 1, 1], [0, 1, 1, 1], [0.95, 0.94, 0.5, 1.0]))
    # bins of 1/15: {0.95, 1.0} and {0.94} above 14/15 = 0.933 together; 0.5 alone
    wanted = (abs(2 - 2.89) + abs(1 - 0.5)) / 4
    row = tally.row()
    assert row["ece"] == pytest.approx(wanted)
    assert row["acc1"] == 0.75
    assert row["acc5"] == 1
    assert row["confidence"] == pytest.approx(3.39 / 4)
    assert [r["guesses"] for r in tally.reliability()] == [1, 3]
    assert tally.reliability()[1] == {
        "bin": 14, "guesses": 3, "confidence": pytest.approx(2.89 / 3),
        "accuracy": pytest.approx(2 / 3),
    }  # fmt: skip


def test_calibrated_odds_have_no_calibration_error() -> None:
    """Outcomes drawn with the stated probability: the error vanishes with their number."""
    generator = torch.Generator().manual_seed(0)
    sure = torch.rand(200_000, generator=generator, dtype=torch.float64) * 0.8 + 0.2
    right = (torch.rand(200_000, generator=generator) < sure).float()

    def error(confidence: Tensor) -> float:
        labels = torch.zeros(len(sure), dtype=torch.int64)
        tally = Tally()
        tally.add(Guesses(labels, labels, confidence, -confidence.log(), right, right))
        return float(tally.row()["ece"])

    assert error(sure) < 0.005
    assert error(sure.sqrt()) > 0.1  # too sure of itself


def report() -> ClassifierReport:
    made = ClassifierReport([10, 20, 80], 100, TOY_CLASSES)
    sure = [0.9, 0.8, 0.7, 0.6]
    labels = [0, 0, 1, 3]
    made.add([
        make_guesses(labels, [0, 1, 1, 1], sure),
        make_guesses(labels, [0, 1, 1, 3], sure),
        make_guesses(labels, [2, 2, 2, 2], sure),
    ])  # fmt: skip
    return made


def test_classes_the_worst_first() -> None:
    rows = report().class_rows()
    assert [(row["class"], row["name"], row["images"]) for row in rows] == [
        (0, "circle", 2), (3, "star", 1), (1, "square", 1),
    ]  # fmt: skip
    assert rows[0]["acc1"] == rows[1]["acc1"] == pytest.approx(1 / 3)
    assert (rows[0]["acc1_q0"], rows[0]["acc1_q3"]) == (0.5, 0)
    assert "acc1_q1" not in rows[0]  # no timestep there


def test_confusions_the_most_frequent_first() -> None:
    rows = report().confused_rows(quarter=0)
    assert [(r["name"], r["taken_for_name"], r["guesses"], r["share"]) for r in rows] == [
        ("circle", "square", 2, 0.5), ("star", "square", 1, 0.5),
    ]  # fmt: skip
    assert report().confused_rows()[1]["taken_for_name"] == "2"  # a class without a name
    assert sum(r["guesses"] for r in report().confused_rows()) == 7


def test_rows_by_timestep_and_quarter_agree(images: ImageSet) -> None:
    steps = [5, 15, 60]
    found = guess_all(images, steps)
    made = ClassifierReport(steps, 100, TOY_CLASSES)
    made.add([Guesses(*(v[:3] for v in g)) for g in found])
    made.add([Guesses(*(v[3:] for v in g)) for g in found])
    assert made.images == 8
    rows, quarters = made.timestep_rows(), made.quarter_rows()
    assert [row["quarter"] for row in quarters] == [0, 2]
    assert quarters[0]["loss"] == pytest.approx((rows[0]["loss"] + rows[1]["loss"]) / 2)
    assert {**quarters[1], "timestep": 60} == {**rows[2], "quarter": 2}
    assert made.whole.row()["acc1"] == pytest.approx(sum(r["acc1"] for r in rows) / 3)
