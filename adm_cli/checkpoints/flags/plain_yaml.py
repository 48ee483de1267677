"""The YAML of configuration and label files: mappings in one another, lists, plain values.

No anchors, tags or documents of several parts: what configurations of models need, read in one
pass over the lines, so that nothing in a file can make it take longer.
"""

from __future__ import annotations

import re
from typing import Any

from adm_cli.errors import trim
from adm_cli.files.budget import MOST_DEPTH, MOST_ENTRIES, TooMuchError

_KEY = re.compile(r"(\"[^\"]*\"|'[^']*'|[^\s'\"#\[\]{},&*!|>%@`][^\n]*?)[ \t]*:(?:[ \t]+(.*))?")
_COMMENT = re.compile(r"(?:^|[ \t])#.*")
_NOTHING = ("", "null", "Null", "NULL", "~", "None")
_WORDS = {"true": True, "false": False}
_WHOLE = re.compile(r"[-+]?\d{1,18}")
_NUMBER = re.compile(
    r"[-+]?(?:\d{1,18}\.\d{0,18}|\.\d{1,18}|\d{1,18}(?=[eE]))(?:[eE][-+]?\d{1,2})?"
)


def parse_yaml(text: str, entries: int = MOST_ENTRIES) -> dict[str, Any]:
    """A mapping of at most so many ``entries``; raises ValueError for any other YAML, or none."""
    return _Reader(entries).read(text)


class _Reader:
    """``open`` and ``lists`` are the mappings and lists around the line, by their indentation."""

    def __init__(self, entries: int) -> None:
        self.entries = entries
        self.root: dict[str, Any] = {}
        self.open: list[tuple[int, dict[str, Any]]] = [(0, self.root)]
        self.lists: dict[int, list[Any]] = {}
        self.last: tuple[int, dict[str, Any], str] | None = None  # a key without a value
        self.skipped: int | None = None  # the indentation of the key of a block of text

    def read(self, text: str) -> dict[str, Any]:
        for count, line in enumerate(text.split("\n")):
            if count >= self.entries:
                raise TooMuchError(f"over {self.entries:,} lines")
            body = _COMMENT.sub("", line).rstrip()
            words = body.lstrip(" ")
            if words not in ("", "---", "..."):
                self._line(len(body) - len(words), words)
        return self.root

    def _line(self, indent: int, words: str) -> None:
        if self.skipped is not None and indent > self.skipped:
            return
        self.skipped = None
        is_item = words == "-" or words.startswith("- ")
        self.lists = {k: v for k, v in self.lists.items() if k < indent + is_item}
        while len(self.open) > 1 and indent < self.open[-1][0]:
            self.open.pop()
        if is_item:
            self._item(indent, words[1:])
        else:
            self._pair(indent, words)

    def _pair(self, indent: int, words: str) -> None:
        found = _KEY.fullmatch(words)
        if found is None:
            raise ValueError(f"the line {trim(words, 40)} is no plain YAML")
        key, value = found[1].strip("\"'"), found[2] or ""
        if self.last is not None and indent > self.last[0]:
            _, holder, name = self.last
            holder[name] = self._push(indent)
        mapping = self.open[-1][1]
        mapping[key] = plain_value(value)
        self.last = (indent, mapping, key) if not value else None
        if value[:1] in ("|", ">"):
            self.skipped = indent

    def _item(self, indent: int, words: str) -> None:
        """One of a list, itself a value or the first pair of a mapping."""
        if self.last is not None and indent >= self.last[0]:
            _, holder, name = self.last
            holder[name] = self.lists[indent] = []
        elif indent not in self.lists:
            raise ValueError("a list without a name is no plain YAML")
        self.last = None
        items, body = self.lists[indent], words.lstrip(" ")
        if _KEY.fullmatch(body) is None:
            items.append(plain_value(body))
        else:
            inside = indent + 1 + len(words) - len(body)
            items.append(self._push(inside))
            self._pair(inside, body)

    def _push(self, indent: int) -> dict[str, Any]:
        if len(self.open) >= MOST_DEPTH:
            raise TooMuchError(f"over {MOST_DEPTH} mappings in one another")
        mapping: dict[str, Any] = {}
        self.open.append((indent, mapping))
        return mapping


def plain_value(text: str) -> Any:
    """A word, number, truth value, nothing, or a list of these in brackets."""
    text = text.strip()
    if text in _NOTHING:
        return None
    if text[0] in "\"'" and text[-1] == text[0] and len(text) > 1:
        return text[1:-1]
    if text[0] == "[" and text[-1] == "]":
        inside = text[1:-1].strip().removesuffix(",")
        return [plain_value(part) for part in inside.split(",")] if inside else []
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else text
