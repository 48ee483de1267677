"""Whether pictures show the class that was asked for, by a classifier that did not guide them.

judge = load_judge("judge.safetensors")
samples = open_labelled(Path("samples"), judge.classes)
real = open_labelled(Path("held-out"), judge.classes, samples.pixels.size)
found = measure_agreement(samples, judge, real)
found.among_asked.samples.value, found.among_asked.ratio.value
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from adm_cli.checkpoints.finding import find_weights
from adm_cli.errors import AdmError, UsageError, how_many
from adm_cli.evaluation.agreement import (
    Beside,
    ClassCounts,
    agreement,
    beside,
    best_class,
    class_counts,
    frechet_beside_real,
)
from adm_cli.evaluation.metrics import Estimate, Gaussian, Moments, drawn
from adm_cli.pictures.labelled import LabelledPixels
from adm_cli.pictures.pixels import crop_batch
from adm_cli.reports.measure import (
    EMBEDDED_CLASSIFIER,
    LEAST_IMAGES,
    Extractor,
    OnImages,
    check_features,
    load_extractor,
    run_network,
)
from adm_cli.reports.scores import OnStep

RESIZING = "centre crop as in training: halved by a box filter, then bicubic"
_UNLIKE = 0.1  # of the pictures are of other classes there than here: worth a note


@dataclass(frozen=True)
class Judge:
    """A classifier that names the classes of pictures, shown them without noise, at t = 0."""

    extractor: Extractor
    classes: Mapping[int, str]  # that it was trained on
    noised: bool | None  # whether it was trained on noisy pictures; None: its file does not say

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures it takes."""
        assert self.extractor.size is not None
        return self.extractor.size


@dataclass(frozen=True)
class Verdicts:
    """What a judge makes of N pictures with classes."""

    labels: Tensor  # int64 [N]
    among_asked: Tensor  # int64 [N], its choice among the classes asked for
    among_known: Tensor  # int64 [N], among all that it was trained on
    pool: Tensor  # float32 [N, D]

    def counts(self) -> dict[int, ClassCounts]:
        """By class: pictures, and those right among the asked, and among the known."""
        return class_counts(self.labels, self.among_asked, self.among_known)


@dataclass(frozen=True)
class Agreement:
    """How often a judge names the class asked for; of real pictures NaN where there are none."""

    asked: list[int]  # the samples' classes
    among_asked: Beside
    among_known: Beside
    samples: Verdicts
    real: Verdicts | None
    frechet: Beside | None  # in the judge's features, of as many pictures on both sides
    frechet_images: int  # on either side


def load_judge(name: str, *, device: str = "auto", batch_size: int | None = None) -> Judge:
    """A judge by its file or name; "classifier" is the embedded one, as in `load_extractor`.

    Raises as `load_extractor`, and UsageError for anything but a classifier.
    """
    if name == "inception":
        raise UsageError("Inception's classes are not ImageNet's ids: expected a classifier's file")
    extractor = load_extractor(name, device=device, batch_size=batch_size)
    info = find_weights(EMBEDDED_CLASSIFIER if name == "classifier" else name).info
    return Judge(extractor, info.classes, info.noised)


def measure_agreement(
    samples: LabelledPixels, judge: Judge, real: LabelledPixels | None = None, *,
    reference: Gaussian | None = None, on_step: OnStep | None = None,
) -> Agreement:  # fmt: skip
    """Agreement of samples, and of the real pictures of the same classes.

    Pictures of another size than the judge's are fitted as `RESIZING` says; have ``real`` opened
    at the samples' size, so that both lose as much. The Fréchet distances are to ``reference``,
    which is of the judge's features, else to one half of the real pictures, the other half taking
    the samples' place. Raises AdmError where there are no real pictures of the samples' classes,
    or the features are not finite.
    """
    asked = samples.classes
    mine = _judge_pictures(samples, judge, asked, _counting(on_step, "samples", samples))
    if real is None:
        return Agreement(asked, *_compared([mine]), mine, None, None, 0)
    if not set(asked) & set(real.classes):
        raise AdmError(
            f"{real.pixels.path} has pictures of none of the samples' "
            f"{how_many(len(asked), 'class', 'classes')}: "
            f"expected some of {_names(asked, judge)}"
        )
    theirs = _judge_pictures(real, judge, asked, _counting(on_step, "real pictures", real))
    frechet = _frechet(mine.pool, theirs.pool, reference, on_step)
    return Agreement(asked, *_compared([mine, theirs]), mine, theirs, *frechet)


