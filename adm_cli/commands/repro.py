"""``adm repro``: make a picture again, or all of a run, and compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from adm_cli.commands import completing, console, options
from adm_cli.commands import show as showing
from adm_cli.errors import how_many

_SHOWN = 4  # hashes that were verified; a stack of stacks has dozens

if TYPE_CHECKING:
    from adm_cli.sampling.recipes.repro import Reproduction
    from adm_cli.sampling.recipes.repro_run import RunReproduction


def repro(
    picture: Annotated[
        Path,
        typer.Argument(help="A PNG or WebP that adm drew, or the folder of a run."),
    ],
    model: Annotated[
        Optional[str],
        typer.Option("--model", "-m", help="Weights file, if the model is not a preset."),
    ] = None,
    classifier: options.Classifier = None,
    upsampler: Annotated[
        Optional[str],
        typer.Option(
            "--upsampler",
            autocompletion=completing.complete_upsampler,
            help="Weights file, if the upsampler is not a known one.",
        ),
    ] = None,
    small: Annotated[
        Optional[list[Path]],
        typer.Option(
            "--input",
            help="What was enlarged, if it carried no recipe of its own, or what was edited and "
            "its mask, if they are not where they were; repeat.",
        ),
    ] = None,
    device: Annotated[
        Optional[str],
        typer.Option(
            "--device",
            autocompletion=options.complete_device,
            help="Default: the kind it was made on.",
        ),
    ] = None,
    output: Annotated[
        Optional[Path], typer.Option("--output", "-o", help="Also write the new picture here.")
    ] = None,
    weak_model: options.WeakModel = None,
    num: Annotated[
        Optional[int],
        typer.Option(
            "--num", "-n", help="Of a folder: this many, spread over the run. Default: all."
        ),
    ] = None,
    fetch: options.Fetch = False,
    json: options.Json = False,
) -> None:
    """Make a picture again and say whether it is identical, and if not what differs.

    Of an enlarged picture, first the small one is made again. Exit code 0 if every value is the
    same, 1 if not. Of a run's folder all its images are drawn again, beside it: exit code 1 where
    one differs by more than rounding, 1 of 255.
    """
    asked = options.asked(locals())
    from adm_cli.sampling.recipes import repro as remaking

    with showing.Show(json=json, quiet=False) as show:
        found = remaking.repro(**asked, on_event=show)
    if isinstance(found, remaking.Reproduction):
        _report(found, json=json)
        failed = not found.identical
    else:
        _report_run(found, json=json)
        failed = found.images_different > 0
    if failed:
        raise typer.Exit(1)


def _report_run(found: RunReproduction, *, json: bool) -> None:
    """Say how many of a run's images are as they were."""
    if json:
        console.print_json(found.facts())
        return
    counts = (
        f"{found.images_identical:,} of {found.images:,} identical",
        f"{found.images_rounded:,} within rounding (1 of 255)",
        f"{found.images_different:,} different",
    )
    most = f", by at most {found.largest_difference} of 255" if found.largest_difference else ""
    print(", ".join(counts) + most)
    if found.first_different is not None:
        console.note(
            f"the first that is different: {found.first_different} (adm verify tells files that "
            f"were changed since)"
        )
    if not found.identical and found.inputs_that_differ:
        console.note(
            f"since the run was begun, this has changed: {', '.join(found.inputs_that_differ)}"
        )


def _report(found: Reproduction, *, json: bool) -> None:
    """Say how far the pictures are apart, and what may be behind it."""
    if json:
        console.print_json(found.facts())
        return
    differing = "; ".join(found.inputs_that_differ)
    verified = [f"{what} {digest[:12]}" for what, digest in found.verified.items()]
    if verified:
        shown, more = "; ".join(verified[:_SHOWN]), len(verified) - _SHOWN
        others = f"; and {more} more (--json names all)" if more > 0 else ""
        console.note(f"SHA-256 as recorded: {shown}{others}")
    if found.identical:
        print("identical")
        if differing:
            console.note(f"although these differ: {differing}")
        return
    print(
        f"different: {found.values_that_differ} of {how_many(found.values, 'value')}, "
        f"by at most {found.largest_difference} of 255"
    )
    if differing:
        console.note(f"inputs that differ: {differing}")
    else:
        threads = "" if found.threads_known else ", or another number of CPU threads,"
        console.note(
            f"every recorded input is the same: this machine's arithmetic{threads} rounds "
            f"differently, or the picture was edited"
        )
