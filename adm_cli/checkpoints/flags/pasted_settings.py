"""Settings as Python, JSON or YAML write them, read without running anything.

Notebooks and configuration files built on the original hold its flags as dictionaries. Only
plain values are taken: constants, lists of them, and names that were given such a value before.
"""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from adm_cli.checkpoints.flags.plain_yaml import parse_yaml
from adm_cli.files.budget import parse_json

_MOST_TEXT = 200_000  # characters
_MOST_ALTERNATIVES = 64
CONSTRUCTOR = "model_channels"  # an argument of every network's class, and no flag
UNNAMED = "(unnamed)"  # values that a call gives by their places alone
_BUILDER = re.compile(r"(sr_)?create_\w+|\w*Model")  # of the original's functions and classes
_OTHER_WORDS = {"true": True, "false": False, "null": None}  # of TOML, JavaScript


_Groups = dict[str, dict[str, Any]]


class NotPlain(str):
    """A value that only running the program would tell, as it was written."""


@dataclass(frozen=True)
class PastedSettings:
    """One reading of the settings; ``where`` tells it from others in the same text."""

    values: Mapping[str, Any]
    where: str


def read_settings(text: str, known: Collection[str]) -> list[PastedSettings]:
    """The settings among ``known`` names that a text gives, and those beside them.

    Several where a text holds alternatives: branches of an ``if``, or dictionaries that say
    different things of one name. None at all for a text that is no Python, JSON or YAML.
    """
    if len(text) > _MOST_TEXT:
        return []
    text = textwrap.dedent(text.replace("\r\n", "\n").replace("\t", "    ")).strip()
    if text.endswith(",") and "{" not in text and "(" not in text.split("=")[0]:
        text = f"dict({text})" if "=" in text else f"{{{text}}}"  # the inside of one
    found = _from_json(text, known) or _from_python(text, known) or _from_yaml(text, known)
    return [row for row in found if set(row.values) & set(known)]


def _from_json(text: str, known: Collection[str]) -> list[PastedSettings]:
    try:
        value = parse_json(text)
    except ValueError:
        return []
    return _combined([*_dictionaries(value, "", known)]) if isinstance(value, dict) else []


