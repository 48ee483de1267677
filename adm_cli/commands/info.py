"""``adm info``: what a weights file or a picture says of itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Annotated, Any, Optional

import typer

from adm_cli.commands import console, options
from adm_cli.commands.loading import load_torch
from adm_cli.commands.recipe_lines import recipe_lines, without_unsaid
from adm_cli.sampling.run import UNSAID


def info(
    file: Annotated[
        str,
        typer.Argument(
            help="A weights file, preset, reference, picture or film, or the folder of a run, "
            "sweep or training."
        ),
    ],
    other: Annotated[
        Optional[str],
        typer.Argument(help="Another one: only what differs is shown.", show_default=False),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Also hash a weights file against its own record.")
    ] = False,
    cost: Annotated[
        bool, typer.Option("--cost", help="Also a network's GFLOP an evaluation: loads torch.")
    ] = False,
    all_: Annotated[
        bool, typer.Option("--all", help="Also those of a run's settings that change nothing.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Show what made a picture, or what a weights file or folder holds; of two, what differs.

    adm info runs/first runs/second
    """
    from adm_cli.reports.describing import describe

    how: dict[str, Any] = {"verify": verify, "cost": cost}
    how["before_torch"] = partial(load_torch, silent=json)
    facts: Mapping[str, Any] = describe(file, **how)
    if other is not None:
        _show_differences(*_comparable(facts, describe(other, **how)), json=json)
        return
    if json:
        console.print_json(facts)
        return
    picture = _of_picture(facts)
    if not picture and not all_:
        facts = without_unsaid(facts)
    for name, value in recipe_lines(facts, file) if picture else facts.items():
        text = f"{value:,}" if name == "parameters" and isinstance(value, int) else _text(value)
        line = f"{console.one_line(name):22} {console.one_line(text)}"
        console.out.print(line, markup=False)


_HASH = re.compile(r"^([0-9a-f]{12})[0-9a-f]{52}$")  # the first digits tell two apart


def _of_picture(facts: Mapping[str, Any]) -> bool:
    return "kind" not in facts and ("seed" in facts or "small_sha256" in facts)


def _comparable(
    facts: Mapping[str, Any], others: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Two as they are; of a picture and a run what both say, by the run's names."""
    if _of_picture(others) and not _of_picture(facts):
        run, picture = _comparable(others, facts)[::-1]
        return run, picture
    if not (_of_picture(facts) and "environment" in others):
        return facts, others
    run = {**others, **others["environment"]}
    base = facts.get("base")
    if isinstance(base, Mapping):
        second = {f"upsampler_{name}": value for name, value in facts.items()}
        facts = {**base, **second, "size": facts.get("size")}
    unsaid = {name: UNSAID.get(name.removeprefix("upsampler_"), ...) for name in run}
    said = {**{name: value for name, value in unsaid.items() if value is not ...}, **facts}
    both = [name for name in said if name in run]
    return {name: said[name] for name in both}, {name: run[name] for name in both}


def _show_differences(facts: Mapping[str, Any], others: Mapping[str, Any], *, json: bool) -> None:
    mine, theirs = dict(_flat(facts)), dict(_flat(others))
    names = [name for name in {**mine, **theirs} if name not in ("file", "folder")]
    pairs = {name: (mine.get(name), theirs.get(name)) for name in names}
    differing = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if json:
        console.print_json({"differs": differing})
        return
    if not differing:
        console.note("nothing differs")
    for name, pair in differing.items():
        here, there = (_HASH.sub(r"\1", console.one_line(_text(value))) for value in pair)
        console.out.print(f"{console.one_line(name):22} {here} | {there}", markup=False)


def _flat(facts: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Values by their whole names: ``environment.device``."""
    for name, value in facts.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", list(value) if isinstance(value, tuple) else value


def _text(value: object) -> str:
    if isinstance(value, dict):
        if len(value) > 20:
            first = ", ".join(f"{k} {v}" for k, v in list(value.items())[:5])
            return f"{len(value)}: {first}, ..."
        return ", ".join(f"{k} {v}" for k, v in value.items()) or "-"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value)) or "none"
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"
    return "-" if value is None else str(value)
