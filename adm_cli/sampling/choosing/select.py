"""Which images a command draws: ``--class``, ``--num``, ``--total``, ``--seed``, ``--seeds``, or
a list of classes, a line each.
"""

from __future__ import annotations

import itertools
import math
import random
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from adm_cli.checkpoints.sources import Sources
from adm_cli.classes.imagenet import select_classes
from adm_cli.classes.mixtures import mixture_name, select_choices
from adm_cli.config import DEFAULT_NUM
from adm_cli.errors import UsageError, how_many, trim
from adm_cli.files.disk import open_file
from adm_cli.files.lists import decode_text
from adm_cli.sampling.choosing.asked_classes import choose_classes
from adm_cli.sampling.choosing.images import MAX_IMAGES, ImageRow, Images, drawn_row

MAX_LIST_BYTES = 2**28
_MOST_LINE = 10_000  # characters
_QUOTED = re.compile(r"[\"'\\#]")
_WORD = re.compile(r"[^ \t\r\n;]+")


def select_images(
    sources: Sources,
    classes: list[str] | None,
    suffix: str,
    *,
    seed: int | None = None,
    seeds: str | None = None,
    num: int | None = None,
    total: int | None = None,
) -> Images:
    """The images to draw, class by class; ``suffix`` ends the names of their files.

    With ``seeds`` every class gets each of them; otherwise ``num`` images of each class, or
    ``total`` shared out over the classes, at most one apart, their seeds running on from ``seed``.
    Without ``classes``, or with "random", the seed chooses the
    class; "none" is no class. Raises UsageError.
    """
    wanted = wanted_classes(classes, sources)
    own_seeds = _seed_lists(seed, seeds, num, total, max(1, len(wanted)))
    names = sources.classes
    if not wanted:
        ids = tuple(sorted(names))
        drawn = ((_random_class(s, ids), s) for part in own_seeds[0] for s in part)
        return Images(drawn_row(i, range(s, s + 1), suffix, class_name=names[i]) for i, s in drawn)
    return Images(
        drawn_row(class_id, part, suffix, class_name=choice_name(class_id, names))
        for class_id, parts in zip(wanted, own_seeds, strict=True)
        for part in parts
    )


def wanted_classes(specs: list[str] | None, sources: Sources) -> list[int | str | None]:
    """Class ids and mixtures; none if the seed chooses, one None where the model takes no class."""
    known = sources.classes
    if not known:
        if specs:
            raise UsageError(
                f"{sources.called} is unconditional and not guided: --class would change "
                f"nothing; pass --scale and --classifier to guide it"
            )
        return [None]
    if not specs or [spec.strip().lower() for spec in specs] == ["random"]:
        return []
    chosen: list[int | str | None] = []
    for spec in specs:
        if spec.strip().lower() == "random":
            raise UsageError("--class random stands alone: leave out the other classes")
        if spec.strip().lower() == "none":
            chosen.append(None)  # `check_classes` knows whether the model can
        else:
            chosen += choose_classes(spec, sources, select_choices)
    return list(dict.fromkeys(chosen))


