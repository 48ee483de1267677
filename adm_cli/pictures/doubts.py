"""What a person should look at in the names of a set, though nothing is wrong with them."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress

from adm_cli.errors import AdmError, how_many, trim
from adm_cli.files.manifests import Manifests
from adm_cli.pictures.archives import FolderSource, Source
from adm_cli.pictures.label_files import is_nothing

_MISSING = frozenset("none na - -- ? unknown undefined unlabeled unlabelled missing -1".split())
_OF_SWEEPS = ("sheet.png", "sweep.png")  # beside their sweep.json


def twice(names: Sequence[str]) -> list[str]:
    """Sorted names, of which several may be of one thing: a picture and its mask, or two formats.

    Such differ after their first dot alone (``7.jpg`` and ``7.seg.png``); a number that begins or
    ends that is part of a name (``cat.7.jpg``, ``a.b.7.jpg``, ``... at 3.04.05 PM.png``).
    """
    several, example = 0, ""
    key, before = "", ""
    for name in names:
        base = name.rpartition("/")[2].partition(".")
        middle = base[2].rpartition(".")[0]
        now = name[: len(name) - len(base[2])]
        parts = middle.split(".")
        if parts[0][:1].isdecimal() or parts[-1].isdecimal():
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


def strange(words: Sequence[str]) -> list[str]:
    """Labels, one a picture, that may be none, or several, or numbers written in two ways."""
    counts = Counter(words)
    notes = []
    if missing := [w for w in counts if is_nothing(w) or w.lower() in _MISSING]:
        count = how_many(counts[missing[0]], "picture")
        notes.append(f"{missing[0]!a} is a class ({count}), though it may mean that there is none")
    joined = {w: re.split(r"\s*[,;|]\s*", w) for w in counts if re.search("[,;|]", w)}
    if several := [w for w, parts in joined.items() if any(part in counts for part in parts)]:
        notes.append(f"a label of several, such as {trim(several[0])}, is a class of its own")
    numbers: dict[int, str] = {}
    for word in filter(re.compile(r"\d{1,18}").fullmatch, counts):
        if (other := numbers.setdefault(int(word), word)) != word:
            notes.append(f"{other!a} and {word!a} are one class, {int(word)}")
            break
    if len(counts) == len(words) > 3:
        notes.append(
            "each picture is a class of its own: these may be no labels (or --labels none)"
        )
    return notes


def beside_runs(source: Source, names: Sequence[str], pictures: Sequence[str]) -> set[str]:
    """Sheets, films and whatever else lies beside the images that a run of ours recorded.

    Also the sheet and the curves of a sweep, which lie beside its runs.
    """
    if not isinstance(source, FolderSource):
        return set()
    sweeps = [name[: -len("sweep.json")] for name in names if f"/{name}".endswith("/sweep.json")]
    found = {f"{sweep}{name}" for sweep in sweeps for name in _OF_SWEEPS} & set(pictures)
    for folder in (name[: -len("run.json")] for name in names if f"/{name}".endswith("/run.json")):
        with suppress(AdmError):  # a damaged run, or another program's: pictures like others
            images = {f"{folder}{name}" for name in Manifests(source.path / folder).records()}
            here = {n for n in pictures if n.startswith(folder) and "/" not in n[len(folder) :]}
            found |= here - images if images else set()
    return found
