"""Files that say which label a picture has: tables, JSON, JSON lines, whoever made them.

CSV and its relatives with or without a heading; StyleGAN's and EDM's ``dataset.json``; the
``metadata.jsonl`` of Hugging Face's imagefolder; Tiny ImageNet's ``val_annotations.txt``.
"""

from __future__ import annotations

import math
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from adm_cli.checkpoints.flags.plain_yaml import parse_yaml
from adm_cli.errors import UsageError, trim, why_unread
from adm_cli.files.budget import MOST_FILES, MOST_TABLE, counted, parse_json
from adm_cli.files.lists import decode_text, read_rows, text_lines
from adm_cli.pictures.decode import EXTENSIONS

FILE_COLUMNS = (
    "file filename file_name path image name id image_id img img_id fname filepath file_path "
    "image_path img_path image_name img_name image_file"
).split()
LABEL_COLUMNS = (
    "label class class_name class_id category labels target cls classname category_id "
    "category_name class_label"
).split()

_BINARY = {
    b"PAR1": "Parquet",
    b"\x93NUMPY": "a NumPy array",
    b"PK\3\4": "a spreadsheet or archive",
    b"ARROW1": "Arrow",
}
_KINDS = dict.fromkeys((".json", ".jsonl", ".ndjson"), "JSON") | {".yaml": "YAML", ".yml": "YAML"}
_SPLIT_COLUMNS = frozenset(
    "split subset partition fold phase usage set is_train is_training train_test".split()
)
_COLUMNS = frozenset((*FILE_COLUMNS, *LABEL_COLUMNS))
_CAPTIONS = frozenset(
    "text texts caption captions prompt prompts description sentence title alt url mask".split()
)
_NOTHING = frozenset(("", "nan", "-nan", "<na>", "nat", "#n/a", "n/a", "null"))  # and Python's None
_BITS = {"0": 0, "0.0": 0, "1": 1, "1.0": 1}
_ENDING = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}$")
_WHOLE_FLOAT = re.compile(r"(-?\d{1,18})\.0+")


class NotLabelsError(UsageError):
    """A file that holds no labels, whatever else it is."""


def is_nothing(word: str) -> bool:
    """Whether a label is what programs write where there is none, as pandas does."""
    return word == "None" or word.strip().lower() in _NOTHING


class LabelTable:
    """Labels by the name of a picture, which a list may give in full, in part, or without ending.

    ``doubts`` is what a person should know of how the list was read. A label that is nothing,
    such as ``nan``, is an empty one.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]], where: str, doubts: Sequence[str] = ()):
        self.where, self.doubts = where, tuple(doubts)
        self._exact: dict[str, str] = {}
        for name, said in counted(pairs, "labels", MOST_FILES):
            label = "" if is_nothing(said) else said
            key = "/".join(_parts(name))
            if self._exact.setdefault(key, label) != label:
                raise UsageError(f"{where} gives {key} two labels, {self._exact[key]} and {label}")
        self._plain: dict[str, str | None] | None = None
        self._ends: tuple[_Ends, _Ends] | None = None

    def example(self) -> str:
        """One of its names."""
        return next(iter(self._exact), "")

    def find(self, name: str) -> str | None:
        """The label of a picture: by its name, by its end, then as the end of a longer one."""
        name = _composed(name)
        parts = name.split("/")
        tails = ["/".join(parts[i:]) for i in range(len(parts))]
        for tail in tails:
            if tail in self._exact:
                return self._exact[tail]
        if self._plain is None:
            self._plain = _unique((_stem(key), label) for key, label in self._exact.items())
        for tail in tails:
            if (label := self._plain.get(_stem(tail))) is not None:
                return label
        if self._ends is None:
            whole = _Ends(self._exact.items())
            self._ends = whole, _Ends((_stem(key), label) for key, label in self._exact.items())
        found = (ends.find(n) for n in (name, _stem(name)) for ends in self._ends)
        return next((label for label in found if label is not None), None)


class _Ends:
    """Labels of longer names by their end: names are sorted from their last letter on."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        rows = sorted((name[::-1], label) for name, label in pairs)
        self.names, self.labels = [name for name, _ in rows], [label for _, label in rows]
        self.same = list(range(1, len(rows) + 1))  # how far the label of a row goes on
        for i in range(len(rows) - 2, -1, -1):
            if self.labels[i] == self.labels[i + 1]:
                self.same[i] = self.same[i + 1]

    def find(self, end: str) -> str | None:
        """The label of all names below folders that end so; None without any, or of several."""
        start = bisect_left(self.names, f"{end[::-1]}/")
        stop = bisect_left(self.names, f"{end[::-1]}0", start)  # the character after the slash
        return self.labels[start] if start < stop <= self.same[start] else None


