"""From options, as a person gives them, to everything a run needs.

Options are a flat mapping of names to values, those not given left out, so that they can be
stored with the run and merged with new ones when it is resumed.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adm_cli.checkpoints.architectures import (
    ABLATIONS,
    encoder_classifier,
    starter_classifier,
    starter_diffusion,
    starter_unet,
)
from adm_cli.checkpoints.finding import find_weights
from adm_cli.checkpoints.header import ModelFile, check_detail
from adm_cli.checkpoints.presets import CHECKPOINTS, PRESETS
from adm_cli.classes.imagenet import select_classes
from adm_cli.config import ClassifierConfig, DiffusionConfig, Kind, UNetConfig
from adm_cli.diffusion.schedule import space_timesteps
from adm_cli.errors import ConfigError, UsageError, an, did_you_mean, how_many, size_words
from adm_cli.files.strict import config_to_json, with_settings
from adm_cli.pictures.datasets import (
    ImageSet,
    keep_classes,
    split_images,
)
from adm_cli.training.changes import read_changes
from adm_cli.training.config import TrainingConfig
from adm_cli.training.defaults import Options, resolve_training
from adm_cli.training.feed import FeedOptions
from adm_cli.training.options import SIZE, VAL_SPLIT, WORKERS
from adm_cli.training.original_flags import read_training_flags, refuse_lone
from adm_cli.training.sets import open_sets

ModelConfig = UNetConfig | ClassifierConfig


@dataclass(frozen=True)
class Data:
    """Training and validation pictures, the latter perhaps none."""

    training: ImageSet
    validation: ImageSet | None
    notes: tuple[str, ...] = ()  # lines for a person: what was guessed, passed over, left out

    def facts(self) -> dict[str, Any]:
        """What decides what is learned from them."""
        values = self.training.values
        return {
            **({} if values is None else {"value_range": [values.low, values.high]}),
            "pictures": len(self.training),
            "validation_pictures": len(self.validation or ()),
            "classes": {str(i): name for i, name in self.training.classes.items()},
            "fingerprint": self.training.fingerprint(),
        }


@dataclass(frozen=True)
class Settings:
    """A run's settings, resolved."""

    kind: Kind
    config: ModelConfig
    diffusion: DiffusionConfig
    training: TrainingConfig
    data: Mapping[str, Any]
    options: Options

    def to_json(self) -> dict[str, Any]:
        """For ``settings.json``."""
        return {
            "kind": self.kind,
            "config": json.loads(config_to_json(self.config)),
            "diffusion": json.loads(config_to_json(self.diffusion)),
            "training": json.loads(config_to_json(self.training)),
            "data": dict(self.data),
            "options": dict(self.options),
        }


def open_data(kind: Kind, options: Options) -> Data:
    """Lists the pictures and splits them; raises UsageError where they do not suit the task."""
    paths = [Path(path) for path in options.get("data", ())]
    if not paths:
        raise UsageError("expected a folder, zip or tar of pictures to train on")
    sets = open_sets(
        paths,
        [Path(path) for path in options.get("val", ())],
        labels=str(options.get("labels", "auto")),
        values=options.get("value_range"),
        own_split="val_split" in options,
    )
    images = sets.training
    if spec := options.get("classes"):
        owner = "this set of pictures"
        chosen = [i for text in spec for i in select_classes(text, images.classes, owner)]
        images = keep_classes(images, chosen)
    if kind == "classifier" and len(images.classes) < 2:
        found = "no labels" if not images.classes else f"one class ({_names(images)})"
        raise UsageError(
            f"a classifier needs pictures of at least two classes, got {found}: put each class "
            f"in a folder of its own, or pass --labels with a CSV file"
        )
    if sets.validation is not None:
        return Data(images, keep_classes(sets.validation, list(images.classes)), sets.notes)
    fraction = float(options.get("val_split", VAL_SPLIT))
    if not 0 <= fraction < 1:
        raise UsageError(f"--val-split must be in [0, 1), got {fraction}")
    training, validation = split_images(images, fraction, int(options.get("seed", 0)))
    return Data(training, validation if len(validation) else None, sets.notes)


def _names(images: ImageSet) -> str:
    return ", ".join(list(images.classes.values())[:5])


