"""``adm info``: what a weights file or a picture says of itself."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from adm_cli.checkpoints.presets import CHECKPOINTS, PRESETS
from adm_cli.commands import console, options
from adm_cli.commands.loading import load_torch
from adm_cli.commands.recipe_lines import recipe_lines
from adm_cli.errors import AdmError, UsageError

if TYPE_CHECKING:
    from adm_cli.checkpoints.format import ModelFile
    from adm_cli.training.runs import TrainingFolder


def info(
    file: Annotated[
        str,
        typer.Argument(
            help="A weights file, preset, reference, picture or film, or the folder of a run, "
            "sweep or training."
        ),
    ],
    other: Annotated[
        Optional[str],
        typer.Argument(help="Another one: only what differs is shown.", show_default=False),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Also hash a weights file against its own record.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Show what made a picture, or what a weights file or folder holds; of two, what differs.

    adm info runs/first runs/second
    """
    facts = _facts(file, verify=verify, silent=json)
    if other is not None:
        _show_differences(facts, _facts(other, verify=verify, silent=json), json=json)
        return
    if json:
        console.print_json(facts)
        return
    picture = "seed" in facts or "small_sha256" in facts
    for name, value in recipe_lines(facts, file) if picture else facts.items():
        text = f"{value:,}" if name == "parameters" and isinstance(value, int) else _text(value)
        line = f"{console.one_line(name):22} {console.one_line(text)}"
        console.out.print(line, markup=False)


_HASH = re.compile(r"^([0-9a-f]{12})[0-9a-f]{52}$")  # the first digits tell two apart


def _show_differences(facts: dict[str, Any], others: dict[str, Any], *, json: bool) -> None:
    mine, theirs = dict(_flat(facts)), dict(_flat(others))
    names = [name for name in {**mine, **theirs} if name not in ("file", "folder")]
    pairs = {name: (mine.get(name), theirs.get(name)) for name in names}
    differing = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if json:
        console.print_json({"differs": differing})
        return
    if not differing:
        console.note("nothing differs")
    for name, pair in differing.items():
        here, there = (_HASH.sub(r"\1", console.one_line(_text(value))) for value in pair)
        console.out.print(f"{console.one_line(name):22} {here} | {there}", markup=False)


def _flat(facts: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Values by their whole names: ``environment.device``."""
    for name, value in facts.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _facts(name: str, *, verify: bool, silent: bool) -> dict[str, Any]:
    path = Path(name)
    suffix = path.suffix.lower()
    known = {row.name for row in PRESETS} | {row.name for row in CHECKPOINTS}
    weights_or_picture = suffix in (".safetensors", ".pt", ".png", ".webp")
    if name and name not in known and os.path.isdir(path) and not weights_or_picture:
        return _folder_facts(path, silent=silent)
    if path.name in _RECORDS and os.path.isfile(path):
        return _folder_facts(path.parent, silent=silent)
    if suffix in (".npz", ".npy"):
        raise UsageError(
            f"{path}: adm info shows weights files and pictures, not {suffix[1:]}, which "
            f"adm evaluate and adm upsample read"
        )
    if suffix in (".png", ".webp") or _begins_as_picture(path):
        return _picture_facts(path, silent=silent)
    load_torch(silent=silent)
    return _file_facts(name, verify=verify)


_RECORDS = ("run.json", "settings.json", "sweep.json")


def _begins_as_picture(path: Path) -> bool:
    from adm_cli.files.foreign import is_picture, read_start

    return is_picture(read_start(path))


def _picture_facts(path: Path, *, silent: bool) -> dict[str, Any]:
    """The recipe of a picture, or what a film says of itself."""
    from adm_cli.files.foreign import describe_picture
    from adm_cli.pictures.images import open_picture, read_description

    found = describe_picture(path)
    if found is None or found[0] in ("PNG", "WEBP"):
        _, recipe = open_picture(path)
    else:
        recipe = read_description(path)
    if recipe is None and (sheet := _sheet_facts(path, silent=silent)):
        return sheet
    if recipe is None:
        kind = "" if found is None else " ({}, {}x{} pixels)".format(*found)
        raise AdmError(f"{path} carries no recipe: it was not made by adm, or was re-saved{kind}")
    return recipe


def _sheet_facts(path: Path, *, silent: bool) -> dict[str, Any]:
    """What the folder says whose pictures a sheet shows: of a run, a sweep, or a training."""
    place = path.parent.parent if path.parent.name == "samples" else path.parent
    if not any((place / name).is_file() for name in _RECORDS):
        return {}
    facts = _folder_facts(place, silent=silent)
    return {"file": str(path), **facts, "kind": f"sheet of a {facts['kind']}"}


def _folder_facts(path: Path, *, silent: bool) -> dict[str, Any]:
    """What the folder of a run, a sweep or a training holds."""
    from adm_cli.sampling.folder import RunFolder
    from adm_cli.sampling.run import environment, settings

    run = RunFolder(path)
    if run.exists():
        what = run.read()
        facts = settings(what)
        return {
            "folder": str(path),
            "kind": f"run of adm {facts.pop('command')}",
            "images": len(what.images),
            "images_made": sum(1 for _ in run.kept(what.images)),
            **facts,
            "environment": environment(what),
        }
    load_torch(silent=silent)
    from adm_cli.sampling.sweep_folder import SweepFolder
    from adm_cli.training.runs import TrainingFolder

    sweep, training = SweepFolder(path), TrainingFolder(path)
    if sweep.exists():
        results = sweep.read()
        return {
            "folder": str(path),
            "kind": "sweep",
            "axes": results.axes,
            "cells": len(sweep.cells()),
            "cells_measured": len(results.rows),
            **results.facts,
        }
    if training.used():
        return _training_facts(training)
    raise UsageError(f"{path} is a folder, and no run, sweep or training of adm: name a file in it")


def _training_facts(folder: TrainingFolder) -> dict[str, Any]:
    settings = folder.load_settings()
    states = folder.states()
    parts = [settings.get(name) for name in ("training", "config", "diffusion", "data")]
    facts: dict[str, Any] = {}
    for part in parts:
        facts |= part if isinstance(part, dict) else {}
    return {
        "folder": str(folder.path),
        "kind": f"training of a {settings.get('kind')} model",
        "step": int(states[0].stem.split("-")[1]) if states else 0,
        "model": str(folder.model) if folder.model.is_file() else None,
        "best": str(folder.best) if folder.best.is_file() else None,
        **facts,
    }


def _file_facts(name: str, *, verify: bool) -> dict[str, Any]:
    from adm_cli.checkpoints.format import verify_content
    from adm_cli.checkpoints.loading import find_weights
    from adm_cli.pictures.references import describe_reference, is_reference, read_reference

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

    from adm_cli.checkpoints.loading import build_model
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
