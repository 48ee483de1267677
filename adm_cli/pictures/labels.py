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

from adm_cli.errors import UsageError, did_you_mean
from adm_cli.files.budget import MOST_TABLE, parse_json
from adm_cli.files.disk import read_file
from adm_cli.files.lists import decode_text
from adm_cli.pictures.archives import Source, read_entry
from adm_cli.pictures.label_files import (
    LABEL_COLUMNS,
    LabelTable,
    NotLabelsError,
    parse_labels,
)
from adm_cli.pictures.splits import split_role

LABELS = ("auto", "folders", "names", "none")  # or the path of a file

_WNID = re.compile(r"n\d{8}")
_LABEL_BYTES = 100_000  # of a .cls or .json beside a picture
_LONGEST_LABEL = 1000  # characters
_LISTS = ("dataset.json", "metadata.jsonl", "metadata.csv", "val_annotations.txt")
_BESIDE = ("cls", "class", "label", "class_id", "label_id", "target", "json")
_SEEMS_LABELS = re.compile(
    r"(label|annotation|metadata).*\.(csv|tsv|txt|jsonl?|ndjson|parquet|xlsx?)$", re.IGNORECASE
)
_ADVICE = "mend it, or pass --labels folders, names, none or a file"

# What cameras, phones and tools call files, and people the folders of all their pictures.
_NO_CLASS = frozenset(
    "img image images imgs dsc dscn dscf dcim pxl mvimg imgp pict picture pictures pic pics photo "
    "photos foto fotos jpeg jpg png jpegimages jpgs pngs gopr gh gx gp dji sam wp vid video mov "
    "movie clip burst pano portrait screenshot screen shot snap snapshot scan scanned capture "
    "whatsapp signal telegram fb received frame frames still thumb thumbnail tile patch crop "
    "sample samples file data dataset all raw untitled unnamed download downloads page slide "
    "fold folds render output out result results export batch part chunk shard seq cam camera "
    "p 照片 图片 相片 图像 写真 画像 사진 снимок фото изображение bild bilder imagen "
    "imagenes aufnahme imagem immagine afbeelding obraz zdjecie".split()
)


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


def _by_folders(pictures: Sequence[Named], tops: Sequence[str | None], *, guessed: bool) -> Found:
    bare = [p.name for p, top in zip(pictures, tops, strict=True) if top is None]
    if bare:
        raise UsageError(
            f"{len(bare)} of {len(pictures)} pictures are in no class folder, e.g. {bare[0]}: "
            f"move them into one, or pass --labels names or --labels none"
        )
    words = [top for top in tops if top is not None]
    if not guessed:
        return Found(words)
    unique = sorted(set(words))
    if all(map(_is_no_class, unique)):
        shown = ", ".join(unique[:3])
        return Found(None, (f"folders such as {shown} are no classes (or --labels folders)",))
    if _stored_by_number(pictures, words):
        text = f"folders such as {unique[0]} only number files: no classes (or --labels folders)"
        return Found(None, (text,))
    if len(unique) == 1 and not _WNID.fullmatch(unique[0]):
        return Found(words, (f"one class only, the folder {unique[0]} (or --labels none)",))
    return Found(words, (f"classes by folder, e.g. {words[0]} (--labels says otherwise)",))


def _by_names(pictures: Sequence[Named], *, guessed: bool) -> Found:
    """The file's name up to the first underscore, as the original does it."""
    firsts = [picture.bare.rsplit("/", 1)[-1] for picture in pictures]
    words = [first.split("_")[0] for first in firsts]
    if not guessed:
        return Found(words)
    if not all("_" in first for first in firsts):
        return Found(None, ("no labels in folders or names: unlabelled (or --labels FILE)",))
    unique = set(words)
    if all(map(_WNID.fullmatch, unique)):
        return Found(words, (f"classes by file name, e.g. {words[0]} (--labels says otherwise)",))
    doubtful = next((f for f, w in zip(firsts, words, strict=True) if _is_no_class(w)), None)
    if doubtful is None and (len(unique) == 1 or len(unique) == len(words) > 3):
        doubtful = firsts[0]  # all of one class, or each of its own
    if doubtful is not None:
        text = f"names such as {doubtful} are no classes: unlabelled (or --labels names)"
        return Found(None, (text,))
    return Found(words, (f"classes guessed: {firsts[0]} is {words[0]} (or pass --labels)",))


