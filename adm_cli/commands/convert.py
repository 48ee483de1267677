"""``adm convert``: the original's checkpoints to weights files of ours."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from adm_cli.commands import completing, console, options
from adm_cli.commands.numbers import show_costs
from adm_cli.commands.progress import Progress
from adm_cli.errors import how_many, size_words
from adm_cli.files.disk import free_disk

if TYPE_CHECKING:
    from adm_cli.checkpoints.converting import Conversion


def convert(
    file: Annotated[
        Path,
        typer.Argument(
            help="An original .pt (or bare safetensors), or a folder with a config.json."
        ),
    ],
    preset: Annotated[
        Optional[str],
        typer.Option(
            "--preset",
            autocompletion=completing.complete_published,
            help="Published checkpoint it is, e.g. 256x256_diffusion.",
        ),
    ] = None,
    flags: Annotated[
        Optional[str],
        typer.Option("--flags", help="The original repository's flags, or a whole command of it."),
    ] = None,
    kind: Annotated[
        Optional[str],
        typer.Option("--kind", help="diffusion, classifier or upsampler, if --flags describe two."),
    ] = None,
    flags_of: Annotated[
        Optional[str],
        typer.Option("--flags-of", help="Whose defaults: guided-diffusion, improved-diffusion."),
    ] = None,
    strict_flags: Annotated[
        bool, typer.Option("--strict-flags", help="Refuse flags that the original has not.")
    ] = False,
    command: Annotated[
        Optional[int],
        typer.Option("--command", help="Which one, where --flags holds several commands."),
    ] = None,
    weights: Annotated[
        Optional[str],
        typer.Option("--weights", help="Which, where FILE holds several: ema, model, a name."),
    ] = None,
    null_class: Annotated[
        bool, typer.Option("--null-class", help="The last row of the labels means no class.")
    ] = False,
    classes: Annotated[
        Optional[str],
        typer.Option(
            "--classes",
            help="Classes it was trained on, if not all: ids or names of ImageNet, or @FILE with "
            "an id and a name a line.",
        ),
    ] = None,
    output: Annotated[
        Optional[Path],
        typer.Option(
            "--output", "-o", help="Where to; by default where --model looks, or beside FILE."
        ),
    ] = None,
    overwrite: options.Replace = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what it is taken for, and write nothing.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Turn an original checkpoint, or a folder of diffusers, into a file that describes itself.

    Without --preset and --flags, the published model whose tensors fit is taken.
    """
    asked = options.asked(locals())
    del asked["dry_run"]
    from adm_cli.checkpoints import converting

    if dry_run:
        _show_plan(converting.plan_conversion(**asked), json=json)
        return
    with Progress(quiet=False) as progress:
        result = converting.convert(**asked, on_event=progress)
    if json:
        console.print_json(
            {
                "path": str(result.path),
                "kind": result.info.kind,
                "parameters": result.parameters,
                "content_sha256": result.content_sha256,
                "source": dict(result.info.source),
            }
        )
    else:
        console.note(
            f"{result.info.kind} model, {how_many(result.parameters, 'parameter')}; "
            f"source SHA-256 {result.info.source['sha256'][:12]}..."
        )
        print(result.path)


def _show_plan(plan: Conversion, *, json: bool) -> None:
    for text in plan.notes:
        console.note(text)
    facts = {
        "kind": plan.info.kind,
        "size": size_words(plan.info.config.image_size),
        "classes": plan.info.config.num_classes,
        "parameters": plan.parameters,
        "output": str(plan.output),
        "file_bytes": plan.bytes,
        "free_bytes": free_disk(plan.output.parent),
    }
    show_costs(facts, json=json)
