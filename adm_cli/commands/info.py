"""``adm info``: what a weights file or a picture says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adm_cli.commands import console, options
from adm_cli.errors import AdmError, UsageError

if TYPE_CHECKING:
    from adm_cli.storage.checkpoints import ModelFile


def info(
    file: Annotated[
        str, typer.Argument(help="A weights file, preset, reference, or picture made by adm.")
    ],
    verify: Annotated[
        bool, typer.Option("--verify", help="Also hash a weights file against its own record.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Show what made a picture, or what a weights file holds."""
    path = Path(file)
    if path.suffix.lower() in (".png", ".webp"):
        from adm_cli.storage.images import open_picture

        _, recipe = open_picture(path)
        if recipe is None:
            raise AdmError(f"{path} carries no recipe: it was not made by adm, or was re-saved")
        facts: dict[str, Any] = recipe
    elif path.suffix.lower() == ".npz":
        raise UsageError(f"{path}: adm info shows weights files and pictures, not npz")
    else:
        facts = _file_facts(file, verify=verify)
    if json:
        console.print_json(facts)
        return
    for name, value in _lines(facts):
        text = f"{value:,}" if name == "parameters" and isinstance(value, int) else _text(value)
        line = f"{console.one_line(name):22} {console.one_line(text)}"
        console.out.print(line, markup=False)


def _file_facts(name: str, *, verify: bool) -> dict[str, Any]:
    from adm_cli.loading import find_weights
    from adm_cli.storage.checkpoints import verify_content
    from adm_cli.storage.references import describe_reference, is_reference, read_reference

    path = Path(name)
    if is_reference(path):
        return {"file": name, "kind": "reference", **describe_reference(read_reference(path))}
    model_file = find_weights(name)
    if verify:
        verify_content(model_file)
    facts = _model_facts(model_file)
    return facts | {"content_verified": True} if verify else facts


def _model_facts(file: ModelFile) -> dict[str, Any]:
    import dataclasses

    import torch

    from adm_cli.loading import build_model
    from adm_cli.models.cost import forward_gflops

    with torch.device("meta"):
        model = build_model(file.info.config)
    return {
        "file": str(file.path),
        "kind": file.info.kind,
        "parameters": file.parameters,
        "gflop": round(forward_gflops(model), 3),
        "stored_as": sorted({str(d).removeprefix("torch.") for d in file.dtypes.values()}),
        **dataclasses.asdict(file.info.config),
        "diffusion": dataclasses.asdict(file.info.diffusion),
        "classes": dict(file.info.classes),
        "recommended": None
        if file.info.recommended is None
        else dataclasses.asdict(file.info.recommended),
        "training": dict(file.info.training),
        "source": dict(file.info.source),
        "content_sha256": file.content_sha256,
    }


def _lines(facts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names and values; the recipe of a small picture that was enlarged line by line after it."""
    for name, value in facts.items():
        if name == "base" and isinstance(value, dict):
            yield from ((f"base {inner}", v) for inner, v in _lines(value))
        else:
            yield name, value


def _text(value: object) -> str:
    if isinstance(value, dict):
        if len(value) > 20:
            first = ", ".join(f"{k} {v}" for k, v in list(value.items())[:5])
            return f"{len(value)}: {first}, ..."
        return ", ".join(f"{k} {v}" for k, v in value.items()) or "-"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value)) or "none"
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"
    return "-" if value is None else str(value)
