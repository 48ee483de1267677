"""From names to weights files that are here, their headers read; without torch."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from adm_cli.checkpoints.header import ModelFile, read_model_file
from adm_cli.checkpoints.places import checkpoint_path
from adm_cli.checkpoints.presets import (
    CHECKPOINTS,
    PRESETS,
    TERMS,
    Checkpoint,
    find_checkpoint,
    known_weights,
)
from adm_cli.errors import (
    CheckpointError,
    MissingWeightsError,
    UsageError,
    an,
    did_you_mean,
    one_of,
    trim,
)
from adm_cli.files.disk import size_text

MODEL_PARTS = ("unet", "classifier")


def check_no_model_folder(path: Path) -> None:
    """Raises UsageError for a folder with another program's model, which `convert` reads."""
    if any(os.path.isfile(path / part / "config.json") for part in ("", *MODEL_PARTS)):
        raise UsageError(
            f"{path} is a folder of another program's model: adm convert "
            f"{shlex.quote(str(path))} makes a weights file of it"
        )


def find_weights(name: str | Path) -> ModelFile:
    """The weights file for a path, a preset or a checkpoint name, its header checked.

    Of a training's folder the model that it made.
    Raises UsageError for an unknown name, MissingWeightsError for a known one whose file is not
    here, CheckpointError for a bad file, or another one in the place of a published checkpoint.
    """
    path, text = Path(os.path.expanduser(name)), str(name)
    if text not in known_weights():  # one word, one meaning, also where a file is called so
        for place in (path, path / "model.safetensors"):
            if os.path.isfile(place):  # unlike is_file(), False for a name too long to be one
                return read_model_file(place)
        check_no_model_folder(path)
    checkpoints = [row.name for row in CHECKPOINTS]
    models = {row.name: row.model for row in PRESETS}
    known = text in checkpoints or text in models
    if text and not known and os.path.isdir(path):
        within = sorted(file.parent for file in path.glob("*/model.safetensors"))
        such = f", such as {within[0]}" if within else ""
        raise UsageError(f"{text} is a folder without a model: expected a weights file{such}")
    if os.sep in text or path.suffix in (".safetensors", ".pt"):
        raise UsageError(f"{'not a' if os.path.exists(path) else 'no such'} file: {text}")
    if not known:
        hint = did_you_mean(text, [*models, *checkpoints])
        raise UsageError(
            f"{trim(text, 80)} is neither a preset nor a file{hint} (adm models lists the presets)"
        )
    check_here([text])
    row = find_checkpoint(text if text in checkpoints else models[text])
    file = read_model_file(checkpoint_path(row))
    check_is(file, row)
    return file


def check_is(file: ModelFile, row: Checkpoint) -> None:
    """Raises CheckpointError for a file in the place of a published checkpoint that is another.

    Its settings must be those that were published, and `adm convert` or `adm fetch` must have taken
    what it was made of for that checkpoint, or its hash be known.
    """
    info = file.info
    known = (info.source.get("checkpoint"), info.source.get("sha256"))
    if row.embedded:
        return
    if info.kind != row.kind:
        why = f"it holds {an(info.kind)} model"
    elif (info.config, info.diffusion) != (row.config, row.diffusion):
        why = "its settings are another model's"
    elif known[0] == row.name or (row.sha256 is not None and known[1] == row.sha256):
        return
    elif original := info.source.get("file"):
        why = f"it was converted from {trim(original, 80)} as another model"
    else:
        why = "adm trained it" if info.training else "it does not say what it was made of"
    raise CheckpointError(
        f"{file.path} is not the published {row.name}: {why}; move it elsewhere and pass its path, "
        f"or let adm fetch {row.name} --overwrite replace it"
    )


def check_here(names: Sequence[str]) -> None:
    """Raises MissingWeightsError, which names them all, where known weights are not here.

    ``names`` are presets, whose models are meant, checkpoints, and others, which are passed over.
    """
    models = {row.name: row.model for row in PRESETS}
    known = {row.name: row for row in CHECKPOINTS}
    rows = {name: known[n] for name in names if (n := models.get(name, name)) in known}
    lacking = {name: row for name, row in rows.items() if not checkpoint_path(row).is_file()}
    for name, row in lacking.items():
        error = MissingWeightsError(_how_to_get(row, name, checkpoint_path(row)))
        error.published = tuple(r.name for r in lacking.values() if not r.embedded)
        raise error


def _how_to_get(row: Checkpoint, asked: str, path: Path) -> str:
    if row.embedded:
        return f"the embedded weights {path} are missing: install adm again"
    together = next((p.checkpoints for p in PRESETS if p.name == asked), (row.name,))
    rows = [find_checkpoint(name) for name in together]
    missing = [row for row in rows if not checkpoint_path(row).is_file()]
    size = sum(row.size for row in missing)
    return (
        f"the weights of {row.name} are not on this machine: adm fetch {asked} brings "
        f"{one_of((row.name for row in missing), 'and')} ({size_text(size)}); {TERMS}"
    )
