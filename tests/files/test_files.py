"""Writing files whole or not at all, and where they live."""

from __future__ import annotations

import errno
import os
import stat
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import adm_cli
from adm_cli.errors import OutputError
from adm_cli.files import disk as files
from adm_cli.files.disk import (
    adm_home,
    atomic_write,
    check_writable,
    make_folder,
    open_to_append,
    read_file,
    size_text,
    write_files,
)


def raises(number: int) -> Callable[..., Any]:
    """A function that fails as the operating system does."""

    def fail(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


def test_reading_takes_the_memory_of_the_file_and_not_of_its_bound(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(b"{}" * 450)
    tracemalloc.start()
    try:
        assert len(read_file(tmp_path / "run.json", 2**31)) == 900
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    with pytest.raises(OSError, match="over 0 MB are too many"):
        read_file(tmp_path / "run.json", 899)


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Path]:
    """A file that must be neither lost nor joined by others, whatever the test does."""
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")
    yield path
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"]


def test_atomic_write(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "x.bin"
    for content in (b"one", b"two"):
        with atomic_write(path) as file:
            file.write(content)
            assert not path.exists() or path.read_bytes() != content
        assert path.read_bytes() == content
    assert [p.name for p in path.parent.iterdir()] == ["x.bin"]


def test_the_longest_name(tmp_path: Path) -> None:
    path = tmp_path / ("鳥" * 84 + ".gz")  # 255 bytes
    with atomic_write(path) as file:
        file.write(b"x")
    assert path.read_bytes() == b"x"


def kill_a_writer(path: Path) -> Path:
    """What a process leaves that is killed while it writes ``path``."""
    before = set(path.parent.iterdir())
    child = os.fork()
    if child == 0:
        with atomic_write(path) as file:
            file.write(b"half")
            os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    (left,) = set(path.parent.iterdir()) - before
    return left


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_what_killed_writers_left_goes_with_the_next(tmp_path: Path) -> None:
    """Of the same file; those of living writers and of other files stay."""
    path, other = tmp_path / "x.bin", tmp_path / "y.bin"
    dead, foreign = kill_a_writer(path), kill_a_writer(other)
    with atomic_write(path) as first:
        assert not dead.exists()
        (mine,) = set(tmp_path.iterdir()) - {foreign}
        with atomic_write(path) as second:
            assert mine.exists()
            second.write(b"second")
        files.remove_leftover(mine)
        first.write(b"first")
    assert path.read_bytes() == b"first"
    assert sorted(tmp_path.iterdir()) == sorted([path, foreign])
    files.remove_leftover(foreign)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="needs flock")
def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing tells the living from the dead: all stay, and writing works."""
    dead = kill_a_writer(tmp_path / "x.bin")
    monkeypatch.setattr("fcntl.flock", raises(errno.ENOLCK))
    with atomic_write(tmp_path / "x.bin") as file:
        file.write(b"x")
    assert sorted(p.name for p in tmp_path.iterdir()) == [dead.name, "x.bin"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs flock")
def test_taken_for_a_leftover_before_it_was_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, real = [], files._new_file

    def new_file(folder: Path, prefix: str) -> tuple[int, str]:
        handle, name = real(folder, prefix)
        made.append(name)
        if len(made) == 1:
            os.unlink(name)
        return handle, name

    monkeypatch.setattr(files, "_new_file", new_file)
    with atomic_write(tmp_path / "x.bin") as file:
        file.write(b"x")
    assert len(made) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["x.bin"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
def test_an_error_in_the_block(old: Path, error: type[BaseException]) -> None:
    def write() -> None:
        with atomic_write(old) as file:
            file.write(b"new" * 100_000)
            raise error

    with pytest.raises(error):
        write()


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_disk_full_at_the_end(old: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    monkeypatch.setattr(os, function, raises(errno.ENOSPC))
    with pytest.raises(OutputError, match="the disk is full; make room"), atomic_write(old) as file:
        file.write(b"new")


def test_disk_full_while_writing(old: Path) -> None:
    with pytest.raises(OutputError, match="the disk is full"), atomic_write(old):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_disk_full_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that is always full, in the temporary file's place."""
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")

    def new_file(*_: object) -> tuple[int, str]:
        (tmp_path / "temporary").touch()
        return os.open("/dev/full", os.O_WRONLY), str(tmp_path / "temporary")

    monkeypatch.setattr(files, "_new_file", new_file)
    with (
        pytest.raises(OutputError, match=r"cannot write .*x\.bin: the disk is full"),
        atomic_write(tmp_path / "x.bin") as file,
    ):
        file.write(b"x" * 10_000_000)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "choose a folder you may write to"),
        (errno.EROFS, "choose a folder you may write to"),
        (errno.ENOSPC, "the disk is full"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_a_folder_that_cannot_be_written(
    old: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    monkeypatch.setattr(files, "_new_file", raises(number))
    monkeypatch.setattr(tempfile, "TemporaryFile", raises(number))
    with pytest.raises(OutputError, match=words), atomic_write(old):
        raise AssertionError("the block must not run")
    with pytest.raises(OutputError, match=words):
        check_writable(old.parent)


def test_a_disk_that_cannot_sync_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = os.fsync

    def fsync(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        synced(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with atomic_write(tmp_path / "x") as file:
        file.write(b"x")
    assert (tmp_path / "x").read_bytes() == b"x"


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mask: int, mode: int
) -> None:
    before = os.umask(mask)
    try:
        with monkeypatch.context() as patch:
            patch.delattr(os, "umask")  # which other threads would see
            with atomic_write(tmp_path / "x") as file:
                file.write(b"x")
            write_files(tmp_path, [("y", b"y")], ".adm-")
    finally:
        os.umask(before)
    for name in "xy":
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode


@pytest.mark.parametrize("action", [make_folder, check_writable])
def test_a_file_where_a_folder_should_be(old: Path, action: Callable[[Path], None]) -> None:
    with pytest.raises(OutputError, match=r"x\.bin is a file, expected a folder"):
        action(old)
    with pytest.raises(OutputError, match="a part of its path is a file; choose another"):
        action(old / "deeper" / "still")
    with pytest.raises(OutputError, match="is a file"), atomic_write(old / "y") as file:
        file.write(b"")


def test_a_link_that_leads_nowhere_is_called_so(tmp_path: Path) -> None:
    link = tmp_path / "scratch"
    link.symlink_to("purged")
    with pytest.raises(OutputError, match="scratch is a link that leads nowhere, expected a fol"):
        make_folder(link)


def test_check_writable_leaves_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    assert not list((tmp_path / "a" / "b").iterdir())


def test_a_system_folder(tmp_path: Path) -> None:
    if not Path("/proc/self").exists():
        pytest.skip("needs /proc")
    with pytest.raises(OutputError, match="cannot make the folder /proc/adm"):
        make_folder(Path("/proc/adm"))


def test_weights_folder() -> None:
    assert (files.weights_folder() / "tiny.safetensors").is_file()


def test_weights_inside_the_package_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "adm_cli"
    (package / "files").mkdir(parents=True)
    monkeypatch.setattr(files, "__file__", str(package / "files" / "disk.py"))
    assert files.weights_folder() == tmp_path.resolve() / "site" / "weights"  # a checkout
    (package / "weights").mkdir()
    assert files.weights_folder() == package.resolve() / "weights"
    assert Path(adm_cli.__file__).is_file()


def test_adm_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("ADM_HOME", str(tmp_path / "mine"))
    assert adm_home() == tmp_path / "mine"
    monkeypatch.setenv("ADM_HOME", "")
    assert adm_home() == tmp_path / "data" / "adm"
    monkeypatch.delenv("XDG_DATA_HOME")
    assert adm_home() == tmp_path / "home" / ".local" / "share" / "adm"


def test_adm_home_without_any_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("ADM_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", home)
    assert adm_home() == Path(tempfile.gettempdir()) / "adm"


def test_a_file_with_two_names_is_added_to_under_one(tmp_path: Path) -> None:
    """A hard link elsewhere, as of `cp -al`, keeps what it had."""
    first, other = tmp_path / "first", tmp_path / "other"
    first.write_bytes(b"one")
    os.link(first, other)
    for _ in range(2):
        with open_to_append(first) as file:
            file.write(b", two")
    assert (first.read_bytes(), other.read_bytes()) == (b"one, two, two", b"one")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0.0 kB"), (41_200, "41.2 kB"), (2_500_000, "2.5 MB"), (1_230_000_000_000, "1,230.0 GB")],
)
def test_sizes_as_a_person_says_them(count: int, text: str) -> None:
    assert size_text(count) == text
