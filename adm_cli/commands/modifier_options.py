"""An option for each of `diffusion.modifiers`, for commands that take them as ``**changes``.

``eps_scale`` is `options.EpsScale`: what is typed, and its help.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Optional, get_args

from adm_cli.commands import options
from adm_cli.diffusion.modifiers import NEUTRAL, OF_TRAJECTORY

Command = Callable[..., None]


def each_once(command: Command) -> Command:
    """A value each."""
    return _with_options(command, [_option(name, _one(name)) for name in NEUTRAL])


def of_trajectory(command: Command) -> Command:
    """A value each, of those that have nothing to do with guidance."""
    return _with_options(command, [_option(name, _one(name)) for name in OF_TRAJECTORY])


def several(command: Command) -> Command:
    """An axis each: values with commas between."""
    return _with_options(command, [_option(name, _axis(name)) for name in NEUTRAL])


def option_of(name: str) -> Any:
    """``eps_scale`` to `options.EpsScale`."""
    return getattr(options, "".join(word.capitalize() for word in name.split("_")))


def meaning_of(name: str) -> str:
    """What its option's help says."""
    return str(get_args(option_of(name))[1].help)


def _option(name: str, annotation: Any) -> inspect.Parameter:
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, keyword, default=None, annotation=annotation)


def _one(name: str) -> Any:
    kind, option = get_args(option_of(name))
    return Annotated[Optional[kind], option]


def _axis(name: str) -> Any:
    option = copy.copy(get_args(option_of(name))[1])
    option.autocompletion = None
    return Annotated[Optional[str], option]


def _with_options(command: Command, added: list[inspect.Parameter]) -> Command:
    """The command's signature, which is what options are made from, with them at its end."""
    signature = inspect.signature(command, eval_str=True)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    command.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
    return command
