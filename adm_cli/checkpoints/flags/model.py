"""Reading the flags of the original repository (openai/guided-diffusion) and its relatives.

Whole commands may be given as people paste them, launchers, shell variables and all
(`pasted_commands`), or settings as Python, JSON or YAML (`pasted_settings`). Values of flags that
say nothing about the model are checked and passed over; flags that the original never had are
passed over and named.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adm_cli.checkpoints.flags.given import (
    ANY_KIND,
    DEFAULTS,
    KNOWN,
    OTHER,
    Family,
    GivenFlags,
    choose,
    kinds_of,
    listed,
    read_given,
    typed,
)
from adm_cli.checkpoints.flags.pasted_commands import spelt, unknowns
from adm_cli.checkpoints.flags.pasted_settings import NotPlain
from adm_cli.config import ClassifierConfig, DiffusionConfig, Kind, Loss, UNetConfig, Variance
from adm_cli.errors import ConfigError, UsageError, an, one_of, trim
from adm_cli.files.strict import type_checked

FAMILIES: tuple[Family, ...] = ("guided-diffusion", "improved-diffusion")

# Where improved-diffusion's differ.
_IMPROVED = {"rescale_timesteps": True, "rescale_learned_sigmas": True}
_DIFFUSION = frozenset(
    "learn_sigma diffusion_steps noise_schedule timestep_respacing use_kl predict_xstart "
    "rescale_timesteps rescale_learned_sigmas sigma_small".split()
)
# What a computation is like, not what a model is.
_INCIDENTAL = frozenset("use_checkpoint use_fp16 classifier_use_fp16 dropout".split())
CHANNEL_MULT = {64: "1,2,3,4", 128: "1,1,2,3,4", 256: "1,1,2,2,4,4", 512: "0.5,1,1,2,2,4,4"}
UPSAMPLER_CHANNEL_MULT = {64: "1,2,3,4", 256: "1,1,2,2,4,4", 512: "1,1,2,2,4,4"}
_IMPROVED_CHANNEL_MULT = {32: "1,2,2,2", 64: "1,2,3,4", 256: "1,1,2,2,4,4"}


@dataclass(frozen=True)
class FlagReading:
    """What a text of flags stands for, and what a person should know of the reading."""

    kind: Kind
    config: UNetConfig | ClassifierConfig
    diffusion: DiffusionConfig
    given: Mapping[str, Any]  # the original's flags that were given, typed
    script: str  # its name, "" where only flags were given
    processes: int  # that the launcher starts
    notes: tuple[str, ...]


@type_checked
def openai_flags(
    text: str,
    kind: Kind | None = None,
    *,
    family: Family = "guided-diffusion",
    command: int | None = None,
    strict: bool = False,
) -> tuple[UNetConfig | ClassifierConfig, DiffusionConfig]:
    """The configurations that flags of the original stand for.

    ``text`` is a flag string, a whole command, or settings as Python, JSON or YAML; ``kind`` and
    the rest as in `read_flags`, which also tells what was passed over.

    Raises ConfigError for bad values and impossible architectures.
    """
    reading = read_flags(text, kind, family=family, command=command, strict=strict)
    return reading.config, reading.diffusion


def check_said(flags: str) -> None:
    """Raises UsageError for a text of nothing, which would be the original's default model.

    Also for the name of a file that holds the flags, with or without an "@".
    """
    if os.path.isfile(name := flags.strip().removeprefix("@")):
        mend = f'--flags "$(cat {shlex.quote(name)})"'
        raise UsageError(f"--flags {trim(flags)} is a file: pass its text, {mend}")
    if not flags.strip():
        raise UsageError(
            "--flags is empty, as where a variable of the shell is not set: expected such as "
            '"--image_size 64 --num_channels 128"'
        )


def read_flags(
    text: str,
    kind: Kind | None = None,
    *,
    family: Family = "guided-diffusion",
    command: int | None = None,
    strict: bool = False,
) -> FlagReading:
    """Flags of the original, of one of several commands, with notes on what was not read.

    ``kind`` chooses between the diffusion model and the classifier where a command speaks of
    both; None takes what the script's name says, then an upsampler where there is
    ``--large_size``, a classifier where only ``--classifier_*`` flags describe a model.
    ``family`` is the repository whose defaults hold. ``command`` counts from 1. ``strict`` refuses
    flags that the original has not.

    Beyond the original's flags: ``--num_classes``, a classifier's ``--classifier_channel_mult``,
    ``--classifier_num_head_channels`` and ``--classifier_use_new_attention_order``, fractions in
    ``--channel_mult``, ``--sigma_small``, and any image size for which the channel multipliers are
    given.

    Raises ConfigError for several commands that differ, bad values and impossible architectures.
    """
    if family not in FAMILIES:
        raise ConfigError(f"--flags-of {family}: expected {one_of(FAMILIES)}")
    given = choose(read_given(text), kind, command)
    if given.problems:
        raise ConfigError("; ".join(given.problems))
    if given.foreign and strict:
        raise ConfigError(
            f"not flags of the original: {listed(given.foreign)}; leave them out, or go without "
            f"--strict-flags"
        )
    chosen = kind or _infer_kind(given)
    if chosen not in kinds_of(given.script):
        raise ConfigError(
            f"{given.script} describes {an(kinds_of(given.script)[0])} model, "
            f"not {an(chosen)} model"
        )
    _check_known(given, chosen)
    values = {name: typed(name, value) for name, value in given.flags.items() if _plain(value)}
    flags = {**DEFAULTS, **(_IMPROVED if family == "improved-diffusion" else {}), **values}
    try:
        model = _classifier(flags) if chosen == "classifier" else _unet(flags, chosen, family)
        diffusion = _diffusion(flags)
    except ConfigError as error:
        if family == "guided-diffusion" and flags["image_size"] == 32 and "32" in str(error):
            hint = "or --flags-of improved-diffusion, which knows 32"
            raise ConfigError(f"{error}; {hint}") from None
        raise
    notes = (*_notes(given), *_family_notes(values, family, chosen))
    return FlagReading(chosen, model, diffusion, values, given.script, given.processes, notes)


def _infer_kind(given: GivenFlags) -> Kind:
    kinds = kinds_of(given.script)
    if kinds is not ANY_KIND:
        return kinds[0]
    script, names = given.script, set(given.flags)
    if "super_res" in script or "upsampl" in script or {"large_size", "small_size"} & names:
        return "upsampler"
    describes_unet = {"num_channels", "num_res_blocks", "attention_resolutions"} & names
    describes_classifier = any(
        name.startswith("classifier_") for name in names if name not in OTHER
    )
    trains_one = "classifier" in script and "train" in script
    if trains_one and (describes_classifier or not describes_unet):
        return "classifier"
    return "classifier" if describes_classifier and not describes_unet else "diffusion"


def _plain(value: Any) -> bool:
    return not isinstance(value, NotPlain) and not unknowns(value)


def _about(name: str, kind: Kind) -> bool:
    """Whether a flag says what a model of this kind is."""
    if name in _INCIDENTAL or name not in DEFAULTS:
        return False
    if name in _DIFFUSION:
        return name != "timestep_respacing" and (kind != "classifier" or name != "learn_sigma")
    if name.startswith("classifier_"):
        return kind == "classifier"
    if name in ("large_size", "small_size"):
        return kind == "upsampler"
    if name == "image_size":
        return kind != "upsampler"
    return kind != "classifier" or name == "num_classes"


def _check_known(given: GivenFlags, kind: Kind) -> None:
    """Raises ConfigError where what decides the model is not in the text."""
    for name, value in given.flags.items():
        if not _plain(value) and _about(name, kind):
            text = f"{trim(spelt(value))}"
            raise ConfigError(
                f"--{name} is {text}, whose value is not in the text: put it there, e.g. "
                f"--{name} {'1,2,3,4' if KNOWN[name] == '' else KNOWN[name]}"
            )
    part = {"classifier": "CLASSIFIER|DIFFUSION"}.get(kind, "MODEL_FLAG|MODEL_ARG|DIFFUSION|UNET")
    silent = not any(_about(name, kind) for name in given.flags)
    lost = [word for word in given.unset if silent or re.search(part, word, re.I)]
    if lost and all("." in word and word[0] != "$" for word in lost):
        raise ConfigError(f"{listed(lost, '')} is not in the text: paste what is in it")
    if lost:
        raise ConfigError(
            f"{listed(lost, '')} is not set in the text: paste the line that sets it too, "
            f"before the command"
        )


def _notes(given: GivenFlags) -> list[str]:
    notes = []
    if given.foreign:
        notes.append(f"passed over, not flags of the original: {listed(given.foreign)}")
    if given.bare:
        notes.append(f"without a value, passed over: {listed(given.bare)}")
    if given.short:
        notes.append(f"read {listed(given.short, '')}")
    if given.rivals:
        notes.append(f"set in several branches, the last is read: {listed(given.rivals, '$')}")
    if given.unset:
        notes.append(f"not set in the text, read as nothing: {listed(given.unset, '')}")
    left = [name for name, value in given.flags.items() if name in DEFAULTS and not _plain(value)]
    if left:
        notes.append(f"no plain value, left at the default: {listed(left)}")
    of_network = given.script in ("UNetModel", "EncoderUNetModel")
    if of_network and "noise_schedule" not in given.flags:
        notes.append(
            "a network's arguments do not say which noise it learned: taken for linear, the "
            "original's default; if it was another, add noise_schedule to them"
        )
    if given.cut:
        notes.append("flags behind a comment within the command are not part of it, as in a shell")
    return notes


def _family_notes(given: Mapping[str, Any], family: Family, kind: Kind) -> list[str]:
    """A hint where the flags smell of the other repository."""
    if family != "guided-diffusion" or kind == "classifier":
        return []
    unsaid = [name for name in _IMPROVED if name not in given]
    smells = "sigma_small" in given or given.get("diffusion_steps") == 4000
    if not smells or not unsaid:
        return []
    return [
        f"these look like flags of improved-diffusion, where {listed(unsaid)} is True unless "
        f"given: if so, pass --flags-of improved-diffusion"
    ]


def _unet(flags: dict[str, Any], kind: Kind, family: Family) -> UNetConfig:
    upsampler = kind == "upsampler"
    size = flags["large_size" if upsampler else "image_size"]
    low = flags["small_size"] if upsampler else None
    table = UPSAMPLER_CHANNEL_MULT if upsampler else CHANNEL_MULT
    if family == "improved-diffusion":
        table = _IMPROVED_CHANNEL_MULT
    return UNetConfig(
        image_size=(size, size),
        low_res_size=None if low is None else (low, low),
        model_channels=flags["num_channels"],
        num_res_blocks=flags["num_res_blocks"],
        channel_mult=_channel_mult(flags, "channel_mult", size, table),
        attention_factors=_attention_factors(flags, "attention_resolutions", size),
        num_heads=flags["num_heads"],
        num_head_channels=_optional_int(flags, "num_head_channels"),
        num_heads_upsample=_optional_int(flags, "num_heads_upsample"),
        qkv_order="new" if flags["use_new_attention_order"] else "legacy",
        scale_shift_norm=flags["use_scale_shift_norm"],
        resblock_updown=flags["resblock_updown"],
        dropout=flags["dropout"],
        num_classes=flags["num_classes"] if flags["class_cond"] else None,
        out_channels=6 if flags["learn_sigma"] else 3,
        use_fp16=flags["use_fp16"],
        gradient_checkpointing=flags["use_checkpoint"],
    )


def _classifier(flags: dict[str, Any]) -> ClassifierConfig:
    size = flags["image_size"]
    pool = flags["classifier_pool"]
    if pool not in ("attention", "adaptive", "spatial", "spatial_v2"):
        raise ConfigError(
            f"--classifier_pool must be attention, adaptive, spatial or spatial_v2, got {pool}"
        )
    return ClassifierConfig(
        image_size=(size, size),
        model_channels=flags["classifier_width"],
        num_res_blocks=flags["classifier_depth"],
        channel_mult=_channel_mult(flags, "classifier_channel_mult", size, CHANNEL_MULT),
        attention_factors=_attention_factors(flags, "classifier_attention_resolutions", size),
        num_heads=1,
        num_head_channels=_optional_int(flags, "classifier_num_head_channels"),
        qkv_order="new" if flags["classifier_use_new_attention_order"] else "legacy",
        scale_shift_norm=flags["classifier_use_scale_shift_norm"],
        resblock_updown=flags["classifier_resblock_updown"],
        pool=pool,
        num_classes=flags["num_classes"],
        use_fp16=flags["classifier_use_fp16"],
    )


def _diffusion(flags: dict[str, Any]) -> DiffusionConfig:
    schedule = flags["noise_schedule"]
    if schedule not in ("linear", "cosine"):
        raise ConfigError(f"--noise_schedule must be linear or cosine, got {schedule}")
    loss: Loss = "mse"
    fixed: Variance = "fixed_small" if flags["sigma_small"] else "fixed_large"
    if flags["use_kl"]:  # wins over the other, as in the original
        loss = "rescaled_kl"
    elif flags["rescale_learned_sigmas"]:
        loss = "rescaled_mse"
    return DiffusionConfig(
        noise_schedule=schedule,
        num_timesteps=flags["diffusion_steps"],
        prediction="x_start" if flags["predict_xstart"] else "eps",
        variance="learned_range" if flags["learn_sigma"] else fixed,
        rescale_timesteps=flags["rescale_timesteps"],
        loss=loss,
        respacing=flags["timestep_respacing"] or None,
    )


def _channel_mult(
    flags: dict[str, Any], name: str, size: int, table: dict[int, str]
) -> tuple[float, ...]:
    text = flags[name] or table.get(size)
    if text is None:
        raise ConfigError(
            f"no channel multipliers are known for size {size} "
            f"(only {', '.join(map(str, table))}): give --{name}, e.g. --{name} "
            f"{_IMPROVED_CHANNEL_MULT.get(size, '1,2,4')}"
        )
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--{name} must be numbers such as 1,2,4 or 0.5,1,2, got {trim(text)}"
        ) from None


def _attention_factors(flags: dict[str, Any], name: str, size: int) -> tuple[int, ...]:
    text = flags[name]
    try:
        sizes = [int(part) for part in text.split(",")]
        return tuple(size // side for side in sizes)
    except (ValueError, ZeroDivisionError):
        raise ConfigError(
            f"--{name} must be image sizes such as 32,16,8, got {trim(text)}"
        ) from None


def _optional_int(flags: dict[str, Any], name: str) -> int | None:
    return None if flags[name] == -1 else int(flags[name])
