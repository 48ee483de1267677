"""Nothing is removed, written or locked by a link that lies in the folder of a run.

Such a folder may be anyone's: an archive that was unpacked, or a copy of one. A link in it could
lead to another run, and whoever empties or adds to what is there would do so to that one. The
folder that a command names may be a link, since somebody said so; nothing below it.

Whatever changes a folder asks `check_inside` of it first; what will be made in a run is asked for
by `check_below` before any work. While a run is at work its folder is `watched`: it stays the one
that was locked, also where somebody puts a link in its place.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from adm_cli.errors import OutputError

# Any of these makes the folder that of a run or a sweep; a run of training has all of the others.
_BOOKS = ("run.json", ".run.json.copy", "sweep.json", ".sweep.json.copy")
_OF_TRAINING = ("settings.json", "state-*.safetensors")

_watched: dict[Path, tuple[Path, os.stat_result]] = {}  # by locks: as named; the folder's state


def is_link(path: Path) -> bool:
    """Whether it is a symbolic link, or a junction of Windows, wherever it leads."""
    junction = getattr(os.path, "isjunction", None)  # since Python 3.12
    return path.is_symlink() or (junction is not None and junction(path))


def check_inside(folder: Path) -> None:
    """Raises OutputError if a folder, which need not be there, is reached by a link in a run's.

    The folder of a run is known by its files, and while it is `watched`.
    """
    named = [folder, *folder.parents]
    whole = Path(os.path.abspath(folder))
    at_work = {lock.parent for lock in _watched}
    for i, place in enumerate((whole, *whole.parents)):
        if not is_link(place):
            continue
        for root in place.parents:
            if root in at_work or _is_a_run(root):
                raise _refused(named[i] if i < len(named) else place, root)
    for lock, (as_named, before) in list(_watched.items()):
        if lock.parent in (whole, *whole.parents):
            _check_same(as_named, before)


@contextmanager
def watched(lock: Path) -> Iterator[None]:
    """The folder of a lock, inside which `check_inside` holds only while it is the same one."""
    whole = Path(os.path.abspath(lock))
    before = _watched.get(whole)
    _watched[whole] = (lock, os.stat(lock.parent))
    try:
        yield
    finally:
        _watched.pop(whole)
        if before is not None:
            _watched[whole] = before


def _check_same(lock: Path, before: os.stat_result) -> None:
    root = lock.parent
    try:
        same = os.path.samestat(os.stat(root), before)
    except OSError:
        same = False
    if not same:
        raise OutputError(
            f"{root} is no longer the folder that was begun: it was moved or replaced while it "
            f"was written, and nothing more is; put it back and run the same command again"
        )
    check_below(root, (*_BOOKS, _OF_TRAINING[0], lock.name))


def check_below(root: Path, names: Iterable[str]) -> None:
    """Raises OutputError if one of the names in a folder is a link, whatever the folder holds."""
    for name in names:
        if is_link(root / name):
            raise _refused(root / name, root)


def remove(path: Path) -> None:
    """Removes a file, or a link itself, if it is there. Raises OSError, and as `check_inside`."""
    check_inside(path.parent)
    path.unlink(missing_ok=True)


def remove_folder(path: Path) -> None:
    """Removes an empty folder. Raises OSError, and as `check_inside`."""
    check_inside(path)
    path.rmdir()


def _is_a_run(folder: Path) -> bool:
    if any(os.path.lexists(folder / name) for name in _BOOKS):
        return True
    return all(next(folder.glob(name), None) is not None for name in _OF_TRAINING)


def _refused(link: Path, root: Path) -> OutputError:
    return OutputError(
        f"{link} is a link, which may lead out of {root}: nothing is written, removed or locked "
        f"by it; remove the link, or name the folder to which it leads"
    )
