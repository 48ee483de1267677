"""What the folders of sweeps and trainings say of themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adm_cli.checkpoints.finding import check_no_model_folder
from adm_cli.errors import UsageError, an
from adm_cli.sampling.sweeps.folder import SweepFolder
from adm_cli.training.runs import TrainingFolder


def describe_folder(path: Path) -> dict[str, Any]:
    """Raises UsageError for a folder that is neither."""
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
        return _describe_training(training)
    check_no_model_folder(path)
    raise UsageError(
        f"{path} is a folder, and no run, sweep or training of adm: name a file in it (of "
        f"pictures, adm train-diffusion FOLDER --dry-run shows what is read)"
    )


def _describe_training(folder: TrainingFolder) -> dict[str, Any]:
    settings = folder.load_settings()
    states = folder.states()
    parts = [settings.get(name) for name in ("training", "config", "diffusion", "data")]
    facts: dict[str, Any] = {}
    for part in parts:
        facts |= part if isinstance(part, dict) else {}
    return {
        "folder": str(folder.path),
        "kind": f"training of {an(str(settings.get('kind')))} model",
        "step": int(states[0].stem.split("-")[1]) if states else 0,
        "model": str(folder.model) if folder.model.is_file() else None,
        "best": str(folder.best) if folder.best.is_file() else None,
        **facts,
    }
