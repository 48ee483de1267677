"""What a person should look at in the names of a set, though nothing is wrong with them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence


def twice(names: Sequence[str]) -> list[str]:
    """Sorted names, of which several may be of one thing: a picture and its mask, or two formats.

    Such differ after their first dot alone (``7.jpg`` and ``7.seg.png``); a number there is part
    of a name (``cat.7.jpg``).
    """
    several, example = 0, ""
    key, before = "", ""
    for name in names:
        base = name.rpartition("/")[2].partition(".")
        middle = base[2].rpartition(".")[0]
        now = name[: len(name) - len(base[2])]
        if middle and middle.replace(".", "").isdecimal():
            continue
        if now == key:
            several, example = several + 1, example or f"{before} and {name}"
        key, before = now, name
    if not several:
        return []
    return [f"pictures whose names differ in their endings are all used ({several:,}): {example}"]


def alike(classes: Iterable[str]) -> list[str]:
    """Names of classes that a person would take for one: other capitals, blanks, or Unicode forms.

    These are told in escapes, since they look the same.
    """
    seen: dict[str, str] = {}
    pairs = []
    for name in classes:
        plain = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        if seen.setdefault(plain, name) != name:
            pairs.append(f"{seen[plain]!a} and {name!a}")
    if not pairs:
        return []
    return [f"classes of nearly equal names are told apart ({len(pairs)}), e.g. {pairs[0]}"]
