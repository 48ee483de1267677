"""What a training that goes on takes over, and whether it would learn the same thing as it did."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from adm_cli.checkpoints.presets import known_weights
from adm_cli.config import DiffusionConfig, Kind
from adm_cli.errors import UsageError, an
from adm_cli.events import Note, OnEvent
from adm_cli.files.differences import CHANGE, differences
from adm_cli.pictures.labels import LABELS
from adm_cli.training.config import TrainingConfig
from adm_cli.training.defaults import usual_once
from adm_cli.training.options import NOT_STORED, CommonOptions, stored
from adm_cli.training.runs import TrainingFolder
from adm_cli.training.setup import ModelConfig, Settings

# What may change when a run goes on: how long it lasts, what it reports, how it computes.
_MAY_CHANGE = frozenset(
    "steps microbatch log_every eval_every save_every sample_every compile channels_last".split()
)
_MOST_CLASSES = 5  # that are told of those that are others
_CALLED = {"fingerprint": "names and labels of the pictures"}
_PATHS = ("data", "val", "labels", "init", "match", "classifier")


def given(options: CommonOptions) -> dict[str, Any]:
    """What decides the run among the options that were given, with absolute paths, for JSON."""
    values = {}
    for option in dataclasses.fields(options):
        value = getattr(options, option.name)
        if value is None or option.name in NOT_STORED or value == []:
            continue
        values[option.name] = _absolute(option.name, value) if option.name in _PATHS else value
    return values


def _absolute(name: str, value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_absolute(name, item) for item in value]
    place = isinstance(value, Path) or (not _is_word(name, value) and os.path.exists(value))
    return str(Path(value).absolute()) if place else value


def _is_word(name: str, value: str) -> bool:
    """Whether the value of an option in `_PATHS` is a word of ours, also where a file is called so.

    ``--labels names``, ``--init tiny``.
    """
    return value in (LABELS if name == "labels" else known_weights())


def merge_options(
    kind: Kind,
    chosen: dict[str, Any],
    options: CommonOptions,
    folder: TrainingFolder | None,
    on_event: OnEvent,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The options with those of the run in the folder, and its settings, if it is gone on with.

    Raises UsageError where ``--resume`` finds no run or another kind's, as `TrainingFolder` else.
    """
    used = folder is not None and folder.used()
    if options.resume and not used:
        if folder is None:
            raise UsageError("--resume needs --out, the folder of the run to go on with")
        raise UsageError(
            f"--resume: {folder.path} holds no run to go on with; without --resume the command "
            f"begins one there"
        )
    if folder is None or not used or options.fresh:
        if folder is not None:
            folder.check_own() if options.fresh else folder.check_fresh()
        return chosen, None
    before = folder.load_settings()
    theirs = before.get("kind")
    if isinstance(theirs, str) and theirs in get_args(Kind) and theirs != kind:
        raise UsageError(
            f"{folder.path} holds the training of {an(theirs)} model, which adm train-{theirs} "
            f"goes on with: choose another --out"
        )
    kept = stored(before, type(options), folder.settings)
    _refuse_gone(kept, chosen, kind, folder)
    merged = _merged(kept, chosen, before.get("training"))
    merged |= usual_once(kind, merged, before)
    step = int(folder.states()[0].stem.split("-")[1]) if folder.states() else 0
    on_event(Note(f"going on with the run in {folder.path} at step {step} (--fresh begins anew)"))
    return merged, before


def _refuse_gone(
    kept: Mapping[str, Any], chosen: Mapping[str, Any], kind: Kind, folder: TrainingFolder
) -> None:
    """Raises UsageError where what a run was begun with is elsewhere now, and nobody says where."""
    for name in (name for name in _PATHS if name in kept and name not in chosen):
        value = kept[name]
        for place in value if isinstance(value, list) else [value]:
            if _is_word(name, place) or os.path.exists(place):
                continue
            option = "" if name == "data" else f"--{name} "
            own = f"; {folder.model} will do" if name == "init" and folder.model.exists() else ""
            raise UsageError(
                f"{place}, which the run in {folder.path} was begun with, is not there: "
                f"adm train-{kind} {option}PLACE --out {shlex.quote(str(folder.path))} says where "
                f"it is now{own}"
            )


def _merged(kept: dict[str, Any], chosen: dict[str, Any], training: Any) -> dict[str, Any]:
    """Options of a run, those that are new, and its length where neither says it.

    Also its warmup, which follows from the length, where that is another now.
    """
    length = ("steps", "kimg")
    other_length = any(name in chosen and chosen[name] != kept.get(name) for name in length)
    for rival, other in (length, length[::-1]):
        if rival in chosen:
            kept.pop(other, None)
    merged = {**kept, **chosen}
    if "set" in kept and "set" in chosen:  # each is a setting of its own; the last one counts
        new = {text.partition("=")[0] for text in chosen["set"]}
        old = [text for text in kept["set"] if text.partition("=")[0] not in new]
        merged["set"] = [*old, *chosen["set"]]
    training = training if isinstance(training, dict) else {}
    if not set(length) & set(merged) and type(training.get("steps")) is int:
        merged["steps"] = training["steps"]
    if other_length and type(training.get("warmup")) is int:
        merged.setdefault("warmup", training["warmup"])
    return merged


def dtype_of(stored: Mapping[str, Any]) -> str:
    """The precision that a run was begun with: float32 where its settings do not say it."""
    training = stored.get("training")
    found = training.get("dtype") if isinstance(training, dict) else None
    return found if isinstance(found, str) else "float32"


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
        names = {*old, *new} - (_MAY_CHANGE if part == "training" else set())
        if isinstance(old.get("classes"), dict) and "classes" in new:
            names.remove("classes")
            found = differences(old["classes"], new["classes"], f"class {CHANGE}")
            different += [*found[:_MOST_CLASSES], *(["..."] if found[_MOST_CLASSES:] else [])]
        different += differences(old, new, names={n: _CALLED.get(n, n) for n in sorted(names)})
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
