"""Lists of classes, a line an image: read as a shell reads them, and in little time."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from adm_cli.errors import UsageError
from adm_cli.sampling.choosing import select
from adm_cli.sampling.choosing.select import read_class_list


def by_the_shell(row: str) -> list[str]:
    lexer = shlex.shlex(row, posix=True)
    lexer.whitespace += ";"
    lexer.whitespace_split = True
    return list(lexer)


@pytest.mark.parametrize(
    "row",
    [
        "207 1", " 207\t1 ; 2.5;3\r", ";;", "lion 5", "207+281 1", "zebra\u00a0x 1", "a\x0bb 1",
        "'king penguin' 1", 'x"y z" 1', "lion\\ cub 3", "207 1 # a lion", "#", "none",
        "207*0.7 0-3",
    ],
)  # fmt: skip
def test_words_are_those_of_a_shell(row: str) -> None:
    assert select._words(row) == by_the_shell(row)


def test_plain_lines_cost_no_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million of them took half a minute of the processor."""
    path = tmp_path / "list"
    path.write_text("lion 5\n'king penguin' 0-3\n207 7 2.5 1\n\nzebra\n")
    shells = []
    real = shlex.shlex

    def counted(row: str, posix: bool) -> shlex.shlex:
        shells.append(row)
        return real(row, posix=posix)

    monkeypatch.setattr(shlex, "shlex", counted)
    lines = read_class_list(path)
    assert shells == ["'king penguin' 0-3"]
    assert [tuple(line[1:]) for line in lines] == [
        ("lion", [range(5, 6)], None, None), ("king penguin", [range(4)], None, None),
        ("207", [range(7, 8)], 2.5, 1.0), ("zebra", None, None, None),
    ]  # fmt: skip
    path.write_text("lion 'king\n")
    with pytest.raises(UsageError, match="line 1: no closing quotation"):
        read_class_list(path)
