"""The program: its commands in one list, and what happens to errors."""

from __future__ import annotations

import copy
import functools
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.main import get_command
from typer.models import CommandInfo

from adm_cli import __version__
from adm_cli.commands import (
    bench,
    cache,
    classes,
    console,
    convert,
    doctor,
    edit,
    evaluate,
    evaluate_classifier,
    export,
    fetch,
    gallery,
    help,
    info,
    interpolate,
    merge,
    models,
    nll,
    panels,
    reference,
    repro,
    sample,
    signals,
    sweep,
    train,
    upsample,
    verify,
    words,
)
from adm_cli.commands.asking import offers_to_fetch
from adm_cli.commands.loading import loads_torch
from adm_cli.errors import AdmError

app = typer.Typer(
    name="adm",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, "
    "2 wrong usage; stopped by a signal 130 (Ctrl-C), 143 (SIGTERM), 129 (SIGHUP), with what was "
    "done kept. ADM_DEBUG=1 shows tracebacks.",
)


def needs_weights(command: Callable[..., None]) -> Callable[..., None]:
    """A command that computes with models, which may have to be fetched first."""
    return loads_torch(offers_to_fetch(command))


app.command("sample")(needs_weights(sample.sample))
app.command("interpolate")(needs_weights(interpolate.interpolate))
app.command("upsample")(needs_weights(upsample.upsample))
app.command("edit")(needs_weights(edit.edit))
app.command("sweep")(needs_weights(sweep.sweep))
app.command("train-diffusion")(needs_weights(train.train_diffusion))
app.command("train-classifier")(needs_weights(train.train_classifier))
app.command("train-upsampler")(needs_weights(train.train_upsampler))
app.command("models")(models.models)
app.command("classes")(classes.classes)
app.command("info")(info.info)
app.command("repro")(needs_weights(repro.repro))
app.command("fetch")(loads_torch(fetch.fetch))
app.command("nll")(needs_weights(nll.nll))
app.command("evaluate-classifier")(needs_weights(evaluate_classifier.evaluate_classifier))
app.command("evaluate")(needs_weights(evaluate.evaluate))
app.command("reference")(needs_weights(reference.reference))
app.command("verify")(loads_torch(verify.verify))
app.command("merge")(loads_torch(merge.merge))
app.command("gallery")(loads_torch(gallery.gallery))
app.command("convert")(loads_torch(convert.convert))
app.command("export")(needs_weights(export.export))
app.command("bench")(needs_weights(bench.bench))
app.command("cache")(cache.cache)
app.command("doctor")(loads_torch(doctor.doctor))
app.command("help")(help.help_)


def _version(show: bool) -> None:
    if show:
        print(f"adm {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Class-guided images from ADM diffusion models (Diffusion Models Beat GANs)."""


def main(sign: str = "") -> None:
    """Runs the command line and exits; `adm_cli.__main__` is the entry point.

    ``sign`` stands on the terminal's line already, and goes as the command begins.
    """
    signals.catch_stop_signals()
    try:
        console.prepare_streams()
        program_for(sys.argv[1:])
        console.take_back(sign)
        code = run(sys.argv[1:])
        code = console.flush(quiet=code != 0) or code
        signals.ignore_stop_signals()
    except KeyboardInterrupt:  # as the command began or ended
        signals.ignore_stop_signals()
        code = _interrupted()
    if os.environ.get("WORLD_SIZE", "1") != "1":
        os._exit(code)  # of torchrun's: its threads may abort a process that winds down
    # Python dies of SIGINT, whatever the exit code, if a KeyboardInterrupt ended the last string
    # that was executed, as those of dataclasses and namedtuples are.
    exec("")
    sys.exit(code)


@functools.cache
def program(only: str | None = None) -> Any:
    """What `app` is made into, for all commands: a fifth of a second, most of it for options.

    Or with one command ``only``; for `_OVERVIEW` with all of them, as a list without options.
    """
    part = copy.copy(app)
    if only == _OVERVIEW:
        part.registered_commands = [_without_options(row) for row in app.registered_commands]
    elif only is not None:
        part.registered_commands = [row for row in app.registered_commands if row.name == only]
    group = get_command(part)
    panels.arrange(group)
    return group


_OVERVIEW = "--help"


def program_for(arguments: list[str]) -> Any:
    """As much of the program as a command line needs."""
    first = arguments[0] if arguments else _OVERVIEW
    if "_ADM_COMPLETE" in os.environ:
        return program()
    if first.startswith("-"):
        return program(_OVERVIEW)
    known = first != "help" and any(row.name == first for row in app.registered_commands)
    return program(first if known else None)


def _without_options(command: CommandInfo) -> CommandInfo:
    def shown() -> None: ...

    shown.__doc__ = getattr(command.callback, "__doc__", None)
    alone = copy.copy(command)
    alone.callback = shown
    return alone


def run(arguments: list[str]) -> int:
    """Runs a command line and returns the exit code."""
    arguments = [_at_home(argument) for argument in arguments]
    try:
        group = program_for(arguments)
        given = words.prepare(group, arguments)
        code = int(group(given, prog_name="adm", standalone_mode=False) or 0)
    except (KeyboardInterrupt, typer.Abort):
        code = console.INTERRUPTED
    except Exception as error:
        if console.debugging():
            raise
        code = _explain(words.reword(error, program(), arguments))
    if code == console.INTERRUPTED or (code and signals.stopped()):  # Typer, too, makes that code
        code = _interrupted()
    return code


def _at_home(argument: str) -> str:
    """``--out=~/x`` and the like with the home folder, which no shell puts there; ./~ is a name."""
    found = re.fullmatch(r"(--[\w-]+=|-\w)?(@?)(~[\w.-]*(?:/.*)?)", argument, re.DOTALL)
    if found is None:
        return argument
    return (found[1] or "") + found[2] + os.path.expanduser(found[3])


def _explain(error: Exception) -> int:
    """What went wrong, in one line; returns the exit code. Raises what nobody foresaw."""
    if isinstance(error, typer.TyperException):
        message = error.format_message()
        if message:  # empty where the help was shown instead
            console.fail(Exception(message))
        return error.exit_code
    if isinstance(error, AdmError):
        console.fail(error)
        return error.exit_code
    if signals.stopped():
        return console.INTERRUPTED  # a library's answer to the KeyboardInterrupt
    if isinstance(error, OSError):
        console.fail(error)
        return 1
    raise error


def _interrupted() -> int:
    number = signals.stopped_by()
    console.note("interrupted" if number == signal.SIGINT else f"stopped by {number.name}")
    return 128 + number
