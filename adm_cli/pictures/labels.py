"""The label of each picture of a set: by lists, files beside it, folders, or its name.

What is guessed is said: `Found.notes` are lines for a person.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from sys import intern
from typing import NamedTuple

from adm_cli.errors import UsageError, are, did_you_mean, one_of
from adm_cli.files.budget import MOST_TABLE, parse_json
from adm_cli.files.disk import read_file
from adm_cli.files.lists import decode_text
from adm_cli.pictures.archives import Source, read_entry
from adm_cli.pictures.guesses import (
    WNID,
    guess_by_names,
    is_no_class,
    of_others,
    stored_by_number,
)
from adm_cli.pictures.label_files import (
    LABEL_COLUMNS,
    LabelTable,
    NotLabelsError,
    is_nothing,
    label_word,
    parse_labels,
)

LABELS = ("auto", "folders", "names", "none")  # or the path of a file

_LABEL_BYTES = 100_000  # of a .cls or .json beside a picture
_LONGEST_LABEL = 1000  # characters
_LISTS = ("dataset.json", "metadata.jsonl", "metadata.csv", "val_annotations.txt")
_BESIDE = ("cls", "class", "label", "class_id", "label_id", "target", "json")
_SEEMS_LABELS = re.compile(
    r"(label|annotation|metadata).*\.(csv|tsv|txt|jsonl?|ndjson|parquet|xlsx?)$", re.IGNORECASE
)
_ADVICE = "mend it, or pass --labels folders, names, none or a file"


class Named(NamedTuple):
    """A picture: its source, its name there, and that name without the folder of its split."""

    source: int
    name: str
    bare: str


@dataclass(frozen=True)
class Found:
    """A label's word for every picture, or None for all; and what is to be said of them."""

    words: Sequence[str] | None
    notes: tuple[str, ...] = ()


def find_labels(
    sources: Sequence[Source],
    listed: Sequence[tuple[int, str]],
    pictures: Sequence[Named],
    labels: str,
) -> Found:
    """By ``labels``, one of `LABELS` or a file's path. ``listed`` are all files, (source, name).

    Raises UsageError where they do not fit the pictures.
    """
    if labels == "none":
        return Found(None)
    if labels not in LABELS:
        return _by_file(labels, pictures)
    guessed = labels == "auto"
    notes: tuple[str, ...] = ()
    if guessed:
        lists = _by_lists(sources, listed, pictures)
        if lists is not None:
            return lists
        beside = _by_neighbours(sources, listed, pictures)
        if beside is not None and beside.words is not None:
            return beside
        notes = () if beside is None else beside.notes
    cut = _common_folders([picture.bare for picture in pictures], guessed=guessed)
    tops = [_top(picture.bare, cut) for picture in pictures]
    if labels == "folders" or (guessed and any(tops)):
        found = _by_folders(pictures, tops, guessed=guessed)
    else:
        found = _by_names(pictures, guessed=guessed)
    return replace(found, notes=notes + found.notes + _unread(listed)) if guessed else found


def _unread(listed: Sequence[tuple[int, str]]) -> tuple[str, ...]:
    """A file that seems to hold labels, and is not looked into unless it is named."""
    names = (name.rpartition("/")[2] for _, name in listed)
    name = next((n for n in names if n.lower() not in _LISTS and _SEEMS_LABELS.search(n)), None)
    return () if name is None else (f"{name} is not read: pass its path to --labels for that",)


def _by_names(pictures: Sequence[Named], *, guessed: bool) -> Found:
    """The file's name up to the first underscore, as the original does it."""
    firsts = [picture.bare.rsplit("/", 1)[-1] for picture in pictures]
    if not guessed:
        return Found([first.split("_")[0] for first in firsts])
    words, note = guess_by_names(firsts)
    return Found(words, (note,))


def _by_folders(pictures: Sequence[Named], tops: Sequence[str | None], *, guessed: bool) -> Found:
    bare = [p.name for p, top in zip(pictures, tops, strict=True) if top is None]
    if bare:
        raise UsageError(
            f"{len(bare)} of {len(pictures)} pictures {are(len(bare))} in no class folder, e.g. "
            f"{bare[0]}: "
            f"move them into one, or pass --labels names or --labels none"
        )
    words = [top for top in tops if top is not None]
    if not guessed:
        return Found(words)
    unique = sorted(set(words))
    within = _inner_folders(pictures, words)
    if all(map(is_no_class, unique)):
        shown = ", ".join(unique[:3])
        text = f"folders such as {shown} are no classes (or --labels folders)"
        return Found(None, (text, *within))
    if stored_by_number([picture.bare for picture in pictures], words):
        text = f"folders such as {unique[0]} only number files: no classes (or --labels folders)"
        return Found(None, (text,))
    if len(unique) == 1 and not WNID.fullmatch(unique[0]):
        return Found(words, (f"one class only, the folder {unique[0]} (or --labels none)",))
    text = f"classes by folder, e.g. {words[0]} (or --labels)"
    if (masks := of_others(unique)) is not None:
        text += f"; {masks} may hold no class, but masks or the like: then give the others alone"
    return Found(words, (text, *within))