def _parts(name: str) -> list[str]:
    return [p for p in _composed(name).strip().replace("\\", "/").split("/") if p not in ("", ".")]


def _composed(name: str) -> str:
    """Accents with their letters: macOS stores the names of files with the two apart."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _splits(heading: Iterable[str], where: str) -> list[str]:
    """The doubt about a column that says which pictures are held out."""
    column = next((name for name in heading if name.strip().lower() in _SPLIT_COLUMNS), None)
    return [] if column is None else [f"{where}: its {column} is not read: all pictures are used"]


def _stem(name: str) -> str:
    return _ENDING.sub("", name)


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
    if binary := next((what for start, what in _BINARY.items() if data.startswith(start)), None):
        raise NotLabelsError(f"{where} is {binary}: save it as CSV, e.g. with pandas' to_csv")
    try:
        if ending == ".json":
            text = decode_text(data)
            return _from_json(parse_json(text, most=MOST_TABLE, entries=3 * MOST_FILES), where)
        if ending in (".yaml", ".yml"):
            return _from_json(parse_yaml(decode_text(data), 2 * MOST_FILES), where)
        if ending in (".jsonl", ".ndjson"):
            objects = map(parse_json, counted(text_lines(data), "lines", MOST_FILES))
            return _from_objects([_needed(item, i) for i, item in enumerate(objects)], where)
        return _from_rows(read_rows(data), where)
    except UsageError:
        raise
    except ValueError as error:
        kind = _KINDS.get(ending, "CSV")
        raise UsageError(f"cannot read {where} as {kind}: {why_unread(error)}") from None


def _needed(item: Any, number: int) -> Any:
    """An object's name and label, but all of the first one: the others may take much memory."""
    if number == 0 or not isinstance(item, dict):
        return item
    return {key: value for key, value in item.items() if key.strip().lower() in _COLUMNS}


def _from_json(value: Any, where: str) -> LabelTable | None:
    """A mapping or a list of pairs or objects, perhaps as the "labels" of an object."""
    if isinstance(value, dict) and {"images", "annotations"} <= set(value):
        return _from_coco(value, where)
    if isinstance(value, dict) and "labels" in value:
        value = value["labels"]
        if value is None:
            return None
    if isinstance(value, dict):
        if value and all(_are_files(names) for names in value.values()):  # of each class
            value = [[name, label] for label, names in value.items() for name in names]
        else:
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


def _from_coco(value: dict[str, Any], where: str) -> LabelTable:
    """COCO's boxes and masks as labels of whole pictures, where each has those of one category."""
    try:
        names = {row["id"]: str(row["name"]) for row in value.get("categories") or ()}
        files = {row["id"]: str(row["file_name"]) for row in value["images"]}
        found: dict[Any, Any] = {}
        for row in value["annotations"]:
            image, category = row["image_id"], row["category_id"]
            if found.setdefault(image, category) != category:
                raise UsageError(
                    f"{where}: {trim(files.get(image))} shows several categories, expected one a "
                    f"picture: write a CSV file of names and labels"
                )
    except (KeyError, TypeError, AttributeError):
        raise NotLabelsError(f"{where}: COCO without categories of its pictures") from None
    pairs = [(files[i], names.get(c, str(c))) for i, c in found.items() if i in files]
    return LabelTable(pairs, where)


def _are_files(names: Any) -> bool:
    return isinstance(names, list) and all(
        isinstance(name, str) and name.lower().endswith(EXTENSIONS) for name in names
    )


def _from_objects(items: Sequence[Any], where: str) -> LabelTable | None:
    """Objects with a name and a label, as in metadata.jsonl."""
    if not items or not all(isinstance(item, dict) for item in items):
        raise NotLabelsError(f"{where}: expected an object with file_name and label on every line")
    keys = {str(key).strip().lower(): key for item in items for key in item}
    file = next((keys[c] for c in FILE_COLUMNS if c in keys), None)
    label = next((keys[c] for c in LABEL_COLUMNS if c in keys), None)
    if file is None or label is None:
        raise NotLabelsError(
            f"{where}: expected file_name and label, got {trim(', '.join(map(str, keys)))}"
        )
    pairs = [(str(i.get(file, "")), _word(i.get(label), where)) for i in items]
    return LabelTable(pairs, where, _splits(map(str, keys), where))


