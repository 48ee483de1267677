"""What `adm evaluate` asks of samples beside distances: the class asked for, and no copies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adm_cli.errors import UsageError, one_of, size_words
from adm_cli.evaluation.agreement import Beside
from adm_cli.evaluation.copies import COPY_RATIO
from adm_cli.evaluation.metrics import Gaussian
from adm_cli.events import Count, OnEvent
from adm_cli.pictures.labelled import LabelledPixels, open_labelled
from adm_cli.pictures.pixels import PixelSet
from adm_cli.pictures.references import Reference
from adm_cli.reports.agreement import (
    RESIZING,
    Agreement,
    Judge,
    agreement_notes,
    load_judge,
    measure_agreement,
)
from adm_cli.reports.copies import find_copies
from adm_cli.reports.findings import Evaluation, value_and_error
from adm_cli.reports.measure import Extractor
from adm_cli.reports.scores import OnStep

SPACES = ("features", "pixels")


def as_counts(on_event: OnEvent) -> OnStep:
    """Parts of a computation as events."""
    return lambda what, done, total: on_event(Count(what, done, total))


@dataclass(frozen=True)
class Checks:
    """What was asked for; None: not, or the default."""

    judge: str | None
    real: Path | None
    per_class: bool
    copies_of: Path | None
    copies_in: str | None
    copy_ratio: float | None

    @property
    def asked(self) -> bool:
        return self.judge is not None or self.copies_of is not None

    @property
    def compares_features(self) -> bool:
        """Whether copies are looked for in a network's features."""
        return self.copies_of is not None and self.copies_in != "pixels"

    def validate(self) -> None:
        """Raises UsageError for options that do not belong together."""
        if self.judge is None and (self.real is not None or self.per_class):
            raise UsageError("--real and --per-class need --judge, which names the classes")
        if self.copies_of is None and (self.copies_in is not None or self.copy_ratio is not None):
            raise UsageError("--copies-in and --copy-ratio need --copies-of, the training pictures")
        if self.copies_in not in (None, *SPACES):
            raise UsageError(f"--copies-in {self.copies_in}: expected {one_of(SPACES)}")
        if self.copy_ratio is not None and not 0 < self.copy_ratio < 1:
            raise UsageError(f"--copy-ratio must lie between 0 and 1, got {self.copy_ratio:g}")

    def load_judge(self, device: str, batch_size: int | None) -> Judge | None:
        """None where no judge was asked for."""
        if self.judge is None:
            return None
        return load_judge(self.judge, device=device, batch_size=batch_size)

    def find_copies(
        self, samples: PixelSet, extractor: Extractor | None, *, on_event: OnEvent
    ) -> Evaluation:
        """Nothing where they were not asked for."""
        if self.copies_of is None:
            return Evaluation({}, [])
        space = extractor if self.compares_features else None
        found = find_copies(
            samples,
            self.copies_of,
            space,
            most=COPY_RATIO if self.copy_ratio is None else self.copy_ratio,
            on_step=as_counts(on_event),
        )
        facts = {
            "training": str(self.copies_of),
            "training_images": found.training_images,
            "in": f"pixels {size_words(samples.size)}" if space is None else space.label,
            "ratio": found.most,
            "share": value_and_error(*found.share),
            "worst": [vars(pair) for pair in found.worst],
        }
        return Evaluation({"copies": facts}, [])


@dataclass(frozen=True)
class Judging:
    """A judge, and what it is shown."""

    judge: Judge
    samples: LabelledPixels
    real: LabelledPixels | None
    real_is_reference: bool
    notes: list[str]

    def run(self, reference: Reference | None, *, per_class: bool, on_event: OnEvent) -> Evaluation:
        """How often the judge names the class asked for.

        ``reference`` is what --ref gave, if anything: Fréchet distances are to it where it is of
        the judge's features and no real picture is in it.
        """
        mine = self.judge.extractor.sha256
        if self.real_is_reference or (reference and reference.features_sha256 != mine):
            reference = None
        against = None if reference is None else Gaussian(reference.mu, reference.sigma)
        found = measure_agreement(
            self.samples, self.judge, self.real, reference=against, on_step=as_counts(on_event)
        )
        facts = self._facts(found)
        if found.frechet is not None:
            half = "the other half of the real pictures"
            facts["fd_to"] = half if reference is None else reference.source
        if per_class:
            facts["per_class"] = self._rows(found)
        noted = agreement_notes(found, self.judge, self.samples, self.real)
        return Evaluation({"agreement": facts}, [*self.notes, *noted])

    def _facts(self, found: Agreement) -> dict[str, Any]:
        extractor, real = self.judge.extractor, self.real
        resized = self.samples.pixels.size != self.judge.size
        return {
            "judge": extractor.weights,
            "judge_sha256": extractor.sha256,
            "judge_size": list(self.judge.size),
            "judge_classes": len(self.judge.classes),
            "judge_noised": self.judge.noised,
            "resizing": RESIZING if resized else None,
            "asked": len(found.asked),
            "images": len(found.samples.labels),
            "real": None if real is None else str(real.pixels.path),
            "real_images": None if found.real is None else len(found.real.labels),
            "among_asked": _beside(found.among_asked),
            "among_known": _beside(found.among_known),
            "fd_judge": None if found.frechet is None else _beside(found.frechet),
            "fd_images": found.frechet_images or None,
        }

    def _rows(self, found: Agreement) -> list[dict[str, Any]]:
        """A class a row, those that are least often recognised first."""
        real = {} if found.real is None else found.real.counts()
        rows = []
        for class_id, counts in found.samples.counts().items():
            row = {
                "class": class_id,
                "name": self.judge.classes[class_id],
                "images": counts.images,
                "among_asked": counts.right[0],
                "among_known": counts.right[1],
            }
            if found.real is not None:
                images, right = real.get(class_id, (0, (0, 0)))
                row |= {
                    "real_images": images,
                    "real_among_asked": right[0],
                    "real_among_known": right[1],
                }
            rows.append(row)
        return sorted(rows, key=lambda row: row["among_asked"] / row["images"])


def open_judging(
    judge: Judge,
    samples: Path,
    resize: tuple[int, int] | None,
    real: Path | None,
    ref: Path | None,
) -> Judging:
    """The samples and the real pictures with their classes, before any work.

    Without ``real`` those of ``ref`` are taken, where they are pictures that say their classes.
    Real pictures are read at the samples' size, so that both lose as much when shown to the
    judge. Raises UsageError where the samples, or those of ``real``, have no classes.
    """
    mine = open_labelled(samples, judge.classes, resize)
    notes: list[str] = []
    theirs = None
    if real is not None:
        theirs = open_labelled(real, judge.classes, mine.pixels.size)
    elif ref is not None and ref.suffix != ".safetensors":
        try:
            theirs = open_labelled(ref, judge.classes, mine.pixels.size)
        except UsageError as error:
            notes.append(f"no agreement on real pictures: {error}; --real takes others")
    return Judging(judge, mine, theirs, real is None or _same(real, ref), notes)


def _same(a: Path, b: Path | None) -> bool:
    return b is not None and a.absolute() == b.absolute()


def _beside(found: Beside) -> Mapping[str, Any]:
    return {name: value_and_error(*estimate) for name, estimate in found._asdict().items()}
