"""Wrong usage in our own words: what was typed, what it is called here, an example."""

from __future__ import annotations

import itertools
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from adm_cli.checkpoints.presets import known_weights
from adm_cli.commands.other_names import IN_FILE, OTHER_COMMANDS, OTHER_OPTIONS, REFUSED
from adm_cli.diffusion.modifiers import NEUTRAL
from adm_cli.errors import UsageError, did_you_mean, how_many, one_of, trim

# For what the program's own types cannot say; numbers without a row have one made up.
_EXAMPLES = {
    "--class": "207", "--model": "tiny", "--classifier": "tiny_classifier", "--steps": "50",
    "--sampler": "ddim", "--seeds": "0-63", "--out": "runs/first", "--device": "cpu",
    "--dtype": "float32", "--format": "png", "--guide-interval": "0.2,0.8", "--shard": "1/4",
    "--cfg-interval": "0.2,0.8", "--metrics": "fid,pr", "--lr": "1e-4", "--ema": "0.9999",
    "--eta": "0.5", "--val-split": "0.05", "--label-dropout": "0.1", "--weight-decay": "0.01",
    "--strength": "0.6", "--temperature": "0.9", "--threshold": "0.995", "--eps-scale": "1.004",
    "--churn": "40", "--churn-noise": "1.003", "--churn-min": "0.05", "--churn-max": "50",
    "--timeout": "30", "--kimg": "1000", "--seed": "0", "--batch-size": "8", "--cfg": "1.5",
    "--animate": "film.gif", "--init": "tiny",
}  # fmt: skip

_ALIKE = 0.7  # below that the nearest option or command is another one
_RESULTS = (".safetensors", ".npz", ".zip", ".tar", ".html", ".csv", ".json")  # of commands
_LISTS = ("--seeds", "--at", "--metrics", "--scale", "--cfg", "--sampler")  # where they take text
_AXES = {  # lists of which the library would take the last part alone, of commands that go over all
    "sweep": ("--model", "--scale", "--cfg", "--sampler", "--steps", "--eta",
              *(f"--{name.replace('_', '-')}" for name in NEUTRAL)),
    "bench": ("--dtype", "--batch-size", "--threads"),
}  # fmt: skip


def prepare(group: Any, arguments: Sequence[str]) -> list[str]:
    """The arguments as the program takes them: --output for --out or the reverse.

    Raises UsageError for a command that is none, for an option in the place of another's value, and
    for an empty text where a path is expected.
    """
    words = list(arguments)
    if not words or words[0].startswith("-"):
        return words
    names = [word for word in words if not word.startswith("-")]  # adm help COMMAND
    for name in names if words[0] == "help" else words[:1]:
        if name not in group.commands:
            raise UsageError(_no_command(group, name))
    command = group.commands[words[0]]
    own = _options(command)
    for asked, documented in (("--out", "--output"), ("--output", "--out")):
        if documented in own and asked not in own:
            end = words.index("--") if "--" in words else len(words)
            pattern = re.compile(rf"^{asked}(?==|$)")
            words[:end] = [pattern.sub(documented, word) for word in words[:end]]
    _refuse_options_as_values(command, words)
    _refuse_empty_paths(command, words)
    _refuse_lists_in_parts(command, words)
    return words


def _refuse_options_as_values(command: Any, words: Sequence[str]) -> None:
    """Raises UsageError for ``--out --grid``, which the library takes for a folder --grid."""
    own = {*_options(command), "--help", "-h"}
    takes = {n: p for p in command.params for n in p.opts if n in own and not _is_flag(p)}
    for name, word in itertools.pairwise(itertools.takewhile(lambda word: word != "--", words)):
        if name in takes and word in own:
            needs = _needs_value(takes[name], f"adm {words[0]}", name, words)
            raise UsageError(f"{needs}, and what follows it is the option {word}")


def _refuse_empty_paths(command: Any, words: Sequence[str]) -> None:
    """Raises UsageError for what an unset variable of a shell leaves, which is no folder."""
    takes = {name: param for param in command.params for name in param.opts if _takes_path(param)}
    place = next((p.name.upper() for name, p in takes.items() if not name.startswith("-")), None)
    for before, word in itertools.pairwise(words):
        name = word.removesuffix("=") if word.startswith("--") else before
        if word not in ("", f"{name}="):
            continue
        empty = name if name.startswith("-") else place
        if empty is not None and (empty in takes or empty == place):
            raise UsageError(
                f"{empty} is empty, expected a path (perhaps of a variable that is not set; the "
                f"present folder is .)"
            )