def settle(kind: Kind, options: Options, data: Data) -> Settings:
    """All settings of a run; raises UsageError or ConfigError for impossible ones."""
    config, diffusion = _resolve_model(kind, options, data.training)
    training = resolve_training(kind, options, len(data.training))
    changes = read_changes(options.get("set", ()), (training, diffusion, config))
    training = with_settings(training, changes[0])
    diffusion = with_settings(diffusion, changes[1])
    config = with_settings(config, changes[2])
    _check(kind, config, diffusion, training, data.training)
    return Settings(kind, config, diffusion, training, data.facts(), options)


def _resolve_model(
    kind: Kind, options: Options, images: ImageSet
) -> tuple[ModelConfig, DiffusionConfig]:
    match = find_weights(options["match"]) if "match" in options else None
    config, diffusion = _starting_point(kind, options, match)
    if match is not None:
        diffusion = match.info.diffusion
    changes: dict[str, Any] = {}
    if options.get("gradient_checkpointing"):
        changes["gradient_checkpointing"] = True
    changes["num_classes"] = _num_classes(options, images, config, match)
    if isinstance(config, UNetConfig):
        dropped = float(options.get("label_dropout", 0)) > 0 and bool(changes["num_classes"])
        changes["null_class"] = bool(changes["num_classes"]) and (dropped or config.null_class)
        if "noise_augment" in options:
            changes["low_res_noise"] = float(options["noise_augment"]) or None  # 0 turns it off
        if kind == "upsampler" and ("low_size" in options or config.low_res_size is None):
            height, width = config.image_size
            low = options.get("low_size")
            changes["low_res_size"] = parse_size(str(low)) if low else (height // 2, width // 2)
    return with_settings(config, changes), diffusion


def _starting_point(
    kind: Kind, options: Options, match: ModelFile | None
) -> tuple[ModelConfig, DiffusionConfig]:
    """The architecture and noise of a preset, flags or weights, else those for the size."""
    given = [n for n in ("preset", "flags", "init") if n in options]
    if "flags" not in options:
        refuse_lone(options)
    if len(given) > 1:
        raise UsageError(f"--{given[0]} and --{given[1]} both choose the architecture: give one")
    if given and (clash := [n for n in ("size", "channels") if n in options]):
        raise UsageError(
            f"--{given[0]} already says the {clash[0]}: leave --{clash[0]} out, "
            f"or use --set with single settings"
        )
    if "preset" in options:
        return _preset(kind, str(options["preset"]))
    if "flags" in options:
        reading = read_training_flags(kind, options)
        return reading.config, reading.diffusion
    if "init" in options:
        return _begun_with(kind, find_weights(options["init"]))
    size = parse_size(str(options.get("size", SIZE)))
    if match is not None and "size" not in options:
        size = match.info.config.image_size
    make = starter_classifier if kind == "classifier" else starter_unet
    return make(size, options.get("channels")), starter_diffusion(size, kind)


def _begun_with(kind: Kind, file: ModelFile) -> tuple[ModelConfig, DiffusionConfig]:
    config = file.info.config
    if kind == "classifier" and isinstance(config, UNetConfig):
        config = encoder_classifier(config)
    elif file.info.kind != kind:
        raise UsageError(
            f"--init {file.path} holds {an(file.info.kind)} model, not {an(kind)} model"
        )
    return config, file.info.diffusion


def _num_classes(
    options: Options, images: ImageSet, config: ModelConfig, match: ModelFile | None
) -> int | None:
    if options.get("unconditional") or not images.classes:
        return None
    if match is not None and match.info.config.num_classes is not None:
        return match.info.config.num_classes
    if "init" in options and config.num_classes is not None:
        theirs = find_weights(options["init"]).info.classes
        if same_classes(theirs, images.classes):
            return max(config.num_classes, images.num_classes or 0)
    return images.num_classes


def same_classes(theirs: Mapping[int, str], ours: Mapping[int, str]) -> bool:
    """Whether no id means one thing to a file and another to the pictures."""
    return all(theirs.get(i, name) == name for i, name in ours.items())


def _preset(kind: Kind, name: str) -> tuple[ModelConfig, DiffusionConfig]:
    for preset in PRESETS:
        if preset.name == name:
            name = (preset.classifier or name) if kind == "classifier" else preset.model
    rows: dict[str, tuple[ModelConfig, DiffusionConfig]] = {
        row.name: (row.config, row.diffusion) for row in CHECKPOINTS if row.kind == kind
    }
    if kind == "diffusion":
        rows |= {row.name: (row.config, DiffusionConfig()) for row in ABLATIONS}
    if name not in rows:
        more = ", adm models --ablations the paper's" if kind == "diffusion" else ""
        known = f"; adm models lists them{more}"
        raise UsageError(
            f"--preset {name}: no such {kind} model{did_you_mean(name, rows) or known}"
        )
    config, diffusion = rows[name]
    return config, dataclasses.replace(diffusion)


def _check(
    kind: Kind,
    config: ModelConfig,
    diffusion: DiffusionConfig,
    training: TrainingConfig,
    images: ImageSet,
) -> None:
    if diffusion.respacing is not None:
        space_timesteps(diffusion.num_timesteps, diffusion.respacing)  # or it cannot be sampled
    if config.in_channels != 3:
        raise ConfigError(f"in_channels is {config.in_channels}, pictures have 3: leave it out")
    check_detail(config, diffusion)
    if isinstance(config, UNetConfig):
        learned = diffusion.variance == "learned_range"
        if learned != config.learned_variance:
            raise ConfigError(
                f"variance {diffusion.variance} needs out_channels "
                f"{config.in_channels * (1 + learned)}, got {config.out_channels}"
            )
        if training.label_dropout > 0 and not config.null_class:
            raise UsageError(
                "--label-dropout needs pictures with classes: pass --labels, or leave it out"
            )
        if (kind == "upsampler") != (config.low_res_size is not None):
            raise UsageError("low_res_size makes an upsampler: use adm train-upsampler for it")
        if config.low_res_size is not None and any(
            low >= high for low, high in zip(config.low_res_size, config.image_size, strict=True)
        ):
            raise UsageError(
                f"the small pictures ({size_words(config.low_res_size)}) must be smaller than the "
                f"large ones ({size_words(config.image_size)}): pass --low-size"
            )
    if training.crop is not None or training.vary_kernel:
        _check_degradation(kind, config, training)
    count = config.num_classes
    if count is not None and images.classes and max(images.classes) >= count:
        top = max(images.classes)
        raise UsageError(
            f"label {top} ({images.classes[top]}) is out of range for "
            f"{how_many(count, 'class', 'classes')}: "
            f"leave num_classes to the pictures, or fix the labels"
        )


def _check_degradation(kind: Kind, config: ModelConfig, training: TrainingConfig) -> None:
    """Raises UsageError unless there are small pictures to make, also of crops."""
    crop = training.crop
    if kind != "upsampler" or not isinstance(config, UNetConfig) or config.low_res_size is None:
        raise UsageError("--crop and --vary-kernel are about an upsampler's pictures")
    if training.vary_kernel and config.detail_scale is not None:
        raise UsageError("detail_scale is about averages of areas: leave --vary-kernel out")
    if crop is None:
        return
    sides = zip(config.image_size, config.low_res_size, strict=True)
    if (
        crop > min(config.image_size)
        or crop % config.stride
        or any(crop * low % high for high, low in sides)
    ):
        raise UsageError(
            f"--crop {crop}: expected at most {min(config.image_size)}, a multiple of the model's "
            f"stride {config.stride}, and a whole number of the small pictures' pixels"
        )


def feed_options(settings: Settings, share: tuple[int, int]) -> FeedOptions:
    """How the pictures of a run are fed."""
    training, options = settings.training, settings.options
    return FeedOptions(
        size=settings.config.image_size,
        batch_size=training.batch_size,
        seed=training.seed,
        random_crop=training.random_crop,
        least_crop=training.least_crop,
        flip=training.flip,
        share=share,
        workers=int(options.get("workers", WORKERS)),
        skip_bad=bool(options.get("skip_bad", False)),
        cache=options.get("cache"),
    )


def parse_size(text: str) -> tuple[int, int]:
    """Height and width of "48" or "64x48", whose width comes first, as in `size_words`."""
    found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text.strip())
    if not found:
        raise UsageError(f"size {text!r}: expected a number, or WIDTHxHEIGHT")
    return int(found[2] or found[1]), int(found[1])
