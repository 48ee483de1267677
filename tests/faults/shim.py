"""File operations that are counted, fail on command, and tell what a kill or a power cut leaves.

Every operation that changes a file below one folder is counted. The k-th can raise, write less
than it was given, or end the process. What a kill at the k-th would leave is what is there before
it: `Recorder` keeps that for every k of one run.
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
State = dict[str, bytes | None]  # every path of a folder: a file's bytes, None for a folder


def read_state(folder: Path) -> State:
    found: State = {}
    todo = [""]
    while todo:
        inside = todo.pop()
        with os.scandir(folder / inside) as entries:
            for entry in entries:
                name = os.path.join(inside, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    found[name] = None
                    todo.append(name)
                else:
                    with open(entry.path, "rb") as file:
                        found[name] = file.read()
    return found


def write_state(folder: Path, state: State) -> None:
    """Makes a folder hold exactly that."""
    for name, data in sorted(read_state(folder).items(), reverse=True):
        if data is None:
            os.rmdir(folder / name)
        else:
            os.unlink(folder / name)
    for name, data in sorted(state.items()):
        if data is None:
            os.mkdir(folder / name)
        else:
            with open(folder / name, "wb", buffering=0) as file:
                file.write(data)


class Shim:
    """Counts operations; the ``at``-th (from 1) meets ``fault``, and with "gone" all after it.
    0: none does.

    Operations happen one at a time, whatever thread they are of.
    """

    def __init__(self, folder: Path, fault: str = "EIO", at: int = 0) -> None:
        self.folder, self.fault, self.at = str(folder.resolve()), fault, at
        self.log: list[tuple[str, str]] = []  # operation and file, relative
        self._one = threading.RLock()

    @contextmanager
    def operation(self, name: str, path: str, source: str | None = None) -> Iterator[bool]:
        """Around an operation: True if it is a write that is to be cut short. May raise."""
        with self._one:
            self.log.append((name, os.path.relpath(path, self.folder)))
            due = len(self.log) - self.at
            if due < 0 or (due > 0 and self.fault != "gone") or self.at == 0:
                yield False
            elif self.fault == "kill":
                os._exit(KILLED)
            elif self.fault == "short":
                yield name == "write"
            else:
                number = errno.EIO if self.fault == "gone" else getattr(errno, self.fault)
                raise OSError(number, os.strerror(number), path)

    def watches(self, target: Any, folder: int | None = None) -> str | None:
        """The path of a file name or handle, if it is below the folder."""
        try:
            if isinstance(target, int):
                path = os.readlink(f"/proc/self/fd/{target}")
            else:
                above = os.getcwd() if folder is None else os.readlink(f"/proc/self/fd/{folder}")
                path = os.path.normpath(os.path.join(above, os.fsdecode(target)))
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
            if "opener" in kw:  # a file without a name, to see whether one can be made
                with self.operation("open", path):
                    return real_open(file, mode, buffering, *args, **kw)
            plain = mode.replace("b", "").replace("t", "")
            if isinstance(file, int):
                raw = _File(file, plain, shim=self, path=path)
            else:
                with self.operation("truncate" if "w" in mode else "open", path):
                    raw = _File(file, plain, shim=self, path=path)
            if buffering == 0:
                return raw
            binary = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return binary if "b" in mode else io.TextIOWrapper(binary, *args, **kw)

        def os_open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            watched = self.watches(path, dir_fd)
            if watched is None or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return real_os_open(path, flags, mode, dir_fd=dir_fd)
            with self.operation("open", watched):
                return real_os_open(path, flags, mode, dir_fd=dir_fd)

        def wrapped(name: str) -> Callable[..., Any]:
            real = getattr(os, name)

            def call(target: Any, *args: Any, **kw: Any) -> Any:
                watched = self.watches(target, kw.get("dir_fd"))
                if watched is None:
                    return real(target, *args, **kw)
                with self.operation(name, watched):
                    return real(target, *args, **kw)

            return call

        def moving(name: str) -> Callable[..., Any]:
            real = getattr(os, name)

            def call(source: Any, target: Any) -> None:
                watched = self.watches(target)
                if watched is None:
                    real(source, target)
                    return
                with self.operation(name, watched, self.watches(source)):
                    real(source, target)

            return call

        with ExitStack() as stack:
            for module, name, new in (
                (builtins, "open", open_file),
                (io, "open", open_file),
                (os, "open", os_open),
                *((os, n, wrapped(n)) for n in ("fsync", "unlink", "remove", "mkdir", "rmdir")),
                *((os, n, wrapped(n)) for n in ("chmod", "truncate", "ftruncate")),
                *((os, n, moving(n)) for n in ("replace", "rename", "link")),
            ):
                stack.enter_context(mock.patch.object(module, name, new))
            yield self


class Recorder(Shim):
    """Lets all operations happen, and keeps what each k would have left, from 1 to one past the
    last: after a kill at the k-th, and after the power failed then.

    Without power there is what was synced: a file's bytes at its last fsync, under the names that
    its folder had at its own. What was not is gone, or never happened.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        begin = read_state(folder)
        self.kills: list[State] = []
        self.power: list[State] = []
        self._synced = {name: [data] for name, data in begin.items()}  # by the name it has now
        self._named = dict(self._synced)  # by the name it has without power

    @contextmanager
    def operation(self, name: str, path: str, source: str | None = None) -> Iterator[bool]:
        with self._one:
            self.keep()
            there = os.path.lexists(path)
            with super().operation(name, path, source) as short:
                yield short
            file = os.path.relpath(path, self.folder)
            if name in ("replace", "rename") and source is not None:
                self._moved(os.path.relpath(source, self.folder), file)
            elif name in ("unlink", "remove", "rmdir"):
                self._synced.pop(file, None)
            elif name == "mkdir" or (name in ("open", "truncate") and not there):
                self._synced[file] = [None if name == "mkdir" else b""]
            elif name == "truncate":  # emptied before it is filled: at worst it stays so
                self._synced[file][0] = b""
            elif name == "fsync":
                self._sync(file)

    def keep(self) -> None:
        """What there is now."""
        self.kills.append(read_state(Path(self.folder)))
        sure = {name: box[0] for name, box in self._named.items()}
        self.power.append({n: d for n, d in sure.items() if _reachable(n, sure)})

    def _moved(self, source: str, target: str) -> None:
        for name in [n for n in self._synced if n == source or n.startswith(source + os.sep)]:
            self._synced[target + name[len(source) :]] = self._synced.pop(name)

    def _sync(self, file: str) -> None:
        inside = "" if file == "." else file
        if os.path.isdir(os.path.join(self.folder, inside)):
            for names in (self._named, self._synced):
                for name in [n for n in names if os.path.dirname(n) == inside]:
                    if names is self._named:
                        del names[name]
                    else:
                        self._named[name] = names[name]
        else:
            with open(os.path.join(self.folder, file), "rb") as handle:
                self._synced[file][0] = handle.read()


def _reachable(name: str, state: State) -> bool:
    above = os.path.dirname(name)
    return not above or (above in state and _reachable(above, state))


class _File(io.FileIO):
    """A file whose writes are counted."""

    def __init__(self, file: Any, mode: str, *, shim: Shim, path: str) -> None:
        self.shim, self.path = shim, path
        super().__init__(file, mode)

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        with self.shim.operation("write", self.path) as short:
            return super().write(view[: len(view) // 2] if short and len(view) > 1 else view)

    def truncate(self, size: int | None = None) -> int:
        with self.shim.operation("cut", self.path):
            return super().truncate(size)
