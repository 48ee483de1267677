"""Whether a training that goes on would learn the same thing as it did."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from adm_cli.config import DiffusionConfig
from adm_cli.errors import UsageError
from adm_cli.files.differences import differences
from adm_cli.training.config import TrainingConfig
from adm_cli.training.setup import ModelConfig, Settings

# What may change when a run goes on: how long it lasts, what it reports, how it computes.
_MAY_CHANGE = frozenset(
    "steps microbatch log_every eval_every save_every sample_every compile channels_last".split()
)


def refuse_changes(stored: Mapping[str, Any], now: Settings) -> None:
    """Raises UsageError, telling the difference, if a resumed run would learn something else."""
    fresh = now.to_json()
    different = []
    for part in ("kind", "config", "diffusion", "training", "data"):
        old, new = stored.get(part), fresh[part]
        if isinstance(old, dict) and part in ("config", "diffusion", "training"):
            defaults = _defaults(getattr(now, part))  # left out, or not there when it began
            old, new = defaults | old, defaults | new
        if not isinstance(new, dict) or not isinstance(old, dict):
            old, new = {part: old}, {part: new}
        names = sorted({*old, *new} - (_MAY_CHANGE if part == "training" else set()))
        different += differences(old, new, names={name: name for name in names})
    if different:
        raise UsageError(
            f"the run was started with other settings: {'; '.join(different)}. Go on with those "
            f"it has, or begin anew: with --fresh, or elsewhere (with --init from these weights)"
        )


def _defaults(config: ModelConfig | DiffusionConfig | TrainingConfig) -> dict[str, Any]:
    """What a setting is where nothing says otherwise, as JSON."""
    fields = dataclasses.fields(config)
    values = {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}
    return dict(json.loads(json.dumps(values)))
