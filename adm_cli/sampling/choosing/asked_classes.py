"""Which classes a ``--class`` asks for, of the models that draw together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from adm_cli.checkpoints.sources import Sources
from adm_cli.classes.imagenet import OWNER
from adm_cli.errors import UsageError

T = TypeVar("T")


def choose_classes(
    spec: str, sources: Sources, select: Callable[[str, dict[int, str], str], T]
) -> T:
    """What ``select`` finds among the classes that all models know.

    Raises UsageError that says which of them lacks a class, and what mends it.
    """
    try:
        return select(spec, sources.classes, OWNER)
    except UsageError:
        alone = sources.model.info.config.num_classes is None
        for file, owner, mend in (
            (sources.model, "", ""),
            (sources.classifier, "the classifier", ": pass another --classifier, or --scale 0"),
            (sources.weak, "the weak model", ": pass another --weak-model"),
        ):
            if file is None or file.info.config.num_classes is None:
                continue
            try:
                select(spec, dict(file.info.classes), f"{owner} {file.called}" if owner else OWNER)
            except UsageError as error:
                raise UsageError(f"{error}{mend * (not alone)}") from None
        raise
