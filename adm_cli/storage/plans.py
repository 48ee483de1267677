"""``run.json``: what a run is to draw, and everything that decides its images."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from adm_cli.budget import parse_json
from adm_cli.errors import RunError, UsageError
from adm_cli.storage.files import explain_os_error, read_file
from adm_cli.storage.sealed import as_written, seal

FORMAT = 1
MAX_IMAGES = 10**7
_OFF = {"cfg": 1.0}  # what settings mean that a plan leaves out, if not "none"
_MOST_BYTES = 2**31  # of run.json: so many rows at 200 bytes each
_MOST_ENTRIES = 2**27


class Item(NamedTuple):
    """An image to draw: its file, which is its name in the run, and what it is."""

    file: str
    facts: Mapping[str, Any]  # class, seed, and whatever else tells it from the others
    batch_sizes: Mapping[str, int] = MappingProxyType({})  # to compute it at, if not the run's


@dataclass(frozen=True)
class Plan:
    """What ``run.json`` holds."""

    kind: str  # the command
    settings: Mapping[str, Any]  # all that decides an image's bytes: must not change
    environment: Mapping[str, Any]  # versions and names: a change is told
    items: Sequence[Item]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """In words, which values changed: ``"scale 4 -> 2"``."""
    return [
        f"{name} {_short(old.get(name, _OFF.get(name)))} -> {_short(new.get(name, _OFF.get(name)))}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    text = "none" if value is None else str(value)
    return text[:12] if len(text) == 64 else text


def render_plan(plan: Plan) -> bytes:
    """``run.json``: an image or a run of seeds a line, its own SHA-256 at the end."""
    head = {
        "format": FORMAT,
        "kind": plan.kind,
        "settings": dict(plan.settings),
        "environment": dict(plan.environment),
    }
    rows = ",\n    ".join(json.dumps(row) for row in _rows(plan.items))
    body = json.dumps(head, indent=2)[:-2] + f',\n  "items": [\n    {rows}\n  ],\n'
    return seal(body.encode())


def read_plan(path: Path) -> Plan:
    """Reads ``run.json``, to the last byte; raises RunError if it is damaged or missing."""
    try:
        data = read_file(path, _MOST_BYTES)
    except FileNotFoundError:
        raise RunError(f"{path.parent} is no run: it has no {path.name}") from None
    except OSError as error:
        raise RunError(explain_os_error(f"cannot read {path}", error)) from None
    if (whole := as_written(data)) is None:
        raise RunError(
            f"{path} is damaged: its hash is not its content's (adm verify --repair mends it)"
        )
    try:
        value = parse_json(whole, most=_MOST_BYTES, entries=_MOST_ENTRIES)
        if value["format"] != FORMAT:
            raise RunError(f"{path} has format {value['format']!r:.20}: made by another adm")
        rows = (item for row in value["items"] for item in _expand(row))
        items = list(islice(rows, MAX_IMAGES + 1))  # a few rows could stand for any number
        if len(items) > MAX_IMAGES:
            raise ValueError(f"over {MAX_IMAGES:,} images")
        plan = Plan(str(value["kind"]), value["settings"], value["environment"], items)
        if not isinstance(plan.settings, dict) or not isinstance(plan.environment, dict):
            raise ValueError("settings and environment must be objects")
        check_items(items)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, UsageError) as error:
        raise RunError(f"{path} is no run of adm: {error}") from None
    return plan


def check_items(items: Sequence[Item]) -> None:
    """Raises UsageError unless there is an item, and each has a name of its own."""
    if not items:
        raise UsageError("a run needs at least one image")
    if len({item.file for item in items}) != len(items):
        raise UsageError("an image is asked for twice: names must differ")
    for item in items:
        check_name(item.file)


def check_name(name: object) -> str:
    """A name that stays inside its folder; raises UsageError for any other."""
    if (
        not isinstance(name, str)
        or not name
        or len(name.encode(errors="surrogateescape")) > 240
        or name.startswith(".")
        or not name.isprintable()
        or any(c in name for c in '/\\:*?"<>|')
    ):
        raise UsageError(f"{name!r:.80} cannot be the name of an image in a run")
    return name


def _rows(items: Sequence[Item]) -> Iterator[dict[str, Any]]:
    """Items as rows; those that differ only by a seed that counts up share one."""
    start = 0
    for end in range(1, len(items) + 1):
        if end < len(items) and _follows(items[end - 1], items[end]):
            continue
        first, last = items[start], items[end - 1]
        row = {"file": first.file, **first.facts}
        if end - start > 1:
            seeds = f"{row.pop('seed')}-{last.facts['seed']}"
            row = {**row, "file": _pattern(first), "seeds": seeds}
        yield row
        start = end


def _follows(item: Item, following: Item) -> bool:
    a, b = item.facts, following.facts
    return (
        type(a.get("seed")) is int
        and {**a, "seed": a["seed"] + 1} == b
        and _pattern(item) is not None
        and _pattern(item) == _pattern(following)
    )


def _pattern(item: Item) -> str | None:
    """``class0207_seed*.png``; None where the name does not hold the seed in this way."""
    seed = f"seed{item.facts['seed']:06d}"
    return item.file.replace(seed, "seed*") if item.file.count(seed) == 1 else None


def _expand(row: Mapping[str, Any]) -> Iterator[Item]:
    facts = {name: value for name, value in row.items() if name not in ("file", "seeds")}
    if "seeds" not in row:
        yield Item(row["file"], facts)
        return
    first, last = (int(seed) for seed in row["seeds"].split("-"))
    if not 0 <= last - first < MAX_IMAGES:
        raise ValueError(f"{last - first + 1} seeds in a row")
    for seed in range(first, last + 1):
        yield Item(row["file"].replace("*", f"{seed:06d}"), {**facts, "seed": seed})
