"""``--set NAME=VALUE``: single settings, written as ``--dry-run`` shows them or as JSON."""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from adm_cli.config import ClassifierConfig, DiffusionConfig, UNetConfig
from adm_cli.errors import UsageError, did_you_mean
from adm_cli.training.config import TrainingConfig

Config = UNetConfig | ClassifierConfig | DiffusionConfig | TrainingConfig

_NOTHING = frozenset(("none", "null", "nil", "nothing", "~", "", "no", "off", "false"))
_BOOLS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


def read_changes(texts: Sequence[str], configs: Sequence[Config]) -> list[dict[str, Any]]:
    """What to change in each of ``configs``, to be changed at once: some are right only together.

    A name that two have is the last's. Raises UsageError for what is none of their settings; that
    a value is one a setting can have is for whoever makes the changes to check.
    """
    owners = {f.name: i for i, c in enumerate(configs) for f in dataclasses.fields(c)}
    changes: list[dict[str, Any]] = [{} for _ in configs]
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise UsageError(f"--set {text}: expected NAME=VALUE")
        if name not in owners:
            raise UsageError(f"--set {name}: no such setting{did_you_mean(name, owners)}")
        owner = owners[name]
        changes[owner][name] = parse_value(value, get_type_hints(type(configs[owner]))[name])
    return changes


def parse_value(text: str, hint: Any) -> Any:
    """A value of a setting's type; the text as it is where it can be none.

    ``None`` and its like, ``True``, ``1,2,2``, ``(1, 2, 2)`` and ``[1, 2, 2]`` are what they look
    like, if the type allows it; a word may have quotes.
    """
    text = text.strip()
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if types.NoneType in kinds and text.lower() in _NOTHING:
        return None
    for kind in kinds:
        value = _parse(text, kind)
        if value is not None:
            return value
    return text


def _parse(text: str, kind: Any) -> Any:
    """None where the text is no value of that type."""
    if kind is bool:
        return _BOOLS.get(text.lower())
    if kind in (int, float):
        return _number(text, kind)
    if get_origin(kind) is tuple:
        return _numbers(text, get_args(kind)[0])
    if kind is str or get_origin(kind) is Literal:
        quoted = re.fullmatch(r"""(["'])(.*)\1""", text)
        return quoted[2] if quoted else text
    return None


def _number(text: str, kind: type[int] | type[float]) -> int | float | None:
    try:
        return kind(text)
    except ValueError:
        pass
    try:
        value = float(text)  # 1e5 is a whole number too
    except ValueError:
        return None
    return int(value) if kind is int and value.is_integer() else None


def _numbers(text: str, kind: type[int] | type[float]) -> tuple[int | float, ...] | None:
    """As many as there are, in brackets or without."""
    bare = re.fullmatch(r"\((.*)\)|\[(.*)\]|([^()\[\]]*)", text)
    inside = "" if bare is None else bare[bare.lastindex or 0].strip().rstrip(",")  # (0.9999,)
    if bare is not None and bare.lastindex != 3 and not inside:
        return ()  # brackets with nothing in them
    parts = re.split(r"\s*[,;x]\s*|\s+", inside)
    values = [_number(part, kind) for part in parts]
    found = [value for value in values if value is not None]
    return tuple(found) if found and len(found) == len(values) else None
