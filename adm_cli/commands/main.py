"""The program: its commands in one list, and what happens to errors."""

from __future__ import annotations

import io
import signal
import sys
from typing import Annotated

import typer

from adm_cli import __version__
from adm_cli.commands import (
    classes,
    console,
    convert,
    doctor,
    info,
    merge,
    models,
    repro,
    sample,
    signals,
    train,
    verify,
)
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
app.command("sample")(sample.sample)
app.command("train-diffusion")(train.train_diffusion)
app.command("train-classifier")(train.train_classifier)
app.command("train-upsampler")(train.train_upsampler)
app.command("models")(models.models)
app.command("classes")(classes.classes)
app.command("info")(info.info)
app.command("repro")(repro.repro)
app.command("verify")(verify.verify)
app.command("merge")(merge.merge)
app.command("convert")(convert.convert)
app.command("doctor")(doctor.doctor)


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


def main() -> None:
    """Entry point of ``adm``: runs a command and exits."""
    signals.catch_stop_signals()
    if isinstance(sys.stdout, io.TextIOWrapper):  # any file name can be printed
        sys.stdout.reconfigure(errors="surrogateescape")
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        console.hush()
        code = 1
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Runs a command line and returns the exit code."""
    try:
        code = int(app(arguments, prog_name="adm", standalone_mode=False) or 0)
    except (AdmError, typer.TyperException) as error:
        if console.debugging():
            raise
        if isinstance(error, typer.TyperException):
            message = error.format_message()
            if message:  # empty where the help was shown instead
                console.fail(Exception(message))
        else:
            console.fail(error)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = console.INTERRUPTED
    if code == console.INTERRUPTED:  # Typer makes this code of Ctrl-C itself
        number = signals.stopped_by()
        how = "interrupted" if number == signal.SIGINT else f"stopped by {number.name}"
        console.note(how)
        code = 128 + number
    return code
