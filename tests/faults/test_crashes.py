"""What a run is after the power fails, after kill -9, and after a byte of it has turned."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from adm_cli.storage.manifests import read_manifest
from adm_cli.storage.runs import RunFolder
from tests.conftest import Toys
from tests.faults import test_every_operation as every
from tests.faults.shim import Shim

quick = every.quick  # the fixture


def sampled(toys: Toys, num: int, out: str = "o") -> every.Action:
    return every.sample(toys, "--num", num, out=out)


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("*.png")}


# Power


def record(folder: Path, run: Callable[[], object]) -> list[tuple[str, str, bytes]]:
    """The operations of a run, each with the bytes the file has after it."""
    log: list[tuple[str, str, bytes]] = []
    shim = Shim(folder)
    met = shim.met

    def noted(name: str, path: str) -> bool:
        met(name, path)
        content = b""
        if name == "fsync" and os.path.isfile(path):
            content = Path(path).read_bytes()
        log.append((name, os.path.relpath(path, folder), content))
        return False

    shim.met = noted  # type: ignore[method-assign]
    with shim.installed():
        run()
    return log


def after_power_failure(
    log: list[tuple[str, str, bytes]], renames: dict[str, str], target: Path
) -> None:
    """Writes into ``target`` what is certain to be there after the operations of ``log``."""
    synced: dict[str, bytes] = {}  # by the name under which it was synced
    pending: list[tuple[str, str]] = []
    there: dict[str, bytes] = {}
    for name, path, content in log:
        if name == "fsync" and path.endswith((".tmp", ".jsonl")):
            synced[path] = content
            if path.endswith(".jsonl"):  # appended to: under its own name from the start
                there[path] = content
        if name == "replace":
            pending.append((renames[path], path))
        if name == "fsync" and path in ("o", "."):
            for source, destination in pending:
                there[destination] = synced.get(source, b"")  # empty where it was never synced
            pending.clear()
    for path, content in there.items():
        place = target / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


def test_power_failure_after_every_operation(toys: Toys, tmp_path: Path) -> None:
    """Every prefix of a run's operations, without what was not synced: no line names an image
    that is not there, and the run goes on to the same bytes.
    """
    folder = tmp_path / "whole"
    folder.mkdir()
    os.chdir(folder)
    renames: dict[str, str] = {}
    real = os.replace

    def replace(source: str, destination: str) -> None:
        renames[os.path.relpath(destination, folder)] = os.path.relpath(source, folder)
        real(source, destination)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", replace)
        log = record(folder, sampled(toys, 3))
    whole = digests(folder / "o")
    assert len(whole) == 3
    vouched = 0
    for count in range(len(log) + 1):
        left = tmp_path / "left"
        shutil.rmtree(left, ignore_errors=True)
        left.mkdir()
        after_power_failure(log[:count], renames, left)
        os.chdir(left)
        for name, digest in every.vouched(left).items():
            vouched += 1
            data = (left / "o" / name).read_bytes()
            assert hashlib.sha256(data).hexdigest() == digest, (count, log[count - 1][:2])
        if count % 3 == 0 or count == len(log):
            code, err = sampled(toys, 3)()
            assert code == 0, (count, err)
            assert digests(left / "o") == whole
        os.chdir(tmp_path)
    assert vouched > 3


# Kills


def test_killed_at_random_moments(
    toys: Toys, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """SIGKILL, again and again, until the run is whole: nothing lost, broken or made twice."""
    rng, kills, runs = random.Random(0), 0, 0
    wanted_kills = 200 if request.config.getoption("--slow") else 15
    images = 24
    os.chdir(tmp_path)
    assert sampled(toys, images, "whole")()[0] == 0
    whole = digests(tmp_path / "whole")
    started = time.monotonic()
    assert sampled(toys, images, "timed")()[0] == 0
    duration = time.monotonic() - started
    while kills < wanted_kills:
        folder, runs = tmp_path / f"o{runs}", runs + 1
        before: dict[str, str] = {}
        killed = True
        while killed and kills < wanted_kills:
            killed = kill_after(rng.uniform(0, duration), sampled(toys, images, folder.name))
            kills += killed
            safe = {n: r["sha256"] for n, r in RunFolder(folder).records().items()}
            assert safe.items() >= before.items(), "a manifest line was lost"
            assert all(digests(folder)[name] == digest for name, digest in safe.items())
            assert all(whole[name] == digest for name, digest in safe.items())
            before = safe
        assert sampled(toys, images, folder.name)()[0] == 0
        assert digests(folder) == whole
        lines = read_manifest(folder / "manifest.jsonl")
        assert sorted(r["file"] for r in lines.records) == sorted(whole)  # none twice
        assert not list(folder.glob("*.tmp"))
        assert every.adm("verify", folder)[0] == 0
    print(f"{kills} kills in {runs} runs of {images} images")


def kill_after(seconds: float, action: every.Action) -> bool:
    """Runs it in a process that is killed meanwhile; False if it was done before."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = action()[0]
        finally:
            os._exit(code)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def test_two_processes_on_one_run(toys: Toys, tmp_path: Path) -> None:
    """Both end well, or one says that the other is drawing; the images are right."""
    os.chdir(tmp_path)
    assert sampled(toys, 12, "whole")()[0] == 0
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            os._exit(sampled(toys, 12)()[0])
        children.append(child)
    codes = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
    assert codes in ([0, 0], [0, 1])
    assert digests(tmp_path / "o") == digests(tmp_path / "whole")
    lines = read_manifest(tmp_path / "o" / "manifest.jsonl").records
    assert len(lines) == len({r["file"] for r in lines}) == 12


