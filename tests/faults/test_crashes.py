"""What a run is after the power fails, after kill -9, and after a byte of it has turned."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from adm_cli.files import disk as files
from adm_cli.files.manifests import ManifestWriter, render_line
from adm_cli.sampling.drawing.writer import ImageWriter
from adm_cli.sampling.folder import RunFolder
from tests.conftest import Toys
from tests.faults.shim import write_state
from tests.faults.test_checks import lines_first
from tests.faults.test_every_operation import Points, vouched
from tests.faults.writing import Action, Command, adm, both, sample
from tests.manifests import read_manifest


def sampled(toys: Toys, num: int, out: str = "o") -> Action:
    return sample(toys, num=num, out=out)


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("*.png")}


# Power (that a run can be gone on with afterwards is in `test_every_operation`)


def check_power(points: Points) -> None:
    """Whenever the power fails, each image whose line was synced is there, with its line."""
    safe: dict[str, str] = {}
    for at, state in enumerate(points.recorder.power):
        if at and points.log[at - 1] == ("fsync", "o/manifest.jsonl"):
            write_state(points.folder, points.recorder.kills[at])
            safe = vouched(points.folder)
        write_state(points.folder, state)
        points.check_vouched(points.what("power", at + 1))
        left = vouched(points.folder)
        assert left.items() >= safe.items(), f"{points.what('power', at + 1)}: lines are lost"
    assert len(safe) == 2


def test_power_failure_at_every_operation(toys: Toys, place: Path) -> None:
    check_power(Points(place, Command(sample(toys))))


def unsynced(folder: Path, data: bytes, prefix: str) -> str:
    handle, name = files._new_file(folder, prefix)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    return name


def without_sync(self: ManifestWriter, records: Any) -> None:
    self._file.write(b"".join(render_line(record) for record in records))


@pytest.mark.parametrize(
    ("where", "name", "instead", "found"),
    [
        (files, "_write_temporary", unsynced, "is vouched for and is not there"),
        (ImageWriter, "_write", lines_first, "is vouched for and is not there"),
        (files, "sync_folder", lambda _folder: None, "lines are lost"),
        (files, "make_folder", lambda path: path.mkdir(exist_ok=True), "lines are lost"),
        (ManifestWriter, "append", without_sync, "assert 0 == 2"),
    ],
    ids=["images", "lines before images", "names", "the folder's name", "lines"],
)  # fmt: skip
def test_what_would_be_lost_is_found(
    toys: Toys, place: Path, monkeypatch: pytest.MonkeyPatch,
    where: Any, name: str, instead: Any, found: str,
) -> None:  # fmt: skip
    """The test above fails where a sync is left out, or done too late."""
    monkeypatch.setattr(where, name, instead)
    with pytest.raises(AssertionError, match=found):
        check_power(Points(place, Command(sample(toys))))


# Kills


def test_killed_at_random_moments(toys: Toys, place: Path, request: pytest.FixtureRequest) -> None:
    """SIGKILL, again and again, until the run is whole: nothing lost, broken or made twice."""
    rng, kills, runs = random.Random(0), 0, 0
    wanted_kills = 200 if request.config.getoption("--slow") else 15
    images = 24
    assert sampled(toys, images, "whole")()[0] == 0
    whole = digests(place / "whole")
    started = time.monotonic()
    assert sampled(toys, images, "timed")()[0] == 0
    duration = time.monotonic() - started
    while kills < wanted_kills:
        folder, runs = place / f"o{runs}", runs + 1
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
        assert adm("verify", folder)[0] == 0
    print(f"{kills} kills in {runs} runs of {images} images")


def kill_after(seconds: float, action: Action) -> bool:
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


def test_two_processes_on_one_run(toys: Toys, place: Path) -> None:
    """Both end well, or one says that the other is drawing; the images are right."""
    assert sampled(toys, 12, "whole")()[0] == 0
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            os._exit(sampled(toys, 12)()[0])
        children.append(child)
    codes = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
    assert codes in ([0, 0], [0, 1])
    assert digests(place / "o") == digests(place / "whole")
    lines = read_manifest(place / "o" / "manifest.jsonl").records
    assert len(lines) == len({r["file"] for r in lines}) == 12


def test_what_another_has_just_finished_is_not_drawn_again(
    toys: Toys, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does so after this one has looked at what is missing, and before it has the lock."""
    real, others = ImageWriter.open, [sampled(toys, 4)]

    def open_late(self: ImageWriter) -> None:
        if others:
            assert others.pop()()[0] == 0
        real(self)

    monkeypatch.setattr(ImageWriter, "open", open_late)
    assert sampled(toys, 4)()[0] == 0
    assert len(read_manifest(place / "o" / "manifest.jsonl").records) == 4


