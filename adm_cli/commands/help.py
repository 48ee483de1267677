"""``adm help``: a command's help, or all commands with their options as JSON."""

from __future__ import annotations

import inspect
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from adm_cli import __version__
from adm_cli.commands import console, options
from adm_cli.commands.schemas import JSON_VERSION, json_schema

EXIT_CODES = {
    "0": "done",
    "1": "failed, or what was checked is not as it should be",
    "2": "wrong usage: nothing was begun",
    "129": "stopped by SIGHUP; what was done is kept",
    "130": "stopped by Ctrl-C; what was done is kept",
    "143": "stopped by SIGTERM; what was done is kept",
}
_TYPES = {str: "str", int: "int", float: "float", bool: "bool", Path: "path"}


def _complete_command(context: typer.Context, incomplete: str) -> list[str]:
    group: Any = context.find_root().command
    return [name for name in group.commands if name.startswith(incomplete)]


def help_(
    context: typer.Context,
    command: Annotated[
        Optional[str],
        typer.Argument(
            autocompletion=_complete_command, help="Whose help. Default: the program's."
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Show the help of a command, or list all with their options, types and defaults as JSON.

    adm help sample

    adm help sample --json
    """
    assert context.parent is not None
    group: Any = context.parent.command
    if not json:
        words = [*([] if command is None else [command]), "--help"]
        group.main(words, prog_name="adm", standalone_mode=False)
        return
    facts: dict[str, Any] = {"adm": __version__, "json_version": JSON_VERSION}
    if command is not None:
        about = {"command": _describe(group.commands[command]), "output": json_schema(command)}
        console.print_json(facts | about)
        return
    rows = [_describe(one) for one in group.commands.values()]
    console.print_json({**facts, "exit_codes": EXIT_CODES, "commands": rows})


def _describe(command: Any) -> dict[str, Any]:
    """A command and what it takes."""
    text = inspect.cleandoc(command.help or "")
    params = {
        kind: [_describe_param(p) for p in command.params if p.param_type_name == kind]
        for kind in ("argument", "option")
    }
    return {
        "name": command.name,
        "group": command.rich_help_panel,
        "summary": " ".join(text.split("\n\n", maxsplit=1)[0].split()),
        "help": text,
        "arguments": params["argument"],
        "options": params["option"],
    }


def _describe_param(param: Any) -> dict[str, Any]:
    kind, default = param.type_descriptor.annotation, param.default
    repeat = param.nargs == -1 or bool(getattr(param, "multiple", False))
    if repeat:
        (kind,) = getattr(kind, "__args__", (kind,))
    words = getattr(param.type_descriptor.parameter_info.autocompletion, "words", None)
    if issubclass(kind, Enum):
        words, default = [one.value for one in kind], default and default.value
    return {
        "name": param.name,
        "flags": [name for name in param.opts if name.startswith("-")],
        "off": list(param.secondary_opts),
        "type": _TYPES.get(kind, "choice"),
        "repeat": repeat,
        "required": bool(param.required),
        "default": str(default) if isinstance(default, Path) else default,
        "words": None if words is None else list(words),
        "variable": param.envvar,
        "help": param.help or "",
    }
