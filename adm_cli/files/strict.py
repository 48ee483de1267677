"""Frozen dataclasses of settings as JSON: unknown or missing keys and wrong types are errors."""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from adm_cli.errors import ConfigError, one_of, trim, why_unread
from adm_cli.files.budget import parse_json

C = TypeVar("C")
_SHOWN = 6  # names in a message


def config_to_json(config: Any) -> str:
    """Of a dataclass of numbers, texts, None and tuples of them.

    Fields whose metadata says ``omit_default`` are left out where they are as by default: what was
    written before there were such fields stays the same text.
    """
    values = dataclasses.asdict(config)
    for field in dataclasses.fields(config):
        if field.metadata.get("omit_default") and values[field.name] == field.default:
            del values[field.name]
    return json.dumps(values, sort_keys=True)


def config_from_json(cls: type[C], text: str) -> C:
    """The inverse of `config_to_json`; raises ConfigError on anything it would not have written."""
    try:
        data = parse_json(text)
    except ValueError as error:
        raise ConfigError(f"settings are not JSON ({why_unread(error)})") from None
    if not isinstance(data, dict):
        raise ConfigError("settings are no JSON object")
    return read_config(cls, data)


def with_settings(config: C, settings: Mapping[str, Any]) -> C:
    """A copy with some fields replaced; raises ConfigError for an unknown field or wrong type."""
    merged = {**dataclasses.asdict(config), **settings}  # type: ignore[call-overload]
    return config_from_json(type(config), json.dumps(merged))


def read_config(cls: type[C], data: Mapping[str, Any]) -> C:
    """A frozen dataclass of its fields as JSON has them; raises ConfigError as `config_from_json`.

    ``cls`` holds numbers, texts, None and tuples of them.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = get_type_hints(cls)
    unknown = sorted(set(data) - set(fields))
    required = {n for n, f in fields.items() if f.default is dataclasses.MISSING}
    missing = sorted(required - set(data))
    if unknown or missing:
        groups = (("unknown settings", unknown), ("missing settings", missing))
        found = [f"{what}: {_some(names)}" for what, names in groups if names]
        raise ConfigError("; ".join(found))
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in data.items()}
    for name, value in values.items():
        if not _matches(value, hints[name]):
            raise ConfigError(
                f"{name} has an unexpected value {as_json(value)}, "
                f"expected {_described(hints[name])}"
            )
    return cls(**values)  # checked one by one above


def _some(names: list[str]) -> str:
    more = ", ..." if len(names) > _SHOWN else ""
    return ", ".join(f"{name:.40}" for name in names[:_SHOWN]) + more


def as_json(value: object) -> str:
    """As a file of settings has it, cut short."""
    return f"{trim(value)}" if isinstance(value, str) else f"{json.dumps(value):.60}"


def _matches(value: object, hint: Any) -> bool:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_matches(value, arg) for arg in args)
    if origin is Literal:
        return value in args
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if args[-1] is Ellipsis:
            return all(_matches(item, args[0]) for item in value)
        return len(value) == len(args) and all(map(_matches, value, args))
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is hint


def _described(hint: Any) -> str:
    """A type in words: "a whole number", "legacy or new", "a list such as [1, 2]"."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return one_of(map(_described, args))
    if origin is Literal:
        return one_of(args)
    if origin is tuple:
        kind = "whole numbers" if args[0] is int else "numbers"
        return f"a list of {kind}" if args[-1] is Ellipsis else f"a list of {len(args)} {kind}"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return words.get(hint, "null")
