"""What a file or folder says of itself: weights, a picture, a run, a sweep, a training.

Only what is kept in tensors, or asked what it costs, needs torch.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adm_cli.checkpoints.finding import find_weights
from adm_cli.checkpoints.header import ModelFile, read_metadata, verify_content
from adm_cli.checkpoints.presets import known_weights
from adm_cli.errors import AdmError, CheckpointError, UsageError
from adm_cli.files.foreign import describe_picture, is_picture, read_start
from adm_cli.pictures.images import open_picture, read_description
from adm_cli.sampling.folder import RunFolder
from adm_cli.sampling.recipes.no_recipe import image_beside, why_no_recipe
from adm_cli.sampling.run import environment, settings

Facts = dict[str, Any]
BeforeTorch = Callable[[], None]
_RECORDS = ("run.json", "settings.json", "sweep.json")


def describe(
    name: str,
    *,
    verify: bool = False,
    cost: bool = False,
    before_torch: BeforeTorch = lambda: None,
) -> Facts:
    """All about a preset, a checkpoint, a file or a folder.

    ``verify`` also hashes a weights file, ``cost`` counts a network's operations; ``before_torch``
    is called where that is to be loaded. Raises AdmError for what is none of these.
    """
    path = Path(name)
    suffix = path.suffix.lower()
    weights_or_picture = suffix in (".safetensors", ".pt", ".png", ".webp")
    if name and name not in known_weights() and os.path.isdir(path) and not weights_or_picture:
        return _folder(path, before_torch)
    if path.name in _RECORDS and os.path.isfile(path):
        return _folder(path.parent, before_torch)
    if suffix in (".npz", ".npy"):
        raise UsageError(
            f"{path}: adm info shows weights files and pictures, not {suffix[1:]}, which "
            f"adm evaluate and adm upsample read"
        )
    if suffix in (".png", ".webp") or is_picture(read_start(path)):
        return _picture(path, before_torch)
    if is_reference(path):
        before_torch()
        from adm_cli.pictures.references import describe_reference, read_reference

        return {"file": name, "kind": "reference", **describe_reference(read_reference(path))}
    file = find_weights(name)
    if verify:
        verify_content(file)
    facts = _weights(file) | ({"content_verified": True} if verify else {})
    if cost:
        before_torch()
        from adm_cli.reports.bench import evaluation_gflop

        facts["gflop"] = round(evaluation_gflop(file.info.config), 3)
    return facts


def _picture(path: Path, before_torch: BeforeTorch) -> Facts:
    """The recipe of a picture, or what a film says of itself."""
    found = describe_picture(path)
    if found is None or found[0] in ("PNG", "WEBP"):
        _, recipe = open_picture(path)
    else:
        recipe = read_description(path)
    if recipe is None and (sheet := _sheet(path, before_torch)):
        return sheet
    if recipe is None:
        kind = "" if found is None else " ({}, {}x{} pixels)".format(*found)
        raise AdmError(f"{why_no_recipe(path)}{kind}")
    return recipe


def _sheet(path: Path, before_torch: BeforeTorch) -> Facts:
    """What the folder says whose pictures a sheet shows: of a run, a sweep, or a training.

    Likewise of an image of a run that was drawn without recipes.
    """
    place = path.parent.parent if path.parent.name == "samples" else path.parent
    if not any((place / name).is_file() for name in _RECORDS):
        return {}
    facts = _folder(place, before_torch)
    if image := image_beside(path):
        kind = f"image without a recipe, of a {facts['kind']}"
        return {"file": str(path), "kind": kind, **image.facts(), **{**facts, "kind": kind}}
    return {"file": str(path), **facts, "kind": f"sheet of a {facts['kind']}"}


def _folder(path: Path, before_torch: BeforeTorch) -> Facts:
    """What the folder of a run, a sweep or a training holds."""
    run = RunFolder(path)
    if not run.exists():
        before_torch()
        from adm_cli.reports.describing_folders import describe_folder

        return describe_folder(path)
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


def is_reference(path: Path) -> bool:
    """Whether a file says so; False for anything that cannot be read."""
    try:  # a pipe would be waited for
        return os.path.isfile(path) and read_metadata(path).get("format") == "adm-reference"
    except CheckpointError:
        return False


def _weights(file: ModelFile) -> Facts:
    info = file.info
    recommended = info.recommended
    return {
        "file": str(file.path),
        "kind": info.kind,
        "parameters": file.parameters,
        "stored_as": sorted(set(file.dtypes.values())),
        **dataclasses.asdict(info.config),
        "diffusion": dataclasses.asdict(info.diffusion),
        "classes": dict(info.classes),
        "recommended": None if recommended is None else dataclasses.asdict(recommended),
        "training": dict(info.training),
        "source": dict(info.source),
        "content_sha256": file.content_sha256,
    }
