"""Where files live, and writing them whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from adm_cli.errors import AdmError, OutputError
from adm_cli.files.budget import MOST_TEXT, parse_json, whole_text
from adm_cli.files.links import check_inside, is_link, remove
from adm_cli.files.lists import decode_text

if sys.platform != "win32":
    import fcntl


def weights_folder() -> Path:
    """The embedded weights: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "weights"
    return installed if installed.is_dir() else package.parent / "weights"


def adm_home() -> Path:
    """Where converted models are kept: ``ADM_HOME``, else ``adm`` in the user's data folder.

    That is XDG's, ``~/.local/share`` by default, or ``%LOCALAPPDATA%`` on Windows.
    """
    if home := os.environ.get("ADM_HOME"):
        return Path(os.path.expanduser(home))
    windows = sys.platform == "win32"
    data = os.environ.get("LOCALAPPDATA" if windows else "XDG_DATA_HOME")
    below = Path("AppData", "Local") if windows else Path(".local", "share")
    try:
        return (Path(data) if data else Path.home() / below) / "adm"
    except RuntimeError:  # no home folder at all
        return Path(tempfile.gettempdir()) / "adm"


def models_folder() -> Path:
    return adm_home() / "models"


def inception_path() -> Path:
    """Where `adm fetch inception` puts the FID Inception weights (a `.pth` as published)."""
    return adm_home() / "inception" / "pt_inception-2015-12-05-6726825d.pth"


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A binary file that becomes ``path`` when the block ends without an error.

    Written beside it, synced to disk, then renamed: whoever reads ``path`` finds the old content
    or the new, never a part. What killed writers of the same file left beside it is removed.
    Raises OutputError where the file cannot be written.
    """
    temporary: Path | None = None
    with ExitStack() as lock:
        try:
            make_folder(path.parent)
            handle, temporary = _open_temporary(path, lock)
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            temporary = None
            sync_folder(path.parent)
        except OSError as error:
            raise OutputError(explain_os_error(f"cannot write {path}", error)) from error
        finally:
            if temporary is not None:
                with suppress(OSError):  # the disk may be gone
                    temporary.unlink()


def _open_temporary(path: Path, lock: ExitStack) -> tuple[int, Path]:
    """A new file beside ``path``, locked until ``lock`` is closed: so others know it is in use."""
    prefix = f".adm-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]}-"
    for old in path.parent.glob(f"{prefix}*.tmp"):
        remove_leftover(old)
    while True:
        handle, name = _new_file(path.parent, prefix)
        if sys.platform != "win32":  # there, an open file cannot be removed
            lock.callback(os.close, os.dup(handle))  # which keeps the lock
            with suppress(OSError):  # not every file system has locks
                fcntl.flock(handle, fcntl.LOCK_EX)
        if os.path.exists(name):
            return handle, Path(name)
        os.close(handle)  # taken for a leftover before it was locked


def remove_leftover(temporary: Path) -> None:
    """Removes a file of `atomic_write`, unless its writer lives, or no lock can tell."""
    check_inside(temporary.parent)
    with suppress(OSError):
        if sys.platform == "win32" or is_link(temporary):  # a link is no writer's
            remove(temporary)
            return
        handle = os.open(temporary, os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(temporary)
        finally:
            os.close(handle)


def write_files(
    folder: Path, files: Sequence[tuple[str, bytes]], prefix: str
) -> tuple[int, OutputError | None]:
    """Writes small files whole, each synced and renamed, with one sync of the folder for them all.

    Returns how many are safely in place, the first ones, and what stopped the rest. Temporaries
    begin with ``prefix``.
    """
    check_inside(folder)
    written: list[tuple[str, str]] = []
    failure: OutputError | None = None
    for name, data in files:
        try:
            written.append((_write_temporary(folder, data, prefix), name))
        except OSError as error:
            failure = OutputError(explain_os_error(f"cannot write {folder / name}", error))
            break
    placed = 0
    try:
        for temporary, name in written:
            os.replace(temporary, folder / name)
            placed += 1
    except OSError as error:
        failure = OutputError(explain_os_error(f"cannot write {folder / name}", error))
    finally:
        for temporary, _ in written[placed:]:
            with suppress(OSError):
                os.unlink(temporary)
    sync_folder(folder)
    return placed, failure


def _write_temporary(folder: Path, data: bytes, prefix: str) -> str:
    handle, name = _new_file(folder, prefix)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
    return name


def _new_file(folder: Path, prefix: str) -> tuple[int, str]:
    """A new file of a random name, open to write, with the rights that the system gives new files.

    Unlike `tempfile`'s, whose rights would have to be changed afterwards by a mask that can only
    be read by setting it, which other threads would see.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    while True:
        name = os.path.join(folder, f"{prefix}{secrets.token_hex(6)}.tmp")
        with suppress(FileExistsError):
            return os.open(name, flags, 0o666), name


def make_folder(path: Path) -> None:
    """The folder and its parents, made to last; raises OutputError if that cannot or may not be."""
    check_inside(path)
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        what = "a link that leads nowhere" if path.is_symlink() else "a file"
        raise OutputError(f"{path} is {what}, expected a folder: choose another place") from None
    except OSError as error:
        raise OutputError(explain_os_error(f"cannot make the folder {path}", error)) from error
    for folder in new:
        sync_folder(folder.parent)


def move_into_place(source: Path, target: Path) -> None:
    """Rename a whole file, within a disk, and sync; raises OutputError."""
    check_inside(source.parent)
    make_folder(target.parent)
    with explained(f"cannot move {source} to {target}"):
        os.replace(source, target)
    sync_folder(target.parent)


