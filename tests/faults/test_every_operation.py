"""For every command that writes, and for every file operation it makes: what if that one fails?

An operation fails with EIO or ENOSPC, writes only half, or the process is killed there, or the
power fails. Afterwards no manifest vouches for an image that is not there, old files are old or
new, the error is one line, and the same command again ends with the bytes of a run that nothing
befell. The commands are the rows of `writing.commands`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path

import pytest
from PIL import Image

from adm_cli.checkpoints.format import read_tensors
from adm_cli.commands.main import program
from adm_cli.sampling.folder import RunFolder
from tests.conftest import Toys
from tests.faults.shim import KILLED, Recorder, Shim, State, read_state, write_state
from tests.faults.writing import READING, Command, adm, commands
from tests.hostile.sandbox import fork

ERRORS = ("EIO", "ENOSPC")
NAMES = list(commands(Toys(Path(), Path(), Path(), Path()), b""))
POINTS: dict[str, Counter[str]] = {}  # faults injected, by command and fault


def contents(state: State) -> dict[str, bytes]:
    """Every file but locks and manifests, whose lines may differ in order."""
    return {
        name: _settled(name, data)
        for name, data in state.items()
        if data is not None and not name.endswith((".lock", ".jsonl"))
    }


def _settled(name: str, data: bytes) -> bytes:
    """Without what a killed sweep has not counted: how many images it drew itself."""
    if name.endswith(("sweep.json", "sweep.json.copy")):
        data = re.sub(rb'"drawn": \d+', b'"drawn": 0', data)
        return re.sub(rb'"(sha256|sweep.csv)": "\w+"', rb'"\1": ""', data)
    if name.endswith("sweep.csv"):
        return re.sub(rb"(?m),\d+,0\.0\r?$", b"", data)
    return data


def vouched(folder: Path) -> dict[str, str]:
    """What the manifests of all runs in ``folder`` say: files and their SHA-256."""
    return {
        str((manifest.parent / name).relative_to(folder)): record["sha256"]
        for manifest in folder.rglob("manifest*.jsonl")
        for name, record in RunFolder(manifest.parent).records().items()
    }


class Points:
    """A command in a folder, and everything that can go wrong with it there.

    What can follow a fault depends on what it left alone, so each such state is mended once.
    """

    def __init__(self, folder: Path, command: Command, *, damaged: bool = False) -> None:
        self.folder, self.command, self.damaged = folder, command, damaged
        self.counts: Counter[str] = Counter()
        self.seen: set[tuple[tuple[str, bytes | None], ...]] = set()
        os.chdir(folder)
        if command.before is not None:
            code, err = command.before()
            assert code == 0, err
        self.begin = read_state(folder)
        self.recorder = Recorder(folder)
        with self.recorder.installed():
            code, err = command.run()
        assert code == 0, err
        self.recorder.keep()
        self.log = self.recorder.log
        self.old, self.wanted = contents(self.begin), contents(read_state(folder))
        self.records = vouched(folder)

    def all(self, *, both: bool = False) -> None:
        """Every k for every fault; by turns with one of the two errors, or with ``both``."""
        for at in range(1, len(self.log) + 1):
            for fault in ERRORS if both else ERRORS[at % 2 :][:1]:
                self.fail(fault, at)
            if self.log[at - 1][0] == "write":
                self.fail("short", at)
        self.end("kill", self.recorder.kills)
        self.end("power", self.recorder.power)

    def end(self, how: str, states: list[State]) -> None:
        """The states that a run left which ended before each operation."""
        for at, state in enumerate(states, 1):
            self.left(state, self.what(how, at), killed=True)
            self.counts[how] += 1

    def what(self, fault: str, at: int) -> str:
        operation = " ".join(self.log[at - 1]) if at <= len(self.log) else "the end"
        return f"{fault} at {at}: {operation}"

    def fail(self, fault: str, at: int) -> None:
        what = self.what(fault, at)
        write_state(self.folder, self.begin)
        with Shim(self.folder, fault, at).installed():
            code, err = self.command.run()
        assert code in (0, 1), (what, err)
        errors = [line for line in err.splitlines() if line.startswith("adm: error: ")]
        assert len(errors) == code, (what, err)
        assert "Traceback" not in err, (what, err)
        assert fault != "ENOSPC" or not code or "the disk is full; make room" in err, (what, err)
        self.left(read_state(self.folder), what, killed=fault == "gone")
        self.counts[fault] += 1

    def left(self, state: State, what: str, *, killed: bool) -> None:
        """What there is after a fault is whole, and the same command again makes it complete."""
        key = tuple(sorted(state.items()))
        if key in self.seen:
            return
        write_state(self.folder, state)
        left = [n for n in state if n.endswith(".tmp") and n not in self.begin]
        assert killed or not left, (what, left)
        self.check_vouched(what)
        for name, data in contents(state).items():
            if data not in (m.get(name) for m in (self.old, self.wanted, self.command.halfway)):
                self.check_whole(name, data, what)
        self.mend(what)
        found = contents(read_state(self.folder))
        if killed and self.command.leaves:
            found = {n: data for n, data in found.items() if "/.adm-" not in f"/{n}"}
        assert set(self.wanted) <= set(found), what
        more = [n for n in set(found) - set(self.wanted) if not _any(n, self.command.staying)]
        assert not more, (what, more)
        differ = [n for n, data in self.wanted.items() if found.get(n, data) != data]
        assert not differ, (what, differ)
        now = vouched(self.folder)
        assert now.items() >= self.records.items(), what
        self.seen.add(key)

    def mend(self, what: str) -> None:
        """The same command again; anew, if it finds what it will not replace unasked."""
        code, err = self.command.run()
        if code and self.command.anew is not None:
            assert "exist" in err, (what, err)
            if contents(read_state(self.folder)) != self.wanted:
                assert "--overwrite" in err, (what, err)
                code, err = self.command.anew()
            else:
                code = 0
        assert code == 0, (what, err)

    def check_vouched(self, what: str) -> None:
        for name, digest in vouched(self.folder).items():
            path = self.folder / name
            there = path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest
            assert there or self.damaged, f"{what}: {name} is vouched for and is not there"

    def check_whole(self, name: str, data: bytes, what: str) -> None:
        """A file that is neither old nor new: only some may be, and must be whole then."""
        base = os.path.basename(name)
        if base.startswith(".adm-") or ".partial" in base or "/.adm-" in name:
            return  # on the way
        if name in self.command.appended:
            return
        assert _any(name, self.command.passing), f"{what}: {name} is neither old nor new"
        suffix = Path(name).suffix
        if suffix in (".safetensors", ".part"):
            read_tensors(self.folder / name)
        elif suffix in (".json", ".copy"):
            json.loads(data)
        elif suffix == ".csv":
            assert data.endswith(b"\n"), (what, name)
        elif suffix == ".html":
            assert data.rstrip().endswith(b"</html>"), (what, name)
        elif data != b"a plot":
            Image.open(io.BytesIO(data)).load()


def _any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


@pytest.mark.parametrize("name", NAMES)
def test_every_operation(name: str, toys: Toys, original: bytes, place: Path, slow: bool) -> None:
    points = Points(place, commands(toys, original)[name], damaged=name == "verify --repair")
    points.all(both=slow)
    POINTS[name] = points.counts


@pytest.mark.parametrize("name", ["sample", "merge zip", "fetch inception", "reference"])
def test_a_disk_that_is_gone(name: str, toys: Toys, original: bytes, place: Path) -> None:
    """From the k-th operation on, all fail: also those that clean up."""
    points = Points(place, commands(toys, original)[name])
    for at in range(1, len(points.log) + 1):
        points.fail("gone", at)


def test_no_command_is_forgotten() -> None:
    """Another one that writes is another row."""
    assert {name.split()[0].rstrip(",") for name in NAMES} == set(program().commands) - set(READING)


@pytest.mark.parametrize("name", READING)
def test_the_others_write_nothing(name: str, toys: Toys, place: Path) -> None:
    shutil.copy(toys.model, "m.safetensors")
    with Shim(place).installed() as shim:
        code, err = adm(*READING[name])
    assert code == 0, err
    assert not shim.log
    assert list(read_state(place)) == ["m.safetensors"]


@pytest.mark.parametrize("name", ["sample", "merge --overwrite", "train-classifier"])
def test_what_is_left_is_what_a_kill_leaves(
    name: str, toys: Toys, original: bytes, place: Path
) -> None:
    """Real ones, at some of the operations."""
    points = Points(place, commands(toys, original)[name])
    count = len(points.log)
    for at in sorted({1, 2, count // 4, count // 2, 3 * count // 4, count - 1, count}):
        write_state(place, points.begin)
        with Shim(place, "kill", at).installed():
            assert fork(lambda: points.command.run()[0])[0] == KILLED
        assert _named_alike(read_state(place)) == _named_alike(points.recorder.kills[at - 1]), at


def _named_alike(state: State) -> list[tuple[str, bytes | None]]:
    return sorted((re.sub(r"-\w+\.tmp$", ".tmp", name), data) for name, data in state.items())


def test_there_were_a_thousand_points() -> None:
    """The promise of the README's table; run after the others."""
    if len(POINTS) == len(NAMES):
        total = sum(POINTS.values(), Counter())
        print(f"{total.total()} points: {dict(total)}; by command:")
        print({name: counts.total() for name, counts in POINTS.items()})
        assert total.total() >= 1000
