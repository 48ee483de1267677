"""Locks of runs: one process at a time, until it lets go or ends, however it ends.

A lock is the system's, of an open file, and gone with its process; the file may stay. Where a file
system has none, nobody waits for anybody.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO

from adm_cli.errors import RunError
from adm_cli.files.disk import open_to_change
from adm_cli.files.links import check_below, check_inside, watched

if sys.platform == "win32":
    from filelock import FileLock, Timeout
else:
    import fcntl

_POLL = 0.05  # seconds
_BUSY = (errno.EAGAIN, errno.EACCES)  # the second on some network file systems


@contextmanager
def hold(path: Path, busy: str, *, seconds: float = 0.0) -> Iterator[bool]:
    """Holds the lock of the file ``path``, which is made; False where there are no locks.

    Raises RunError with the text ``busy`` if another process, or another part of this one, keeps
    it for ``seconds``; OutputError if it is a link, or lies behind one in a run's folder.
    """
    check_inside(path.parent)
    check_below(path.parent, (path.name,))
    let_go = _take(path, busy, seconds)
    try:
        with watched(path):
            yield let_go is not None
    finally:
        if let_go is not None:
            let_go()


if sys.platform == "win32":

    def _take(path: Path, busy: str, seconds: float) -> Callable[[], None] | None:
        lock = FileLock(path, timeout=seconds)
        try:
            lock.acquire()
        except Timeout:
            raise RunError(busy) from None
        except (OSError, NotImplementedError):
            return None
        return lock.release

else:
    _held: set[IO[bytes]] = set()

    def _take(path: Path, busy: str, seconds: float) -> Callable[[], None] | None:
        until = time.monotonic() + seconds
        while True:
            try:
                file = open_to_change(path)
            except OSError:
                return None
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_named(file, path):  # else removed by who had it, and of no use
                    _held.add(file)
                    return partial(_let_go, file)
                file.close()
            except OSError as error:
                file.close()
                if error.errno not in _BUSY:
                    return None
                if time.monotonic() >= until:
                    raise RunError(busy) from None
                time.sleep(_POLL)

    def _is_named(file: IO[bytes], path: Path) -> bool:
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
        return False

    def _let_go(file: IO[bytes]) -> None:
        _held.discard(file)
        file.close()

    def _forget() -> None:
        """In a process that was forked: its handles would keep the lock when this one is killed."""
        while _held:
            _held.pop().close()

    os.register_at_fork(after_in_child=_forget)
