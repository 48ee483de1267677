"""What happens while images are drawn, told one event after the other."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union

from adm_cli.events import Count, Doing, Hint, Note, OnEvent

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
FindingKind = Literal[
    "damaged", "missing", "unrecorded", "temporary", "line", "run", "unfinished", "foreign"
]


@dataclass(frozen=True)
class Started:
    """Images are about to be drawn into a folder."""

    folder: Path | None  # None: they are kept nowhere
    images: int  # asked for, of this process's share
    there: int  # of these, drawn before
    steps: int  # of sampling that a batch takes
    what: str = "drawing"  # of a stack's stages, which one


@dataclass(frozen=True)
class Step:
    """A sampling step of a batch is done."""

    left: int  # steps to come
    images: int  # of the batch, padding included
    # What there is of them, [N, 3, H, W], in [-1, 1] but for noise that is left and half a value of
    # 255 that `to_uint8` takes away; as large as images; UsageError of a worker's.
    view: Callable[[], Tensor]
    worker: int = 0  # which of several processes draws the batch


@dataclass(frozen=True)
class BatchDone:
    """Images are computed, and not yet written."""

    images: int
    worker: int = 0  # as of a `Step`


@dataclass(frozen=True)
class ImageDone:
    """An image is safely on disk."""

    folder: Path
    record: Mapping[str, Any]  # its line in the manifest
    new: bool  # False where it was there before

    @property
    def path(self) -> Path:
        """Of its file."""
        return self.folder / str(self.record["file"])

    def facts(self) -> dict[str, Any]:
        """All about it, as ``--json`` says it."""
        hidden = ("file", "again", "bytes", "sha256")
        facts = {name: value for name, value in self.record.items() if name not in hidden}
        sha256 = self.record["sha256"]
        return {"path": str(self.path), **facts, "sha256": sha256, "new": self.new}


@dataclass(frozen=True)
class FileMade:
    """A file that is made beside the images is there: a sheet, a film, an archive."""

    path: Path
    about: Mapping[str, Any]  # how many images or frames it shows

    def facts(self) -> dict[str, Any]:
        """All about it, as ``--json`` says it."""
        return {"path": str(self.path), **self.about}


@dataclass(frozen=True)
class Ended:
    """Drawing into a folder is over, or was stopped."""

    folder: Path | None
    images: int  # asked for, of this process's share
    there: int  # drawn before
    drawn: int  # now
    seconds: float
    within: Path | None = None  # the folder of the run whose small pictures these are


@dataclass(frozen=True)
class Finding:
    """Something in a run's folder is not as it should be."""

    kind: FindingKind
    file: str
    text: str


@dataclass(frozen=True)
class Costs:
    """What was asked about would cost so much."""

    facts: Mapping[str, Any]


@dataclass(frozen=True)
class CellDone:
    """A cell of a sweep is drawn and measured, as far as it can be."""

    row: Mapping[str, Any]  # of the sweep's table


@dataclass(frozen=True)
class SweepEnded:
    """A sweep is over, or was stopped."""

    axes: Sequence[str]  # that were varied
    rows: Sequence[Mapping[str, Any]]  # of the cells that are whole
    metrics: Sequence[str]


Event = Union[
    Started, Step, BatchDone, ImageDone, FileMade, Note, Hint, Doing, Count, Ended, Finding,
    CellDone, SweepEnded, Costs,
]  # fmt: skip


def follow(events: Generator[Event, None, T], on_event: OnEvent | None) -> T:
    """Shows every event, and returns what comes of them in the end.

    An error of showing, Ctrl-C too, goes to the work, which keeps and tells what is done, and
    comes out when that is over.
    """
    advance: Callable[[], Event] = partial(next, events)
    while True:
        try:
            event = advance()
        except StopIteration as end:
            result: T = end.value
            return result
        advance = partial(next, events)
        if on_event is None:
            continue
        try:
            on_event(event)
        except BaseException as error:
            advance = partial(events.throw, error)
