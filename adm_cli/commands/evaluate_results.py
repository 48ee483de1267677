"""What `adm evaluate` found: as tables, JSON and CSV."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adm_cli.commands import console
from adm_cli.errors import OutputError, UsageError

if TYPE_CHECKING:
    from adm_cli.evaluating import Measured, OnStep, Score
    from adm_cli.storage.references import Reference

_ROUNDING = 1e-12  # shown as 0
_AGREEMENT = {  # numbers that samples and real pictures have, and how they are called
    "among_asked": "class agreement among {asked}",
    "among_known": "class agreement among {judge_classes}",
    "fd_judge": "Fréchet distance",
}
_BESIDE = ("samples", "real", "ratio")
_CLASS = {  # of --per-class, and its headings
    "class": "class",
    "name": "name",
    "images": "images",
    "among_asked": "among {asked}",
    "among_known": "among {judge_classes}",
    "real_images": "real",
    "real_among_asked": "among {asked}",
    "real_among_known": "among {judge_classes}",
}
_DETAILS = ("metrics", "notes", "agreement", "copies")  # of what is found: no columns of a CSV


@dataclass(frozen=True)
class Findings:
    """What was found, for --json, and what its reader should know."""

    facts: Mapping[str, Any]
    notes: Sequence[str]

    def __add__(self, other: Findings) -> Findings:
        return Findings({**self.facts, **other.facts}, [*self.notes, *other.notes])

    def to_json(self) -> dict[str, Any]:
        """All of it; the notes last."""
        return {**self.facts, "notes": list(self.notes)}


def check_out(out: Path | None, *, overwrite: bool) -> None:
    """Raises UsageError for a file that is no table, OutputError for one that is there."""
    if out is not None and out.suffix not in (".csv", ".json"):
        raise UsageError(f"--out {out}: expected a name that ends in .csv or .json")
    if out is not None and out.exists() and not overwrite:
        raise OutputError(f"{out} exists already: pass --overwrite, or another --out")


@contextmanager
def working(*, quiet: bool) -> Iterator[OnStep]:
    """What is being computed, for a person who waits."""
    counter = console.Counter("", 1, quiet=quiet)

    def on_step(name: str, done: int, total: int) -> None:
        if (name, total) != (counter.what, counter.total):
            counter.restart(name, total)
        counter.update(done)

    with counter.show():
        yield on_step


def score_facts(
    measured: Measured, reference: Reference, scores: list[Score], *, half: bool
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
        "metrics": {score.name: number(score.value, score.error) for score in scores},
    }


def number(value: float, error: float) -> dict[str, float | None]:
    """A number and its error; None for NaN, which JSON has not."""
    return {
        "value": None if math.isnan(value) else value,
        "error": None if math.isnan(error) else error,
    }


def write_findings(out: Path, found: Findings) -> None:
    """A .json of everything, or a .csv with a row a number."""
    from adm_cli.storage.tables import write_csv, write_json

    if out.suffix == ".json":
        write_json(out, found.to_json())
        return
    shared = {k: v for k, v in found.facts.items() if k not in _DETAILS}
    write_csv(out, [{"metric": n, **value, **shared} for n, value in _numbers(found.facts).items()])


def _numbers(facts: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Every number by its name, each with its error."""
    found = dict(facts.get("metrics", {}))
    agreement = facts.get("agreement", {})
    for name in _AGREEMENT:
        for whose in _BESIDE if agreement.get(name) else ():
            found[name if whose == "samples" else f"{name}_{whose}"] = agreement[name][whose]
    if "copies" in facts:
        found["copies"] = facts["copies"]["share"]
    return {name: each for name, each in found.items() if each["value"] is not None}


def show_findings(found: Findings, *, json: bool, quiet: bool) -> None:
    """Notes on stderr; on stdout a table for each part, or one line of JSON."""
    if not quiet:
        for remark in found.notes:
            console.note(remark)
    if json:
        console.print_json(found.to_json())
        return
    shows = {"metrics": _show_metrics, "agreement": _show_agreement, "copies": _show_copies}
    for i, part in enumerate(part for part in shows if part in found.facts):
        if i:
            print()
        shows[part](found.facts)


def _show_metrics(facts: Mapping[str, Any]) -> None:
    behind = facts["reference_images"]
    print(f"{_set(facts['samples'], facts['images'])} against {_set(facts['reference'], behind)}")
    weights = console.one_line(facts["features_weights"])
    print(f"features: {facts['features']} {weights} ({facts['features_sha256'][:8]})")
    rows = [
        (name, f"{_unrounded(each['value']):.6g}", _error(each))
        for name, each in facts["metrics"].items()
    ]
    console.print_table(("metric", "value", "error"), rows)


def _show_agreement(facts: Mapping[str, Any]) -> None:
    found = facts["agreement"]
    beside = f" beside {_set(found['real'], found['real_images'])}" if found["real"] else ""
    print(f"{_set(facts['samples'], found['images'])}{beside}")
    seen = {True: "noisy pictures", False: "clean pictures", None: "it does not say what"}
    print(
        f"judge: {console.one_line(found['judge'])} ({found['judge_sha256'][:8]}), "
        f"{found['judge_classes']} classes, trained on {seen[found['judge_noised']]}"
    )
    columns = _BESIDE if found["real"] else _BESIDE[:1]
    rows = [
        (text.format(**found), *(_with_error(found[name][whose]) for whose in columns))
        for name, text in _AGREEMENT.items()
        if found[name] is not None
    ]
    console.print_table(("", "samples", "real", "x real")[: 1 + len(columns)], rows)
    if "per_class" in found:
        print()
        names = [name for name in _CLASS if found["real"] or not name.startswith("real")]
        console.print_table(
            [_CLASS[name].format(**found) for name in names],
            [[str(row[name]) for name in names] for row in found["per_class"]],
        )


def _show_copies(facts: Mapping[str, Any]) -> None:
    found = facts["copies"]
    training = _set(found["training"], found["training_images"])
    print(f"{_set(facts['samples'], facts['images'])}: copies of {training}, in {found['in']}")
    print(
        f"copies: {_with_error(found['share'])} (nearest training picture within "
        f"{found['ratio']:.3g} of the second nearest's distance)"
    )
    rows = [(pair["sample"], pair["training"], f"{pair['ratio']:.3f}") for pair in found["worst"]]
    console.print_table(("sample", "nearest training picture", "ratio"), rows)


def _set(name: str, images: int | None) -> str:
    """A set of pictures, for a person."""
    text = console.one_line(name)
    return text if images is None else f"{text} ({images:,} images)"


def _unrounded(value: float) -> float:
    return 0.0 if abs(value) < _ROUNDING else value


def _error(found: Mapping[str, Any]) -> str:
    return "-" if found["error"] is None else f"{found['error']:.2g}"


def _with_error(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return "-"
    return f"{_unrounded(found['value']):.4g} ± {_error(found)}"
