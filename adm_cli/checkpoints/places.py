"""Where known weights are, or would be: no torch is needed to look."""

from __future__ import annotations

from pathlib import Path

from adm_cli.checkpoints.presets import Checkpoint
from adm_cli.files.disk import models_folder, weights_folder


def checkpoint_path(row: Checkpoint) -> Path:
    """The file of a known checkpoint's weights."""
    folder = weights_folder() if row.embedded else models_folder()
    return folder / f"{row.name}.safetensors"