@pytest.mark.parametrize("now", [0.0, 2.0**40])
def test_clocks_that_jump(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: float
) -> None:
    """Times of files and of the machine decide nothing."""
    os.chdir(tmp_path)
    assert sampled(toys, 4, "whole")()[0] == 0
    assert sampled(toys, 2)()[0] == 0
    for path in (tmp_path / "o").iterdir():
        os.utime(path, (now, now))
    monkeypatch.setattr(time, "time", lambda: now)
    assert sampled(toys, 4)()[0] == 0
    assert digests(tmp_path / "o") == digests(tmp_path / "whole")
    assert every.adm("verify", "o")[0] == 0


def test_a_manifest_cut_at_every_byte(toys: Toys, tmp_path: Path) -> None:
    os.chdir(tmp_path)
    assert sampled(toys, 3)()[0] == 0
    path = tmp_path / "o" / "manifest.jsonl"
    whole, everything = path.read_bytes(), read_manifest(path).records
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        lines = whole[:length].count(b"\n")
        found = read_manifest(path)
        assert found.records == everything[:lines]
        assert found.torn == (length > 0 and whole[length - 1 : length] != b"\n")
        assert not found.damaged


def runs(toys: Toys) -> dict[str, tuple[every.Action, tuple[object, ...]]]:
    """What makes a folder ``o``, and with which weights it is repaired."""
    upsampling = ("--upsampler", toys.upsampler, "--upsample-steps", 1)
    models = ("--model", toys.model, "--scale", 0, "--device", "cpu", "-b", 1, "--out", "o")
    enlarge = partial(every.adm, "upsample", "s", "--model", toys.upsampler, "--steps", 1,
                      "--device", "cpu", "-b", 1, "--out", "o")  # fmt: skip
    sweep = partial(every.adm, "sweep", *models, "--steps", "1,2", "--class", 0, "--num", 2)
    plain, both = ("--model", toys.model), ("--model", toys.model, *upsampling[:2])
    return {
        "sample": (every.sample(toys, "--grid"), plain),
        "webp": (every.sample(toys, "--format", "webp"), plain),
        "npz": (every.sample(toys, "--format", "npz"), plain),
        "film": (every.sample(toys, "--animate", "o/x.gif"), plain),
        "stack": (every.sample(toys, *upsampling), both),
        "stack, base kept": (every.sample(toys, *upsampling, "--keep-base"), both),
        "upsample": (every.both(every.sample(toys, out="s"), enlarge), enlarge.args[2:4]),
        "sweep": (sweep, plain),
    }


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but locks, by its path within."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("name", list(runs(Toys(Path(), Path(), Path(), Path()))))
def test_one_flipped_byte(
    name: str, toys: Toys, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Anywhere in a folder: `adm verify` finds it, and with --repair mends it."""
    os.chdir(tmp_path)
    make, weights = runs(toys)[name]
    assert make()[0] == 0
    folder, good, rng = Path("o"), contents(Path("o")), random.Random(name)
    places = [(file, i) for file, data in good.items() for i in range(len(data))]
    chosen = rng.sample(places, 125 if request.config.getoption("--slow") else 24)
    for file, place in chosen:
        data = bytearray(good[file])
        data[place] ^= 1 << rng.randrange(8)
        (folder / file).write_bytes(data)
        assert every.adm("verify", "o")[0] == 1, (file, place)
        code, err = every.adm("verify", "o", "--repair", *weights)
        assert code == 0, (file, place, err)
        found = contents(folder)
        assert found.keys() == good.keys()
        for other, content in good.items():
            if not other.endswith(".jsonl"):
                assert found[other] == content, (file, place, other)
            (folder / other).write_bytes(content)
    print(f"{name}: {len(chosen)} flips of {len(places):,} bytes, all found and mended")
