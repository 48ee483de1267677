"""The pictures to train and to validate on: which splits of the sets are used for what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from adm_cli.errors import UsageError
from adm_cli.pictures.datasets import (
    ImageSet,
    Listing,
    label_pictures,
    list_pictures,
    pictures_per_class,
)
from adm_cli.pictures.ranges import with_value_range
from adm_cli.pictures.splits import describe_splits

_MOST_NAMED = 20  # classes
_JUDGED = ("validation", "test", "train")  # which split of a set given for validation is used


class Sets(NamedTuple):
    """``validation`` is None where it must be split off; ``notes`` are lines for a person."""

    training: ImageSet
    validation: ImageSet | None
    notes: tuple[str, ...]


def open_sets(
    paths: Sequence[Path],
    held: Sequence[Path],
    *,
    labels: str,
    values: str | None,
    own_split: bool,
) -> Sets:
    """The pictures of ``paths`` to train on, and those to validate on.

    These are of ``held``, else of a folder in ``paths`` that is called ``val`` or the like, unless
    ``own_split`` says that some of the training pictures shall be. Raises UsageError where there is
    nothing to read or the labels make no sense.
    """
    listing = list_pictures(paths)
    if listing.splits and "train" not in listing.splits:
        raise UsageError(
            f"{paths[0]} has {_all_splits(listing)} and no train: name one folder to train on"
        )
    training = label_pictures(listing, labels=labels, role="train")
    training = with_value_range(training, values)
    notes = list(training.notes)
    validation, unusable = None, False
    if held:
        theirs = list_pictures(held)
        role = next((role for role in _JUDGED if role in theirs.splits), None)
        validation = label_pictures(theirs, labels=labels, known=training, role=role)
        notes += validation.notes
    elif "validation" in listing.splits and not own_split:
        try:
            validation = label_pictures(listing, labels=labels, known=training, role="validation")
        except UsageError as error:
            notes.append(f"not used to validate: {error}")
            unusable = True
    if listing.splits:
        validated = validation is not None and not held
        notes.append(_fates(listing, validated=validated, usable=not unusable))
    if validation is not None:
        validation = replace(validation, values=training.values)
    return Sets(training, validation, tuple(dict.fromkeys(notes)))


def _all_splits(listing: Listing) -> str:
    return ", ".join(describe_splits(counts) for counts in listing.splits.values())


def _fates(listing: Listing, *, validated: bool, usable: bool) -> str:
    """What becomes of each split, on one line."""
    parts = [f"{describe_splits(listing.splits['train'])} to train"]
    for role in ("validation", "test"):
        if role in listing.splits:
            used = validated and role == "validation"
            fate = "to validate" if used else "left out"
            parts.append(f"{describe_splits(listing.splits[role])} {fate}")
    offered = usable and not validated and "validation" in listing.splits
    return f"splits: {', '.join(parts)}{' (--val FOLDER uses it)' * offered}"


def describe_classes(images: ImageSet) -> str:
    """Ids, names and numbers of pictures, on one line."""
    counts = pictures_per_class(images)
    parts = [f"{i} {images.classes[i]} ({n})" for i, n in list(counts.items())[:_MOST_NAMED]]
    more = f", ... ({len(counts)} in all)" if len(counts) > _MOST_NAMED else ""
    return ", ".join(parts) + more
