"""``adm merge``: the images of runs in one file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from adm_cli.commands import console, options
from adm_cli.errors import UsageError

_SUFFIXES = (".npz", ".zip", ".tar")


def merge(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="File to write: .npz, .zip or .tar; with --shard-size x-%06d.tar.",
        ),
    ],
    shard_size: Annotated[
        Optional[int], typer.Option("--shard-size", help="Images in each tar.", min=1)
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Take what there is of runs that are incomplete.")
    ] = False,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Gather runs into an npz as the original's evaluator reads it, a zip, or WebDataset tars.

    Images stand in the order in which they were asked for, whichever shard drew them; each is
    checked against its hash. Memory does not grow with their number.

    adm merge runs/x -o samples.npz

    adm merge runs/x -o set-%06d.tar --shard-size 10000
    """
    from adm_cli.storage.files import check_writable, refuse_existing
    from adm_cli.storage.merging import merge_npz, merge_tars, merge_zip, open_runs, tar_path

    _check_name(output, shard_size)
    plan, entries = open_runs(runs, partial=partial)
    count = 1 if shard_size is None else -(-len(entries) // shard_size)
    paths = [output] if shard_size is None else [tar_path(output, i) for i in range(count)]
    check_writable(output.parent)
    if not overwrite:
        refuse_existing(paths)
    progress = _Progress(len(entries), quiet=quiet)
    if output.suffix == ".npz":
        merge_npz(output, plan, entries, progress)
    elif output.suffix == ".zip":
        merge_zip(output, entries, progress)
    else:
        merge_tars(output, entries, shard_size, progress)
    for i, path in enumerate(paths):
        start = i * (shard_size or 0)
        images = len(entries[start : start + shard_size] if shard_size else entries)
        record: dict[str, Any] = {"path": str(path), "images": images}
        if json:
            console.print_json(record)
        else:
            print(path)


def _check_name(output: Path, shard_size: int | None) -> None:
    from adm_cli.storage.merging import tar_path

    if output.suffix not in _SUFFIXES:
        raise UsageError(f"--output {output}: expected a name that ends in {', '.join(_SUFFIXES)}")
    if shard_size is None:
        return
    if output.suffix != ".tar":
        raise UsageError(f"--shard-size divides tars: {output} is none")
    tar_path(output, 0)  # raises for no pattern


class _Progress:
    """Every few seconds, how far it is."""

    def __init__(self, total: int, *, quiet: bool) -> None:
        self.total, self.quiet = total, quiet
        self.printed = time.monotonic()

    def __call__(self, done: int) -> None:
        if not self.quiet and time.monotonic() - self.printed >= 2:
            self.printed = time.monotonic()
            console.note(f"{done:,} of {self.total:,} images")
