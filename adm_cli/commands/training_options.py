"""Options of the training commands: the words for what `training.options` declares."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

import typer

from adm_cli.commands import completing, options
from adm_cli.training.options import (
    BATCH_SIZE,
    CALLERS,
    CLIP_NORM,
    GUIDE_SCALE,
    SIZE,
    VAL_IMAGES,
    VAL_SPLIT,
    WARMUP,
    WORKERS,
    CommonOptions,
    held_types,
)

_DATA, _MODEL, _TRAIN, _RUN = "Pictures", "Model", "Training", "Run"
_MACHINE = "Machine"


def _option(*names: str, panel: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False, **more)


_OPTIONS: dict[str, Any] = {
    "data": typer.Argument(
        help="Folders, zips or uncompressed tars of pictures.", show_default=False
    ),
    "val": _option("--val", panel=_DATA, help="Validation pictures. Repeatable."),
    "val_split": _option(
        "--val-split", panel=_DATA, help=f"Or this part of every class. ({VAL_SPLIT})"
    ),
    "val_images": _option(
        "--val-images", panel=_DATA, help=f"Validate on at most this many. ({VAL_IMAGES})"
    ),
    "labels": _option(
        "--labels",
        panel=_DATA,
        help="Class of a picture: folders, names (up to the first underscore), none, or a "
        "file: CSV, JSON. (what fits)",
    ),
    "value_range": _option(
        "--value-range", panel=_DATA, help="White of 16-bit files, or BLACK,WHITE. (as they tell)"
    ),
    "classes": _option("--class", panel=_DATA, help="Only these: ids, ranges, names. Repeatable."),
    "skip_bad": _option("--skip-bad", panel=_DATA, help="Pass over unreadable pictures."),
    "random_crop": _option(
        "--random-crop/--center-crop",
        panel=_DATA,
        help="Random squares of 80 to 100 % of the side.",
    ),
    "flip": _option("--flip/--no-flip", panel=_DATA, help="Mirror half of them. (yes)"),
    "cache": _option("--cache/--stream", panel=_DATA, help="Decode once into memory. (if it fits)"),
    "workers": _option(
        "--workers", panel=_MACHINE, help=f"Processes that decode when streaming. ({WORKERS})"
    ),
    "size": _option("--size", panel=_MODEL, help=f"64, or WIDTHxHEIGHT. ({SIZE})"),
    "channels": _option("--channels", panel=_MODEL, help="Width. (by size: 32 to 128)"),
    "preset": _option(
        "--preset",
        panel=_MODEL,
        autocompletion=completing.complete_trainable,
        help="A known model's or ablation's architecture.",
    ),
    "flags": _option("--flags", panel=_MODEL, help="Architecture by the original's flags, quoted."),
    "flags_of": _option(
        "--flags-of", panel=_MODEL, help="Or by improved-diffusion's: other defaults."
    ),
    "strict_flags": _option(
        "--strict-flags", panel=_MODEL, help="Refuse flags that the original has not."
    ),
    "command": _option(
        "--command", panel=_MODEL, help="Which, where --flags holds several commands."
    ),
    "init": _option(
        "--init",
        panel=_MODEL,
        help="Fine-tune these weights: architecture and all. A classifier also takes a diffusion "
        "model's encoder.",
    ),
    "match": _option("--match", panel=_MODEL, help="Size, noise and classes of this model."),
    "set": _option("--set", panel=_MODEL, help="NAME=VALUE of any setting --dry-run shows."),
    "gradient_checkpointing": _option(
        "--gradient-checkpointing", panel=_MODEL, help="Less memory, slower."
    ),
    "steps": _option("--steps", panel=_TRAIN, help="When to stop. (by the pictures)"),
    "kimg": _option("--kimg", panel=_TRAIN, help="Or --steps, in thousands of pictures."),
    "batch_size": _option("--batch-size", panel=_TRAIN, help=f"Over all processes. ({BATCH_SIZE})"),
    "microbatch": _option("--microbatch", panel=_MACHINE, help="Pictures at once, to save memory."),
    "lr": _option(
        "--lr",
        panel=_TRAIN,
        help="Learning rate. (0.0012; fine-tuning and published models 0.0001; classifiers 0.0003)",
    ),
    "warmup": _option(
        "--warmup", panel=_TRAIN, help=f"Steps up to it. ({WARMUP}, at most a tenth)"
    ),
    "anneal": _option(
        "--anneal",
        panel=_TRAIN,
        help="none, linear or cosine, to 0. (none; classifiers linear)",
    ),
    "weight_decay": _option("--weight-decay", panel=_TRAIN, help="Of the optimizer."),
    "optimizer": _option(
        "--optimizer",
        autocompletion=completing.complete_word("adamw", "muon"),
        panel=_TRAIN,
        help="muon, or adamw. (muon; fine-tuning and published models adamw)",
    ),
    "clip_norm": _option(
        "--clip-norm", panel=_TRAIN, help=f"Of the gradient; 0: off. ({CLIP_NORM:g})"
    ),
    "ema": _option(
        "--ema", panel=_TRAIN, help="Averaging rates, comma-separated; the first gives the model."
    ),
    "dtype": _option(
        "--dtype",
        autocompletion=completing.complete_word("float32", "bfloat16", "float16"),
        panel=_MACHINE,
        help="float32, bfloat16 or float16 (CUDA). (bfloat16 on CUDA, float16 on GPUs without it; "
        "else float32)",
    ),
    "compile": _option("--compile/--no-compile", panel=_MACHINE, help="torch.compile."),
    "channels_last": _option(
        "--channels-last/--channels-first", panel=_MACHINE, help="Memory layout. (last on CUDA)"
    ),
    "seed": _option("--seed", panel=_TRAIN, help="Of everything. (0)"),
    "out": _option("--out", "-o", panel=_RUN, help="The run's folder. (training/NNNN)"),
    "resume": _option(
        "--resume", panel=_RUN, help="Only go on with the run in --out, as the same command does."
    ),
    "fresh": _option("--fresh", panel=_RUN, help="Begin anew: what --out holds of a run goes."),
    "log_every": _option("--log-every", panel=_RUN, help="Steps between rows of metrics."),
    "eval_every": _option("--eval-every", panel=_RUN, help="Steps between validations."),
    "save_every": _option("--save-every", panel=_RUN, help="Steps between checkpoints."),
    "save_dtype": _option(
        "--save-dtype",
        panel=_RUN,
        autocompletion=options.complete_dtype,
        help="Of the model file. (float32)",
    ),
    "tensorboard": _option("--tensorboard", panel=_RUN, help="Also write TensorBoard events."),
    "device": _option(
        "--device",
        panel=_MACHINE,
        autocompletion=options.complete_device,
        help="auto, cpu, cuda, mps.",
    ),
    "dry_run": _option("--dry-run", panel=_RUN, help="Show settings and estimates, train nothing."),
    "json": _option("--json", panel=_RUN, help="Results as JSON, one object a line."),
    "quiet": _option("--quiet", "-q", panel=_RUN, help="No progress and no notes."),
    "unconditional": _option("--unconditional", panel=_MODEL, help="Ignore the classes."),
    "label_dropout": _option(
        "--label-dropout", panel=_TRAIN, help="Part shown without its class, e.g. 0.1, for --cfg."
    ),
    "timestep_sampler": _option(
        "--timestep-sampler", panel=_TRAIN, help="uniform, stratified or loss-second-moment."
    ),
    "sample_every": _option("--sample-every", panel=_RUN, help="Steps between pictures; 0: none."),
    "classifier": _option(
        "--classifier", panel=_RUN, help="Guides the pictures of --sample-every."
    ),
    "scale": _option("--scale", panel=_RUN, help=f"Its guidance scale. ({GUIDE_SCALE:g})"),
    "low_size": _option("--low-size", panel=_MODEL, help="Of the small pictures. (half)"),
    "noise_augment": _option(
        "--noise-augment", panel=_MODEL, help="Largest noise on the small ones, e.g. 0.3. (none)"
    ),
    "vary_kernel": _option(
        "--vary-kernel", panel=_TRAIN, help="Small ones by one of four filters, at random."
    ),
    "crop": _option("--crop", panel=_TRAIN, help="Learn from random squares of this side. (all)"),
    "noised": _option("--noise/--no-noise", panel=_TRAIN, help="Learn from noisy pictures. (yes)"),
    "label_smoothing": _option(
        "--label-smoothing",
        panel=_TRAIN,
        help="Part of the target that the classes share, e.g. 0.1. (none)",
    ),
}


@dataclass(frozen=True)
class Shown:
    """How a command shows what it does; no part of the run."""

    dry_run: bool = False
    json: bool = False
    quiet: bool = False


def command_of(
    cls: type[CommonOptions],
) -> Callable[[Callable[[Any, Shown], None]], Callable[..., None]]:
    """Decorates a function of options so that Typer sees the fields of ``cls`` as options."""

    def decorate(function: Callable[[Any, Shown], None]) -> Callable[..., None]:
        hints = {cls: held_types(cls), Shown: get_type_hints(Shown)}  # slow: once for all
        parameters = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=Annotated[hints[owner][field.name], _OPTIONS[field.name]],
            )
            for owner in (cls, Shown)
            for field in dataclasses.fields(owner)
            if field.name not in CALLERS
        ]
        shown = {field.name for field in dataclasses.fields(Shown)}

        def command(**values: Any) -> None:
            options = {name: value for name, value in values.items() if name not in shown}
            function(cls(**options), Shown(**{name: values[name] for name in shown}))

        command.__doc__ = function.__doc__
        command.__name__ = function.__name__
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate
