"""Training settings among the original's flags, as options of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adm_cli.checkpoints.flags.given import OTHER, Family, listed
from adm_cli.checkpoints.flags.model import FlagReading, check_said, read_flags
from adm_cli.config import Kind
from adm_cli.errors import UsageError

# Options of ours by the original's flags, where the value is the same.
_SAME = {
    "iterations": "steps",
    "lr": "lr",
    "weight_decay": "weight_decay",
    "ema_rate": "ema",
    "log_interval": "log_every",
    "eval_interval": "eval_every",
    "save_interval": "save_every",
}


def read_training_flags(kind: Kind, options: Mapping[str, Any]) -> FlagReading:
    """The flags of the option ``flags``, read as the options beside it say."""
    family: Family = options.get("flags_of", "guided-diffusion")
    check_said(str(options["flags"]))
    return read_flags(
        str(options["flags"]),
        kind,
        family=family,
        command=options.get("command"),
        strict=bool(options.get("strict_flags", False)),
    )


def refuse_lone(options: Mapping[str, Any]) -> None:
    """Raises UsageError for an option that says how to read flags, where there are none."""
    for name in ("flags_of", "strict_flags", "command"):
        if name in options:
            option = name.replace("_", "-")
            raise UsageError(f"--{option} says how to read --flags: pass it with --flags")


def take_over(kind: Kind, options: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The options, filled up with what their flags say of training, and notes for a person.

    What was given as an option wins. The original's batches are those of one process, ours of
    all. Raises ConfigError as `read_flags`.
    """
    reading = read_training_flags(kind, options)
    said = {name: value for name, value in reading.given.items() if name in OTHER}
    notes = list(reading.notes)
    trains = "sample" not in reading.script and "nll" not in reading.script
    found = _options(kind, said, reading.processes) if trains else {}
    if "kimg" in options:  # says when to stop
        found.pop("steps", None)
    new = {name: value for name, (_, value) in found.items() if name not in options}
    taken = [flag for name, (flag, _) in found.items() if name not in options]
    left = [name for name in said if name not in taken and not _means_nothing(name, said)]
    if reading.given.get("use_fp16") or reading.given.get("classifier_use_fp16"):
        left.append("classifier_use_fp16" if kind == "classifier" else "use_fp16")
    if new:
        shown = ", ".join(f"--{name.replace('_', '-')} {value}" for name, value in new.items())
        notes.append(f"taken from the flags: {shown}")
    if left:
        notes.append(f"left out of the flags: {listed(left)}{_instead(left)}")
    return {**options, **new}, notes


def _options(kind: Kind, said: Mapping[str, Any], processes: int) -> dict[str, tuple[str, Any]]:
    """Names and values of options, each with the flag that it comes from."""
    found = {ours: (name, said[name]) for name, ours in _SAME.items() if name in said}
    if kind != "classifier":
        found.pop("steps", None)
    for name in ("batch_size", "microbatch"):
        if said.get(name, 0) > 0:
            count = processes if name == "batch_size" else 1
            found[name] = (name, said[name] * count)
    if kind == "classifier":
        if "noised" in said:
            found["noised"] = ("noised", said["noised"])
        if "anneal_lr" in said:
            found["anneal"] = ("anneal_lr", "linear" if said["anneal_lr"] else "none")
        found.pop("ema", None)
    else:
        found.pop("eval_every", None)
        if said.get("lr_anneal_steps", 0) > 0:
            found["steps"] = ("lr_anneal_steps", said["lr_anneal_steps"])
            found["anneal"] = ("lr_anneal_steps", "linear")
        if said.get("schedule_sampler") in ("uniform", "loss-second-moment"):
            found["timestep_sampler"] = ("schedule_sampler", said["schedule_sampler"])
    return found


def _means_nothing(name: str, said: Mapping[str, Any]) -> bool:
    """Values by which the original turns something off that we have not on."""
    off = {"microbatch": -1, "lr_anneal_steps": 0, "resume_checkpoint": "", "val_data_dir": ""}
    return name in off and said[name] == off[name]


def _instead(left: list[str]) -> str:
    """What takes the place of the most asked for."""
    places = {
        "data_dir": "the pictures are the command's argument",
        "val_data_dir": "--val",
        "resume_checkpoint": "--init",
        "use_fp16": "--dtype",
        "classifier_use_fp16": "--dtype",
    }
    said = [f"{name}: {places[name]}" for name in left if name in places]
    return f" ({'; '.join(said)})" if said else ""