@pytest.mark.parametrize("now", [0.0, 2.0**40])
def test_clocks_that_jump(
    toys: Toys, place: Path, monkeypatch: pytest.MonkeyPatch, now: float
) -> None:
    """Times of files and of the machine decide nothing."""
    assert sampled(toys, 4, "whole")()[0] == 0
    assert sampled(toys, 2)()[0] == 0
    for path in (place / "o").iterdir():
        os.utime(path, (now, now))
    monkeypatch.setattr(time, "time", lambda: now)
    assert sampled(toys, 4)()[0] == 0
    assert digests(place / "o") == digests(place / "whole")
    assert adm("verify", "o")[0] == 0


def test_a_manifest_cut_at_every_byte(toys: Toys, place: Path) -> None:
    assert sampled(toys, 3)()[0] == 0
    path = place / "o" / "manifest.jsonl"
    whole, everything = path.read_bytes(), read_manifest(path).records
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        lines = whole[:length].count(b"\n")
        found = read_manifest(path)
        assert found.records == everything[:lines]
        assert found.torn == (length > 0 and whole[length - 1 : length] != b"\n")
        assert not found.damaged


def runs(toys: Toys) -> dict[str, tuple[Action, tuple[object, ...]]]:
    """What makes a folder ``o``, and with which weights it is repaired."""
    upsampling = ("--upsampler", toys.plain_upsampler, "--upsample-steps", 1)
    models = ("--model", toys.model, "--scale", 0, "--device", "cpu", "-b", 1, "--out", "o")
    enlarge = partial(adm, "upsample", "s", "--model", toys.plain_upsampler, "--steps", 1,
                      "--device", "cpu", "-b", 1, "--out", "o")  # fmt: skip
    sweep = partial(adm, "sweep", *models, "--steps", "1,2", "--class", 0, "--num", 2)
    plain = ("--model", toys.model)
    stack = (*plain, *upsampling[:2])
    return {
        "sample": (sample(toys, "--grid"), plain),
        "webp": (sample(toys, "--format", "webp"), plain),
        "npz": (sample(toys, "--format", "npz"), plain),
        "film": (sample(toys, "--animate", "o/x.gif"), plain),
        "stack": (sample(toys, *upsampling), stack),
        "stack, base kept": (sample(toys, *upsampling, "--keep-base"), stack),
        "upsample": (both(sample(toys, out="s"), enlarge), enlarge.args[2:4]),
        "sweep": (sweep, plain),
    }


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but locks, by its path within."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("name", list(runs(Toys(Path(), Path(), Path(), Path()))))
def test_one_flipped_byte(
    name: str, toys: Toys, place: Path, request: pytest.FixtureRequest
) -> None:
    """Anywhere in a folder: `adm verify` finds it, and with --repair mends it."""
    make, weights = runs(toys)[name]
    assert make()[0] == 0
    folder, good, rng = Path("o"), contents(Path("o")), random.Random(name)
    places = [(file, i) for file, data in good.items() for i in range(len(data))]
    chosen = rng.sample(places, 125 if request.config.getoption("--slow") else 24)
    for file, at in chosen:
        data = bytearray(good[file])
        data[at] ^= 1 << rng.randrange(8)
        (folder / file).write_bytes(data)
        assert adm("verify", "o")[0] == 1, (file, at)
        code, err = adm("verify", "o", "--repair", *weights)
        assert code == 0, (file, at, err)
        found = contents(folder)
        assert found.keys() == good.keys()
        for other, content in good.items():
            if not other.endswith(".jsonl"):
                assert found[other] == content, (file, at, other)
            (folder / other).write_bytes(content)
    print(f"{name}: {len(chosen)} flips of {len(places):,} bytes, all found and mended")
