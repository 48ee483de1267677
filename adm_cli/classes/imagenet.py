"""ImageNet's 1,000 classes, and choosing classes by id, range, WordNet id or name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from adm_cli.classes.groups import group_ids, group_members
from adm_cli.errors import UsageError, did_you_mean, how_many, trim
from adm_cli.files.budget import MOST_DIGITS, whole_text

_MOST_LISTED = 20  # classes, in a message
_WNID = re.compile(r"n\d{8}")


class ImageNetClass(NamedTuple):
    id: int
    wnid: str
    names: tuple[str, ...]  # synonyms, the usual one first


@cache
def imagenet_classes() -> tuple[ImageNetClass, ...]:
    """All 1,000, in the order of the published checkpoints' labels."""
    text = Path(__file__).with_name("imagenet_classes.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines())
    return tuple(ImageNetClass(int(i), wnid, tuple(names.split("; "))) for i, wnid, names in rows)


def imagenet_names() -> dict[int, str]:
    """Id to usual name, the form in which a weights file stores its classes."""
    return {row.id: row.names[0] for row in imagenet_classes()}


def search_classes(query: str, known: Mapping[int, str]) -> list[int]:
    """The classes that numbers are, or those whose WordNet id or names contain all the words."""
    text, words = query.strip(), query.lower().split()
    numbers = _named(text, known) or [i for i in known if str(i) in words]
    return (numbers if all(map(str.isdecimal, words)) else []) or [
        class_id
        for class_id in sorted(known)
        if all(any(_is_in(word, name) for name in _aliases(class_id, known)) for word in words)
    ]


def _is_in(word: str, name: str) -> bool:
    """A number is no part of a WordNet id: 5 is in n02129165, the lion's."""
    return word in name and not (word.isdecimal() and _WNID.fullmatch(name))


OWNER = "this model"  # whose the classes are, in messages


def select_classes(spec: str, known: Mapping[int, str], owner: str = OWNER) -> list[int]:
    """Class ids for one ``--class`` value, in the order asked for.

    ``spec``: "all", or a comma-separated list of ids, ranges ("0-9"), WordNet ids and names. A word
    means the same alone and in a list: the class of that name, even if it is a number, else the id.
    ``known`` maps the ids the model was trained on to their names. Raises UsageError for a class
    that is not among them, which are said to be ``owner``'s.
    """
    if spec.strip().lower() == "all":
        return sorted(known)
    whole = _named(spec.strip(), known)
    if len(whole) == 1:  # a name may contain a comma
        return whole
    chosen: list[int] = []
    for part in spec.split(","):
        chosen += (
            sorted(known) if part.strip().lower() == "all" else _select_one(part, known, owner)
        )
    return chosen


def _named(text: str, known: Mapping[int, str]) -> list[int]:
    return [i for i in sorted(known) if text.lower() in _aliases(i, known)]


def _select_one(text: str, known: Mapping[int, str], owner: str) -> list[int]:
    text = text.strip()
    same = [i for i, name in known.items() if name.lower() == text.lower()]
    if len(same) == 1:
        return same
    first, dash, last = text.partition("-")
    if max(len(first), len(last)) > 20 or not text.isascii():
        first = last = ""  # a name, or no number that could be an id
    if dash and first.isdecimal() and last.isdecimal():
        if int(first) > int(last):
            raise UsageError(f"class range {text}: the first id is above the last")
        if int(last) - int(first) >= 10**6:
            raise UsageError(f"class range {text}: too many classes")
        return _select_range(range(int(first), int(last) + 1), known, owner)
    if not dash and first.isdecimal():
        return [_numbered(int(text), known, _numbers(known), owner)]
    matches = _named(text, known)
    if len(matches) == 1:
        return matches
    if matches:
        listed = ", ".join(f"{i} ({known[i]})" for i in matches)
        raise UsageError(f"class {text!r} is ambiguous: {listed}; give the id")
    for row in imagenet_classes() if _of_imagenet(known) else ():
        if text.lower() in (row.wnid, *(name.lower() for name in row.names)):
            return [_known_id(row.id, known, owner)]  # raises: a real class, but not of this model
    if "_" in text:  # golden_retriever, as shells complete it and other tools write it
        return _select_one(text.replace("_", " ").strip(), known, owner)
    raise UsageError(_unknown_class(text, known, owner))


def _select_range(ids: range, known: Mapping[int, str], owner: str) -> list[int]:
    """Raises UsageError where one is lacking, with those of the range that may be asked for."""
    numbers = _numbers(known)
    try:
        return [_numbered(i, known, numbers, owner) for i in ids]
    except UsageError as error:
        here = [i for i in ids if i in numbers or i in known]
        if not here:
            raise
        runs = _as_ranges(here)
        way = "adm classes lists them" if len(runs) > _MOST_LISTED else f"--class {','.join(runs)}"
        raise UsageError(f"{error}; of {ids[0]}-{ids[-1]} it has {len(here):,}: {way}") from None


def _as_ranges(ids: Sequence[int]) -> list[str]:
    """Rising ids as they are asked for: ["1", "5-9"]."""
    ends: list[tuple[int, int]] = []
    for i in ids:
        joined = bool(ends) and ends[-1][1] == i - 1
        ends.append((ends.pop()[0], i) if joined else (i, i))
    return [f"{first}" if first == last else f"{first}-{last}" for first, last in ends]


def _unknown_class(text: str, known: Mapping[int, str], owner: str) -> str:
    """What the word may mean: a group of ImageNet's, a part of a name, a name nearly."""
    start = f"unknown class {trim(text, 80)}"
    if not known:
        return f"{start}: {owner} has no classes"
    if not _of_imagenet(known):
        hint = did_you_mean(text, known.values())
        return f"{start}: {owner} has {listed_classes(known)} (adm classes lists them){hint}"
    names, meant, group = imagenet_names(), _named_with(text), text
    if not group_ids(text) and not meant:
        meant = _named_in(text)
        group = next((word for word in text.split() if group_ids(word) and not meant), "")
    ids = group_ids(group)
    meant = group_members(group) or meant
    here = {i: names[i] for i in meant if i in known}
    if meant and not here:
        which = ids or listed_classes({i: names[i] for i in meant})
        return f"{start}: ImageNet's {which} is not of {owner}, which has {listed_classes(known)}"
    if here:
        first = ", ".join(f"{i} ({name})" for i, name in list(here.items())[:8])
        more = f" ... (adm classes {group or text} lists them)" if len(here) > 8 else ""
        if ids:
            return f"{start}: of ImageNet's {ids} {owner} has {first}{more}; give one of them"
        return f"{start}; did you mean {first}{more}?"
    near = [alias for i in known for alias in _aliases(i, known)]
    if not text[:1].isalpha():  # 207+281 is no WordNet id, however alike
        near = [alias for alias in near if not alias[1:].isdigit()]
    return f"{start}{did_you_mean(text, near)} (adm classes lists them)"


def _named_with(text: str) -> list[int]:
    """ImageNet's classes with all words of ``text`` in one of their names."""
    words = set(text.lower().split())
    return [
        row.id
        for row in imagenet_classes()
        if words and any(words <= set(name.lower().split()) for name in row.names)
    ]


def _named_in(text: str) -> list[int]:
    """ImageNet's classes whose name is in a longer text, such as a prompt; the longest name."""
    words = f" {' '.join(text.lower().split())} "
    found = {
        row.id: max(len(name) for name in row.names if f" {name.lower()} " in words)
        for row in imagenet_classes()
        if any(f" {name.lower()} " in words for name in row.names)
    }
    return [class_id for class_id, length in found.items() if length == max(found.values())]


def listed_classes(known: Mapping[int, str]) -> str:
    """The first classes of a model, in a message: "1 goldfish, 145 king penguin, ..."."""
    ids = sorted(known)
    more = ", ..." if len(ids) > _MOST_LISTED else ""
    return ", ".join(f"{i} {known[i]}" for i in ids[:_MOST_LISTED]) + more


def _numbers(known: Mapping[int, str]) -> dict[int, int]:
    """Ids of classes whose names are numbers."""
    numbers = ((name, i) for i, name in known.items() if name.isascii() and name.isdecimal())
    return {whole_text(name): i for name, i in numbers if len(name) <= MOST_DIGITS}


def _numbered(number: int, known: Mapping[int, str], numbers: Mapping[int, int], owner: str) -> int:
    """The class that a number names, else the one of that id."""
    return numbers[number] if number in numbers else _known_id(number, known, owner)


def _known_id(class_id: int, known: Mapping[int, str], owner: str) -> int:
    if class_id in known:
        return class_id
    if not known:
        raise UsageError(f"class {class_id}: {owner} has no classes")
    ids = sorted(known)
    if ids == list(range(len(ids))):
        raise UsageError(f"class {class_id} is out of range: {owner} has 0 to {len(ids) - 1}")
    names = imagenet_names()
    name = f" ({names[class_id]})" if _of_imagenet(known) and class_id in names else ""
    raise UsageError(
        f"class {class_id}{name} is not among the {how_many(len(ids), 'class', 'classes')} of "
        f"{owner}: {listed_classes(known)}"
    )


def _of_imagenet(known: Mapping[int, str]) -> bool:
    """Whether the ids mean ImageNet's classes; another model's class 2 is no shark."""
    names = imagenet_names()
    return all(names.get(i) == name for i, name in known.items())


def _aliases(class_id: int, known: Mapping[int, str]) -> list[str]:
    """Everything a class answers to, in lower case; ImageNet's synonyms where it is ImageNet's."""
    name = known[class_id].lower()
    rows = imagenet_classes()
    if class_id < len(rows) and rows[class_id].names[0].lower() == name:
        row = rows[class_id]
        return [row.wnid, *(synonym.lower() for synonym in row.names)]
    return [name]
