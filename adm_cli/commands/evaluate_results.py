"""What `adm evaluate` found, for a person or as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from adm_cli.commands import console
from adm_cli.commands.numbers import error_text, rounded, with_error
from adm_cli.errors import how_many

if TYPE_CHECKING:
    from adm_cli.reports.findings import Evaluation

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


def show_findings(found: Evaluation, *, json: bool, quiet: bool) -> None:
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
        (name, rounded(each["value"], each["error"]), error_text(each["error"]))
        for name, each in facts["metrics"].items()
    ]
    console.print_table(("metric", "value", "error"), rows)


def _show_agreement(facts: Mapping[str, Any]) -> None:
    from adm_cli.reports.findings import AGREEMENT, BESIDE

    found = facts["agreement"]
    beside = f" beside {_set(found['real'], found['real_images'])}" if found["real"] else ""
    print(f"{_set(facts['samples'], found['images'])}{beside}")
    seen = {True: "noisy pictures", False: "clean pictures", None: "it does not say what"}
    print(
        f"judge: {console.one_line(found['judge'])} ({found['judge_sha256'][:8]}), "
        f"{how_many(found['judge_classes'], 'class', 'classes')}, "
        f"trained on {seen[found['judge_noised']]}"
    )
    columns = BESIDE if found["real"] else BESIDE[:1]
    rows = [
        (text.format(**found), *(_share(found[name][whose]) for whose in columns))
        for name, text in AGREEMENT.items()
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
        f"copies: {_share(found['share'])} (nearest training picture within "
        f"{found['ratio']:.3g} of the second nearest's distance)"
    )
    rows = [(pair["sample"], pair["training"], f"{pair['ratio']:.3f}") for pair in found["worst"]]
    console.print_table(("sample", "nearest training picture", "ratio"), rows)


def _set(name: str, images: int | None) -> str:
    """A set of pictures, for a person."""
    text = console.one_line(name)
    return text if images is None else f"{text} ({how_many(images, 'image')})"


def _share(found: Mapping[str, Any]) -> str:
    return with_error(found["value"], found["error"])