def _inner_folders(pictures: Sequence[Named], tops: Sequence[str]) -> tuple[str, ...]:
    """The doubt about folders that hold the same folders each, which then may be the classes."""
    inside: dict[str, set[str]] = {}
    for picture, top in zip(pictures, tops, strict=True):
        below = f"/{picture.bare}".partition(f"/{top}/")[2]
        inside.setdefault(top, set()).add(below.partition("/")[0] if "/" in below else "")
    shared = set.intersection(*inside.values())
    if len(inside) < 2 or len(shared) < 2 or "" in shared:
        return ()
    first, second = sorted(shared)[:2]
    text = f"each of {', '.join(sorted(inside)[:3])} holds folders {first}, {second}: if these are "
    return (f"{text}the classes, give those {len(inside)} folders one by one",)


def _top(name: str, cut: int) -> str | None:
    """The folder below the first ``cut``; None where the file lies there."""
    parts = name.split("/", cut + 1)
    return intern(parts[cut]) if len(parts) > cut + 1 else None  # one of each, of a million


def _common_folders(names: Sequence[str], *, guessed: bool) -> int:
    """Leading folders that hold everything and so name no class, as in ``train/cat/1.jpg``."""
    folders = {name.rpartition("/")[0] for name in names}
    split = [[*folder.split("/"), ""] if folder else [""] for folder in folders]
    shortest = min(len(parts) for parts in split)
    cut = 0
    while shortest - cut > 1:
        first = split[0][cut]
        last = shortest - cut == 2  # which may be a class, unless its name says otherwise
        if WNID.fullmatch(first) or any(parts[cut] != first for parts in split):
            break
        if last and not (guessed and is_no_class(first)):
            break
        cut += 1
    return cut


def _by_file(labels: str, pictures: Sequence[Named]) -> Found:
    """Labels from a file that the user names."""
    path = Path(labels)
    if not os.path.isfile(path):
        hint = did_you_mean(labels, LABELS)
        raise UsageError(f"--labels {path}: expected {one_of([*LABELS, 'a CSV file'])}{hint}")
    try:
        data = read_file(path, MOST_TABLE)
    except OSError as error:
        raise UsageError(f"cannot read {path} as CSV: {error.strerror or error}") from None
    table = parse_labels(data, path.name, str(path))
    words = None if table is None else _look_up(table, [(p.name, p.bare) for p in pictures])
    if table is None or words is None:
        return Found(None, (f"{path.name} says that there are no labels",))
    return Found(words, table.doubts)


def _look_up(table: LabelTable, names: Sequence[tuple[str, ...]]) -> list[str] | None:
    """A label for each picture, by any of its names; None where the table says none of any.

    Raises UsageError if some have none.
    """
    found = [
        next((label for name in any_of if (label := table.find(name)) is not None), None)
        for any_of in names
    ]
    if found and set(found) == {""}:
        return None
    missing = [any_of[0] for any_of, label in zip(names, found, strict=True) if not label]
    if missing:
        example = table.example()
        hint = f"; it names e.g. {example:.60}" if example else ""
        if "" in found:  # they are named, but with nothing, or nan
            hint = ": write it there, or take these pictures away"
        raise UsageError(
            f"{table.where} has no label for {len(missing)} of {len(names)} pictures, "
            f"e.g. {missing[0]}{hint}"
        )
    return [label for label in found if label]


def _by_lists(
    sources: Sequence[Source], listed: Sequence[tuple[int, str]], pictures: Sequence[Named]
) -> Found | None:
    """Labels from files of known names in the set, each for the pictures below its folder."""
    lists: dict[tuple[int, str], LabelTable | None] = {}
    found_in = ""
    for number, name in listed:
        folder, _, base = name.rpartition("/")
        if base.lower() in _LISTS and (number, folder) not in lists:
            where = f"{sources[number].path}/{name}"
            try:
                data = read_entry(sources[number], name, MOST_TABLE)
                lists[number, folder] = parse_labels(data, base.lower(), where)
            except NotLabelsError:  # captions, say
                continue
            found_in = found_in or base
    governing = [_governing(lists, picture) for picture in pictures]
    if not any(governing):
        return None
    words: list[str | None] = []
    for picture, place in zip(pictures, governing, strict=True):
        if place is None:
            raise UsageError(f"{picture.name} is below no {found_in}, unlike others: {_ADVICE}")
        words.append(_listed_label(lists[place], picture, place[1]))
    if not any(words):
        return Found(None, (f"{found_in} says that there are no labels",))
    labels = [word for word in words if word]
    if len(labels) != len(words):
        raise UsageError(
            f"{found_in} has no label for {len(words) - len(labels)} of {len(words)} pictures, "
            f"e.g. {pictures[words.index(None)].name}: {_ADVICE}"
        )
    doubts = dict.fromkeys(d for table in lists.values() if table for d in table.doubts)
    return Found(labels, (f"classes from {found_in} (or --labels)", *doubts))


