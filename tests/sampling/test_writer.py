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
from adm_cli.pictures.images import open_picture
from adm_cli.sampling.choosing.images import Images
from adm_cli.sampling.drawing.writer import DrawnImage, ImageWriter, check_room, record_file
from adm_cli.sampling.folder import RunFolder, Shard
from tests.conftest import pictures
from tests.sampling.runs import image, names, run_of, writing

ALL = Images.of(image(1, s) for s in range(6))
PIXELS = np.arange(6 * 4 * 4 * 3, dtype=np.uint8).reshape(6, 4, 4, 3)
IMAGES = [DrawnImage(one, pixels, None) for one, pixels in zip(ALL, PIXELS, strict=True)]
NAMES = [one.file for one in ALL]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "r")
    folder.begin(run_of(ALL))
    return folder


def test_each_image_is_told_once_it_is_safe(run: RunFolder) -> None:
    told: list[dict[str, Any]] = []
    with writing(run) as writer:
        for start in range(0, 6, 2):
            writer.add(IMAGES[start : start + 2])
            told += writer.told()
            assert all((run.path / record["file"]).exists() for record in told)
    told += writer.told()
    assert names(told) == NAMES == names(run.kept(ALL)) == pictures(run.path)
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
    writer = ImageWriter(run, Shard())

    def write() -> None:
        writer.open()
        try:
            writer.add(IMAGES)
            for _ in range(1000):
                writer.add([])  # does not wait for ever
        finally:
            writer.close()
        writer.check()

    with pytest.raises(OutputError, match=f"cannot write .*{NAMES[3]}: Input/output error"):
        write()
    assert names(writer.told()) == NAMES[:3] == pictures(run.path)
    assert names(run.kept(ALL)) == NAMES[:3]


def test_what_was_handed_over_is_written_when_stopped(run: RunFolder) -> None:
    writer = ImageWriter(run, Shard())
    writer.open()
    writer.add(IMAGES[:3])
    writer.close()  # whatever stopped the work
    assert names(run.kept(ALL)) == names(writer.told()) == NAMES[:3]


def test_a_second_process_is_refused(run: RunFolder) -> None:
    with writing(run):
        with pytest.raises(RunError, match=r"another process.*--shard"):
            ImageWriter(run, Shard()).open()
        with writing(run, Shard(2, 2)) as other:
            other.add(IMAGES[:1])
    assert names(run.kept(ALL)) == NAMES[:1]


def test_what_a_killed_writer_left_is_removed(run: RunFolder) -> None:
    mine, theirs = run.path / ".adm-manifest-x.tmp", run.path / ".adm-manifest-1-of-2-x.tmp"
    for path in (mine, theirs):
        path.touch()
    with writing(run, Shard(1, 2)):
        pass
    assert (mine.exists(), theirs.exists()) == (True, False)


def test_a_lost_image_gets_a_later_line(run: RunFolder) -> None:
    for shard in (Shard(), Shard(1, 2), Shard()):
        for name in NAMES:
            (run.path / name).unlink(missing_ok=True)
        with writing(run, shard) as writer:
            writer.add(IMAGES)
    assert {record["again"] for record in run.records().values()} == {2}
    assert names(run.kept(ALL)) == NAMES


def test_no_room(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(run.path)._replace(free=2**21)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: free)
    check_room(run.path, 2**20)
    with pytest.raises(
        OutputError, match=r"5\.0 GB are needed and 2\.1 MB free: .*make room and run"
    ):
        check_room(run.path, 5 * 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: free._replace(free=1000))
    with pytest.raises(OutputError, match="the disk is full"), writing(run) as writer:
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
