"""Values of settings and options against the types they are declared with.

Frozen dataclasses as JSON, where unknown or missing keys are errors too; what Python code gives to
dataclasses and functions.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import inspect
import json
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import (
    Any,
    Literal,
    ParamSpec,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from adm_cli.errors import ConfigError, an, one_of, trim, why_unread
from adm_cli.files.budget import parse_json

C = TypeVar("C")
P = ParamSpec("P")
T = TypeVar("T")
_SHOWN = 6  # names in a message
_OR_PRESETS = ("model", "classifier", "upsampler", "weak_model")  # which are looked for by name


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
    hints = _hints(cls)  # type: ignore[arg-type]
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


def check_types(config: Any) -> None:
    """Makes a frozen dataclass's fields what they are declared as, when it is made from Python.

    Lists and ranges become tuples, numbers and arrays of numpy and torch become Python's. Raises
    ConfigError for values of other types.
    """
    hints = _hints(type(config))  # type: ignore[arg-type]
    for field in dataclasses.fields(config):
        came = getattr(config, field.name)
        value = _in_tuples(check_type(field.name, came, hints[field.name]))
        if value is not came:
            object.__setattr__(config, field.name, value)


def check_type(name: str, came: Any, hint: Any) -> Any:
    """``came`` with Python's numbers and lists for those of numpy and torch.

    Names stand for torch's devices and types. Raises ConfigError for another type than ``hint``,
    and for a path without a name, as of a variable that is not set.
    """
    value = _of_python(came)
    many = value if isinstance(value, (list, tuple)) else [value]
    if "" in many and name not in _OR_PRESETS and _admits_path(hint):
        raise ConfigError(f"{name} is empty, expected a path (the present folder is .)")
    if not _matches(_in_tuples(value), hint):
        raise ConfigError(f"{name} must be {_described(hint, 'None')}, got {trim(came, 40)}")
    return value


def type_checked(function: Callable[P, T]) -> Callable[P, T]:
    """``function`` with arguments of its signature's types, by `check_type`.

    Where it takes texts alone, a path becomes one.
    """
    own = inspect.unwrap(function)
    names = list(inspect.signature(own).parameters)

    @functools.lru_cache
    def hints() -> dict[str, Any]:
        said = {n: v for n, v in own.__annotations__.items() if "Unpack" not in v}
        holder = types.SimpleNamespace(__annotations__=said)
        return {n: _loose(hint) for n, hint in get_type_hints(holder, own.__globals__).items()}

    def checked(name: str, came: Any) -> Any:
        hint = hints().get(name, Any)
        return check_type(name, came if _matches(_in_tuples(came), hint) else _texts(came), hint)

    @functools.wraps(function)
    def run(*args: P.args, **options: P.kwargs) -> T:
        first = [checked(name, value) for name, value in zip(names, args, strict=False)]
        named = {name: checked(name, value) for name, value in options.items()}
        return function(*first, *args[len(first) :], **named)  # type: ignore[arg-type]

    return run


def _of_python(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value) if type(value).__name__ in ("device", "dtype") else value


def _admits_path(hint: Any) -> bool:
    return hint is Path or any(map(_admits_path, get_args(hint)))


def _loose(hint: Any) -> Any:
    """Any text where some words are expected: functions tell better which, and what was meant."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return Union[tuple(map(_loose, args))]
    return str if origin is Literal else hint


def _texts(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return list(map(_texts, value))
    return str(value) if isinstance(value, Path) else value


def _in_tuples(value: Any) -> Any:
    value = _of_python(value)
    return tuple(map(_in_tuples, value)) if isinstance(value, (list, tuple, range)) else value


@functools.lru_cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


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
    if origin in _MANY:
        if isinstance(value, tuple):
            return all(_matches(item, args[0]) for item in value)
        return isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping))
    if origin is collections.abc.Callable:
        return callable(value)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint in (int, bool):
        return type(value) is hint
    return hint is Any or isinstance(value, origin or hint)


_MANY = (list, collections.abc.Sequence, collections.abc.Iterable)
_WORDS = {
    int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path",
}  # fmt: skip


def _described(hint: Any, none: str = "null") -> str:
    """A type in words: "a whole number", "legacy or new", "a list of 2 numbers"."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is type(None):
        return none
    if origin in (Union, types.UnionType):
        return one_of(dict.fromkeys(_described(arg, none) for arg in args))
    if origin is Literal:
        return one_of(args)
    if origin is tuple or origin in _MANY:
        kind = {int: "whole numbers", float: "numbers"}.get(args[0], "texts")
        fixed = origin is tuple and args[-1] is not Ellipsis
        return f"a list of {len(args)} {kind}" if fixed else f"a list of {kind}"
    if origin is collections.abc.Callable:
        return "a function"
    return _WORDS.get(hint) or an((origin or hint).__name__)
