"""``adm convert``: the original's checkpoints to weights files of ours."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Optional

import typer

from adm_cli.commands import completing, console, options
from adm_cli.errors import UsageError
from adm_cli.imagenet import imagenet_names, select_classes


def convert(
    file: Annotated[Path, typer.Argument(help="An original .pt (or bare safetensors).")],
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
    overwrite: options.Overwrite = False,
    json: options.Json = False,
) -> None:
    """Turn an original checkpoint into a safetensors file that describes itself.

    Without --preset and --flags, the published model whose tensors fit is taken.
    """
    from adm_cli import converting

    if kind not in (None, "diffusion", "classifier", "upsampler"):
        raise UsageError(f"--kind must be diffusion, classifier or upsampler, got {kind}")
    given = {"--flags-of": flags_of, "--strict-flags": strict_flags, "--command": command}
    if flags is None and (alone := [name for name, value in given.items() if value]):
        raise UsageError(f"{alone[0]} says how to read --flags: pass it with --flags")
    notes: list[str] = []
    with console.err.status(f"converting {file.name}"):
        result = converting.convert(
            file,
            preset=preset,
            flags=flags,
            kind=kind,  # type: ignore[arg-type]
            family=flags_of or "guided-diffusion",  # type: ignore[arg-type]
            strict=strict_flags,
            command=command,
            weights=weights,
            null_class=null_class,
            on_note=notes.append,
            classes=None if classes is None else _classes(classes),
            output=output,
            overwrite=overwrite,
        )
    for text in notes:
        console.note(text)
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
            f"{result.info.kind} model, {result.parameters:,} parameters; "
            f"source SHA-256 {result.info.source['sha256']}"
        )
        print(result.path)


def _classes(spec: str) -> dict[int, str]:
    if not spec.startswith("@"):
        names = imagenet_names()
        return {i: names[i] for i in select_classes(spec, names)}
    from adm_cli.storage.files import read_text

    path = Path(spec[1:])
    try:
        pairs = [_id_and_name(line) for line in read_text(path).split("\n") if line.strip()]
        classes = dict(pairs)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError:
        raise UsageError(f"{path}: expected an id and a name on every line") from None
    if len(classes) != len(pairs):
        raise UsageError(f"{path}: an id is there more than once")
    return classes


def _id_and_name(line: str) -> tuple[int, str]:
    """The parts of a line, with white space, a tab, a comma or a semicolon between them."""
    class_id, name = re.split(r"\s*[;,\t]\s*|\s+", line.strip(), maxsplit=1)
    return int(class_id), name.strip().strip('"')