def _word(label: Any, where: str) -> str:
    word = label_word(label)
    if word is None:
        raise UsageError(
            f"{where}: a label must be a number or a word, got {trim(label, 40)}: expected pairs "
            f'such as ["a.png", 7]'
        )
    return word


def label_word(label: Any) -> str | None:
    """A label in JSON as a word, "" for none; None for what cannot be one.

    A list of one label is that; one-hot vectors, as StyleGAN's conditions may be, are their place.
    """
    if isinstance(label, list) and len(label) == 1:
        label = label[0]
    if label is None or (type(label) is float and math.isnan(label)):
        return ""
    if type(label) is float and label.is_integer():
        label = int(label)
    if type(label) in (int, str, bool):
        return str(label).strip()
    if isinstance(label, list) and label.count(1) == 1 and label.count(0) == len(label) - 1:
        return str(label.index(1))
    return None


def _from_rows(rows: Sequence[Sequence[str]], where: str) -> LabelTable:
    """Rows of file name and label, with or without a heading, perhaps among other columns."""
    if not rows or min(len(row) for row in rows) < 2:
        raise UsageError(
            f"{where}: expected at least two columns in every row, file name and label"
        )
    heading = [cell.lower() for cell in rows[0]]
    if any(cell.endswith(EXTENSIONS) for cell in heading):  # a picture's row
        heading = [""] * len(heading)
    doubts = _splits(heading, where)
    file, label = _named_columns(heading, rows[0], where)
    if file is not None and label is None and (columns := _one_hot(rows, file, where)):
        return columns
    if file is not None and label is not None:
        doubts += _rivals(rows[0], label, where)
        return LabelTable(_pairs(rows[1:], file, label, where), where, doubts)
    if file is not None or label is not None:
        wanted = "file" if file is None else "label"
        raise NotLabelsError(f"{where}: no column is called {wanted}: {trim(', '.join(rows[0]))}")
    file = _file_column(rows)
    label = next(i for i in (file + 1, 0) if i < len(heading))
    if len(heading) > 2:
        which = ("first", "second", "third")[label] if label < 3 else f"{label + 1}th"
        doubts.append(f"{where}: columns without known names, the {which} is the label")
    return LabelTable(_pairs(rows, file, label, where), where, doubts)


def _named_columns(
    heading: Sequence[str], spelt: Sequence[str], where: str
) -> tuple[int | None, int | None]:
    """Places of file name and label by a heading's known names; of two, one tells the other."""
    file = next((heading.index(c) for c in FILE_COLUMNS if c in heading), None)
    label = next((heading.index(c) for c in LABEL_COLUMNS if c in heading), None)
    if len(heading) == 2 and file is not None and label is None:
        label = 1 - file
        if heading[label] in _CAPTIONS:
            raise NotLabelsError(f"{where}: the column {trim(spelt[label])} is no label")
    elif len(heading) == 2 and file is None and label is not None:
        file = 1 - label
    return file, label


def _one_hot(rows: Sequence[Sequence[str]], file: int, where: str) -> LabelTable | None:
    """A table with a column for each class, of which one is 1 and the others 0; else None."""
    pairs = []
    for row in rows[1:]:
        bits = [_BITS.get(cell) for i, cell in enumerate(row) if i != file]
        if len(row) != len(rows[0]) or None in bits or bits.count(1) != 1:
            return None
        place = bits.index(1)
        pairs.append((row[file], rows[0][place + (place >= file)]))
    return LabelTable(pairs, where, [f"{where}: a column for each class"]) if pairs else None


def _rivals(heading: Sequence[str], label: int, where: str) -> list[str]:
    """The doubt about a second column that could be the label."""
    others = [
        name for i, name in enumerate(heading) if i != label and name.lower() in LABEL_COLUMNS
    ]
    if not others:
        return []
    return [f"{where}: its {heading[label]} is the label, its {others[0]} is not read"]


def _file_column(rows: Sequence[Sequence[str]]) -> int:
    """The first in which the last row, which is no heading, names a picture; else the first."""
    return next((i for i, cell in enumerate(rows[-1]) if cell.lower().endswith(EXTENSIONS)), 0)


def _pairs(
    rows: Iterable[Sequence[str]], file: int, label: int, where: str
) -> Iterator[tuple[str, str]]:
    for row in rows:
        if max(file, label) >= len(row):
            raise UsageError(f"{where}: the row {trim(','.join(row))} has too few columns")
        number = _WHOLE_FLOAT.fullmatch(row[label])  # as pandas writes whole numbers
        yield row[file], number[1] if number else row[label]
