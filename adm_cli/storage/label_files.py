"""Files that say which label a picture has: tables, JSON, JSON lines, whoever made them.

CSV and its relatives with or without a heading; StyleGAN's and EDM's ``dataset.json``; the
``metadata.jsonl`` of Hugging Face's imagefolder; Tiny ImageNet's ``val_annotations.txt``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

from adm_cli.errors import UsageError
from adm_cli.storage.lists import decode_text, read_rows
from adm_cli.storage.pictures import EXTENSIONS

MOST_TABLE = 2**28  # bytes: a row for each of ImageNet's pictures is a tenth of it

FILE_COLUMNS = (
    "file filename file_name path image name id image_id img img_id fname filepath file_path "
    "image_path img_path image_name img_name image_file"
).split()
LABEL_COLUMNS = (
    "label class class_name class_id category labels target cls classname category_id "
    "category_name class_label"
).split()

_ENDING = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}$")
_WHOLE_FLOAT = re.compile(r"(-?\d{1,18})\.0+")


class NotLabelsError(UsageError):
    """A file that holds no labels, whatever else it is."""


class LabelTable:
    """Labels by the name of a picture, which a list may give in full, in part, or without ending.

    ``doubts`` is what a person should know of how the list was read.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]], where: str, doubts: Sequence[str] = ()):
        self.where, self.doubts = where, tuple(doubts)
        self._exact: dict[str, str] = {}
        for name, label in pairs:
            key = "/".join(_parts(name))
            if self._exact.setdefault(key, label) != label:
                raise UsageError(f"{where} gives {key} two labels, {self._exact[key]} and {label}")
        self._plain = _unique((_stem(key), label) for key, label in self._exact.items())
        self._below: dict[str, str | None] | None = None

    def example(self) -> str:
        """One of its names."""
        return next(iter(self._exact), "")

    def find(self, name: str) -> str | None:
        """The label of a picture: by its name, by its end, then as the end of a longer one."""
        parts = name.split("/")
        tails = ["/".join(parts[i:]) for i in range(len(parts))]
        for tail in tails:
            if tail in self._exact:
                return self._exact[tail]
        for tail in tails:
            if (label := self._plain.get(_stem(tail))) is not None:
                return label
        if self._below is None:
            self._below = _unique(
                (end, label)
                for key, label in self._exact.items()
                for i in range(1, key.count("/") + 1)
                for end in _with_stem("/".join(key.split("/")[i:]))
            )
        return self._below.get(name) or self._below.get(_stem(name))


def _parts(name: str) -> list[str]:
    return [part for part in name.strip().replace("\\", "/").split("/") if part not in ("", ".")]


def _stem(name: str) -> str:
    return _ENDING.sub("", name)


def _with_stem(name: str) -> set[str]:
    return {name, _stem(name)}


def _unique(pairs: Iterable[tuple[str, str]]) -> dict[str, str | None]:
    """Labels by name; None where a name has several."""
    found: dict[str, str | None] = {}
    for name, label in pairs:
        found[name] = label if found.get(name, label) == label else None
    return found


def parse_labels(data: bytes, name: str, where: str) -> LabelTable | None:
    """What a file of labels says; None if it says that there are none, as ``{"labels": null}``.

    ``name`` tells by its ending what it is, ``where`` names it for a person. Raises
    NotLabelsError for a file that is something else, UsageError for a damaged one.
    """
    if len(data) > MOST_TABLE:
        raise UsageError(f"{where}: over {MOST_TABLE / 1e6:.0f} MB are too many for labels")
    ending = PurePosixPath(name).suffix.lower()
    try:
        if ending == ".json":
            return _from_json(json.loads(decode_text(data)), where)
        if ending in (".jsonl", ".ndjson"):
            lines = [line for line in decode_text(data).split("\n") if line.strip()]
            return _from_objects([json.loads(line) for line in lines], where)
        return _from_rows(read_rows(data), where)
    except (ValueError, RecursionError) as error:
        kind = "JSON" if ending in (".json", ".jsonl", ".ndjson") else "CSV"
        raise UsageError(f"cannot read {where} as {kind}: {error}") from None


def _from_json(value: Any, where: str) -> LabelTable | None:
    """A mapping or a list of pairs or objects, perhaps as the "labels" of an object."""
    if isinstance(value, dict) and "labels" in value:
        value = value["labels"]
        if value is None:
            return None
    if isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return _from_objects(value, where)
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(p, list | tuple) and len(p) == 2 for p in value)
        or not all(isinstance(p[0], str) for p in value)
    ):
        raise NotLabelsError(f"{where}: expected pairs of a file name and a label")
    if all(label is None for _, label in value):
        return None
    return LabelTable([(key, _word(label, where)) for key, label in value], where)


def _from_objects(items: Sequence[Any], where: str) -> LabelTable | None:
    """Objects with a name and a label, as in metadata.jsonl."""
    if not items or not all(isinstance(item, dict) for item in items):
        raise NotLabelsError(f"{where}: expected an object with file_name and label on every line")
    keys = {str(key).strip().lower(): key for item in items for key in item}
    file = next((keys[c] for c in FILE_COLUMNS if c in keys), None)
    label = next((keys[c] for c in LABEL_COLUMNS if c in keys), None)
    if file is None or label is None:
        raise NotLabelsError(
            f"{where}: expected file_name and label, got {', '.join(map(str, keys))!a:.60}"
        )
    pairs = [(str(i.get(file, "")), _word(i.get(label), where)) for i in items]
    return LabelTable(pairs, where)


def _word(label: Any, where: str) -> str:
    """A label as a word; one-hot vectors, as StyleGAN's conditions may be, are their place."""
    if label is None:
        return ""
    if type(label) is float and label.is_integer():
        label = int(label)
    if type(label) in (int, str):
        return str(label).strip()
    if isinstance(label, list) and label and sorted(label) == [0] * (len(label) - 1) + [1]:
        return str(label.index(1))
    raise UsageError(f"{where}: a label must be a number or a word, got {label!a:.40}")


def _from_rows(rows: Sequence[Sequence[str]], where: str) -> LabelTable:
    """Rows of file name and label, with or without a heading, perhaps among other columns."""
    if not rows or min(len(row) for row in rows) < 2:
        raise UsageError(
            f"{where}: expected at least two columns in every row, file name and label"
        )
    heading = [cell.lower() for cell in rows[0]]
    if any(cell.endswith(EXTENSIONS) for cell in heading):  # a picture's row
        heading = [""] * len(heading)
    file = next((heading.index(c) for c in FILE_COLUMNS if c in heading), None)
    label = next((heading.index(c) for c in LABEL_COLUMNS if c in heading), None)
    doubts: list[str] = []
    if file is not None and label is None and len(heading) == 2:
        label = 1 - file
    if file is None and label is not None and len(heading) == 2:
        file = 1 - label
    if (file is None) != (label is None):
        wanted = "file" if file is None else "label"
        raise NotLabelsError(f"{where}: no column is called {wanted}: {', '.join(rows[0])!a:.60}")
    if file is None or label is None:
        file, label = 0, 1
        if len(heading) > 2:
            doubts.append(f"{where}: columns without known names, the second is the label")
    else:
        rows = rows[1:]
    pairs = []
    for row in rows:
        if max(file, label) >= len(row):
            raise UsageError(f"{where}: the row {','.join(row)!a:.60} has too few columns")
        number = _WHOLE_FLOAT.fullmatch(row[label])  # as pandas writes whole numbers
        pairs.append((row[file], number[1] if number else row[label]))
    return LabelTable(pairs, where, doubts)
