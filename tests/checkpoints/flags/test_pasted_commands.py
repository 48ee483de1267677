"""Texts as people paste them: what of them is a command, and what its words are."""

from __future__ import annotations

import pytest

from adm_cli.checkpoints.flags.pasted_commands import read_pasted, spelt
from adm_cli.errors import ConfigError


def words(text: str) -> list[str]:
    """The words of the only command."""
    (command,) = read_pasted(text).commands
    return [spelt(word) for word in command.words]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("run --a 1 # --b 2", "run --a 1"),
        ("run \\\n  --a 1", "run --a 1"),
        ("run \\ \t\n  --a 1", "run --a 1"),
        ("run --a\\\r\n 1\r\n", "run --a 1"),
        ("A='--a 1'\nrun $A ${A}", "run --a 1 --a 1"),
        ("A=1; A=2\nrun $A", "run 2"),
        ("run $A\nA=1", "run $A"),
        ("A=1 run $A", "run $A"),
        ("export A=1 && run $A", "run 1"),
        ("declare -x A=1\nrun $A", "run 1"),
        ("A='x'; A+=' y'; run $A", "run x y"),
        ('A=(--a 1\n --b 2)\nrun "${A[@]}"', "run --a 1 --b 2"),
        ("run ${A:-7} ${A:+no}", "run 7"),
        ("B=1\nrun ${B:+--b $B}", "run --b 1"),
        ('B=1\nA="--a $B"\nrun $A', "run --a 1"),
        ("run '$A' > log.txt 2>&1 &", "run $A"),
        ("run --data <path to them> --a 1", "run --data <path to them> --a 1"),
        ("run < in --a 1", "run --a 1"),
        ("$ run --a 1", "run --a 1"),
        ("!run --a 1", "run --a 1"),
        ("%env A=3\n!run $A", "run 3"),
        ("A = '--a 1'\n!run $A", "run --a 1"),
        ('$env:A="3"\nrun $env:A `\n --b', "run 3 --b"),
        ('cmd="run $X"\necho $cmd\neval $cmd', "run $X"),
        ("bash -c 'run --a 1'", "run --a 1"),
        ("echo $(run --a 1)", "run --a 1"),
        ("for i in 1; do run --a 1; done", "run --a 1"),
        ("setenv A 5\nrun $A", "run 5"),
        ("```bash\nrun --a 1\n```", "run --a 1"),
        ("run —a “x y”", "run --a x y"),
        ("A=--a 1 \\\n  --b 2\nx:\n\trun $(A)", "run --a 1 --b 2"),
        ("set A=--a 1\r\nset B=%A% --b\r\nREM no\r\nrun ^\r\n  %B% c:\\x", "run --a 1 --b c:/x"),
        ('@set "A=--a 1"\n@REM run\nrun %A% %*', "run --a 1"),
        ("A := --a 1\nA += --b 2\nx:\n\trun $(A)", "run --a 1 --b 2"),
        ("A ?= --a 1\nx:\n\trun ${A}", "run --a 1"),
        ("A=(--a 1)\nA+=(--b 2)\nrun ${A[@]}", "run --a 1 --b 2"),
    ],
)
def test_words(text: str, expected: str) -> None:
    found = [w for w in read_pasted(text).commands if w.words[0] not in ("for", "x:")]
    (command,) = found
    assert " ".join(map(spelt, command.words)) == expected


def test_several_commands_are_told_apart() -> None:
    found = read_pasted("one --a 1; two --b 2 && three | four\nfive")
    assert [command.words[0] for command in found.commands] == [
        "one", "two", "three", "four", "five",
    ]  # fmt: skip


def test_a_comment_ends_a_continued_command() -> None:
    first, second = read_pasted("run --a 1 \\\n# --b 2 \\\n  --c 3").commands
    assert first.words == ("run", "--a", "1")
    assert second.words == ("--c", "3")
    assert (first.after_comment, second.after_comment) == (False, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run 'x", "no closing quotation"),
        ('run "x', "no closing quotation"),
        ("run ${x", "without }"),
        ("run " + "$(" * 12 + "x" + ")" * 12, "too deep"),
        ("x" * 200_001, "at most 200,000"),
        ("A=xxxxxxxx\n" + "A=$A$A\n" * 30, "endless"),
        ("A=" + "x" * 90_000 + "\n" + "run $A\n" * 100, "endless"),
    ],
)
def test_what_has_no_end(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_pasted(text)
