"""Which images a command draws: ``--class``, ``--num``, ``--seed`` and ``--seeds``."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from adm_cli.errors import UsageError
from adm_cli.imagenet import select_classes

if TYPE_CHECKING:
    from adm_cli.pipeline import Sources

DEFAULT_NUM = 4
MAX_IMAGES = 10**7


def select_images(
    sources: Sources,
    classes: list[str] | None,
    *,
    seed: int | None = None,
    seeds: str | None = None,
    num: int | None = None,
) -> list[tuple[int | None, int]]:
    """Class and seed of every image, class by class.

    With ``seeds`` every class gets each of them; otherwise ``num`` images of each class, their
    seeds running on from ``seed``. Without ``classes``, or with "random", the seed chooses the
    class; "none" is no class. Raises UsageError.
    """
    wanted = _class_list(classes, sources)
    own_seeds = _seed_lists(seed, seeds, num, max(1, len(wanted)))
    if not wanted:
        return [(_random_class(s, sources), s) for s in own_seeds[0]]
    return [(c, s) for c, own in zip(wanted, own_seeds, strict=True) for s in own]


def _class_list(specs: list[str] | None, sources: Sources) -> list[int | None]:
    """Class ids, none if the seed chooses, or one None where the model takes no class."""
    known = sources.classes
    if not known:
        if specs:
            raise UsageError(
                f"{sources.model_name} is unconditional and not guided: --class would change "
                f"nothing; pass --scale and --classifier to guide it"
            )
        return [None]
    if not specs or [spec.strip().lower() for spec in specs] == ["random"]:
        return []
    chosen: list[int | None] = []
    for spec in specs:
        if spec.strip().lower() == "random":
            raise UsageError("--class random stands alone: leave out the other classes")
        if spec.strip().lower() == "none":
            chosen.append(None)  # `check_classes` knows whether the model can
        else:
            chosen += select_classes(spec, known)
    return list(dict.fromkeys(chosen))


def _seed_lists(
    seed: int | None, seeds: str | None, num: int | None, classes: int
) -> list[Sequence[int]]:
    """The seeds of each class: running on from --seed, or the same --seeds for all."""
    if seeds is not None:
        if seed is not None or num is not None:
            raise UsageError("--seeds lists every seed: leave out --seed and --num")
        same = parse_seeds(seeds)
        _check_total(len(same) * classes)
        return [same] * classes
    count = DEFAULT_NUM if num is None else num
    if count < 1:
        raise UsageError(f"--num must be at least 1, got {count}")
    _check_total(count * classes)
    start = 0 if seed is None else seed
    return [range(start + k * count, start + (k + 1) * count) for k in range(classes)]


def _check_total(images: int) -> None:
    if images > MAX_IMAGES:
        raise UsageError(f"{images:,} images in one run: at most {MAX_IMAGES:,}")


def parse_seeds(text: str) -> list[int]:
    """``"0-63,100"`` to a list without repeats; raises UsageError."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UsageError(f"--seeds {text!r}: expected numbers and ranges such as 0-63,100")
        if max(len(first), len(last)) > 20:
            raise UsageError(f"--seeds {part.strip():.30}: seeds are below 2^64")
        end = int(last) if dash else int(first)
        if end < int(first):
            raise UsageError(f"--seeds {part.strip()}: the first seed is above the last")
        _check_total(end - int(first) + 1 + len(found))
        found += range(int(first), end + 1)
    return list(dict.fromkeys(found))


def _random_class(seed: int, sources: Sources) -> int:
    """A class that depends on the seed alone, not on the seeds before it."""
    return random.Random(f"class of seed {seed}").choice(sorted(sources.classes))
