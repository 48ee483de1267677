"""Options of the training commands, as dataclasses that `from_dataclass` turns into commands.

Everything is None unless given, so that a resumed run can tell what is new.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Optional, TypeVar, get_args, get_origin, get_type_hints

import typer

from adm_cli.commands import completing, options
from adm_cli.errors import CheckpointError

_DATA, _MODEL, _TRAIN, _RUN = "Pictures", "Model", "Training", "Run"


def _option(*names: str, panel: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False, **more)


@dataclass(frozen=True, kw_only=True)
class CommonOptions:
    """What all training commands take."""

    data: Annotated[
        Optional[list[Path]],
        typer.Argument(help="Folders, zips or uncompressed tars of pictures.", show_default=False),
    ] = None
    val: Annotated[
        Optional[list[Path]],
        _option("--val", panel=_DATA, help="Validation pictures. Repeatable."),
    ] = None
    val_split: Annotated[
        Optional[float],
        _option("--val-split", panel=_DATA, help="Or this part of every class. (0.05)"),
    ] = None
    val_images: Annotated[
        Optional[int],
        _option("--val-images", panel=_DATA, help="Validate on at most this many. (2000)"),
    ] = None
    labels: Annotated[
        Optional[str],
        _option(
            "--labels",
            panel=_DATA,
            help="Class of a picture: folders, names (up to the first underscore), none, or a "
            "file: CSV, JSON. (what fits)",
        ),
    ] = None
    value_range: Annotated[
        Optional[str],
        _option(
            "--value-range", panel=_DATA, help="White of 16-bit files, or BLACK,WHITE. (looks)"
        ),
    ] = None
    classes: Annotated[
        Optional[list[str]],
        _option("--class", panel=_DATA, help="Only these: ids, ranges, names. Repeatable."),
    ] = None
    skip_bad: Annotated[
        Optional[bool],
        _option("--skip-bad", panel=_DATA, help="Pass over unreadable pictures."),
    ] = None
    random_crop: Annotated[
        Optional[bool],
        _option("--random-crop/--center-crop", panel=_DATA, help="80 to 100 % of the side."),
    ] = None
    flip: Annotated[
        Optional[bool], _option("--flip/--no-flip", panel=_DATA, help="Mirror half of them. (yes)")
    ] = None
    cache: Annotated[
        Optional[bool],
        _option("--cache/--stream", panel=_DATA, help="Decode once into memory. (if it fits)"),
    ] = None
    workers: Annotated[
        Optional[int],
        _option("--workers", panel=_DATA, help="Processes that decode when streaming. (2)"),
    ] = None
    size: Annotated[
        Optional[str], _option("--size", panel=_MODEL, help="64, or HEIGHTxWIDTH. (32)")
    ] = None
    channels: Annotated[
        Optional[int], _option("--channels", panel=_MODEL, help="Width. (by size: 32 to 128)")
    ] = None
    preset: Annotated[
        Optional[str],
        _option(
            "--preset",
            panel=_MODEL,
            autocompletion=completing.complete_trainable,
            help="A known model's or ablation's architecture.",
        ),
    ] = None
    flags: Annotated[
        Optional[str],
        _option("--flags", panel=_MODEL, help="Architecture by the original's flags, quoted."),
    ] = None
    flags_of: Annotated[
        Optional[str],
        _option("--flags-of", panel=_MODEL, help="Or by improved-diffusion's: other defaults."),
    ] = None
    strict_flags: Annotated[
        Optional[bool],
        _option("--strict-flags", panel=_MODEL, help="Refuse flags that the original has not."),
    ] = None
    command: Annotated[
        Optional[int],
        _option("--command", panel=_MODEL, help="Which, where --flags holds several commands."),
    ] = None
    init: Annotated[
        Optional[str],
        _option("--init", panel=_MODEL, help="Fine-tune these weights: architecture and all."),
    ] = None
    match: Annotated[
        Optional[str],
        _option("--match", panel=_MODEL, help="Size, noise and classes of this model."),
    ] = None
    set: Annotated[
        Optional[list[str]],
        _option("--set", panel=_MODEL, help="NAME=VALUE of any setting --dry-run shows."),
    ] = None
    gradient_checkpointing: Annotated[
        Optional[bool],
        _option("--gradient-checkpointing", panel=_MODEL, help="Less memory, slower."),
    ] = None
    steps: Annotated[Optional[int], _option("--steps", panel=_TRAIN, help="When to stop.")] = None
    kimg: Annotated[
        Optional[float], _option("--kimg", panel=_TRAIN, help="Or after thousands of pictures.")
    ] = None
    batch_size: Annotated[
        Optional[int], _option("--batch-size", panel=_TRAIN, help="Over all processes. (64)")
    ] = None
    microbatch: Annotated[
        Optional[int], _option("--microbatch", panel=_TRAIN, help="At once, to save memory.")
    ] = None
    lr: Annotated[Optional[float], _option("--lr", panel=_TRAIN, help="Learning rate.")] = None
    warmup: Annotated[
        Optional[int],
        _option("--warmup", panel=_TRAIN, help="Steps up to it. (100, at most a tenth)"),
    ] = None
    anneal: Annotated[
        Optional[str], _option("--anneal", panel=_TRAIN, help="none, linear or cosine, to 0.")
    ] = None
    weight_decay: Annotated[
        Optional[float], _option("--weight-decay", panel=_TRAIN, help="Of AdamW.")
    ] = None
    clip_norm: Annotated[
        Optional[float], _option("--clip-norm", panel=_TRAIN, help="Of the gradient; 0: off. (1)")
    ] = None
    ema: Annotated[
        Optional[str],
        _option("--ema", panel=_TRAIN, help="Averaging rates, comma-separated; the first counts."),
    ] = None
    dtype: Annotated[
        Optional[str],
        _option(
            "--dtype",
            autocompletion=completing.complete_word("float32", "bfloat16", "float16"),
            panel=_TRAIN,
            help="float32, bfloat16 or float16 (CUDA). (bfloat16 on CUDA, else float32)",
        ),
    ] = None
    compile: Annotated[
        Optional[bool], _option("--compile/--no-compile", panel=_TRAIN, help="torch.compile.")
    ] = None
    channels_last: Annotated[
        Optional[bool],
        _option("--channels-last/--channels-first", panel=_TRAIN, help="Layout. (last on CUDA)"),
    ] = None
    seed: Annotated[Optional[int], _option("--seed", panel=_TRAIN, help="Of everything. (0)")] = (
        None
    )
    out: Annotated[
        Optional[Path], _option("--out", "-o", panel=_RUN, help="The run's folder. (training/NNNN)")
    ] = None
    resume: Annotated[
        bool,
        _option("--resume", panel=_RUN, help="Go on with the run in --out; begin it if new."),
    ] = False
    log_every: Annotated[
        Optional[int], _option("--log-every", panel=_RUN, help="Steps between rows of metrics.")
    ] = None
    eval_every: Annotated[
        Optional[int], _option("--eval-every", panel=_RUN, help="Steps between validations.")
    ] = None
    save_every: Annotated[
        Optional[int], _option("--save-every", panel=_RUN, help="Steps between checkpoints.")
    ] = None
    save_dtype: Annotated[
        Optional[str],
        _option(
            "--save-dtype",
            panel=_RUN,
            autocompletion=options.complete_dtype,
            help="Of the model file. (float32)",
        ),
    ] = None
    tensorboard: Annotated[
        Optional[bool], _option("--tensorboard", panel=_RUN, help="Also write TensorBoard events.")
    ] = None
    device: Annotated[
        str,
        _option(
            "--device",
            panel=_RUN,
            autocompletion=options.complete_device,
            help="auto, cpu, cuda, mps.",
        ),
    ] = "auto"
    dry_run: Annotated[
        bool, _option("--dry-run", panel=_RUN, help="Show settings and estimates, train nothing.")
    ] = False
    json: Annotated[
        bool, _option("--json", panel=_RUN, help="Results as JSON, one object a line.")
    ] = False
    quiet: Annotated[
        bool, _option("--quiet", "-q", panel=_RUN, help="No progress and no notes.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class DenoiserOptions(CommonOptions):
    """More for diffusion models and upsamplers."""

    unconditional: Annotated[
        Optional[bool], _option("--unconditional", panel=_MODEL, help="Ignore the classes.")
    ] = None
    label_dropout: Annotated[
        Optional[float],
        _option("--label-dropout", panel=_TRAIN, help="Part without a class, e.g. 0.1: for both."),
    ] = None
    timestep_sampler: Annotated[
        Optional[str],
        _option(
            "--timestep-sampler", panel=_TRAIN, help="uniform, stratified or loss-second-moment."
        ),
    ] = None
    sample_every: Annotated[
        Optional[int],
        _option("--sample-every", panel=_RUN, help="Steps between pictures; 0: none."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class DiffusionOptions(DenoiserOptions):
    """More for diffusion models."""

    classifier: Annotated[
        Optional[str], _option("--classifier", panel=_RUN, help="Guides those pictures.")
    ] = None
    scale: Annotated[
        Optional[float], _option("--scale", panel=_RUN, help="Its guidance scale. (1)")
    ] = None


@dataclass(frozen=True, kw_only=True)
class UpsamplerOptions(DenoiserOptions):
    """More for upsamplers."""

    low_size: Annotated[
        Optional[str], _option("--low-size", panel=_MODEL, help="Of the small picture. (half)")
    ] = None
    noise_augment: Annotated[
        Optional[float],
        _option("--noise-augment", panel=_MODEL, help="Largest noise on it, e.g. 0.3. (none)"),
    ] = None
    vary_kernel: Annotated[
        Optional[bool],
        _option("--vary-kernel", panel=_TRAIN, help="Make it by one of four filters, at random."),
    ] = None
    crop: Annotated[
        Optional[int],
        _option("--crop", panel=_TRAIN, help="Learn from random squares of this side. (all)"),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ClassifierOptions(CommonOptions):
    """More for classifiers."""

    noised: Annotated[
        Optional[bool], _option("--noise/--no-noise", panel=_TRAIN, help="Noisy pictures. (yes)")
    ] = None
    label_smoothing: Annotated[
        Optional[float],
        _option("--label-smoothing", panel=_TRAIN, help="Part for all classes, e.g. 0.1. (none)"),
    ] = None


_NOT_STORED = ("out", "resume", "device", "dry_run", "json", "quiet")
_PATHS = ("data", "val", "labels", "init", "match", "classifier")


def given(options: CommonOptions) -> dict[str, Any]:
    """What decides the run among the options that were given, with absolute paths, for JSON."""
    values = {}
    for option in dataclasses.fields(options):
        value = getattr(options, option.name)
        if value is None or option.name in _NOT_STORED or value == []:
            continue
        values[option.name] = _absolute(value) if option.name in _PATHS else value
    return values


def stored(settings: Mapping[str, Any], cls: type[CommonOptions]) -> dict[str, Any]:
    """The options of a run's settings.json, which anyone may have written.

    Raises CheckpointError unless each is what the command line could have given.
    """
    options, hints = settings.get("options"), get_type_hints(cls)
    if not isinstance(options, dict):
        raise CheckpointError("settings.json is damaged: it holds no options")
    for name, value in options.items():
        if name not in hints or name in _NOT_STORED or not _fits(value, hints[name]):
            raise CheckpointError(f"settings.json is damaged: {name!a:.60} is {value!a:.60}")
    return dict(options)


def _fits(value: object, hint: Any) -> bool:
    """Whether a JSON value is what an option of this type becomes."""
    kinds = [kind for kind in get_args(hint) if kind is not type(None)] or [hint]
    if get_origin(kinds[0]) is list:
        inner = get_args(kinds[0])[0]
        return isinstance(value, list) and all(_fits(item, inner) for item in value)
    if kinds[0] is float:
        return type(value) in (int, float)
    return type(value) is (str if kinds[0] is Path else kinds[0])


def _absolute(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_absolute(item) for item in value]
    path = Path(value)
    return str(path.absolute()) if isinstance(value, Path) or path.is_file() else value


O = TypeVar("O", bound=CommonOptions)


def from_dataclass(cls: type[O]) -> Callable[[Callable[[O], None]], Callable[..., None]]:
    """Decorates a function of one options dataclass so that Typer sees its fields as options."""

    def decorate(function: Callable[[O], None]) -> Callable[..., None]:
        hints = get_type_hints(cls, include_extras=True)
        parameters = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=hints[field.name],
            )
            for field in dataclasses.fields(cls)
        ]

        def command(**values: Any) -> None:
            function(cls(**values))

        command.__doc__ = function.__doc__
        command.__name__ = function.__name__
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate
