"""Where known weights are, or would be: no torch is needed to look."""

from __future__ import annotations

from pathlib import Path

from adm_cli.checkpoints.presets import Checkpoint
from adm_cli.files.disk import adm_home, models_folder, weights_folder
from adm_cli.files.links import check_below


def checkpoint_path(row: Checkpoint) -> Path:
    """The file of a known checkpoint's weights."""
    folder = weights_folder() if row.embedded else models_folder()
    return folder / f"{row.name}.safetensors"


def check_home() -> None:
    """Raises OutputError where what is removed or replaced after a fetch may be somebody's.

    ``models`` may be a link, to a larger disk: nothing is removed there but leftovers.
    """
    check_below(adm_home(), ("downloads", "fetched"))
