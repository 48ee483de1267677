"""What every command prints with ``--json``: the tables of ``outputs.txt`` as JSON Schema.

That file is the one home of it: `adm help COMMAND --json` shows it, ``docs/json.md`` is made from
it (`as_markdown`), and the tests hold every line of JSON that any of them sees against it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from adm_cli.commands.modifier_options import meaning_of
from adm_cli.diffusion.modifiers import Modifiers

# Rises when a key changes its name, type or meaning, or goes; new keys may come without.
JSON_VERSION = 1
_PLAIN = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "null": "null"}


class Field(NamedTuple):
    """A key of an object; "*" for keys that the command does not choose."""

    name: str
    type: str
    meaning: str
    optional: bool


@dataclass(frozen=True)
class Output:
    """A kind of line that a command prints."""

    what: str
    fields: Sequence[Field]


@dataclass(frozen=True)
class Outputs:
    """All of ``outputs.txt``."""

    commands: Mapping[str, Sequence[Output]]
    shapes: Mapping[str, Sequence[Field]]


@cache
def read_outputs() -> Outputs:
    """The tables."""
    text = Path(__file__).with_name("outputs.txt").read_text(encoding="utf-8")
    tables = re.findall(r"^\[(.+?)\] ?(.*)\n((?:.+\n)+)", text, re.M)
    shapes = {names: body for names, _, body in tables if names[0].isupper()}
    commands: dict[str, list[Output]] = {}
    for names, what, body in tables:
        for name in names.split() if names not in shapes else ():
            commands.setdefault(name, []).append(Output(what, _fields(body, shapes)))
    return Outputs(commands, {name: _fields(body, shapes) for name, body in shapes.items()})


def _fields(body: str, shapes: Mapping[str, str]) -> list[Field]:
    found = []
    for line in body.splitlines():
        if line == "*Modified":
            found += _modified()
            continue
        if line[1:] in shapes:  # *Shape
            found += _fields(shapes[line[1:]], shapes)
            continue
        name, type_, meaning = line.split(maxsplit=2)
        found.append(Field(name.removesuffix("?"), type_, meaning, name.endswith("?")))
    return found


def _modified() -> list[Field]:
    """Each of `Modifiers` that changes anything."""
    kinds = {row.name: str(row.type).split(" ")[0] for row in dataclasses.fields(Modifiers)}
    return [
        Field(name, kind if kind in _PLAIN else "str", meaning_of(name), optional=True)
        for name, kind in kinds.items()
    ]


def json_schema(command: str) -> dict[str, Any]:
    """JSON Schema (2020-12) of each line that ``adm command --json`` prints."""
    lines = [{"title": o.what, **_object(o.fields)} for o in read_outputs().commands[command]]
    shapes = {name: _object(read_outputs().shapes[name]) for name in _shapes_of(lines)}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"adm {command} --json, version {JSON_VERSION}",
        "anyOf": lines,
        **({"$defs": shapes} if shapes else {}),
    }


def _object(fields: Sequence[Field]) -> dict[str, Any]:
    named = [field for field in fields if field.name != "*"]
    found: dict[str, Any] = {
        "type": "object",
        "properties": {f.name: {**_type(f.type), "description": f.meaning} for f in named},
        "required": [field.name for field in named if not field.optional],
    }
    for field in fields:
        if field.name == "*":
            found["additionalProperties"] = _type(field.type)
    return found


def _type(text: str) -> dict[str, Any]:
    if text.endswith("|null"):
        return {"anyOf": [_type(text.removesuffix("|null")), {"type": "null"}]}
    if text[0] == "[":
        return {"type": "array", "items": _type(text[1:-1])}
    if text[0] == "{":
        return {"type": "object", "additionalProperties": _type(text[1:-1])}
    if text[0].isupper():
        return {"$ref": f"#/$defs/{text}"}
    return {} if text == "any" else {"type": _PLAIN[text]}


def _shapes_of(found: object) -> list[str]:
    """The shapes that are spoken of, and those that these speak of."""
    names: list[str] = re.findall(r"#/\$defs/(\w+)", str(found))
    for name in names:  # which grows
        names += _shapes_of(_object(read_outputs().shapes[name]))
    return sorted(set(names))


def as_markdown() -> str:
    """``docs/json.md``."""
    outputs = read_outputs()
    groups: dict[int, list[str]] = {}  # commands that print the same stand together
    for name, lines in outputs.commands.items():
        groups.setdefault(hash(str(lines)), []).append(name)
    text = _HEAD.format(version=JSON_VERSION)
    for names in groups.values():
        text += "\n## " + ", ".join(f"adm {name}" for name in names) + "\n"
        for line in outputs.commands[names[0]]:
            text += f"\n{line.what[0].upper()}{line.what[1:]}:\n\n{_table(line.fields)}"
    text += "\n## Shapes\n"
    spoken = _shapes_of({f.type: _type(f.type) for fs in _all_fields(outputs) for f in fs})
    for name in spoken:
        text += f"\n`{name}`:\n\n{_table(outputs.shapes[name])}"
    return text


def _all_fields(outputs: Outputs) -> list[Sequence[Field]]:
    return [line.fields for lines in outputs.commands.values() for line in lines]


def _table(fields: Sequence[Field]) -> str:
    rows = [
        f"| `{f.name}{'?' if f.optional else ''}` | {f.type.replace('|', ' or ')} | {f.meaning} |\n"
        for f in fields
    ]
    return "| key | type | meaning |\n| --- | --- | --- |\n" + "".join(rows)


_HEAD = """# What `--json` prints, version {version}

One JSON object a line, on stdout. `adm help COMMAND --json` has the same as JSON Schema.
The version rises when a key changes its name, type or meaning, or goes; new keys may come
without, so pass over those that you do not know. `key?` may be missing; `[type]` is a list,
`{{type}}` an object whose keys are names or ids; `*` stands for keys that the command does not
choose, such as settings. Numbers are finite: what is not a number is null.
"""
