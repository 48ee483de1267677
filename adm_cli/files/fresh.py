"""New folders for runs that name none."""

from __future__ import annotations

from pathlib import Path

from adm_cli.files.disk import explained, make_folder, sync_folder


def fresh_folder(parent: Path) -> Path:
    """The first of parent/0001, parent/0002, ... above all that are there."""
    taken = [int(p.name) for p in parent.glob("[0-9]*") if p.name.isdecimal()]
    return parent / f"{max(taken, default=0) + 1:04d}"


def make_fresh_folder(parent: Path) -> Path:
    """Makes the `fresh_folder`, which no other run that starts now is given too."""
    make_folder(parent)
    while True:
        folder = fresh_folder(parent)
        with explained(f"cannot make the folder {folder}"):
            try:
                folder.mkdir()
            except FileExistsError:
                continue
        sync_folder(parent)
        return folder
