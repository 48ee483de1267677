"""What `evaluate` found: numbers by name, and what they were computed from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adm_cli.errors import OutputError, UsageError
from adm_cli.files.disk import check_writable
from adm_cli.files.tables import write_csv, write_json
from adm_cli.pictures.references import Reference
from adm_cli.reports.measure import ImageFeatures
from adm_cli.reports.scores import Score

AGREEMENT = {  # numbers that samples and real pictures have, and how they are called
    "among_asked": "class agreement among {asked}",
    "among_known": "class agreement among {judge_classes}",
    "fd_judge": "Fréchet distance",
}
BESIDE = ("samples", "real", "ratio")
_DETAILS = ("metrics", "notes", "agreement", "copies")  # of what is found: no columns of a CSV


@dataclass(frozen=True)
class Evaluation:
    """What was found, as JSON has it, and what its reader should know."""

    facts: Mapping[str, Any]
    notes: Sequence[str]

    def __add__(self, other: Evaluation) -> Evaluation:
        return Evaluation({**self.facts, **other.facts}, [*self.notes, *other.notes])

    @property
    def numbers(self) -> dict[str, Mapping[str, Any]]:
        """Every number by its name: its "value", and its standard "error", None where unknown."""
        found = dict(self.facts.get("metrics", {}))
        agreement = self.facts.get("agreement", {})
        for name in AGREEMENT:
            for whose in BESIDE if agreement.get(name) else ():
                found[name if whose == "samples" else f"{name}_{whose}"] = agreement[name][whose]
        if "copies" in self.facts:
            found["copies"] = self.facts["copies"]["share"]
        return {name: each for name, each in found.items() if each["value"] is not None}

    def to_json(self) -> dict[str, Any]:
        """All of it; the notes last."""
        return {**self.facts, "notes": list(self.notes)}


def check_table(out: Path | None, *, overwrite: bool, writes: bool = True) -> None:
    """Raises UsageError for a file that is no table, OutputError for one that is there.

    Also where it cannot be written, unless nothing ``writes`` it.
    """
    if out is not None and out.suffix not in (".csv", ".json"):
        raise UsageError(f"--out {out}: expected a name that ends in .csv or .json")
    if out is not None and out.exists() and not overwrite:
        raise OutputError(f"{out} exists already: pass --overwrite, or another --out")
    if out is not None and writes:
        check_writable(out.parent)


def score_facts(
    measured: ImageFeatures, reference: Reference, scores: list[Score], *, half: bool
) -> dict[str, Any]:
    """The metrics of samples against a reference, and what they were computed from."""
    return {
        "pixels_sha256": measured.pixels_sha256,
        "reference": reference.source,
        "reference_images": reference.images,
        "reference_features": len(reference.kept),
        "reference_pixels_sha256": reference.pixels_sha256 or None,
        "features": measured.extractor.name,
        "features_weights": measured.extractor.weights,
        "features_sha256": measured.extractor.sha256,
        "half": half,
        "metrics": {score.name: value_and_error(score.value, score.error) for score in scores},
    }


def value_and_error(value: float, error: float) -> dict[str, float | None]:
    """A number and its error; None for NaN, which JSON has not."""
    return {
        "value": None if math.isnan(value) else value,
        "error": None if math.isnan(error) else error,
    }


def write_findings(out: Path, found: Evaluation) -> None:
    """A .json of everything, or a .csv with a row a number."""
    if out.suffix == ".json":
        write_json(out, found.to_json())
        return
    shared = {k: v for k, v in found.facts.items() if k not in _DETAILS}
    write_csv(out, [{"metric": n, **value, **shared} for n, value in found.numbers.items()])
