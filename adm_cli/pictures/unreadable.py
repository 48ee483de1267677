"""Pictures of a set that cannot be read: all are named at once, not one a try."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from adm_cli.errors import AdmError, how_many
from adm_cli.pictures.datasets import ImageSet

_MOST_NAMED = 10
OnChecked = Callable[[int, int], None]  # pictures done, pictures in all


def refuse_unreadable(
    images: ImageSet, *, skippable: bool = False, on_checked: OnChecked | None = None
) -> None:
    """Decodes every picture; raises AdmError that names those which cannot be.

    ``skippable`` where ``--skip-bad`` would pass over them.
    """
    bad = []

    def wrong(index: int) -> str | None:
        try:
            images.decode(index)
        except AdmError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(max(1, os.cpu_count() or 1)) as pool:
        for done, text in enumerate(pool.map(wrong, range(len(images))), 1):
            if text is not None:
                bad.append(text)
            if on_checked is not None:
                on_checked(done, len(images))
    refuse_any(bad, len(images), skippable=skippable)


def refuse_any(bad: Sequence[str], total: int, *, skippable: bool = False) -> None:
    """Raises AdmError if there are pictures, of ``total``, that were found unreadable."""
    if not bad:
        return
    found = name_bad(bad)
    if total > 1:
        found = f"{len(bad)} of {how_many(total, 'picture')} cannot be read: {found}"
    mend = "remove it" if len(bad) == 1 else "remove them"
    raise AdmError(f"{found}; {mend}{', or pass --skip-bad' if skippable else ''}")


def name_bad(bad: Sequence[str]) -> str:
    """Pictures and what is wrong with each, in a line: the first ones of many."""
    named = [text.removeprefix("cannot read ") for text in bad[:_MOST_NAMED]]
    more = len(bad) - len(named)
    return "; ".join([*named, f"and {more:,} more"] if more else named)