def _seed_lists(
    seed: int | None, seeds: str | None, num: int | None, total: int | None, classes: int
) -> list[list[range]]:
    """The seeds of each class: running on from --seed, or the same --seeds for all."""
    if seeds is not None:
        if seed is not None or num is not None or total is not None:
            raise UsageError("--seeds lists every seed: leave out --seed and --num")
        same = parse_seeds(seeds)
        _check_total(sum(map(len, same)) * classes)
        return [same] * classes
    if total is not None and num is not None:
        raise UsageError("--total counts all images, --num those of each class: pass one of them")
    if total is not None and total < 1:
        raise UsageError(f"--total must be at least 1, got {total}")
    count = DEFAULT_NUM if num is None else num
    if count < 1:
        raise UsageError(f"--num must be at least 1, got {count}")
    images = count * classes if total is None else total
    _check_total(images)
    start = 0 if seed is None else seed
    ends = [start + images * k // classes for k in range(classes + 1)]
    return [[range(a, b)] for a, b in itertools.pairwise(ends)]


def _check_total(images: int) -> None:
    if images > MAX_IMAGES:
        count = f"{images:,}" if images < 10**15 else "over 10^15"
        raise UsageError(f"{count} images in one run: at most {MAX_IMAGES:,}")


def parse_seeds(text: str) -> list[range]:
    """``"0-63,100"`` as ranges without repeats; raises UsageError."""
    if text.isdecimal() and len(text) <= 20:
        return [range(int(text), int(text) + 1)]
    found: list[range] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UsageError(f"--seeds {text!r}: expected numbers and ranges such as 0-63,100")
        if max(len(first), len(last)) > 20:
            raise UsageError(f"--seeds {part.strip():.30}: seeds are below 2^64")
        end = int(last) if dash else int(first)
        if end < int(first):
            raise UsageError(f"--seeds {part.strip()}: the first seed is above the last")
        found.append(range(int(first), end + 1))
        _check_total(end - int(first) + 1 + len(found) - 1)
    _check_total(sum(map(len, found)))
    spans = sorted((part.start, part.stop) for part in found)
    if all(end <= start for (_, end), (start, _) in itertools.pairwise(spans)):
        return found
    return [range(s, s + 1) for s in dict.fromkeys(itertools.chain(*found))]


def _random_class(seed: int, ids: tuple[int, ...]) -> int:
    """One of the classes, ascending, that depends on the seed alone, not on the seeds before it.

    Of K classes each has its turn in K seeds: from a multiple of K on they are all distinct.
    """
    turn, place = divmod(seed, len(ids))
    return _shuffled(turn, ids)[place]


@lru_cache(maxsize=4)
def _shuffled(turn: int, ids: tuple[int, ...]) -> list[int]:
    return random.Random(f"classes of turn {turn}").sample(ids, len(ids))


def negative_class(spec: str | int, sources: Sources) -> int:
    """The class that is meant, by its id or in words; raises UsageError."""
    if isinstance(spec, int) and spec in sources.classes:
        return spec
    spec = str(spec)
    if not sources.classes:
        raise UsageError(
            f"--negative-class {spec}: {sources.called} is unconditional and not guided by a "
            f"classifier"
        )
    found = choose_classes(spec, sources, select_classes)
    if len(found) != 1:
        raise UsageError(f"--negative-class {trim(spec)}: expected one class, got {len(found)}")
    return found[0]


def choice_name(class_id: int | str | None, known: Mapping[int, str]) -> str:
    """What a class or mixture is called, nothing without a name."""
    if isinstance(class_id, str):
        return mixture_name(class_id, known)
    return "" if class_id is None else known.get(class_id, "")


class ClassLine(NamedTuple):
    """A line of a class list."""

    place: str  # for messages: file and line number
    spec: str
    seeds: Sequence[range] | None
    scale: float | None
    cfg: float | None


def read_class_list(path: Path) -> list[ClassLine]:
    """The lines ``class [seed [scale [cfg]]]`` of a file, or of standard input for "-".

    Words are parted by spaces, tabs or semicolons. A class is an id, a name (in quotes if it has
    spaces), "random" or "none"; seeds may be a range. Empty lines and what follows a # are passed
    over. Raises UsageError, with the line's number.
    """
    name = "standard input" if str(path) == "-" else str(path)
    try:
        if str(path) == "-":
            data = sys.stdin.buffer.read(MAX_LIST_BYTES + 1)
        else:
            with open_file(path, pipe=True) as file:
                data = file.read(MAX_LIST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"--classes-file {name}: {error.strerror or error}") from None
    if len(data) > MAX_LIST_BYTES:
        raise UsageError(f"--classes-file {name} has over {MAX_LIST_BYTES} bytes")
    lines: list[ClassLine] = []
    try:
        rows = decode_text(data).split("\n")
    except ValueError:
        raise UsageError(f"--classes-file {name} is no text in UTF-8") from None
    for i, row in enumerate(rows, 1):
        if line := _class_line(f"{name}, line {i}", row):
            lines.append(line)
            _check_total(len(lines))
    if not lines:
        raise UsageError(f"--classes-file {name} names no class")
    return lines


def _class_line(place: str, row: str) -> ClassLine | None:
    if len(row) > _MOST_LINE:
        raise UsageError(f"{place}: over {_MOST_LINE:,} characters are too many for a line")
    try:
        words = _words(row)
    except ValueError as error:
        raise UsageError(f"{place}: {str(error).lower()}") from None
    if not words:
        return None
    if "," in row and any(word.endswith(",") for word in words):
        raise UsageError(
            f"{place}: {trim(row.strip())}: part words by blanks, tabs or ;, no commas"
        )
    if len(words) > 4:
        raise UsageError(
            f"{place}: expected class [seed [scale [cfg]]], got {how_many(len(words), 'word')}"
        )
    try:
        seeds = parse_seeds(words[1]) if len(words) > 1 else None
    except UsageError:
        raise UsageError(
            f"{place}: expected a seed or a range of seeds, got {trim(words[1], 40)} "
            f"(a name with spaces needs quotes)"
        ) from None
    if len(words) < 3:
        return ClassLine(place, words[0], seeds, None, None)
    scale, cfg = (_line_number(place, name, words, i) for i, name in ((2, "scale"), (3, "cfg")))
    return ClassLine(place, words[0], seeds, scale, cfg)


def _words(row: str) -> list[str]:
    """As a shell parts them, and a table by semicolons; raises ValueError for an open quote."""
    if not _QUOTED.search(row):  # a hundredth of the time of the below
        return _WORD.findall(row)
    lexer = shlex.shlex(row, posix=True)
    lexer.whitespace += ";"
    lexer.whitespace_split = True
    return list(lexer)


def _line_number(place: str, name: str, words: Sequence[str], i: int) -> float | None:
    if i >= len(words):
        return None
    try:
        value = float(words[i])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{place}: the {name} must be a finite number, got {trim(words[i], 40)}")
    return value


def select_lines(
    sources: Sources,
    lines: Sequence[ClassLine],
    suffix: str,
    *,
    seed: int | None,
    num: int | None,
) -> Images:
    """The images of a class list, in its order.

    A line without a seed is ``num`` images (one unless given), seeds running on from ``seed`` over
    all such lines. Raises UsageError for an unknown class, or an image that is listed twice.
    """
    count = 1 if num is None else num
    if count < 1:
        raise UsageError(f"--num must be at least 1, got {count}")
    following, total = 0 if seed is None else seed, 0
    rows: list[ImageRow] = []
    known = sources.classes
    ids = tuple(sorted(known))
    places: dict[str, str] = {}
    # what a word means, and its name; of a million lines most have the same
    chosen: dict[str, tuple[int | str | None, str]] = {}
    for line in lines:
        parts = line.seeds
        if parts is None:
            parts = [range(following, following + count)]
            following += count
        total += len(parts[0]) if len(parts) == 1 else sum(map(len, parts))
        _check_total(total)
        for own_seed in itertools.chain(*parts):
            if line.spec in chosen:
                class_id, name = chosen[line.spec]
            elif line.spec.strip().lower() == "random" and ids:
                class_id = _random_class(own_seed, ids)
                name = choice_name(class_id, known)
            else:
                class_id = _line_class(line, sources)
                name = choice_name(class_id, known)
                chosen[line.spec] = class_id, name
            row = drawn_row(
                class_id, range(own_seed, own_seed + 1), suffix, line.scale, line.cfg, name
            )  # fmt: skip
            if row.first.file in places:
                raise UsageError(
                    f"{line.place}: class {line.spec} with seed {own_seed} was asked for already "
                    f"({places[row.first.file]})"
                )
            places[row.first.file] = line.place
            rows.append(row)
    return Images(rows)


def _line_class(line: ClassLine, sources: Sources) -> int | str | None:
    if line.spec.strip().lower() in ("none", "random"):
        return None
    try:
        found = choose_classes(line.spec, sources, select_choices)
    except UsageError as error:
        raise UsageError(f"{line.place}: {error}") from None
    if len(found) != 1:
        raise UsageError(f"{line.place}: expected one class, got {trim(line.spec, 40)}")
    return found[0]