def _refuse_lists_in_parts(command: Any, words: Sequence[str]) -> None:
    """Raises UsageError for ``adm sweep --scale 0 --scale 2``; elsewhere the last one wins."""
    lists = _AXES.get(words[0], ())
    takes = {
        name: param.opts[0]
        for param in command.params
        for name in param.opts
        if param.opts[0] in lists
    }
    given: dict[str, list[str]] = {}
    before = itertools.takewhile(lambda word: word != "--", words)
    for word, following in itertools.pairwise([*before, ""]):
        name, equals, value = word.partition("=")
        if name in takes:
            given.setdefault(takes[name], []).append(value if equals else following)
    for name, values in given.items():
        if len(set(values)) > 1:
            together = shlex.join([name, ",".join(dict.fromkeys(values))])
            raise UsageError(
                f"{name} is given {len(values)} times, and takes one list: {together:.200}"
            )


def _is_flag(param: Any) -> bool:
    return bool(getattr(param, "is_flag", False))


def _takes_path(param: Any) -> bool:
    return "Path" in str(param.type_descriptor.annotation)


def reword(error: Exception, group: Any, arguments: Sequence[str]) -> Exception:
    """Wrong usage as our own error: what was expected, what came, what mends it; others as is."""
    wrong = isinstance(error, typer.TyperException) and error.exit_code == UsageError.exit_code
    if not wrong or not error.format_message():  # type: ignore[attr-defined]
        return error  # without a message the help was shown instead
    return UsageError(_explain(error, group, arguments))


def _explain(error: Any, group: Any, arguments: Sequence[str]) -> str:
    """The library's classes are private, so they are told apart by their names."""
    command = " ".join(["adm", *(word for word in arguments[:1] if word in group.commands)])
    kind = type(error).__name__
    param = getattr(error, "param", None)
    if kind == "NoSuchOption":
        typed = error.option_name
        if file := next((a for a in arguments if a.startswith(typed) and os.path.exists(a)), None):
            return f"no option {typed:.60} in {command}: a file that is called so is ./{file}"
        off = _is_off(typed, arguments)
        return _slip(group, command, arguments) or _no_option(group, command, typed, off=off)
    if kind == "BadOptionUsage":
        name = error.option_name
        return _needs_value(_find_param(group, command, name), command, name, arguments)
    if kind == "MissingParameter" and param is not None:
        name = param.opts[0] if param.opts[0].startswith("-") else param.name.upper()
        return f"{command} needs {name}: {(param.help or '').rstrip('.')} ({command} --help)"
    if kind == "BadParameter" and param is not None:
        return _bad_value(error, param, group, command, arguments)
    message = error.format_message()
    extra = re.search(r"extra argument\(s\) \((.*)\)$", message, re.S)
    params = getattr(getattr(error, "ctx", None), "params", {})
    return _extra(group, command, params, extra[1], arguments) if extra else message


def _no_command(group: Any, typed: str) -> str:
    word = typed.rsplit("/", 1)[-1].removesuffix(".py").lower().replace("_", "-")
    start = f"no command {trim(typed)}"
    if word in group.commands:
        return f"{start}: here it is adm {word}"
    meant = OTHER_COMMANDS.get(word) or ("convert" if word.startswith("convert") else None)
    if meant is not None:
        return f"{start}: here it is adm {meant}"
    return f"{start}{did_you_mean(word, group.commands, alike=_ALIKE)} (adm --help lists them)"


def _is_off(typed: str, arguments: Sequence[str]) -> bool:
    """``--use_ddim False``, as the original's flags are turned off."""
    for word, after in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name == typed:
            return (value if equals else after).lower() in ("false", "no", "off")
    return False


