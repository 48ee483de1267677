"""Parts of a set that are meant for training, validation and testing, by the names of folders."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

ROLES = ("train", "validation", "test")

_WORDS = {
    "train": ("train", "training", "trn", "trainset"),
    "validation": ("val", "valid", "validation", "eval", "evaluation", "dev", "valset", "devset"),
    "test": (
        *("test", "testing", "tst", "testset", "holdout", "heldout", "unseen"),
        *("query", "gallery", "probe"),
    ),
}
_ROLE_OF = {word: role for role, words in _WORDS.items() for word in words}
_FILLERS = frozenset("set data dataset split images image imgs img pictures seg ds".split())


class Part(NamedTuple):
    """A picture's place: its split, if any, the folder that says so, and its name without that."""

    role: str | None
    folder: str
    name: str


def split_role(folder: str) -> str | None:
    """ "train", "validation" or "test" by a name such as ``Training`` or ``val2017``."""
    folder = re.sub("(?<=[a-z])_?[AB]$", "", folder)  # trainA, testB: two domains
    folder = re.sub("(?i)^t10k", "test", folder)  # of MNIST and its relatives
    words = [word for word in re.findall("[a-z]+", folder.lower()) if word not in _FILLERS]
    return _ROLE_OF.get(words[0]) if len(words) == 1 else None


def find_splits(names: Sequence[str]) -> list[Part]:
    """Where each picture of a source belongs; no role for any unless all have one.

    The folders of the splits are at the same depth: above the classes, as in ``train/cat/1.jpg``,
    or below them, as in ``cat/train/1.jpg``; there must be at least two different ones.
    """
    split = [name.split("/") for name in names]
    above = _common(split)
    for depth in (above, above + 1):
        roles = [split_role(parts[depth]) if len(parts) > depth + 1 else None for parts in split]
        if None not in roles and len(set(roles)) > 1:
            cut = depth + 1
            while all(  # the same once more, as seg_train/seg_train/cat/1.jpg
                len(parts) > cut + 1 and split_role(parts[cut]) == role
                for role, parts in zip(roles, split, strict=True)
            ):
                cut += 1
            return [
                Part(role, parts[depth], "/".join(parts[:depth] + parts[cut:]))
                for role, parts in zip(roles, split, strict=True)
            ]
    return [Part(None, "", name) for name in names]


def half_splits(names: Sequence[str]) -> list[str]:
    """Folders on top that look like splits although others beside them do not."""
    split = [name.split("/") for name in names]
    depth = _common(split)
    tops = {parts[depth] for parts in split if len(parts) > depth + 1}
    found = {top: role for top in sorted(tops) if (role := split_role(top)) is not None}
    return list(found) if len(found) < len(tops) else []


def describe_splits(counts: Mapping[str, int]) -> str:
    """ "train (80), val (10)"."""
    return ", ".join(f"{folder} ({count})" for folder, count in counts.items())


def _common(split: Sequence[Sequence[str]]) -> int:
    """Leading folders that all names share."""
    depth = 0
    while split and all(
        len(parts) > depth + 1 and parts[depth] == split[0][depth] for parts in split
    ):
        depth += 1
    return depth
