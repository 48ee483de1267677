"""How a model is trained where nobody says it: rate, length, batch, and when to look and save."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from adm_cli.checkpoints.presets import CHECKPOINTS, PRESETS
from adm_cli.config import Kind
from adm_cli.errors import UsageError
from adm_cli.files.strict import config_from_json
from adm_cli.training.config import TrainingConfig
from adm_cli.training.options import BATCH_SIZE, CLIP_NORM, WARMUP

Options = Mapping[str, Any]

# Epochs of a run whose length nobody chose, and the fewest and most steps that it takes.
_LENGTHS: dict[Kind, tuple[int, int, int]] = {
    "diffusion": (200, 2_000, 20_000),
    "upsampler": (200, 2_000, 20_000),
    # of 35 epochs of 1,140 pictures the 28th had the lowest validation loss (examples/own-data.md)
    "classifier": (40, 500, 5_000),
}
# Where they differ from `TrainingConfig`'s own. The classifier's are the paper's (appendix H).
_DEFAULTS: dict[Kind, dict[str, Any]] = {
    "diffusion": {"batch_size": BATCH_SIZE, "clip_norm": CLIP_NORM},
    "upsampler": {"batch_size": BATCH_SIZE, "clip_norm": CLIP_NORM},
    "classifier": {
        "batch_size": BATCH_SIZE,
        "lr": 3e-4,
        "weight_decay": 0.05,
        "anneal": "linear",
        "clip_norm": CLIP_NORM,
        "ema_rates": (0.999,),
        "random_crop": True,
        "sample_every": 0,
    },
}
# Of models from random weights that are no paper's: small ones, which are trained for hours, not
# weeks, and learn far less in the paper's way (benchmarks/NOTES.md).
_OWN: dict[Kind, dict[str, Any]] = {
    "diffusion": {"optimizer": "muon", "lr": 1.2e-3, "anneal": "none"},
    "upsampler": {"optimizer": "muon", "lr": 1.2e-3, "anneal": "none"},
    "classifier": {"optimizer": "muon"},
}
_PLAIN = (
    "batch_size microbatch lr warmup anneal weight_decay seed dtype compile channels_last "
    "random_crop crop vary_kernel flip timestep_sampler optimizer label_dropout noised "
    "label_smoothing log_every eval_every save_every sample_every"
).split()


def default_steps(kind: Kind, pictures: int, batch_size: int) -> int:
    """As many epochs as suit the kind, in hundreds of steps, within its bounds."""
    epochs, least, most = _LENGTHS[kind]
    hundreds = math.ceil(epochs * pictures / max(1, batch_size) / 100)
    return min(most, max(least, 100 * hundreds))


def why_steps(kind: Kind, steps: int) -> str:
    """What chose a length of `default_steps`."""
    _, least, most = _LENGTHS[kind]
    if steps <= least:
        return "the fewest that adm chooses, as fewer seldom give anything"
    if steps >= most:
        return "the most that adm chooses by itself: more may be better, and take longer"
    return "as adm chooses"


def resolve_training(kind: Kind, options: Options, pictures: int) -> TrainingConfig:
    """What is asked for and, for the rest, the defaults; raises UsageError or ConfigError."""
    values: dict[str, Any] = {**_DEFAULTS[kind]}
    if not _known(options):
        values |= _OWN[kind]
    values |= {name: options[name] for name in _PLAIN if name in options}
    if "steps" in options and "kimg" in options:
        raise UsageError("--steps and --kimg both say when to stop: give one")
    if "steps" in options:
        values["steps"] = options["steps"]
    if "kimg" in options:
        values["steps"] = math.ceil(float(options["kimg"]) * 1000 / max(1, values["batch_size"]))
    values.setdefault("steps", default_steps(kind, pictures, values["batch_size"]))
    if "clip_norm" in options:
        values["clip_norm"] = float(options["clip_norm"]) or None  # 0 turns it off
    if "ema" in options:
        try:
            values["ema_rates"] = tuple(float(text) for text in str(options["ema"]).split(","))
        except ValueError:
            raise UsageError(f"--ema {options['ema']}: expected rates such as 0.9999") from None
    tenth = math.ceil(int(values["steps"]) / 10)
    for name, most in (("eval_every", 1000), ("save_every", 1000), ("sample_every", 2000)):
        values.setdefault(name, min(most, tenth))
    values.setdefault("log_every", min(50, max(1, int(values["steps"]) // 20)))
    if "warmup" not in options:
        values["warmup"] = min(WARMUP, tenth)
    return config_from_json(TrainingConfig, json.dumps(values))  # which checks types and choices


def usual_once(kind: Kind, options: Options, before: Mapping[str, Any]) -> dict[str, Any]:
    """What nobody chose of a run that was begun when it was another than now, from its settings.

    The paper's optimizer and rate, and that eps was predicted.
    """
    if _known(options):
        return {}
    found: dict[str, Any] = {}
    training, diffusion = before.get("training"), before.get("diffusion")
    for name, now in _OWN[kind].items():
        usual = getattr(TrainingConfig, name)  # where a run is older than the setting
        was = training.get(name, usual) if isinstance(training, dict) else None
        if name not in options and isinstance(was, type(now)) and was != now:
            found[name] = was
    changes = options.get("set", [])
    chosen = "match" in options or any(text.startswith("prediction=") for text in changes)
    if kind == "classifier" or chosen:
        return found
    if isinstance(diffusion, dict) and diffusion.get("prediction") == "eps":
        found["set"] = [*changes, "prediction=eps"]
    return found


def _known(options: Options) -> bool:
    """Whether a model is one that others trained: by its weights, its preset or their flags."""
    own = {row.name for row in CHECKPOINTS if row.embedded}
    own |= {row.name for row in PRESETS if row.model in own}
    preset = options.get("preset")
    return bool({"init", "flags", "flags_of"} & set(options)) or preset not in (None, *own)