def check_writable(folder: Path) -> None:
    """Raises OutputError before any work if nothing can be written to ``folder``."""
    make_folder(folder)
    with explained(f"cannot write to {folder}"), tempfile.TemporaryFile(dir=folder):
        pass


def open_file(path: Path, *, pipe: bool = False) -> IO[bytes]:
    """A file to read, which must be a regular one: a device has no end, a pipe may never begin.

    ``pipe`` takes these too, as the shell makes them for ``<(command)``; one that nothing writes to
    is then empty. Raises OSError, and never waits.
    """
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115  # the caller closes it
    if pipe:
        if os.name == "posix":  # where opening did not wait, reading must
            os.set_blocking(file.fileno(), True)
    elif not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return file


def open_to_append(path: Path) -> IO[bytes]:
    """An unbuffered file of a folder that may be anyone's: never one elsewhere, by a link.

    One that has another name too, as after ``cp -al``, becomes a file of its own first.
    """
    check_inside(path.parent)
    with suppress(FileNotFoundError):
        found = path.lstat()
        if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
            with open_file(path) as file, atomic_write(path) as copy:
                shutil.copyfileobj(file, copy)
    return open(path, "ab", buffering=0, opener=_in_its_folder)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def open_to_change(path: Path) -> IO[bytes]:
    """A file to read and write at any place, made if there is none; likewise never elsewhere."""
    check_inside(path.parent)
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
    file = os.fdopen(_in_its_folder(str(path), flags), "r+b")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return file


def _in_its_folder(path: str, flags: int) -> int:
    alone = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    return os.open(path, flags | alone, 0o666)


def read_file(path: Path, most: int) -> bytes:
    """A regular file of at most ``most`` bytes; raises OSError."""
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:  # before any memory is taken
            raise OSError(errno.EFBIG, f"over {most / 1e6:,.0f} MB are too many", str(path))
        return file.read(size)  # Python takes memory for all that it is asked to read


def read_text(path: Path) -> str:
    """As `lists.decode_text`; raises OSError, or ValueError if it is no text or has no end."""
    with open_file(path, pipe=True) as file:
        data = file.read(MOST_TEXT + 1)
    if len(data) > MOST_TEXT:
        raise ValueError(f"over {MOST_TEXT / 1e6:.0f} MB are too many for a text")
    return decode_text(data)


def peek_classes(path: Path) -> dict[int, str]:
    """The classes in a weights file's header, quickly and unchecked; empty where there are none.

    For a shell's completion: whoever loads the file uses `checkpoints.read_model_file`.
    """
    try:
        with open_file(path) as file:
            size = int.from_bytes(file.read(8), "little")
            header = parse_json(file.read(size)) if size <= MOST_TEXT else {}
        classes = parse_json(header["__metadata__"]["classes"])
        found = {whole_text(class_id): str(name) for class_id, name in classes.items()}
        return {i: name for i, name in found.items() if name.isprintable()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def refuse_existing(paths: Sequence[Path]) -> None:
    """Raises OutputError if any of the files is there already."""
    there = [path for path in paths if path.exists()]
    if there:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise OutputError(
            f"{there[0]}{more} exist{'s' * (not more)} already: choose another place, or pass "
            f"--overwrite"
        )


def file_digest(path: Path) -> tuple[int, str]:
    """Length and SHA-256 of a file of any size; raises OSError."""
    digest, size = hashlib.sha256(), 0
    with open_file(path) as file:
        while block := file.read(2**20):
            digest.update(block)
            size += len(block)
    return size, digest.hexdigest()


def file_stamp(path: Path) -> tuple[int, ...]:
    """What changes when a file is replaced or written to, even if its times are set back."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def size_text(count: int) -> str:
    """So many bytes as a person says them: ``"1.2 GB"``, ``"35.0 MB"``, ``"4.1 kB"``."""
    for unit, word in ((1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:,.1f} {word}"
    return f"{count / 1e3:.1f} kB"


def free_disk(folder: Path) -> int:
    """Bytes that may still be written at ``folder``, which need not be there yet."""
    return shutil.disk_usage(_nearest(folder)).free


def writable(folder: Path) -> bool:
    """Whether files could be made in ``folder``, or it itself; makes nothing."""
    return os.access(_nearest(folder), os.W_OK)


def leftovers(folder: Path) -> list[Path]:
    """Temporary files of `atomic_write` that a killed writer left, or one is at work on."""
    return sorted(folder.glob(".adm-*.tmp"))


def _nearest(folder: Path) -> Path:
    """``folder``, or the closest one above it that is there."""
    return next(p for p in (folder.absolute(), *folder.absolute().parents) if os.path.exists(p))


def explain_os_error(what: str, error: OSError) -> str:
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{what}: the disk is full; make room and run the same command again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{what}: {reason}; choose a folder you may write to"
    if error.errno == errno.ENOTDIR:
        return f"{what}: a part of its path is a file; choose another place"
    if error.errno == errno.ELOOP:
        return f"{what}: it is a link, which is not followed here; remove the link"
    return f"{what}: {reason}"


@contextmanager
def explained(what: str, kind: type[AdmError] = OutputError) -> Iterator[None]:
    """An OSError in the block comes out as ``kind``, in one line that begins with ``what``."""
    try:
        yield
    except OSError as error:
        raise kind(explain_os_error(what, error)) from error


def sync_folder(folder: Path) -> None:
    """Makes the folder's names last, where the system can."""
    if os.name != "posix":
        return  # other systems cannot open a folder
    with suppress(OSError):  # the file itself is synced and in place; not every disk can do this
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