def _no_option(group: Any, command: str, typed: str, *, off: bool) -> str:
    """For ``command``, "adm" or "adm sample"; ``off``: its value says that it is not wanted."""
    own = _command_options(group, command)
    word = typed.lstrip("-").lower().replace("_", "-")
    start = f"no option {typed:.60} in {command}"
    if f"--{word}" in own:
        return f"{start}: here it is --{word}"
    if (why := REFUSED.get((command.removeprefix("adm "), word))) is not None:
        return f"{start}: {why}"
    meant = OTHER_OPTIONS.get(word, ())
    if "--model" not in own:  # nor a weights file that says it
        meant = tuple(text for text in meant if text != IN_FILE)
    known = [text for text in meant if set(re.findall(r"--[a-z-]+", text)) <= own]
    if known and off and known[0].startswith("--") and "--no-" not in known[0]:
        return f"{start}: leave it out, what it turns on is {known[0]}"
    if known:
        return f"{start}: here it is {known[0]}"
    theirs = re.findall(r"--[a-z-]+", meant[0])[0] if meant else f"--{word}"
    having = [name for name, other in group.commands.items() if theirs in _options(other)]
    if having:
        more = " ..." if len(having) > 3 else ""
        return f"{start}: {theirs} belongs to adm {', '.join(having[:3])}{more}"
    if theirs in _options(group):
        return f"{start}: write adm {theirs}"
    hint = did_you_mean(f"--{word}", own, alike=_ALIKE) if len(word) > 1 else ""
    return f"{start}{hint} ({command} --help lists its options)"


def _needs_value(param: Any, command: str, name: str, arguments: Sequence[str]) -> str:
    if param is not None and _is_flag(param):
        given = next((a for a in arguments if a.startswith(f"{name}=")), name)
        both = " or ".join([name, *param.secondary_opts]) if param.secondary_opts else name
        return f"{given:.60}: write {both} alone, without a value"
    example = _example(param) if param is not None else None
    such = f", such as {name} {example}" if example else ""
    return f"{name} needs a value{such} ({command} --help)"


def _bad_value(
    error: Exception, param: Any, group: Any, command: str, arguments: Sequence[str]
) -> str:
    cause: Any = error.__cause__  # the validating library's own account
    problem: dict[str, Any] = cause.errors()[0] if hasattr(cause, "errors") else {}
    name = next((n for n in param.opts if n.startswith("--")), param.opts[0])
    value, limits = str(problem.get("input", "")), problem.get("ctx", {})
    if slip := _slip(group, command, arguments):
        return slip
    kinds = {"int": "a whole number", "float": "a number", "bool": "yes or no"}
    what = kinds.get(str(problem.get("type", "")).split("_")[0], "another value")
    if listed := re.search(r" is not one of ('.*')\.$", str(problem.get("msg", ""))):
        what = one_of(listed[1].replace("'", "").split(", "))
    elif "ge" in limits:
        what = f"at least {limits['ge']:g}"
    elif problem.get("type") == "int_from_float":
        what = "a whole number"
    if value.lower() in ("auto", "default") and param.default is None:
        return f"{name} {value!r}: leave it out, then adm chooses"
    number = _number(value, whole=what == "a whole number")
    if number not in (None, value):
        return f"{name} {trim(value)}: expected {what}: write {name} {number}"
    example = _example(param)
    such = f", such as {example}" if example else ""
    lists = _find_param(group, "adm sweep", name)
    if re.fullmatch(r"[\d.]+(,[\d.]+)+", value) and lists is not None and _takes_text(lists):
        such += f" (several: adm sweep {name} {value:.60})"
    return f"{name} {trim(value)}: expected {what}{such}"


def _number(value: str, *, whole: bool) -> str | None:
    """``10k``, ``50,000``, ``1e5`` and ``60%`` as they are written here; None for anything else."""
    found = re.fullmatch(
        r"(\d{1,3}(?:,\d{3})+|\d{1,9}(?:\.\d{1,9})?(?:e\d)?)([k%]?)",
        value.strip().lower(),
        re.ASCII,
    )
    if found is None:
        return None
    number = float(found[1].replace(",", ""))
    number *= {"k": 1000, "%": 0.01}.get(found[2], 1)
    if whole:
        return f"{number:.0f}" if number.is_integer() else None
    return f"{number:g}"


def _takes_text(param: Any) -> bool:
    return "str" in str(param.type_descriptor.annotation)


