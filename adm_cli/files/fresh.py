"""New folders for runs that name none."""

from __future__ import annotations

from pathlib import Path

from adm_cli.errors import OutputError
from adm_cli.files.disk import explain_os_error, make_folder, sync_folder


def fresh_folder(parent: Path) -> Path:
    """The first of parent/0001, parent/0002, ... above all that are there."""
    taken = [int(p.name) for p in parent.glob("[0-9]*") if p.name.isdecimal()]
    return parent / f"{max(taken, default=0) + 1:04d}"


def make_fresh_folder(parent: Path) -> Path:
    """Makes the `fresh_folder`, which no other run that starts now is given too."""
    make_folder(parent)
    while True:
        folder = fresh_folder(parent)
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise OutputError(
                explain_os_error(f"cannot make the folder {folder}", error)
            ) from error
        sync_folder(parent)
        return folder
