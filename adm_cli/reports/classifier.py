"""How well a noisy classifier tells classes at each noise level, and how far to trust its odds.

B pictures, K classes, M timesteps.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from adm_cli.config import DiffusionConfig
from adm_cli.devices import reproducible_kernels
from adm_cli.diffusion.process import q_sample, rescaled
from adm_cli.diffusion.schedule import NoiseSchedule
from adm_cli.diffusion.steps import timesteps_at
from adm_cli.errors import AdmError, UsageError
from adm_cli.models.classifier import NoisyClassifier
from adm_cli.pictures.datasets import ImageSet
from adm_cli.pictures.images import to_model_range
from adm_cli.reports.pictures import OnNote, Row, drawn_noise, each_batch, noise_generators
from adm_cli.training.tasks import classifier_metrics

QUARTERS = 4
BINS = 15  # of confidence, as calibration errors are usually quoted (arXiv 1706.04599)


class Guesses(NamedTuple):
    """What a classifier makes of B pictures at one timestep; all [B]."""

    labels: Tensor  # int64
    predicted: Tensor  # int64
    confidence: Tensor  # the first guess's probability
    loss: Tensor  # cross-entropy in nats
    acc1: Tensor  # 0 or 1
    acc5: Tensor


def even_timesteps(count: int, num_timesteps: int) -> list[int]:
    """``count`` timesteps spread evenly, both ends among them."""
    if not 1 <= count <= num_timesteps:
        raise UsageError(f"--timesteps {count}: expected from 1 to {num_timesteps}")
    return torch.linspace(0, num_timesteps - 1, count).round().long().tolist()


def guesses(
    model: NoisyClassifier,
    diffusion: DiffusionConfig,
    images: ImageSet,
    timesteps: Sequence[int],
    *,
    batch_size: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    skip_bad: bool = False,
    on_step: Callable[[int, int], None] | None = None,
    on_note: OnNote | None = None,
) -> Iterator[tuple[ImageSet, list[Guesses]]]:
    """Some of the pictures and the guesses at each timestep, a batch at a time.

    Pictures are cropped as validation pictures are in training. Their noise depends on ``seed``,
    the timestep and the picture's name alone. ``dtype`` is that of the model. ``on_step`` takes B
    and the timesteps to come. Raises AdmError for pictures that cannot be read and for outputs
    that are not finite.
    """
    schedule = NoiseSchedule.named(diffusion.noise_schedule, diffusion.num_timesteps)
    real = torch.float64 if dtype == torch.float64 else torch.float32

    def compute(part: ImageSet, pixels: Tensor) -> list[Guesses]:
        x_start = to_model_range(pixels.to(device)).to(real)  # [B, C, H, W]
        labels = torch.from_numpy(part.labels())
        found = []
        for k, timestep in enumerate(timesteps):
            generators = noise_generators(part, seed, "guess", timestep)
            t, seen_t = timesteps_at(schedule, timestep, x_start)
            x_t = q_sample(schedule, x_start, t, drawn_noise(generators, x_start))
            if diffusion.rescale_timesteps:
                seen_t = rescaled(seen_t, diffusion.num_timesteps)
            with reproducible_kernels(), torch.no_grad():
                logits = model(x_t, seen_t)
            found.append(_guess(logits.double().cpu(), labels))
            if on_step is not None:
                on_step(len(part), len(timesteps) - k - 1)
        return found

    for part, found in each_batch(
        images, model.config.image_size, batch_size, compute, skip_bad=skip_bad, on_note=on_note
    ):
        for timestep, guess in zip(timesteps, found, strict=True):
            finite = guess.loss.isfinite().tolist()
            if not all(finite):
                raise AdmError(
                    f"{part.name(finite.index(False))} at timestep {timestep}: the classifier's "
                    f"output is not a number: try --dtype float32, or another classifier"
                )
        yield part, found


def _guess(logits: Tensor, labels: Tensor) -> Guesses:
    if not logits.isfinite().all():  # a loss may be a number all the same
        logits = torch.where(logits.isfinite().all(dim=1, keepdim=True), logits, math.nan)
    metrics = classifier_metrics(logits, labels)
    best = logits.softmax(dim=1).max(dim=1)
    return Guesses(
        labels, best.indices, best.values, metrics["loss"], metrics["acc1"], metrics["acc5"]
    )


class Tally:
    """Sums over guesses: accuracy, loss, and how confidence compares with it."""

    def __init__(self) -> None:
        self.count = 0
        self._sums = torch.zeros(3, dtype=torch.float64)  # loss, acc1, acc5
        self._bins = torch.zeros(3, BINS, dtype=torch.float64)  # guesses, confidence, right

    def add(self, g: Guesses) -> None:
        self.count += len(g.labels)
        self._sums += torch.stack([x.double().sum() for x in (g.loss, g.acc1, g.acc5)])
        # bins (0, 1/15], (1/15, 2/15], ...
        place = ((g.confidence * BINS).ceil().long() - 1).clamp(0, BINS - 1)
        columns = torch.stack([torch.ones_like(g.confidence), g.confidence, g.acc1.double()])
        self._bins.index_add_(1, place, columns.double())

    def row(self) -> Row:
        """Means, and the expected calibration error: the mean of |accuracy - confidence|."""
        loss, acc1, acc5 = (self._sums / self.count).tolist()
        _, confidence, right = self._bins
        return {
            "acc1": acc1,
            "acc5": acc5,
            "loss": loss,
            "confidence": (confidence.sum() / self.count).item(),
            "ece": ((right - confidence).abs().sum() / self.count).item(),
        }

    def reliability(self) -> list[Row]:
        """For every bin that is not empty: guesses, mean confidence, and accuracy."""
        return [
            {"bin": i, "guesses": int(n), "confidence": (c / n), "accuracy": (r / n)}
            for i, (n, c, r) in enumerate(zip(*self._bins.tolist(), strict=True))
            if n
        ]


class ClassifierReport:
    """Everything that is told of a classifier, from the guesses so far."""

    def __init__(
        self, timesteps: Sequence[int], num_timesteps: int, classes: Mapping[int, str]
    ) -> None:
        self.timesteps, self.classes = tuple(timesteps), classes
        self.num_timesteps = num_timesteps
        self.images = 0
        self.quarter_of = [t * QUARTERS // num_timesteps for t in timesteps]
        self.by_timestep = [Tally() for _ in timesteps]
        self.by_quarter = {q: Tally() for q in sorted(set(self.quarter_of))}
        self.whole = Tally()
        self.confusion: Counter[tuple[int, int, int]] = Counter()  # quarter, label, predicted

    def add(self, found: Sequence[Guesses]) -> None:
        """The guesses about more pictures, a `Guesses` for each timestep."""
        self.images += len(found[0].labels)
        for tally, q, g in zip(self.by_timestep, self.quarter_of, found, strict=True):
            for each in (tally, self.by_quarter[q], self.whole):
                each.add(g)
            pairs = zip(g.labels.tolist(), g.predicted.tolist(), strict=True)
            self.confusion.update((q, label, predicted) for label, predicted in pairs)

    def timestep_rows(self) -> list[Row]:
        """Every timestep, the least noise first."""
        rows = zip(self.timesteps, self.by_timestep, strict=True)
        return [{"timestep": t, **tally.row()} for t, tally in rows]

    def quarter_rows(self) -> list[Row]:
        """The quarters of the noise among the timesteps."""
        return [{"quarter": q, **tally.row()} for q, tally in self.by_quarter.items()]

    def reliability_rows(self) -> list[Row]:
        """Confidence against accuracy, by quarter of the noise."""
        return [{"quarter": q, **r} for q, t in self.by_quarter.items() for r in t.reliability()]

    def class_rows(self) -> list[Row]:
        """Each class's top-1 accuracy, overall and by quarter of the noise; the worst first."""
        seen: Counter[tuple[int, int]] = Counter()
        right: Counter[tuple[int, int]] = Counter()
        for (q, label, predicted), count in self.confusion.items():
            seen[label, q] += count
            right[label, q] += count * (label == predicted)
        rows = []
        for label in sorted({label for label, _ in seen}):
            all_seen = sum(seen[label, q] for q in self.by_quarter)
            all_right = sum(right[label, q] for q in self.by_quarter)
            quarters = {f"acc1_q{q}": right[label, q] / seen[label, q] for q in self.by_quarter}
            rows.append({
                "class": label,
                "name": self.name(label),
                "images": all_seen // len(self.timesteps),
                "acc1": all_right / all_seen,
                **quarters,
            })  # fmt: skip
        return sorted(rows, key=lambda row: row["acc1"])

    def confused_rows(self, quarter: int | None = None) -> list[Row]:
        """What is taken for what, the most frequent first; in one quarter of the noise, or all."""
        counts: Counter[tuple[int, int]] = Counter()
        of: Counter[int] = Counter()
        for (q, label, predicted), count in self.confusion.items():
            if quarter in (None, q):
                of[label] += count
                if label != predicted:
                    counts[label, predicted] += count
        order = sorted(counts, key=lambda pair: (-counts[pair], pair))
        return [
            {
                "class": label,
                "name": self.name(label),
                "taken_for": predicted,
                "taken_for_name": self.name(predicted),
                "guesses": counts[label, predicted],
                "share": counts[label, predicted] / of[label],
            }
            for label, predicted in order
        ]

    def name(self, class_id: int) -> str:
        """A class's name; its number if the model was never trained on it."""
        return self.classes.get(class_id, str(class_id))