def _extra(
    group: Any, command: str, params: Mapping[str, Any], extra: str, arguments: Sequence[str]
) -> str:
    """Words too many: mostly a class without --class, or the second word of its name."""
    own = _command_options(group, command)
    if slip := _slip(group, command, arguments):
        return slip
    paths = any(mark in extra for mark in "./\\")  # of which the shell may have made many
    shown = extra.split(maxsplit=1)[0] if paths else extra
    start = f"{command} does not take {trim(shown, 80)} without an option"
    if extra == "help":
        return f"{start}: write {command} --help"
    if extra in known_weights():
        return f"{start}; did you mean {'--model' if '--model' in own else 'adm info'} {extra}?"
    if extra.lower() in ("true", "false", "yes", "no", "on", "off"):
        return f"{start}: what is on or off has no value; leave it out"
    if several := _several(group, command, extra, arguments):
        return f"{start}; did you mean {several}?"
    second = os.path.exists(extra) or (command == "adm evaluate" and not paths)
    if "--ref" in own and extra == shown and second:
        return f"{start}; did you mean --ref {shown}?"
    if extra == shown and os.path.splitext(shown)[1] in _RESULTS and not os.path.exists(shown):
        made = next((name for name in ("--output", "--out") if name in own), None)
        if made is not None:
            return f"{start}; did you mean {made} {shown}?"
    if "--class" not in own or paths:
        most = sum(p.param_type_name == "argument" for p in _command(group, command).params)
        if not most:
            return f"{start} ({command} --help)"
        return (
            f"{command} takes {how_many(most, 'argument')} without an option, and "
            f"{trim(shown, 80)} is one more ({command} --help)"
        )
    given = params.get("class_") or params.get("classes") or ()
    words = [given] if isinstance(given, str) else [*given]
    words = [word.strip(" ,") for word in [*words, *extra.split()]]
    ids = all(re.fullmatch(r"[\d,-]+", word) for word in words)
    return (
        f"{start}; did you mean --class {','.join(words)}?"
        if ids
        else (f'{start}; did you mean --class "{" ".join(words)}"?')
    )


def _several(group: Any, command: str, extra: str, arguments: Sequence[str]) -> str | None:
    """``--scale 1, 2`` and ``--seeds 1 2``: values that were to be one."""
    place = (
        list(arguments).index(extra.split(maxsplit=1)[0])
        if extra.split(maxsplit=1)[0] in arguments
        else 0
    )
    if place < 2 or arguments[place - 2] not in _command_options(group, command):
        return None
    name, first = arguments[place - 2 : place]
    lists = _takes_text(_find_param(group, command, name))
    if name in ("--class", "-c") or not (first.endswith(",") or (name in _LISTS and lists)):
        return None
    return f"{name} {','.join(word.strip(',') for word in [first, *extra.split()])}"


def _slip(group: Any, command: str, arguments: Sequence[str]) -> str | None:
    """``-scale 4`` reads as ``-s cale``."""
    own = _command_options(group, command)
    words = (a for a in arguments if a.startswith("-") and not a.startswith("--"))
    slip = next((word for word in words if f"-{word}" in own), None)
    return slip and f"{slip}: did you mean -{slip}, with two hyphens?"


def _example(param: Any) -> str | None:
    name = next((n for n in param.opts if n.startswith("--")), "")
    annotation = str(param.type_descriptor.annotation)
    if name == "--steps" and "int" in annotation:
        return "20000"
    made = "8" if "int" in annotation else "2.5" if "float" in annotation else None
    return _EXAMPLES.get(name, made)


def _find_param(group: Any, command: str, name: str) -> Any:
    params = _command(group, command).params
    return next((p for p in params if name in (*p.opts, *p.secondary_opts)), None)


def _command_options(group: Any, command: str) -> set[str]:
    return _options(_command(group, command))


def _command(group: Any, path: str) -> Any:
    """Of "adm sample"; the program itself for "adm"."""
    return group.commands.get(path.partition(" ")[2], group)


def _options(command: Any) -> set[str]:
    return {
        name
        for param in command.params
        for name in (*param.opts, *param.secondary_opts)
        if name.startswith("-")
    }
