"""What Python may pass where the command line has texts."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar, Union

from adm_cli.errors import check_keywords
from adm_cli.events import AnyPath

Classes = Union[str, int, Sequence[Union[str, int]]]  # ids, ranges, names
Seeds = Union[str, int, Iterable[int]]
Numbers = Union[str, float, Sequence[float]]
P = ParamSpec("P")
T = TypeVar("T")
Words = Union[str, int, Sequence[Union[str, int]]]


def comma_list(value: Seeds | Numbers | Words | None) -> str | None:
    """Values separated by commas."""
    if value is None or isinstance(value, str):
        return value
    return ",".join(map(str, value)) if isinstance(value, Iterable) else str(value)


def path_or_none(value: AnyPath | None) -> Path | None:
    return None if value is None else Path(value)


def text_or_none(value: AnyPath | None) -> str | None:
    return None if value is None else str(value)


def spelled_out(
    kinds: type, defaults: Mapping[str, object]
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Of a function that takes ``**changes``, a dictionary of ``kinds``: it gets all of them.

    Those that the caller leaves out are ``defaults``, the signature shows each, and another name
    is a TypeError.
    """

    def wrap(function: Callable[P, T]) -> Callable[P, T]:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        added = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default,
                annotation=kinds.__annotations__[name].__forward_arg__,
            )
            for name, default in defaults.items()
        ]  # fmt: skip
        known = {parameter.name for parameter in (*own, *added)}

        @functools.wraps(function)
        def run(*args: P.args, **options: P.kwargs) -> T:
            check_keywords(function.__name__, options, known)
            return function(*args, **{**defaults, **options})  # type: ignore[arg-type]

        late = [p for p in own if p.kind is p.KEYWORD_ONLY]
        shown = [*own[: len(own) - len(late)], *added, *late]
        run.__signature__ = signature.replace(parameters=shown)  # type: ignore[attr-defined]
        return run

    return wrap
