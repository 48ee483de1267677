"""Running a command on a hostile file: in a process of its own, with limits, and watched.

The process is forked from the tests' own, so that torch need not load again.
"""

from __future__ import annotations

import io
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

import adm_cli.checkpoints.converting
import adm_cli.doctor.selftest
import adm_cli.training.estimate
import adm_cli.training.loop  # noqa: F401  # loaded once, before the forks
from adm_cli.commands import main

Image.init()

SECONDS = 20  # of the processor; the slowest case takes a tenth of it
WAITING = 60  # seconds of the clock, on a busy machine too
MEMORY = 2**30  # address space above what the process has already
PEAK = 640 * 2**20  # resident memory above what the process has already
LARGEST_FILE = 64 * 2**20
CRASHED = 70


@dataclass(frozen=True)
class Done:
    """How a command ended: exit code (negative: killed by that signal) and output."""

    code: int
    out: str
    err: str


Arguments = list[object]
main.program()  # built once, here, for all processes


def run_limited(folder: Path, commands: list[Arguments]) -> tuple[list[Done], int]:
    """Runs command lines in ``folder``, one after the other in one process.

    Returns how each ended (the last one may have ended the process), and the memory used.
    """
    place = Path(tempfile.mkdtemp(prefix="adm-sandbox-"))
    before = _status("VmRSS")

    def child() -> int:
        _limit(folder)
        for i, arguments in enumerate(commands):
            (place / f"{i}.code").write_text(str(_command(place, i, [str(a) for a in arguments])))
        return 0

    code, usage = fork(child)
    done = []
    for i in range(len(commands)):
        ended = (place / f"{i}.code").exists()
        texts = [(place / f"{i}.{name}") for name in ("out", "err")]
        out, err = (t.read_bytes().decode("utf-8", "replace") if t.exists() else "" for t in texts)
        done.append(Done(int((place / f"{i}.code").read_text()) if ended else code, out, err))
        if not ended:
            break
    shutil.rmtree(place)
    return done, usage.ru_maxrss * 1024 - before


def fork(action: Callable[[], int]) -> tuple[int, resource.struct_rusage]:
    """Runs ``action`` in a child; its exit code and what it used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: OpenMP's sleep
        child = os.fork()
    if child == 0:
        code = CRASHED
        try:
            code = action()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status, usage = os.wait4(child, 0)
    return os.waitstatus_to_exitcode(status), usage


def _limit(folder: Path) -> None:
    os.chdir(folder)
    os.environ["ADM_HOME"] = str(folder / "home")
    for name in ("ADM_MODEL", "ADM_DEBUG"):
        os.environ.pop(name, None)
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, signal.SIG_DFL)
    for what, most in (
        (resource.RLIMIT_AS, _status("VmSize") + MEMORY),
        (resource.RLIMIT_FSIZE, LARGEST_FILE),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def _command(place: Path, i: int, arguments: list[str]) -> int:
    """Runs one command line, its output in files."""
    streams = [
        io.TextIOWrapper(io.FileIO(place / f"{i}.{name}", "w"), "utf-8", write_through=True)
        for name in ("out", "err")
    ]
    sys.stdout, sys.stderr = streams
    for number, stream in enumerate(streams, start=1):
        os.dup2(stream.fileno(), number)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(WAITING)
    try:
        return main.run(arguments)
    except BaseException:
        traceback.print_exc()
        return CRASHED
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)


def _status(name: str) -> int:
    """A number of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def in_groups(names: Iterable[str], size: int = 12) -> list[list[str]]:
    """Cases that share a process, since each one's takes a while to begin."""
    names = list(names)
    return [names[i : i + size] for i in range(0, len(names), size)]


def slug(name: str) -> str:
    """A case's name as a file's."""
    return re.sub(r"\W+", "-", name)


def listing(folder: Path) -> dict[str, int]:
    """Every file below a folder and its size."""
    return {
        str(path.relative_to(folder)): path.lstat().st_size
        for path in folder.rglob("*")
        if not path.is_dir()
    }


def refused(folder: Path, *commands: Arguments) -> list[Done]:
    """Each refuses: one line, exit code 1 or 2, nothing written, little memory used."""
    before = listing(folder.parent)
    found = harmless(folder, *commands, codes=(1, 2))
    for arguments, done in zip(commands, found, strict=True):
        lines = done.err.splitlines()
        assert len(lines) == 1, (arguments, done)
        assert lines[0].startswith("adm: error: "), (arguments, done)
        assert len(lines[0]) < 4000, (arguments, len(lines[0]))
        assert not done.out, (arguments, done)
    assert listing(folder.parent) == before, commands
    return found


def harmless(folder: Path, *commands: Arguments, codes: tuple[int, ...] = (0, 1, 2)) -> list[Done]:
    """Each ends by itself, soon, with nothing on the terminal that it would obey."""
    found, peak = run_limited(folder, list(commands))
    for arguments, done in zip(commands, found, strict=False):
        text = f"{arguments}\nexit code {done.code}\n{done.out[-2000:]}{done.err[-3000:]}"
        assert done.code in codes, text
        assert "Traceback" not in done.err, text
        strange = {c for c in done.out + done.err if not c.isprintable()} - {"\n"}
        assert not strange, (arguments, strange)
    assert len(found) == len(commands)
    assert peak < PEAK, f"{commands}: {peak / 2**20:.0f} MB"
    return found
