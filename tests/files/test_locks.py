"""Locks of runs: one at a time, gone with their process, and nothing where there are none."""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from adm_cli.errors import RunError
from adm_cli.files.locks import hold

if sys.platform == "win32":  # pragma: no cover
    pytest.skip("needs flock and fork", allow_module_level=True)


def test_one_at_a_time(tmp_path: Path) -> None:
    with hold(tmp_path / ".x.lock", "busy") as first:
        assert first
        with pytest.raises(RunError, match="busy"), hold(tmp_path / ".x.lock", "busy"):
            raise AssertionError("two have it")
        with hold(tmp_path / ".y.lock", "busy") as other:
            assert other
    with hold(tmp_path / ".x.lock", "busy") as again:
        assert again


def test_waiting(tmp_path: Path) -> None:
    """For one that lets go, here by its end."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with hold(tmp_path / ".x.lock", "busy"):
            os.write(writing, b"x")
            os.read(reading, 0)
            os._exit(0)
    os.read(reading, 1)
    with hold(tmp_path / ".x.lock", "busy", seconds=60) as mine:
        assert mine
    os.waitpid(child, 0)


def test_killed(tmp_path: Path) -> None:
    """The lock goes with its process, although that one's own child lives on."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with hold(tmp_path / ".x.lock", "busy"):
            grandchild = os.fork()
            if grandchild == 0:
                signal.pause()
                os._exit(0)
            os.write(writing, grandchild.to_bytes(4, "little"))
            signal.pause()
    grandchild = int.from_bytes(os.read(reading, 4), "little")
    with pytest.raises(RunError, match="busy"), hold(tmp_path / ".x.lock", "busy"):
        raise AssertionError("two have it")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    try:
        with hold(tmp_path / ".x.lock", "busy", seconds=5) as mine:
            assert mine
    finally:
        os.kill(grandchild, signal.SIGKILL)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Two may be at work; what one leaves when it is killed is in nobody's way."""

    def flock(*_arguments: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    with hold(tmp_path / ".x.lock", "busy") as first, hold(tmp_path / ".x.lock", "busy") as second:
        assert not first
        assert not second


def test_a_lock_that_was_removed_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between opening the file and locking it: it is made again, so that others find it."""
    import fcntl

    real, path = fcntl.flock, tmp_path / ".x.lock"
    left = [path]

    def flock(*arguments: Any) -> None:
        if left:
            left.pop().unlink()
        real(*arguments)

    monkeypatch.setattr("fcntl.flock", flock)
    with hold(path, "busy"), pytest.raises(RunError, match="busy"), hold(path, "busy"):
        raise AssertionError("two have it")


def test_nothing_is_in_a_lock_file_and_nothing_is_cut(tmp_path: Path) -> None:
    (tmp_path / ".x.lock").write_bytes(b"somebody's")
    with hold(tmp_path / ".x.lock", "busy") as mine:
        assert mine
    assert (tmp_path / ".x.lock").read_bytes() == b"somebody's"
