"""File operations that fail on command.

Every operation that changes a file below one folder is counted, and the k-th does not happen as
it should: it raises, writes less than it was given, or ends the process as a kill would.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

KILLED = 137
FAULTS = ("EIO", "ENOSPC", "short", "kill")


class Shim:
    """Counts operations; the ``at``-th (from 1) meets ``fault``. 0: none does."""

    def __init__(self, folder: Path, fault: str = "EIO", at: int = 0) -> None:
        self.folder, self.fault, self.at = str(folder.resolve()), fault, at
        self.log: list[tuple[str, str]] = []  # operation and file, relative
        self._lock = threading.Lock()

    def met(self, name: str, path: str) -> bool:
        """Counts an operation; True if it is a write that is to be cut short. May raise."""
        with self._lock:
            self.log.append((name, os.path.relpath(path, self.folder)))
            due = len(self.log) == self.at
        if not due:
            return False
        if self.fault == "kill":
            os._exit(KILLED)
        if self.fault == "short":
            return name == "write"
        number = getattr(errno, self.fault)
        raise OSError(number, os.strerror(number), path)

    def watches(self, target: Any) -> str | None:
        """The path of a file name or handle, if it is below the folder."""
        try:
            if isinstance(target, int):
                path = os.readlink(f"/proc/self/fd/{target}")
            else:
                path = os.path.abspath(os.fsdecode(target))
        except (OSError, TypeError):
            return None
        return path if path.startswith(self.folder + os.sep) or path == self.folder else None

    @contextmanager
    def installed(self) -> Iterator[Shim]:
        """Every function through which files are changed, replaced for a while."""
        real_open, real_os_open = io.open, os.open

        def open_file(
            file: Any, mode: str = "r", buffering: int = -1, *args: Any, **kw: Any
        ) -> Any:
            path = self.watches(file)
            if path is None or not set(mode) & set("wax+"):
                return real_open(file, mode, buffering, *args, **kw)
            if not isinstance(file, int):
                self.met("open", path)
            if "opener" in kw:  # a file without a name, to see whether one can be made
                return real_open(file, mode, buffering, *args, **kw)
            raw = _File(file, mode.replace("b", "").replace("t", ""), shim=self, path=path)
            if buffering == 0:
                return raw
            binary = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return binary if "b" in mode else io.TextIOWrapper(binary, *args, **kw)

        def os_open(path: Any, flags: int, *args: Any, **kw: Any) -> int:
            watched = self.watches(path)
            if watched is not None and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self.met("open", watched)
            return real_os_open(path, flags, *args, **kw)

        def wrapped(name: str, argument: int = 0) -> Callable[..., Any]:
            real = getattr(os, name)

            def call(*args: Any, **kw: Any) -> Any:
                watched = self.watches(args[argument])
                if watched is not None:
                    self.met(name, watched)
                return real(*args, **kw)

            return call

        with ExitStack() as stack:
            for module, name, new in (
                (builtins, "open", open_file),
                (io, "open", open_file),
                (os, "open", os_open),
                *((os, n, wrapped(n)) for n in ("fsync", "unlink", "remove", "mkdir", "rmdir")),
                *((os, n, wrapped(n)) for n in ("chmod", "truncate", "ftruncate")),
                *((os, n, wrapped(n, 1)) for n in ("replace", "rename", "link")),
            ):
                stack.enter_context(mock.patch.object(module, name, new))
            yield self


class _File(io.FileIO):
    """A file whose writes are counted."""

    def __init__(self, file: Any, mode: str, *, shim: Shim, path: str) -> None:
        self.shim, self.path = shim, path
        super().__init__(file, mode)

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if self.shim.met("write", self.path) and len(view) > 1:
            return super().write(view[: len(view) // 2])
        return super().write(view)

    def truncate(self, size: int | None = None) -> int:
        self.shim.met("truncate", self.path)
        return super().truncate(size)
