"""What the training commands and functions take: names, types and defaults.

Types are what Python code may give; `held_types` says what that becomes, and what is typed.
Everything is None unless given, so that a run that is gone on with can tell what is new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from adm_cli.errors import CheckpointError, size_words, trim
from adm_cli.events import AnyPath, OnEvent, as_paths, as_words, ignore
from adm_cli.files.strict import check_type

# What they are where nothing was asked for and no model says otherwise.
SIZE, BATCH_SIZE, CLIP_NORM, WARMUP = 32, 64, 1.0, 100
VAL_SPLIT, VAL_IMAGES, WORKERS = 0.05, 2000, 2
GUIDE_SCALE = 1.0


Text = AnyPath | float  # 64 for "64"
Paths = AnyPath | Sequence[AnyPath]
Texts = AnyPath | int | Sequence[AnyPath | int]
_HELD: Mapping[Any, Any] = {
    AnyPath | None: Path | None, Text | None: str | None,
    Paths | None: list[Path] | None, Texts | None: list[str] | None,
}  # fmt: skip
CALLERS = ("on_event", "should_stop")  # of Python code alone


def _never() -> bool:
    return False


# Nobody compares or prints them, and every start of the program makes these classes.
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CommonOptions:
    """What all training commands take."""

    data: Paths | None = field(default=None, kw_only=False)
    val: Paths | None = None
    val_split: float | None = None
    val_images: int | None = None
    labels: Text | None = None
    value_range: Text | None = None
    classes: Texts | None = None
    skip_bad: bool | None = None
    random_crop: bool | None = None
    flip: bool | None = None
    cache: bool | None = None
    workers: int | None = None
    size: Text | None = None
    channels: int | None = None
    preset: Text | None = None
    flags: Text | None = None
    flags_of: Text | None = None
    strict_flags: bool | None = None
    command: int | None = None
    init: Text | None = None
    match: Text | None = None
    set: Texts | None = None
    gradient_checkpointing: bool | None = None
    steps: int | None = None
    kimg: float | None = None
    batch_size: int | None = None
    microbatch: int | None = None
    lr: float | None = None
    warmup: int | None = None
    anneal: Text | None = None
    weight_decay: float | None = None
    optimizer: Text | None = None
    clip_norm: float | None = None
    ema: Text | None = None
    dtype: Text | None = None
    compile: bool | None = None
    channels_last: bool | None = None
    seed: int | None = None
    out: AnyPath | None = None
    resume: bool = False
    fresh: bool = False
    log_every: int | None = None
    eval_every: int | None = None
    save_every: int | None = None
    save_dtype: Text | None = None
    tensorboard: bool | None = None
    device: str = "auto"
    on_event: OnEvent = ignore
    should_stop: Callable[[], bool] = _never


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DenoiserOptions(CommonOptions):
    """More for diffusion models and upsamplers."""

    unconditional: bool | None = None
    label_dropout: float | None = None
    timestep_sampler: Text | None = None
    sample_every: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DiffusionOptions(DenoiserOptions):
    """More for diffusion models."""

    classifier: Text | None = None
    scale: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class UpsamplerOptions(DenoiserOptions):
    """More for upsamplers."""

    low_size: Text | None = None
    noise_augment: float | None = None
    vary_kernel: bool | None = None
    crop: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ClassifierOptions(CommonOptions):
    """More for classifiers."""

    noised: bool | None = None
    label_smoothing: float | None = None


O = TypeVar("O", bound=CommonOptions)
NOT_STORED = ("out", "resume", "fresh", "device", *CALLERS)


def stored(settings: Mapping[str, Any], cls: type[CommonOptions], path: Path) -> dict[str, Any]:
    """The options of a run's settings.json at ``path``, which anyone may have written.

    Raises CheckpointError unless each is what the command line could have given.
    """
    options, hints = settings.get("options"), held_types(cls)
    if not isinstance(options, dict):
        raise CheckpointError(f"{path} holds no options of a training by adm: choose another --out")
    for name, value in options.items():
        if name not in hints or name in NOT_STORED or not _fits(value, hints[name]):
            raise CheckpointError(
                f"{path} is damaged: {trim(name)} is {trim(value)}; --fresh begins anew"
            )
    return {**options, **_turned(options, settings.get("config"))}


def _turned(options: Mapping[str, Any], config: object) -> dict[str, str]:
    """Sizes of a run that was begun when they were typed height first, as they are typed now.

    Its network knows them as numbers.
    """
    found = {}
    for name, size in (("size", "image_size"), ("low_size", "low_res_size")):
        sides = config.get(size) if isinstance(config, dict) else None
        if not (isinstance(sides, list) and len(sides) == 2 and sides[0] != sides[1]):
            continue
        if str(options.get(name)).strip() == f"{sides[0]}x{sides[1]}":
            found[name] = size_words(sides)
    return found


def _fits(value: object, hint: Any) -> bool:
    """Whether a JSON value is what an option of this type becomes."""
    kinds = [kind for kind in get_args(hint) if kind is not type(None)] or [hint]
    if get_origin(kinds[0]) is list:
        inner = get_args(kinds[0])[0]
        return isinstance(value, list) and all(_fits(item, inner) for item in value)
    if kinds[0] is float:
        return type(value) in (int, float)
    return type(value) is (str if kinds[0] is Path else kinds[0])


def held_types(cls: type[CommonOptions]) -> dict[str, Any]:
    """What each option becomes: paths of text, a list of one word, "64" of 64."""
    return {name: _HELD.get(hint, hint) for name, hint in get_type_hints(cls).items()}


def made_as_held(options: O) -> O:
    """Options as Python code gives them, each as `held_types` has it.

    Raises ConfigError for a value of another type.
    """
    hints, held = get_type_hints(type(options)), held_types(type(options))
    known: dict[str, Any] = {}
    for name, came in vars(options).items():
        value = check_type(name, came, hints[name])
        known[name] = None if value is None else _as(value, held[name])
    return type(options)(**known)


def _as(value: Any, held: Any) -> Any:
    kind = next((kind for kind in get_args(held) if kind is not type(None)), held)
    if kind == list[Path]:
        return as_paths(value)
    if kind == list[str]:
        return as_words(value)
    if kind is str:
        return str(value)
    return Path(value) if kind is Path else value