def _listed_label(table: LabelTable | None, picture: Named, folder: str) -> str | None:
    below = picture.name[len(folder) + 1 :] if folder else picture.name
    return None if table is None else table.find(below) or None


def _governing(
    lists: Mapping[tuple[int, str], LabelTable | None], picture: Named
) -> tuple[int, str] | None:
    """The nearest folder above a picture that has a list."""
    folder = picture.name
    while folder:
        folder = folder.rpartition("/")[0]
        if (picture.source, folder) in lists:
            return picture.source, folder
    return None


def _by_neighbours(
    sources: Sequence[Source], listed: Sequence[tuple[int, str]], pictures: Sequence[Named]
) -> Found | None:
    """WebDataset's labels: ``7.cls`` or a "label" in ``7.json`` beside ``7.jpg``.

    Also by the key alone, which ends at the first dot: ``7.output.cls`` beside ``7.input.jpg``.
    """
    whole: dict[tuple[int, str], str] = {}
    by_key: dict[tuple[int, str], list[str]] = {}
    texts_beside: set[tuple[int, str]] = set()
    for number, name in listed:
        stem, _, ending = name.rpartition(".")
        if ending.lower() == "txt":  # captions, as a rule, but for 7.cls.txt
            texts_beside.add((number, _key(name)))
            stem, _, ending = stem.rpartition(".")
        if ending.lower() in _BESIDE and name.rpartition("/")[2].lower() not in _LISTS:
            if ending.lower() != "json":  # which may be of anything else, too
                whole[number, stem] = name
            whole.setdefault((number, stem), name)
            by_key.setdefault((number, _key(name)), []).append(name)
    places = [
        whole.get((p.source, p.name.rpartition(".")[0]))
        or _only(by_key.get((p.source, _key(p.name)), []))
        for p in pictures
    ]
    if not any(places):
        if not all((p.source, _key(p.name)) in texts_beside for p in pictures):
            return None
        return Found(None, ("the .txt files beside the pictures are not read as labels",))
    texts = [
        None if place is None else _read_label(sources[p.source], place)
        for p, place in zip(pictures, places, strict=True)
    ]
    first = next(filter(None, places))
    if not any(texts) and all(place is None or place.lower().endswith("json") for place in places):
        return Found(None, (f"{first} and the like hold no label",))
    words = []
    for picture, place, label in zip(pictures, places, texts, strict=True):
        path = sources[picture.source].path
        if place is None:
            raise UsageError(
                f"{path}/{picture.name} has no label beside it, unlike others: {_ADVICE}"
            )
        if not label:
            raise UsageError(f"{path}/{place}: expected a label: {_ADVICE}")
        words.append(label)
    ending = first.rpartition(".")[2]
    return Found(words, (f"classes from the .{ending} files beside the pictures",))


def _key(name: str) -> str:
    """What WebDataset calls a sample: the name up to the first dot after its folder."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _only(names: Sequence[str]) -> str | None:
    """The one that is a label among a sample's files; raises UsageError where several are."""
    plain = [name for name in names if not name.lower().endswith("json")] or list(names)
    if len(plain) > 1:
        raise UsageError(f"{plain[0]} and {plain[1]} are labels of one picture: pass --labels FILE")
    return plain[0] if plain else None


def _read_label(source: Source, name: str) -> str:
    """The label that a small file beside a picture holds, or nothing."""
    data = read_entry(source, name, _LABEL_BYTES)
    try:
        text = decode_text(data).strip()
    except ValueError:
        return ""
    label = _json_label(text) if name.lower().endswith("json") else text
    return label if len(label) <= _LONGEST_LABEL and not is_nothing(label) else ""


def _json_label(text: str) -> str:
    """The "label" or "cls" of a JSON object, or the label that is all of it, or nothing."""
    try:
        value = parse_json(text)
        if isinstance(value, dict):
            value = next(value[key] for key in LABEL_COLUMNS if key in value)
    except (ValueError, StopIteration):
        return ""
    return label_word(value) or ""
