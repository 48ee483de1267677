"""All of a manifest at once."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from adm_cli.files.manifests import Record, damaged_lines, whole_records


class Manifest(NamedTuple):
    """What could be read of a manifest."""

    records: list[Record]
    damaged: list[int]  # line numbers, from 1
    torn: bool  # the last line has no end


def read_manifest(path: Path) -> Manifest:
    damaged = list(damaged_lines(path))
    numbers = [number for number in damaged if number is not None]
    return Manifest(list(whole_records(path)), numbers, None in damaged)
