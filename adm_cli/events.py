"""What a long operation tells whoever called it, as it happens: each function's ``on_event``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Note:
    """A line for a person."""

    text: str


@dataclass(frozen=True)
class Hint:
    """A line for a person who sits at a terminal."""

    text: str


@dataclass(frozen=True)
class Doing:
    """Something begins of which nobody knows how long it takes."""

    what: str


@dataclass(frozen=True)
class Count:
    """``done`` of ``total`` things; in between where half a thing is done."""

    what: str
    done: float
    total: int | None  # None: nobody knows


@dataclass(frozen=True)
class Transfer:
    """``here`` of ``length`` bytes of a file."""

    name: str
    here: int
    length: int


@dataclass(frozen=True)
class SoFar:
    """The result of what is done, should no more come."""

    result: Any


OnEvent = Callable[[Any], None]
AnyPath = str | Path


def ignore(_event: object) -> None:
    """For callers who want to be told nothing."""


def as_paths(given: AnyPath | Sequence[AnyPath]) -> list[Path]:
    """One path or several, as text or not."""
    return [Path(path) for path in ([given] if isinstance(given, (str, Path)) else given)]


def as_words(given: str | int | Sequence[str | int] | None) -> list[str] | None:
    """``"dog"``, ``207`` or several of them, as a repeatable option has them."""
    if given is None:
        return None
    if isinstance(given, str) or not isinstance(given, Iterable):  # numpy's numbers, too
        return [str(given)]
    return [str(word) for word in given]
