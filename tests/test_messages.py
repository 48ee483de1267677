"""What messages say: numbers with the right noun, and advice that the command line takes."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import adm_cli
from adm_cli.commands.main import app
from adm_cli.errors import UsageError, an, how_many, kind_of, one_of, told_of, why_unread
from tests.outputs import check_messages

ROOT = Path(adm_cli.__file__).parent
# Nouns that are counted in messages. Of "1 of 3 images is missing" the verb alone changes (`are`).
_COUNTED = re.compile(
    r" (?:[a-z-]+ )?(?:images|pictures|classes|steps|epochs|files|labels|words|cells|samples|lines"
    r"|rows|seeds|masks|parameters|channels|features|numbers|values|threads|commands|columns"
    r"|folders|levels|predictions|tensors)\b"
)
# Numbers that are never 1, by their limits or by what was asked before, and words that are no
# numbers; what only a program of its own sees.
_NEVER_ONE = """
agreement.py len(labels)
agreement.py len(predicted)
agreement.py real.pixels.path
budget.py self.entries
classifier.py size
config.py channels
config.py len(self.channel_mult)
config.py side // factor
defaults.py steps
diffusers.py config.level_channels[0]
doctor.py row['parameters']
examine.py threads
folder.py count
folder.py row.get('drawn')
given.py len(found)
grid.py self.steps or 'all'
images.py count
images.py self._count
label_files.py key
labels.py ending
labels.py len(inside)
labels.py plain[1]
long_zips.py most
measure.py extractor.weights
neighbours.py k
plain_yaml.py self.entries
process.py wanted
references.py images
runs.py len(found)
schedule.py num_timesteps
select.py count
sources.py theirs.num_classes
sweep.py label
training_end.py speed
workers.py count
"""


@pytest.mark.parametrize(
    ("count", "words", "shown"),
    [
        (1, ("picture",), "1 picture"),
        (0, ("picture",), "0 pictures"),
        (1200, ("class", "classes"), "1,200 classes"),
        (1, ("class", "classes"), "1 class"),
        (0.97, ("epoch",), "1 epoch"),  # as it is shown
        (0.22, ("epoch",), "0.2 epochs"),
        (0.04, ("epoch",), "0.04 epochs"),
        (1.5, ("epoch",), "1.5 epochs"),
        (12.3, ("epoch",), "12 epochs"),
    ],
)
def test_how_many(count: float, words: tuple[str, ...], shown: str) -> None:
    assert how_many(count, *words) == shown


def test_no_message_says_1_pictures() -> None:
    found = set()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            parts = node.values if isinstance(node, ast.JoinedStr) else []
            before = ""
            for number, noun in pairwise(parts):
                before = str(number.value) if isinstance(number, ast.Constant) else before
                if isinstance(number, ast.FormattedValue) and isinstance(noun, ast.Constant):
                    name = ast.unparse(number.value)
                    limit = re.search("[A-Z]{3}|per_second|_size|how_many", name)
                    if _COUNTED.match(str(noun.value)) and not limit and before[-4:] != " of ":
                        found.add(f"{path.name} {name}")
    assert found == set(_NEVER_ONE.strip().split("\n"))


_GROUP: Any = get_command(app)
OPTIONS = {
    name: {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
    for name, command in _GROUP.commands.items()
}
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9](?![\w-])")
_ADM = re.compile(r"\badm ((?:[a-z-]+, )*(?:[a-z-]+ and )?[a-z-]+)((?:(?!\badm )[^;:()|,])*)")
_OF_OTHERS = {  # pip, tar, srun, sbatch and torchrun
    "--force-reinstall", "--no-deps", "--dereference", "--wrap", "--n", "--np", "--nproc",
    "--ntasks", "--nproc-per-node",
}  # fmt: skip
# What only some commands do, and the options that may be advised there.
ABOUT = {
    "sampling": {
        "edit.py": "edit", "choosing/select_edits.py": "edit", "choosing/photos.py": "edit",
        "merge.py": "merge", "recipes/repro.py": "repro", "verifying/verify.py": "verify",
        "recipes/like.py": "sample", "sample.py": "sample", "choosing/select.py": "sample",
        "interpolate.py": "interpolate", "upsample.py": "upsample", "sweeps/sweep.py": "sweep",
        "sweeps/cells.py": "sweep", "sweeps/grid.py": "sweep", "folder.py": "sample upsample edit",
    },
    "checkpoints": {
        "converting.py": "convert", "folders.py": "convert", "exporting.py": "export",
        "onnx.py": "export", "fetching.py": "fetch", "downloads.py": "fetch", "fetched.py": "fetch",
    },
    "reports": {
        "nll.py": "nll", "likelihood.py": "nll", "classifier.py": "evaluate-classifier",
        "judging.py": "evaluate-classifier", "agreement.py": "evaluate", "copies.py": "evaluate",
        "evaluation.py": "evaluate", "scores.py": "evaluate", "bench.py": "bench",
        "measure.py": "evaluate reference",
    },
    "training": {
        "loop.py": "train-diffusion train-classifier train-upsampler",
        "runs.py": "train-diffusion train-classifier train-upsampler",
        "resuming.py": "train-diffusion train-classifier train-upsampler",
    },
}  # fmt: skip


def texts(path: Path) -> Iterator[str]:
    """Every text of a file but docstrings; what is filled into one is {}."""
    tree = ast.parse(path.read_text())
    parts = [part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
             for part in node.values]  # fmt: skip
    docs = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    skip = {id(node) for node in (*parts, *docs)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values
            )
        elif (
            isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skip
        ):
            yield node.value


def test_advised_commands_have_the_options_that_they_are_advised_with() -> None:
    known = set().union(_OF_OTHERS, {"--version"}, *OPTIONS.values())
    seen = 0
    for path in ROOT.rglob("*.py"):
        for text in texts(path):
            for match in _ADM.finditer(text):
                names = re.split(", | and ", match[1])
                if set(names) <= set(OPTIONS):
                    seen += len(names)
                    advised = set(_OPTION.findall(match[2]))
                    assert all(advised <= OPTIONS[name] for name in names), (path, text)
            assert set(_OPTION.findall(text)) <= known, (path, text)
    assert seen > 60


@pytest.mark.parametrize("room", ABOUT)
def test_advised_options_are_those_of_the_command_that_says_so(room: str) -> None:
    for file, commands in ABOUT[room].items():
        for text in texts(ROOT / room / file):
            advised = set(_OPTION.findall(_ADM.sub("", text)))
            for name in commands.split():
                assert advised <= OPTIONS[name] | {"--version"}, (file, text)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TypeError("'int' object is not iterable"), "a value of another type"),
        (ValueError("invalid literal for int() with base 10: b'8|8'"), "a value of another type"),
        (AttributeError("'list' object has no attribute 'get'"), "a value of another type"),
        (KeyError("seed"), "no 'seed'"),
        (
            json.JSONDecodeError("Invalid control character at", "a", 0),
            "invalid control character at line 1, column 1",
        ),
        (OSError(2, "No such file or directory", "x.png"), "No such file or directory"),
        (UnicodeDecodeError("utf-8", b"\x84", 0, 1, "invalid start byte"), "not UTF-8"),
        (ValueError("label 5 is out of range"), "label 5 is out of range"),
        (ValueError(""), "a value of another type"),
        (UsageError("its classes b'a' are odd"), "its classes b'a' are odd"),
        (ValueError("ends with a full stop."), "ends with a full stop"),
    ],
)
def test_reasons_are_not_those_of_python(error: Exception, said: str) -> None:
    assert why_unread(error) == said


def test_articles() -> None:
    assert [an(kind) for kind in ("diffusion", "classifier", "upsampler")] == [
        "a diffusion",
        "a classifier",
        "an upsampler",
    ]
    kinds = re.compile(r"\b[Aa] (?!\{an)\{[\w.\[\]()]*kind[\w.\[\]()]*\} model")
    assert not [path for path in ROOT.rglob("*.py") if kinds.search(path.read_text())]


def _filled(text: ast.JoinedStr) -> Iterator[tuple[str, str]]:
    """What is filled into a text, each with what stands before it."""
    before = ""
    for part in text.values:
        if isinstance(part, ast.Constant):
            before += str(part.value)
        elif isinstance(part, ast.FormattedValue):
            yield before, ast.unparse(part.value)
            before += "{}"


_JOINED = re.compile(r"(?:expected|must be|one of)(?: a name that ends in)? $")
_ADVISED = re.compile(rf"\badm (?:{'|'.join(OPTIONS)}) [^;:()|,]*$")
_PATH = re.compile(r"\b(?:path|folder|parent|where)\b(?!\.stem)")  # stem: published names
_HASH = re.compile(r"sha256|digest|hash", re.IGNORECASE)
_NO_MESSAGES = ("sealed.py", "page.py")


def test_what_is_filled_into_messages() -> None:
    """Choices are joined by an or, hashes show their first digits, types have names of words; a
    path in an advised command is quoted, as a shell needs it."""
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            for before, value in _filled(node) if isinstance(node, ast.JoinedStr) else ():
                assert not (_JOINED.search(before) and "', '.join" in value), (path, value)
                whole = _HASH.search(value) and not re.search(r"\[:\d+\]$", value)
                assert not whole or path.name in _NO_MESSAGES, (path, value)
                typed = _PATH.search(value) and "quote" not in value and path.name != "ending.py"
                assert not (typed and _ADVISED.search(before)), (path, value)
                assert "__name__" not in value or path.name in _OF_PROGRAMMERS, (path, value)


_OF_PROGRAMMERS = ("arguments.py", "worker.py")  # wrong calls from Python; what nobody foresaw


@pytest.mark.parametrize(
    ("names", "said"), [("a", "a"), ("ab", "a or b"), ("abc", "a, b or c"), ((1, 2), "1 or 2")]
)
def test_one_of(names: Iterable[object], said: str) -> None:
    assert one_of(names) == said
    assert one_of(names, "and") == said.replace(" or ", " and ")


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "nothing"), (True, "true or false"), (2, "a number"), ([], "a list"),
     ({}, "a dictionary"), (object(), "an object of another kind")],
)  # fmt: skip
def test_kinds_of_values(value: object, said: str) -> None:
    assert kind_of(value) == said


def test_a_file_is_named_once() -> None:
    assert told_of("x.png", "not a picture") == "x.png: not a picture"
    assert told_of("x.png", "cannot read x.png: it is empty") == "cannot read x.png: it is empty"


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ("x.pt is refused: its MD5 is 0f5e9f57..., expected 083d912c...", False),
        ("files with values up to 4095: 4095 is white", False),
        (f"source SHA-256 {'0f5e9f57' * 8}", True),
        ("o/a.png: o/a.png is damaged: run adm verify o --repair first", True),
        ("cannot read a.zip: [Errno 2] No such file or directory: 'a.zip'", True),
        ("x.pt: damaged metadata ('int' object is not iterable)", True),
        ("UNetConfig: unknown settings: colour", True),
    ],
)
def test_messages_of_commands_are_looked_at(said: str, wrong: bool) -> None:
    """By the fixture that runs them, in every test."""
    with pytest.raises(AssertionError) if wrong else nullcontext():
        check_messages(f"adm: error: {said}")


def test_no_message_ends_twice() -> None:
    """What ends in a question mark or full stop has nothing put behind it but a blank."""
    ends = re.compile(r"[.?]['\"]?[;:,]( |$)|[^.]\.\.$")
    for path in ROOT.rglob("*.py"):
        for text in texts(path):
            assert " " not in text or not ends.search(re.sub(r"\.{3,}|e\.g\.", "", text)), text
