"""What Python may pass where the command line has texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Union

from adm_cli.events import AnyPath

Classes = Union[str, int, Sequence[Union[str, int]]]  # ids, ranges, names
Seeds = Union[str, int, Iterable[int]]
Numbers = Union[str, float, Sequence[float]]
Words = Union[str, int, Sequence[Union[str, int]]]


def comma_list(value: Seeds | Numbers | Words | None) -> str | None:
    """Values separated by commas."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, float)):
        return str(value)
    return ",".join(str(one) for one in value)


def path_or_none(value: AnyPath | None) -> Path | None:
    return None if value is None else Path(value)
