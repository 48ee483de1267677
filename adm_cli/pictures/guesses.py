"""What the names of folders and files tell of classes, where nobody says it: guesses, each said."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from sys import intern

from adm_cli.pictures.splits import split_role

WNID = re.compile(r"n\d{8}")
_IN_NAME = re.compile(r"(?<![A-Za-z0-9])n\d{8}(?!\d)")
_COUNTED = re.compile(r"([^\W\d_]{2,})[ .-]?\(?\d+\)?\.\w+")  # cat.0.jpg, cat (1).jpg, cat-1.jpg
_OF_OTHERS = re.compile(  # and the same pictures at another size
    r"(?:\w*[_-])?(?:masks?|segs?|segmentations?|annotations?|gts?|ground[_ -]?truths?|depths?"
    r"|normals|edges|trimaps?|labels|LR|lr|x[248])(?:[_-]\w*)?"
)
_LAST_NUMBER = re.compile(r"(.+?)_\d+\.\w+")

# What cameras, phones and tools call files, and people the folders of all their pictures.
_NO_CLASS = frozenset(
    "img image images imgs dsc dscn dscf dcim pxl mvimg imgp pict picture pictures pic pics photo "
    "photos foto fotos jpeg jpg png jpegimages jpgs pngs gopr gh gx gp dji sam wp vid video mov "
    "movie clip burst pano portrait screenshot screen shot snap snapshot scan scanned capture "
    "whatsapp signal telegram fb received frame frames still thumb thumbnail tile patch crop "
    "sample samples file data dataset all raw untitled unnamed download downloads page slide "
    "fold folds render output out result results export batch part chunk shard seq cam camera "
    "labeled unlabeled labelled unlabelled "
    "p 照片 图片 相片 图像 写真 画像 사진 снимок фото изображение bild bilder imagen "
    "imagenes aufnahme imagem immagine afbeelding obraz zdjecie".split()
)


def of_others(folders: Sequence[str]) -> str | None:
    """A folder, among others, whose pictures describe those beside it, as masks do."""
    return next((f for f in folders if _OF_OTHERS.fullmatch(f)), None) if len(folders) > 1 else None


def guess_by_names(names: Sequence[str]) -> tuple[list[str] | None, str]:
    """Labels of files by their names alone, or None, and what a person should know of that."""
    words = [name.split("_")[0] for name in names]
    if wnids := _wnids(names):
        return wnids, f"classes by file name, e.g. {wnids[0]} (or --labels)"
    if not all("_" in name for name in names):
        return None, f"{_without_labels(names)}: unlabelled (or --labels FILE)"
    unique = set(words)
    doubtful = next((n for n, w in zip(names, words, strict=True) if is_no_class(w)), None)
    if doubtful is None and len(unique) == 1:
        doubtful = names[0]
    if doubtful is not None:
        return None, f"names such as {doubtful} are no classes: unlabelled (or --labels names)"
    if len(unique) == len(words) > 3:  # --labels names would make a class of each
        text = f"names such as {names[0]} are no classes: unlabelled (or --labels FILE)"
        return None, text
    return words, f"classes guessed: {names[0]} is {words[0]} (or pass --labels){_merged(names)}"


def _wnids(names: Sequence[str]) -> list[str]:
    """The WordNet id that each name holds, as ``ILSVRC2012_val_00000001_n01751748.JPEG``.

    None of them unless each holds one; the first part of a name comes first.
    """
    found = []
    for name in names:
        ids = dict.fromkeys(_IN_NAME.findall(name))
        if len(ids) != 1:
            return []
        found.append(intern(next(iter(ids))))  # one of each, of a million
    return found


def _without_labels(names: Sequence[str]) -> str:
    matches = [_COUNTED.fullmatch(name) for name in names]
    words = Counter(match[1].lower() for match in matches if match is not None)
    some = len(words) > 1 and sum(words.values()) == len(names) > len(words)
    if some and not any(map(is_no_class, words)):
        return f"names such as {names[0]} may tell classes, which only folders or a file do here"
    return "no labels in folders or names"


def _merged(names: Sequence[str]) -> str:
    """The doubt about names of several words, ``american_bulldog_1.jpg``, whose first is shared."""
    longer: dict[str, str] = {}
    for name in names:
        if match := _LAST_NUMBER.fullmatch(name):
            first = match[1].partition("_")[0]
            if longer.setdefault(first, match[1]) != match[1]:
                return f"; {longer[first]} and {match[1]} become one class, {first}"
    return ""


def is_no_class(word: str) -> bool:
    """Whether a folder or the beginning of a name says where a picture came from, not what it is.

    Camera names with or without a number (``IMG``, ``DSC00012``, ``frame-1``), splits, dates and
    times, and long hexadecimal numbers.
    """
    if WNID.fullmatch(word):
        return False
    lowered = word.lower()
    letters = re.findall(r"[^\W\d_]+", lowered)
    digits = re.sub("[^0-9]", "", word)
    named = any(x in _NO_CLASS for x in letters) and all(
        x in _NO_CLASS or len(x) == 1
        for x in letters  # part_a
    )
    date = not letters and len(digits) >= 6
    hexadecimal = bool(re.fullmatch(r"[0-9a-f]{8,}|[0-9a-f-]{36}", lowered)) and bool(digits)
    return named or date or hexadecimal or split_role(word) is not None


def stored_by_number(names: Sequence[str], words: Sequence[str]) -> bool:
    """Whether folders hold so many files each by number, as ``00001/img00001234.png``.

    So StyleGAN's and EDM's tools write them, FFHQ's (``01000/01234.png``), and img2dataset.
    """
    if not all(re.fullmatch(r"\d{5}", word) for word in set(words)):
        return False
    found = (re.search(r"(\d{4,18})\.\w+$", name) for name in names)
    numbers = [int(match[1]) for match in found if match is not None]
    if len(numbers) < len(words):
        return False
    return any(
        all(int(w) in (n // each, n // each * each) for n, w in zip(numbers, words, strict=True))
        for each in (1000, 10_000)
    )
