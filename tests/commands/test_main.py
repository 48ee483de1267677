"""The program as a whole: help, exit codes, and processes that are cut short."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.text import Text
from typer.main import get_command

from adm_cli import __version__
from adm_cli.commands.main import app
from adm_cli.pictures.images import open_picture
from tests.conftest import Result, Toys, pictures

Run = Callable[..., Result]
COMMANDS = [command.name for command in app.registered_commands if command.name]
ADM = (sys.executable, "-m", "adm_cli")


def environment(**changes: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("ADM_MODEL", "ADM_DEBUG")}
    return {**kept, **changes}


def test_version(adm: Run) -> None:
    assert adm("--version") == Result(0, f"adm {__version__}\n", "")


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_lists_the_commands(adm: Run, option: str) -> None:
    done = adm(option)
    assert (done.code, done.err) == (0, "")
    assert all(re.search(rf"\b{name}\b", done.out) for name in COMMANDS)
    assert all(code in done.out for code in ("130 (Ctrl-C)", "143 (SIGTERM)", "129 (SIGHUP)"))


def test_nothing_at_all_shows_the_help(adm: Run) -> None:
    done = adm()
    assert (done.code, done.err) == (2, "")
    assert done.out.split() == adm("--help").out.split()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(adm: Run, command: str) -> None:
    done = adm(command, "--help")
    assert (done.code, done.err) == (0, "")
    assert f"adm {command}" in done.out


def test_no_help_is_taken_for_markup() -> None:
    """``[scale]`` in a help text would vanish."""
    group: Any = get_command(app)
    for name, command in group.commands.items():
        for text in [command.help, *(getattr(p, "help", None) for p in command.params)]:
            assert Text.from_markup(text or "").plain == (text or ""), name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["smaple"], "sample"),
        (["sample", "--sclae", "4"], "--scale"),
        (["sample", "--num", "many"], "--num"),
        (["sample", "--scale"], "--scale"),
        (["sample", "extra"], "extra"),
        (["convert"], "adm convert needs FILE"),
        (["--colour"], "--colour"),
    ],
)
def test_wrong_usage_is_one_line(adm: Run, arguments: list[str], words: str) -> None:
    done = adm(*arguments)
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("adm: error: ")
    assert words in done.err


def test_errors_say_what_was_typed_and_nothing_a_terminal_obeys(adm: Run) -> None:
    done = adm("info", "[red]:smile:\x1b[2J\n/x")
    assert done.code == 2
    assert done.err == "adm: error: no such file: [red]:smile:\\x1b[2J /x\n"


def test_debugging_shows_the_traceback() -> None:
    for value, shown in (("1", True), ("0", False)):
        done = subprocess.run(
            [*ADM, "classes", "zzzzzz"],
            env=environment(ADM_DEBUG=value),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode != 0
        assert ("Traceback" in done.stderr) == shown
        assert "no class matches" in done.stderr


def test_any_file_name_can_be_printed(toys: Toys, tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("needs file names that are bytes")
    options = ["--model", str(toys.model), "--scale", "0", "--num", "1", "--steps", "1", "--quiet"]
    done = subprocess.run(
        [*ADM, "sample", *options, "--out", b"caf\xe9"],
        env=environment(PYTHONUTF8="1"),
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"caf\xe9/0")
    assert os.path.exists(os.path.join(os.fsencode(tmp_path), done.stdout.strip()))


def test_interrupt(tmp_path: Path) -> None:
    """Ctrl-C keeps the images that are done, whole, and leaves nothing else."""
    command = subprocess.Popen(
        [*ADM, *"sample --class 207 --scale 0 --no-upsample --steps 1 --num 500 -b 1".split()],
        env=environment(),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert command.stdout is not None
    first = [command.stdout.readline().strip() for _ in range(2)]
    command.send_signal(signal.SIGINT)
    rest, errors = command.communicate(timeout=300)
    assert command.returncode == 130
    printed = [*first, *rest.split()]
    files = [f"out/0001/{name}" for name in pictures(tmp_path / "out/0001")]
    assert files == printed
    assert all(open_picture(tmp_path / name)[1] for name in files)
    kept = rf"{len(files)} of 500 images are in out/0001; --out out/0001 goes on"
    assert re.fullmatch(rf"(adm: .* left\n)*adm: {kept}\nadm: interrupted\n", errors)