def _dictionaries(
    value: Mapping[str, Any], where: str, known: Collection[str], depth: int = 0
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every dictionary of a nested one that holds a known name."""
    plain = {k: v for k, v in value.items() if isinstance(k, str) and not isinstance(v, dict)}
    if set(plain) & set(known):
        yield where, plain
    for name, inner in value.items():
        if isinstance(inner, dict) and depth < 16:
            yield from _dictionaries(inner, f"{name}", known, depth + 1)


def _combined(groups: list[tuple[str, dict[str, Any]]]) -> list[PastedSettings]:
    """Dictionaries that speak of different things, together; those that do not, apart.

    Arguments of a network's class (`CONSTRUCTOR`) are one alternative for each network, with what
    the others say beside it.
    """
    networks = [(where, values) for where, values in groups if CONSTRUCTOR in values]
    others = [values for _, values in groups if CONSTRUCTOR not in values]
    if networks:
        found = []
        for where, values in networks[:_MOST_ALTERNATIVES]:
            merged = values
            for other in others:
                if all(merged.get(name, value) == value for name, value in other.items()):
                    merged = {**other, **merged}
            found.append(PastedSettings(merged, where))
        return found
    together: dict[str, Any] = {}
    for _, values in groups:
        if any(together.get(name, value) != value for name, value in values.items()):
            return [PastedSettings(values, where) for where, values in groups[:_MOST_ALTERNATIVES]]
        together |= values
    return [PastedSettings(together, "")] if together else []


def _from_yaml(text: str, known: Collection[str]) -> list[PastedSettings]:
    try:
        value = parse_yaml(text)
    except ValueError:
        return []
    found = _combined([*_dictionaries(value, "", known)])
    return [row for row in found if any(row.values.get(name) is not None for name in known)]


def _from_python(text: str, known: Collection[str]) -> list[PastedSettings]:
    lines = [line for line in text.split("\n") if not re.match(r"\s*[!%]", line)]  # of notebooks
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in paths
            tree = ast.parse("\n".join(lines))
        found = []
        for where, groups in _Python(known).alternatives(tree.body):
            for row in _combined(list(groups.items())):
                label = " ".join(part for part in (where, row.where) if part)
                found.append(PastedSettings(row.values, label))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return found


class _Python:
    """Walks statements in the order in which they would run; branches are alternatives.

    A group is all that is said of one object: ``a = {...}``, ``a.update(...)``, ``a["x"] = 1``.
    """

    def __init__(self, known: Collection[str]) -> None:
        self.known = frozenset(known)
        self.names: dict[str, Any] = {}

    def alternatives(self, body: list[ast.stmt]) -> list[tuple[str, _Groups]]:
        found: list[tuple[str, _Groups]] = [("", {})]
        for statement in body:
            branches: list[tuple[str, _Groups]] = []
            if isinstance(statement, ast.If):
                test = " ".join(ast.unparse(statement.test).split())[:60]
                for label, inside in ((f"if {test}", statement.body), ("", statement.orelse)):
                    for inner, groups in self.alternatives(inside):
                        if groups:
                            branches.append((inner or label or f"unless {test}", groups))
            elif isinstance(block := getattr(statement, "body", None), list):
                branches = [row for row in self.alternatives(block) if row[1]]
            else:
                said: _Groups = {}
                for group, values in self._said(statement):
                    said[group] = {**said.get(group, {}), **values}
                branches = [("", said)] if said else []
            if branches:
                found = [
                    (" ".join(filter(None, (where, label))), _merged(before, groups))
                    for where, before in found
                    for label, groups in branches
                ][:_MOST_ALTERNATIVES]
        return found

    def _said(self, statement: ast.stmt) -> Iterator[tuple[str, dict[str, Any]]]:
        """Objects that a simple statement is about, and what it says of them."""
        targets: list[ast.expr] = []
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        value: ast.expr | None = getattr(statement, "value", None)
        if not isinstance(value, ast.expr):
            return
        owner = _root(targets[0]) if targets else ""
        for target in targets:
            name = _setting(target)
            if name in self.known and not isinstance(value, (ast.Dict, ast.Call)):
                group = "" if isinstance(target, ast.Name) else _root(target)
                yield group, {name: self._value(value)}
            if isinstance(target, ast.Name):
                self.names[target.id] = self._value(value)
        yield from self._within(value, owner or _caller(value))

    def _within(self, node: ast.expr, owner: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The dictionaries and keyword arguments of an expression, inner ones by their key."""
        said: dict[str, Any] = {}
        inner: list[tuple[str, ast.expr]] = []
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                name = str(key.value) if isinstance(key, ast.Constant) else ""
                inner.append((f"{owner} {name}".strip(), value))
                said[name] = self._value(value)
        elif isinstance(node, ast.Call):
            said = {k.arg: self._value(k.value) for k in node.keywords if k.arg}
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if _BUILDER.fullmatch(name) and (places := _constants(node.args)):
                said[UNNAMED] = places
            inner = [(owner, value) for value in [*node.args, *(k.value for k in node.keywords)]]
        elif isinstance(node, (ast.List, ast.Tuple)):
            inner = [(f"{owner} {i}", value) for i, value in enumerate(node.elts)]
        elif isinstance(node, ast.BinOp):  # {...} | {...}
            inner = [(owner, node.left), (owner, node.right)]
        if set(said) & self.known:
            yield owner, {k: v for k, v in said.items() if k and not isinstance(v, _Inner)}
        for name, value in inner:
            yield from self._within(value, name)

    def _value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Dict):
            return _Inner()
        if isinstance(node, ast.Name) and node.id in self.names:
            return self.names[node.id]
        if isinstance(node, ast.Name) and node.id in _OTHER_WORDS:
            return _OTHER_WORDS[node.id]
        try:
            value = ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return NotPlain(" ".join(ast.unparse(node).split())[:60])
        return value


def _constants(nodes: list[ast.expr]) -> str:
    """The plain values among arguments without names, as they are written."""
    return ", ".join(ast.unparse(node) for node in nodes if isinstance(node, ast.Constant))[:60]


class _Inner:
    """A dictionary within another, read by itself."""


def _merged(before: _Groups, after: _Groups) -> _Groups:
    """Of one object the later word counts."""
    both = {name: {**before.get(name, {}), **after.get(name, {})} for name in (*before, *after)}
    return dict(both)


def _root(node: ast.expr) -> str:
    """``a`` of a, a.b and a["b"]."""
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _caller(node: ast.expr) -> str:
    """``a`` of a.update(...); nothing of a plain function, whose arguments are nobody's."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return _root(node.func) if node.func.attr in ("update", "setdefault") else ""
    return ""


def _setting(target: ast.expr) -> str:
    """``b`` of b, a.b and a["b"]."""
    if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
        return str(target.slice.value)
    if isinstance(target, ast.Attribute):
        return target.attr
    return target.id if isinstance(target, ast.Name) else ""
