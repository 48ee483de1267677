"""The ids that classes get from what they are called."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from adm_cli.classes.imagenet import imagenet_classes, imagenet_names
from adm_cli.errors import UsageError, how_many, trim

_WHOLE = re.compile(r"-?\d{1,99}")
_WHOLE_FLOAT = re.compile(rf"{_WHOLE.pattern}(?:\.0+)?")  # 7.0, as spreadsheets write 7
_MOST_CLASSES = 10**6
_MOST_AMONG_WORDS = 10_000  # a number above is a name like another: 20240131 beside cat


def number_classes(words: Sequence[str]) -> tuple[dict[str, int], dict[int, str], int]:
    """Ids of words, names of ids, and how many ids there are.

    WordNet ids get ImageNet's numbers, whole numbers stay what they are, also among words, which
    then follow the highest; anything else is numbered in order of its name. Raises UsageError for
    numbers and words that cannot be classes.
    """
    unique = sorted(set(words))
    of_imagenet = {row.wnid: row.id for row in imagenet_classes()}
    if all(word in of_imagenet for word in unique):
        ids = {word: of_imagenet[word] for word in unique}
        names = imagenet_names()
        return ids, {i: names[i] for i in sorted(ids.values())}, len(names)
    if all(_WHOLE_FLOAT.fullmatch(word) for word in unique):
        ids = {word: int(word.partition(".")[0]) for word in unique}
        low, high = min(ids.values()), max(ids.values())
        if low < 0 or high >= _MOST_CLASSES:
            raise UsageError(
                f"labels must be from 0 to {_MOST_CLASSES - 1}, got {low if low < 0 else high}: "
                f"name that class otherwise, or take its pictures away"
            )
        return ids, {i: str(i) for i in sorted(ids.values())}, high + 1
    for word in unique:
        if not word.isprintable():
            raise UsageError(f"the class name {trim(word)} has characters that cannot be printed")
    ids = _ids_among_numbers(unique)
    names = {i: str(i) if _number(word) == i else word for word, i in ids.items()}  # 007 is 7
    return ids, dict(sorted(names.items())), max(ids.values()) + 1


def _number(word: str) -> int | None:
    return int(word) if _WHOLE.fullmatch(word) else None


def _ids_among_numbers(unique: Sequence[str]) -> dict[str, int]:
    """Ids of words some of which may be numbers, each of its own id unless that is too high."""
    numbers = {word: int(word) for word in unique if _WHOLE.fullmatch(word)}
    if not numbers or min(numbers.values()) < 0 or max(numbers.values()) >= _MOST_AMONG_WORDS:
        return {word: i for i, word in enumerate(unique)}
    following = max(numbers.values()) + 1
    words = [word for word in unique if word not in numbers]
    return numbers | {word: following + i for i, word in enumerate(words)}


def known_ids(words: Sequence[str], known: Mapping[int, str]) -> dict[str, int]:
    """As `number_classes`, by another set's numbers; raises UsageError for any other word."""
    ids = {name: i for i, name in known.items()}
    ids |= {r.wnid: r.id for r in imagenet_classes() if known.get(r.id) == r.names[0]}
    whole = [word for word in set(words) if _WHOLE_FLOAT.fullmatch(word)]
    numbers = {word: int(word.partition(".")[0]) for word in whole}  # 007 is 7
    ids |= {word: i for word, i in numbers.items() if known.get(i) == str(i)}
    strange = sorted(set(words) - set(ids))
    if strange:
        raise UsageError(
            f"the validation pictures have {how_many(len(strange), 'class', 'classes')} that "
            "the training pictures "
            f"have not, e.g. {strange[0]}"
        )
    return ids