def _is_no_class(word: str) -> bool:
    """Whether a folder or the beginning of a name says where a picture came from, not what it is.

    Camera names with or without a number (``IMG``, ``DSC00012``, ``frame-1``), splits, dates and
    times, and long hexadecimal numbers.
    """
    if _WNID.fullmatch(word):
        return False
    lowered = word.lower()
    letters = re.findall(r"[^\W\d_]+", lowered)
    digits = re.sub("[^0-9]", "", word)
    named = bool(letters) and all(x in _NO_CLASS for x in letters)
    date = not letters and len(digits) >= 6
    hexadecimal = bool(re.fullmatch(r"[0-9a-f]{8,}|[0-9a-f-]{36}", lowered)) and bool(digits)
    return named or date or hexadecimal or split_role(word) is not None


def _stored_by_number(pictures: Sequence[Named], words: Sequence[str]) -> bool:
    """Whether folders hold so many files each by number, as ``00001/img00001234.png``.

    So StyleGAN's and EDM's tools write them, FFHQ's (``01000/01234.png``), and img2dataset.
    """
    if not all(re.fullmatch(r"\d{5}", word) for word in set(words)):
        return False
    found = (re.search(r"(\d{4,18})\.\w+$", picture.bare) for picture in pictures)
    numbers = [int(match[1]) for match in found if match is not None]
    if len(numbers) < len(words):
        return False
    return any(
        all(int(w) in (n // each, n // each * each) for n, w in zip(numbers, words, strict=True))
        for each in (1000, 10_000)
    )


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
        if _WNID.fullmatch(first) or any(parts[cut] != first for parts in split):
            break
        if last and not (guessed and _is_no_class(first)):
            break
        cut += 1
    return cut


def _by_file(labels: str, pictures: Sequence[Named]) -> Found:
    """Labels from a file that the user names."""
    path = Path(labels)
    if not os.path.isfile(path):
        hint = did_you_mean(labels, LABELS)
        raise UsageError(f"--labels {path}: expected {', '.join(LABELS)} or a CSV file{hint}")
    try:
        data = read_file(path, MOST_TABLE)
    except OSError as error:
        raise UsageError(f"cannot read {path} as CSV: {error.strerror or error}") from None
    table = parse_labels(data, path.name, str(path))
    if table is None:
        return Found(None, (f"{path.name} says that there are no labels",))
    return Found(_look_up(table, [(p.name, p.bare) for p in pictures]), table.doubts)


def _look_up(table: LabelTable, names: Sequence[tuple[str, ...]]) -> list[str]:
    """A label for each picture, by any of its names; raises UsageError if one has none."""
    found = [next(filter(None, map(table.find, any_of)), None) for any_of in names]
    missing = [any_of[0] for any_of, label in zip(names, found, strict=True) if not label]
    if missing:
        example = table.example()
        raise UsageError(
            f"{table.where} has no label for {len(missing)} of {len(names)} pictures, "
            f"e.g. {missing[0]}" + (f"; it names e.g. {example:.60}" if example else "")
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
    return Found(labels, (f"classes from {found_in} (--labels says otherwise)", *doubts))


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
    return label if len(label) <= _LONGEST_LABEL else ""


def _json_label(text: str) -> str:
    """The "label" or "cls" of a JSON object, or nothing."""
    try:
        value = parse_json(text)
        label = next(value[key] for key in LABEL_COLUMNS if key in value)
    except (ValueError, TypeError, KeyError, StopIteration):
        return ""
    if type(label) is float and label.is_integer():
        label = int(label)
    return str(label) if type(label) in (int, str) else ""