def _counting(on_step: OnStep | None, what: str, pictures: LabelledPixels) -> OnImages | None:
    if on_step is None:
        return None
    return lambda done: on_step(what, done, len(pictures.pixels))


def _judge_pictures(
    pictures: LabelledPixels, judge: Judge, asked: Sequence[int], on_images: OnImages | None
) -> Verdicts:
    """Verdicts on those pictures that are of a class asked for."""
    parts: list[Verdicts] = []
    done = 0
    for batch in pictures.pixels.batches(judge.extractor.batch_size):
        labels = pictures.labels[done : done + len(batch)]
        wanted = np.isin(labels, asked)
        if wanted.any():
            images = torch.from_numpy(crop_batch(batch[wanted], judge.size).copy())
            found = run_network(judge.extractor, images)
            check_features(found, (done + np.flatnonzero(wanted)).tolist(), judge.extractor)
            parts.append(
                Verdicts(
                    torch.from_numpy(labels[wanted]),
                    best_class(found.logits, asked).cpu(),
                    best_class(found.logits, sorted(judge.classes)).cpu(),
                    found.pool.float().cpu(),
                )
            )
        done += len(batch)
        if on_images is not None:
            on_images(done)
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return Verdicts(*(torch.cat(column) for column in columns))


def _compared(predicted: Sequence[Verdicts]) -> tuple[Beside, Beside]:
    """Among the asked and among the known: of samples, and of real pictures where there are."""
    shares = [
        [agreement(choice, one.labels) for choice in (one.among_asked, one.among_known)]
        for one in predicted
    ]
    if len(shares) == 1:
        shares.append([Estimate(math.nan, math.nan)] * 2)
    return beside(shares[0][0], shares[1][0]), beside(shares[0][1], shares[1][1])


def _frechet(
    samples: Tensor, real: Tensor, reference: Gaussian | None, on_step: OnStep | None
) -> tuple[Beside | None, int]:
    """Of features [N, D] and [M, D], and of how many; None where there are too few."""
    if reference is None:
        real, others = drawn(real, len(real)).tensor_split(2)
        if len(others) < LEAST_IMAGES:
            return None, 0
        moments = Moments(groups=1)
        moments.add(others)
        reference = moments.gaussian()
    images = min(len(samples), len(real))
    if images < LEAST_IMAGES:
        return None, 0
    part = None if on_step is None else partial(on_step, "Fréchet distance")
    return frechet_beside_real(samples, real, reference, part), images


def agreement_notes(
    found: Agreement, judge: Judge, samples: LabelledPixels, real: LabelledPixels | None
) -> list[str]:
    """What whoever reads the numbers should know."""
    notes, name = [], judge.extractor.weights
    if judge.extractor.sha256 in samples.guides:
        notes.append(
            f"{name} guided these samples: that it names their classes says little; "
            f"judge them by another classifier"
        )
    mending = "adm train-classifier --no-noise makes a judge"
    if judge.noised is None:
        notes.append(
            f"{name} does not say whether it was trained on noisy pictures, as the published "
            f"classifiers were: {mending}"
        )
    elif judge.noised:
        notes.append(f"{name} was trained on noisy pictures, and sees clean ones here: {mending}")
    if samples.left_out:
        notes.append(
            f"left out: {how_many(samples.left_out, 'sample')} of no class that {name} knows"
        )
    if real is None or found.real is None:
        return notes
    there = {int(label) for label in found.real.labels}
    if missing := [i for i in found.asked if i not in there]:
        notes.append(f"no real pictures of {_names(missing, judge)}")
    if _unlike(found.samples.labels, found.real.labels) > _UNLIKE:
        notes.append(
            "the classes have other shares among the real pictures than among the samples: "
            "compare class by class (--per-class)"
        )
    dim = found.samples.pool.shape[1]
    if found.frechet is None:
        notes.append("too few real pictures for a Fréchet distance")
    elif found.frechet_images <= dim:
        notes.append(
            f"fewer pictures than the judge's features ({found.frechet_images:,} of {dim:,}): "
            f"both Fréchet distances are biased alike, and their ratio is drawn towards 1"
        )
    return notes


def _unlike(a: Tensor, b: Tensor) -> float:
    """Total variation distance of two sets' classes, 0 to 1."""
    most = int(max(a.max(), b.max())) + 1
    shares = [x.bincount(minlength=most).double() / len(x) for x in (a, b)]
    return float((shares[0] - shares[1]).abs().sum()) / 2


def _names(ids: Sequence[int], judge: Judge) -> str:
    listed = ", ".join(f"{i} ({judge.classes[i]})" for i in ids[:5])
    return listed + (", ..." if len(ids) > 5 else "")
