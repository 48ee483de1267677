"""``adm models``: the presets, which are here, and what they reach."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from adm_cli.commands import console, options
from adm_cli.presets import ABLATIONS, PRESETS, Preset, find_checkpoint


def models(
    ablations: Annotated[
        bool, typer.Option("--ablations", help="List the paper's ablations, for training.")
    ] = False,
    json: options.Json = False,
) -> None:
    """List the presets: size, default steps and guidance scale, published FID, and whether the
    weights are on this machine."""
    if ablations:
        rows = [
            {"name": row.name, "fid_700k": row.fid_700k, "fid_1200k": row.fid_1200k}
            for row in ABLATIONS
        ]
        title = "FID on ImageNet 128x128 after 700,000 and 1,200,000 iterations (paper, tables 1-3)"
    else:
        rows = [_row(preset) for preset in PRESETS]
        title = "FID as published, 50,000 images"
    if json:
        for row in rows:
            console.print_json(row)
        return
    _print_table(title, rows)


def _row(preset: Preset) -> dict[str, Any]:
    from adm_cli.loading import checkpoint_path

    names = [preset.model, *([preset.classifier] if preset.classifier else [])]
    missing = [name for name in names if not checkpoint_path(find_checkpoint(name)).is_file()]
    return {
        "name": preset.name,
        "size": "x".join(map(str, find_checkpoint(preset.model).config.image_size)),
        "model": preset.model,
        "classifier": preset.classifier,
        "sampler": preset.sampler,
        "steps": preset.steps,
        "scale": preset.scale,
        "fid": preset.fid,
        "fid_note": preset.fid_note,
        "present": not missing,
        "missing": missing,
    }


def _print_table(title: str, rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    hidden = {"missing", "fid_note"}
    columns = [name for name in rows[0] if name not in hidden]
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        shown = dict(row)
        if "present" in shown:
            shown["present"] = "yes" if shown["present"] else "no"
            if shown["fid_note"]:
                shown["fid"] = f"{shown['fid']} ({shown['fid_note']})"
        table.add_row(*("-" if shown[c] is None else str(shown[c]) for c in columns))
    console.out.print(table)
