"""Messages in a terminal of 80 columns: no word is cut in two, and a copy is still one line."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import pytest
from rich.console import Console

from adm_cli.commands import console
from adm_cli.commands.console import at_words
from tests.conftest import Result

LONG = "adm: error: {}; did you mean --class? Then write adm sample --class 207 --out runs/first"


@pytest.mark.parametrize("width", [40, 80])
@pytest.mark.parametrize(
    "word",
    [
        "no option --clas in adm sample",
        "'a folder with blanks/and a picture.png' is gone",
        "the model's parameters, the classes' names",
        "unknown class 'dgo'",  # and what ends a part of a sentence behind it
        "torch.save(m.state_dict(), 'model weights.pt').as_it_is, \"a b\", (no 'c d')",
        "/a/path" * 9,  # longer than a short row
        "絵" * 25 + " 絵",  # two columns each
        "x" * 80 + " y",
    ],
)
def test_words_stay_whole(width: int, word: str) -> None:
    text = LONG.format(word)
    shown = at_words(text, width)
    assert re.sub(" +", " ", shown) == text
    rows: list[str] = []
    row, columns = "", 0
    for letter in shown:  # as a terminal goes on in the next row
        cells = 2 if letter == "絵" else 1
        if columns + cells > width:
            rows, row, columns = [*rows, row], "", 0
        row, columns = row + letter, columns + cells
    for before, after in zip(rows, [*rows[1:], row], strict=True):
        inside = before[-1] != " " and after[0] != " "
        assert not inside or any(len(w) + w.count("絵") >= width for w in text.split())
    if "'a folder" in word:
        assert "'a folder with blanks/and a picture.png'" in shown


def test_no_value_is_so_long_that_it_hides_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    console.fail(ValueError(f"--labels {'n' * 100_000}: expected auto or a file"))
    said = capsys.readouterr().err
    assert said.endswith("n... expected auto or a file\n")
    assert len(said) < 400


def test_a_terminal_alone_has_rows(
    adm: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = adm("sample", "--fromat", "webp", "--seeds", "0-3").err
    assert plain.count("\n") == 1
    assert "  " not in plain
    file = io.StringIO()
    shown = Console(file=file, force_terminal=True, width=30, soft_wrap=True, no_color=True)
    monkeypatch.setattr(console, "err", shown)
    adm("sample", "--fromat", "webp", "--seeds", "0-3")
    text = re.sub("\x1b[^m]*m", "", file.getvalue())
    assert re.sub(" +", " ", text) == plain
    assert "  " in text
