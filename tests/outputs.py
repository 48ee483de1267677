"""Lines of JSON held against the schemas that `adm help COMMAND --json` shows.

Stricter than JSON Schema: a key that the schema does not name is an error here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from adm_cli.commands.schemas import json_schema

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}


def check_output(command: str, text: str) -> None:
    """Every line of what ``adm command --json`` printed; AssertionError where one is not so."""
    schema = _schema(command)
    for line in text.splitlines():
        value = json.loads(line, parse_constant=_no_number)
        found = [list(complaints(value, one, schema["$defs"])) for one in schema["anyOf"]]
        best = min(found, key=len)
        assert not best, f"adm {command} --json, {line:.300}: adm_cli/commands/outputs.txt: {best}"


_NEVER = re.compile(
    r"\b(?=\w*\d)(?=\w*[a-f])[0-9a-f]{32,}\b"  # a whole hash, where its first digits do
    r"|NoneType|\[Errno|<class |object is not|invalid literal|Error while|\w(?:Config|Warning)\b"
    r"|(?<!\S)(?!\d+:|adm:)(\S{2,}): (?:cannot read )?\1(?![\w/.-])"  # a file that is named twice
)


def check_messages(text: str) -> None:
    """What a command tells a person has no word of Python, no whole hash, and no name twice."""
    for line in text.splitlines():
        assert not _NEVER.search(line), line


@cache
def _schema(command: str) -> dict[str, Any]:
    return {"$defs": {}, **json_schema(command)}


def _no_number(text: str) -> None:
    raise AssertionError(f"{text} is no JSON")


def complaints(
    value: Any, schema: dict[str, Any], shapes: dict[str, Any], place: str = "line"
) -> Iterator[str]:
    """What is wrong with a value."""
    if "$ref" in schema:
        schema = shapes[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        found = [list(complaints(value, one, shapes, place)) for one in schema["anyOf"]]
        yield from min(found, key=len) if all(found) else []
    kind = schema.get("type")
    if kind is not None and (
        not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")
    ):
        yield f"{place} is {value!r:.60}, no {kind}"
    elif kind == "array":
        for i, one in enumerate(value):
            yield from complaints(one, schema["items"], shapes, f"{place}[{i}]")
    elif kind == "object":
        own, others = schema.get("properties", {}), schema.get("additionalProperties")
        yield from (f"{place} has no {name}" for name in schema.get("required", ())
                    if name not in value)  # fmt: skip
        for name, one in value.items():
            known = own.get(name, others)
            if known is None:
                yield f"{place} has {name}, which the schema has not"
            else:
                yield from complaints(one, known, shapes, f"{place}.{name}")
