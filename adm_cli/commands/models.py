"""``adm models``: the presets, which are here, and what they reach."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from adm_cli.checkpoints.architectures import ABLATIONS
from adm_cli.checkpoints.places import checkpoint_path
from adm_cli.checkpoints.presets import (
    ENLARGEMENT_FACTOR,
    ENLARGEMENTS,
    PRESETS,
    Preset,
    find_checkpoint,
)
from adm_cli.commands import console, options
from adm_cli.errors import size_words

# in the table; JSON has them
_HIDDEN = (
    *("model", "classifier", "upsampler", "upsampler_sampler", "upsampler_steps"),
    "upsampler_temperature",
    *("eta", "guide_interval", "cfg", "cfg_interval", "missing", "fid_note"),
)


def models(
    ablations: Annotated[
        bool, typer.Option("--ablations", help="List the paper's ablations, for training.")
    ] = False,
    json: options.Json = False,
) -> None:
    """List the presets: defaults, published FID, and whether the weights are here."""
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
    rows = [find_checkpoint(name) for name in preset.checkpoints]
    missing = [row.name for row in rows if not checkpoint_path(row).is_file()]
    plain = preset.upsampler in ENLARGEMENTS
    last = find_checkpoint(preset.model if plain else preset.upsampler or preset.model)
    size = [side * (ENLARGEMENT_FACTOR if plain else 1) for side in last.config.image_size]
    sampled = preset.upsampler is not None and not plain
    return {
        "name": preset.name,
        "size": size_words(size),
        "model": preset.model,
        "classifier": preset.classifier,
        "upsampler": preset.upsampler,
        "sampler": preset.sampler,
        "steps": preset.steps,
        "eta": preset.eta,
        "upsampler_sampler": preset.upsampler_sampler if sampled else None,
        "upsampler_steps": preset.upsampler_steps if sampled else None,
        "upsampler_temperature": preset.upsampler_temperature if sampled else None,
        "scale": preset.scale,
        "guide_interval": preset.guide_interval,
        "cfg": preset.cfg,
        "cfg_interval": preset.cfg_interval,
        "fid": preset.fid,
        "fid_note": preset.fid_note,
        "present": not missing,
        "missing": missing,
    }


def _print_table(title: str, rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    shown = [name for name in rows[0] if name not in _HIDDEN]
    for name in shown:
        table.add_column("here" if name == "present" else name, no_wrap=True)
    for row in rows:
        table.add_row(*(_cell(name, row) for name in shown))
    console.out.print(table)


def _cell(name: str, row: dict[str, Any]) -> str:
    value = row[name]
    if name == "present":
        return "yes" if value else "no"
    if name == "steps" and row["upsampler_steps"]:
        sections = str(row["upsampler_steps"]).split(",")  # as wide as a terminal, some of them
        return f"{value}+{sections[0] if len(sections) == 1 else sum(map(int, sections))}"
    if name == "fid" and row["fid_note"]:
        return f"{value:.2f} {row['fid_note']}"
    if value is None:
        return "-"
    return f"{value:.2f}" if name.startswith("fid") else str(value)
