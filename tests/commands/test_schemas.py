"""What ``--json`` prints is what its schema says; whatever any test prints is checked, too."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adm_cli.commands.console import print_json
from adm_cli.commands.main import program
from adm_cli.commands.schemas import as_markdown, json_schema, read_outputs
from tests.conftest import Result, Toys
from tests.outputs import check_output

Adm = Callable[..., Result]
TESTS = Path(__file__).parents[1]
TRAINING = ("train-diffusion", "train-classifier", "train-upsampler")
SPEAKING = {
    name
    for name, command in program().commands.items()
    if any("--json" in param.opts for param in command.params)
}


def test_every_command_that_has_json_has_a_schema() -> None:
    assert set(read_outputs().commands) == SPEAKING == set(program().commands)


def test_the_tables_are_read_whole() -> None:
    """No paragraph is passed over, no key is there twice, every key says what it means."""
    text = (TESTS.parent / "adm_cli/commands/outputs.txt").read_text()
    outputs = read_outputs()
    shapes = [line for line in text.splitlines() if line.startswith("[")]
    lines = {id(line) for lines in outputs.commands.values() for line in lines}
    assert len(lines) + len(outputs.shapes) >= len(shapes) > 50
    tables = [line.fields for lines in outputs.commands.values() for line in lines]
    for fields in (*tables, *outputs.shapes.values()):
        assert fields
        assert len({field.name for field in fields}) == len(fields)
        assert all(len(field.meaning) > 1 for field in fields)
    for command in outputs.commands:
        json_schema(command)  # every type is one


def test_the_document_is_made_of_the_tables() -> None:
    """Else: python -c "from adm_cli.commands.schemas import *; print(as_markdown(), end='')"."""
    assert (TESTS.parent / "docs/json.md").read_text() == as_markdown()


@pytest.mark.parametrize(
    ("command", "line", "wrong"),
    [
        ("merge", {"path": "x", "images": "2"}, "line.images is '2', no integer"),
        ("merge", {"path": "x", "images": True}, "line.images is True, no integer"),
        ("merge", {"images": 2}, "line has no path"),
        ("merge", {"path": "x", "surprise": 1}, "surprise, which the schema has not"),
        ("classes", {"id": 1, "wnid": 2, "names": []}, "line.wnid is 2"),
        ("classes", {"id": 1, "wnid": None, "names": [3]}, r"line.names\[0\] is 3, no string"),
        ("cache", {"name": "x", "kind": "y", "path": "p", "bytes": 1.5, "state": ""}, "bytes"),
    ],
)
def test_a_line_that_is_not_so_is_found(command: str, line: dict[str, Any], wrong: str) -> None:
    with pytest.raises(AssertionError, match=wrong):
        check_output(command, json.dumps(line))


def test_what_is_no_json_is_found() -> None:
    check_output("merge", '{"path": "x", "images": 2}\n{"path": "y"}\n')
    with pytest.raises(AssertionError, match="NaN is no JSON"):
        check_output("merge", '{"path": "x", "images": NaN}')
    with pytest.raises(json.JSONDecodeError):
        check_output("merge", "x.npz\n")


def test_what_is_not_finite_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [math.nan, 1.5], "b": {"c": -math.inf}, "d": (2, None)})
    assert capsys.readouterr().out == '{"a": [null, 1.5], "b": {"c": null}, "d": [2, null]}\n'


def test_lines_of_commands_about_a_run(adm: Adm, toys: Toys) -> None:
    toy = ("--model", toys.model, "--scale", 0, "--class", 0, "--steps", 1, "--device", "cpu")
    one = "o/0000_circle_seed000000.png"
    lines = [
        ("sample", *toy, "--num", 1, "--out", "o", "--grid"),
        ("sample", *toy, "--num", 1, "--out", "o", "--dry-run"),
        ("info", toys.model), ("info", "o"), ("info", one),
        ("repro", one, "--model", toys.model),
        ("merge", "o", "-o", "o.npz"),
        ("gallery", "o", "-o", "o.html"),
        ("verify", "o"),
        ("models",), ("models", "--ablations"), ("classes", "husky"), ("cache",),
        ("fetch", "imagenet64", "--dry-run"),
        ("help",), ("help", "sample"),
    ]  # fmt: skip
    for words in lines:
        done = adm(*words, "--json")
        assert done.code == 0, (words, done.err)
        assert done.out or words[0] in ("verify", "cache"), words
    homes = {"bench": "reports/test_bench", "reference": "commands/test_evaluate"}
    homes |= dict.fromkeys(TRAINING, "commands/test_train")
    for name in SPEAKING - {str(words[0]) for words in lines}:
        home = homes.get(name, f"commands/test_{name.replace('-', '_')}")
        assert '"--json"' in (TESTS / f"{home}.py").read_text(), name
