"""What differs between two sets of facts, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CHANGE = "{name} {old} -> {new}"
BESIDE = "{name} ({old}, now {new})"
_LONGEST = 40  # of a value shown


def differences(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    form: str = CHANGE,
    names: Mapping[str, str] | None = None,
) -> list[str]:
    """Which values differ: ``"scale 4 -> 2"``. What is not there is none.

    ``names``: the facts that are compared, and what to call each; without, all by their own names.
    """
    if names is None:
        names = {name: name for name in [*old, *new]}
    return [
        form.format(name=name, old=_short(old.get(key)), new=_short(new.get(key)))
        for key, name in names.items()
        if old.get(key) != new.get(key)
    ]


def _short(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, (list, tuple)):
        inside = [isinstance(one, (list, tuple)) for one in value]
        text = ",".join(
            "-".join(map(_short, one)) if nested else _short(one)
            for one, nested in zip(value, inside, strict=True)
        )
    else:
        text = f"{value:.12g}" if isinstance(value, float) else str(value)
    if len(text) == 64:  # a SHA-256
        return text[:12]
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
