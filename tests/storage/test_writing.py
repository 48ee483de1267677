"""The thread that writes images, and what it does when it cannot."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adm_cli.errors import OutputError, RunError
from adm_cli.storage.images import open_picture
from adm_cli.storage.outputs import image_item
from adm_cli.storage.plans import Plan
from adm_cli.storage.runs import RunFolder, Shard
from adm_cli.storage.writing import Finished, ImageWriter, check_room, record_file
from tests.conftest import pictures

ITEMS = [image_item(1, s, ".png") for s in range(6)]
PIXELS = np.arange(6 * 4 * 4 * 3, dtype=np.uint8).reshape(6, 4, 4, 3)
IMAGES = [Finished(item, pixels, None) for item, pixels in zip(ITEMS, PIXELS, strict=True)]
NAMES = [item.file for item in ITEMS]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "r")
    folder.begin(Plan("sample", {}, {}, ITEMS))
    return folder


def test_each_image_is_told_once_it_is_safe(run: RunFolder) -> None:
    told: list[dict[str, Any]] = []
    with ImageWriter(run, Shard(), told.append) as writer:
        for start in range(0, 6, 2):
            writer.add(IMAGES[start : start + 2])
            assert all((run.path / record["file"]).exists() for record in told)
    assert (
        [record["file"] for record in told] == NAMES == list(run.kept(ITEMS)) == pictures(run.path)
    )
    for record, pixels in zip(told, PIXELS, strict=True):
        data = (run.path / record["file"]).read_bytes()
        assert record["bytes"] == len(data)
        assert record["sha256"] == hashlib.sha256(data).hexdigest()
        assert np.array_equal(open_picture(run.path / record["file"])[0], pixels)
    assert "adm-writer" not in [thread.name for thread in threading.enumerate()]


def test_an_error_stops_the_run_at_once(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of the batch that were written before it are kept."""
    real, calls = os.fsync, iter(range(100))

    def fsync(handle: int) -> None:
        if next(calls) == 4:  # a manifest's folder, three images; then the fourth
            raise OSError(5, "Input/output error")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    told: list[dict[str, Any]] = []
    writer = ImageWriter(run, Shard(), told.append)

    def write() -> None:
        with writer:
            writer.add(IMAGES)
            for _ in range(1000):
                writer.add([])  # does not wait for ever

    with pytest.raises(OutputError, match=f"cannot write .*{NAMES[3]}: Input/output error"):
        write()
    assert [record["file"] for record in told] == NAMES[:3] == pictures(run.path)
    assert list(run.kept(ITEMS)) == NAMES[:3]


def test_what_was_handed_over_is_written_when_stopped(run: RunFolder) -> None:
    told: list[dict[str, Any]] = []

    def interrupted() -> None:
        with ImageWriter(run, Shard(), told.append) as writer:
            writer.add(IMAGES[:3])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(run.kept(ITEMS)) == [record["file"] for record in told] == NAMES[:3]


def test_a_second_process_is_refused(run: RunFolder) -> None:
    def ignore(_record: dict[str, Any]) -> None:
        pass

    with ImageWriter(run, Shard(), ignore):
        with pytest.raises(RunError, match=r"another process.*--shard"):
            ImageWriter(run, Shard(), ignore).open()
        with ImageWriter(run, Shard(2, 2), ignore) as other:
            other.add(IMAGES[:1])
    assert list(run.kept(ITEMS)) == NAMES[:1]


def test_what_a_killed_writer_left_is_removed(run: RunFolder) -> None:
    mine, theirs = run.path / ".adm-manifest-x.tmp", run.path / ".adm-manifest-1-of-2-x.tmp"
    for path in (mine, theirs):
        path.touch()
    with ImageWriter(run, Shard(1, 2), lambda _record: None):
        pass
    assert (mine.exists(), theirs.exists()) == (True, False)


def test_a_lost_image_gets_a_later_line(run: RunFolder) -> None:
    for shard in (Shard(), Shard(1, 2), Shard()):
        for name in NAMES:
            (run.path / name).unlink(missing_ok=True)
        with ImageWriter(run, shard, lambda _record: None) as writer:
            writer.add(IMAGES)
    assert {record["again"] for record in run.records().values()} == {2}
    assert list(run.kept(ITEMS)) == NAMES


def test_no_room(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(run.path)._replace(free=2**21)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: free)
    check_room(run.path, 2**20)
    with pytest.raises(
        OutputError, match=r"5\.0 GB are needed and 2\.1 MB free: .*make room and run"
    ):
        check_room(run.path, 5 * 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: free._replace(free=1000))
    writer = ImageWriter(run, Shard(), lambda _record: None)
    with pytest.raises(OutputError, match="the disk is full"), writer:
        writer.add(IMAGES)
    assert pictures(run.path) == []


def test_other_files_are_noted_once(run: RunFolder) -> None:
    (run.path / "grid.png").write_bytes(b"one")
    for _ in range(2):
        record_file(run, Shard(), "grid.png", {"images": 6})
    assert run.records()["grid.png"] == {
        "file": "grid.png",
        "images": 6,
        "bytes": 3,
        "sha256": hashlib.sha256(b"one").hexdigest(),
    }
    assert len((run.path / "manifest.jsonl").read_text().splitlines()) == 1
    (run.path / "grid.png").write_bytes(b"two")
    record_file(run, Shard(2, 2), "grid.png", {"images": 6})
    assert run.records()["grid.png"]["sha256"] == hashlib.sha256(b"two").hexdigest()
