"""Help as a person sees it: in groups and panels, the usual first, and with the true defaults."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

import adm_cli.checkpoints.sources
import adm_cli.reports.drawn
import adm_cli.reports.judging
import adm_cli.reports.measure
import adm_cli.reports.pictures
from adm_cli.commands.completing import DTYPE_NAMES
from adm_cli.commands.main import program
from adm_cli.commands.panels import GROUPS, PANELS, USUAL
from adm_cli.commands.schemas import JSON_VERSION, json_schema
from adm_cli.evaluation.copies import COPY_RATIO
from adm_cli.sampling.edit import JUMP, RESAMPLE, STRENGTH
from adm_cli.sampling.interpolate import SEEDS
from adm_cli.sampling.sweeps.sweep import DEFAULT_SCALES
from tests.conftest import Result

Adm = Callable[..., Result]
LONG = [name for name, command in program().commands.items() if len(command.params) > 12]


def help_of(command: str, name: str) -> str:
    param = next(p for p in program().commands[command].params if p.name == name)
    return str(getattr(param, "help", ""))


def titles(text: str) -> list[str]:
    return re.findall(r"^╭─ (.*?) ─", text, re.M)


def test_commands_come_in_groups(adm: Adm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = adm("--help")
    shown = titles(done.out)
    assert shown[0] == "Options"
    assert shown[1:] == list(GROUPS)[: len(shown) - 1]
    assert max(map(len, done.out.splitlines())) <= 80
    named = {name for names in GROUPS.values() for name in names.split()}
    assert set(program().commands) <= named


@pytest.mark.parametrize("command", LONG)
def test_the_usual_options_come_first(
    command: str, adm: Adm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = adm(command, "--help")
    assert max(map(len, done.out.splitlines())) <= 80
    blocks = done.out.split("╭─ ")[1:]
    first = next(block for block in blocks if block.startswith(USUAL))
    options = re.findall(r"^│ \*? *(--[\w-]+) .*<", first, re.M)
    params = {param.name: param.opts for param in program().commands[command].params}
    wanted = [params[name] for name in PANELS[command][USUAL].split()]
    assert [any(o in names for names in wanted) for o in options] == [True] * 5 + [False]
    assert options[-1] == "--help"
    assert max(len(re.findall(r"^│ \*? *--", block, re.M)) for block in blocks) <= 16


DEFAULTS: list[tuple[str, str, str, Any]] = [
    ("evaluate", "num", "Default: {}.", adm_cli.reports.drawn.DEFAULT_NUM),
    ("evaluate", "batch_size", "Default: {}.", vars(adm_cli.reports.measure)["_BATCH"]),
    ("reference", "batch_size", "Default: {}.", vars(adm_cli.reports.measure)["_BATCH"]),
    ("evaluate", "copy_ratio", "Default: 1/{:g}.", 1 / COPY_RATIO),
    ("evaluate-classifier", "timesteps", "Default: {}.", adm_cli.reports.judging.DEFAULT_TIMESTEPS),
    *(
        (command, "batch_size", "at most {}.", vars(adm_cli.reports.pictures)["MAX_AUTO_BATCH"])
        for command in "sample edit interpolate upsample nll evaluate-classifier".split()
    ),
    ("edit", "strength", "Default: {},", STRENGTH),
    ("edit", "resample", "Default: {}.", RESAMPLE),
    ("edit", "jump", "Default: {}.", JUMP),
    ("interpolate", "seeds", "Default: {}, or 0", SEEDS),
    *(
        (command, name, "Default: {},", vars(adm_cli.checkpoints.sources)["DEFAULT_PASSES"])
        for command, name in (("sample", "upsample_project"), ("upsample", "project"))
    ),
    ("sweep", "scale", "Default: {},", ",".join(f"{scale:g}" for scale in DEFAULT_SCALES)),
]
# Zero by nature, or said by the constant itself (an f-string in the command).
NEEDLESS = {
    *(("sample", "seed"), ("sample", "eta"), ("upsample", "eta"), ("sweep", "eta")),
    *(("edit", "eta"), ("interpolate", "eta"), ("evaluate", "eta")),
    *(("sweep", "seed"), ("evaluate", "seed"), ("sample", "num"), ("sweep", "num")),
}


@pytest.mark.parametrize(("command", "name", "text", "value"), DEFAULTS)
def test_defaults_in_help_are_the_constants(
    command: str, name: str, text: str, value: object
) -> None:
    assert text.format(value) in help_of(command, name)


def test_no_default_is_said_that_is_not_compared() -> None:
    compared = {row[:2] for row in DEFAULTS} | NEEDLESS
    for name, command in program().commands.items():
        for param in command.params:
            text = getattr(param, "help", None) or ""
            if re.search(r"(Default: |at most )\d", text):
                assert (name, param.name) in compared, text


def test_help_as_json_is_what_the_program_takes(adm: Adm) -> None:
    """Every command and parameter, with the types, defaults and words that it has."""
    found = json.loads(adm("help", "--json").out)
    assert found["json_version"] == JSON_VERSION
    rows = {row["name"]: row for row in found["commands"]}
    assert set(rows) == set(program().commands)
    for name, command in program().commands.items():
        params = [*rows[name]["arguments"], *rows[name]["options"]]
        assert {row["name"] for row in params} == {param.name for param in command.params}
    options = {row["name"]: row for row in rows["sample"]["options"]}
    wanted: dict[str, dict[str, Any]] = {
        "class_": {"flags": ["--class", "-c"], "type": "str", "repeat": True, "default": None},
        "model": {"default": None, "variable": "ADM_MODEL", "repeat": False},
        "clip": {"type": "bool", "off": ["--no-clip"], "default": None},
        "out": {"type": "path", "flags": ["--out", "-o"]},
        "scale": {"type": "float"},
        "dtype": {"words": list(DTYPE_NAMES), "default": None},
        "format": {"words": ["png", "webp", "npz"], "default": "png"},
    }
    assert {name: {key: options[name][key] for key in wanted[name]} for name in wanted} == wanted
    (action, names), json_ = rows["cache"]["arguments"], rows["cache"]["options"][1]
    assert (action["type"], action["words"], action["default"]) == (
        "choice", ["ls", "rm", "verify"], "ls",
    )  # fmt: skip
    assert (names["repeat"], names["required"], json_["name"]) == (True, False, "json")


def test_help_of_a_command_as_json_has_its_output(adm: Adm) -> None:
    found = json.loads(adm("help", "--json", "sample").out)
    assert found["command"]["summary"].startswith("Draw images of a class")
    assert found["output"] == json_schema("sample")


def test_who_asks_for_help_otherwise_is_told(adm: Adm) -> None:
    assert adm("help", "help") == adm("help", "--help")
    done = adm("sample", "help")
    assert (done.code, done.out) == (2, "")
    assert "write adm sample --help" in done.err
    assert "no command 'smaple'; did you mean sample" in adm("help", "smaple", "--json").err


@pytest.mark.parametrize("command", [*program().commands])
def test_help_is_shown_whole_in_80_columns(
    command: str, adm: Adm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No text is cut, and a paragraph is broken only where the next word does not fit."""
    monkeypatch.setenv("COLUMNS", "80")
    shown = adm(command, "--help").out
    assert "…" not in shown
    rows = [row.strip() for row in shown.split("╭─ ")[0].splitlines()]
    for row, after in pairwise(rows):
        if row and after:
            assert len(f"{row} {after.split()[0]}") > 78, row
