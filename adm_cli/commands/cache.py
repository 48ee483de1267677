"""``adm cache``: the weights that were fetched and converted; what they take, and whether whole."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from adm_cli.commands import console, options
from adm_cli.errors import AdmError, UsageError, how_many
from adm_cli.files.disk import adm_home, size_text

if TYPE_CHECKING:
    from adm_cli.checkpoints.cache import Kept


class Action(str, Enum):
    """What to do."""

    ls = "ls"
    rm = "rm"
    verify = "verify"


def cache(
    action: Annotated[
        Action, typer.Argument(help="ls lists, rm removes, verify hashes.", show_default=False)
    ] = Action.ls,
    names: Annotated[
        Optional[list[str]],
        typer.Argument(
            help="Which; all, or downloads: what is no model yet. Default: all, but for rm.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With rm: show what would go, and remove nothing.")
    ] = False,
    json: options.Json = False,
) -> None:
    """List, hash or remove the weights kept in ADM_HOME.

    adm cache rm downloads
    """
    from adm_cli.checkpoints.cache import choose_kept, kept_files, remove_kept

    if action is Action.rm and not names:
        raise UsageError("adm cache rm: name what to remove, downloads, or all")
    gone, freed = ("would be removed", "to be freed") if dry_run else ("removed", "freed")
    files = choose_kept(names) if names else kept_files()
    if action is Action.rm:
        for file in () if dry_run else files:
            remove_kept(file)
    broken = _verify(files, json=json) if action is Action.verify else 0
    if action is not Action.verify:
        for file in files:
            _show(file, gone if action is Action.rm else file.kind, json=json)
    if not json:
        total = sum(file.bytes for file in files) / 1e9
        what = freed if action is Action.rm else "there"
        console.note(f"{how_many(len(files), 'file')}, {total:.2f} GB {what}, in {adm_home()}")
    if broken:
        raise typer.Exit(1)


def _verify(files: list[Kept], *, json: bool) -> int:
    """How many are damaged; shows each."""
    from adm_cli.checkpoints.cache import verify_kept

    broken = 0
    for file in files:
        try:
            state = "whole" if verify_kept(file) else "nothing is recorded of it"
        except AdmError as error:
            broken += 1
            state = f"BROKEN: {error}"
        _show(file, state, json=json)
    return broken


def _show(file: Kept, state: str, *, json: bool) -> None:
    if json:
        facts = {"name": file.name, "kind": file.kind, "path": str(file.path)}
        console.print_json({**facts, "bytes": file.bytes, "state": state})
        return
    text = f"{file.name:28} {size_text(file.bytes):>12}  {state}"
    console.out.print(console.one_line(text), markup=False)
