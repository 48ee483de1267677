"""From the original's checkpoints to weights files of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adm_cli.config import ClassifierConfig, DiffusionConfig, UNetConfig
from adm_cli.errors import CheckpointError, ConfigError, OutputError, UsageError
from adm_cli.given_flags import Family, Kind
from adm_cli.imagenet import imagenet_names
from adm_cli.loading import (
    Shapes,
    checkpoint_path,
    describe_mismatch,
    expected_shapes,
    mismatches,
)
from adm_cli.openai_flags import read_flags
from adm_cli.presets import CHECKPOINTS, Checkpoint, find_checkpoint
from adm_cli.storage.checkpoints import (
    ModelFile,
    ModelInfo,
    file_sha256,
    read_model_file,
    save_model,
)
from adm_cli.storage.originals import Weights, read_weights


def convert(
    path: Path,
    *,
    preset: str | None = None,
    flags: str | None = None,
    kind: Kind | None = None,
    family: Family = "guided-diffusion",
    strict: bool = False,
    command: int | None = None,
    weights: str | None = None,
    null_class: bool = False,
    classes: Mapping[int, str] | None = None,
    output: Path | None = None,
    overwrite: bool = False,
    on_note: Callable[[str], None] = lambda _text: None,
) -> ModelFile:
    """Turns an original `.pt` (or bare safetensors) into a weights file that describes itself.

    The architecture is that of ``preset`` (a published checkpoint's name), of ``flags`` (the
    original's, with ``kind``, ``family``, ``strict`` and ``command`` as `read_flags` takes them),
    or, with neither, of the one published checkpoint whose tensors fit. Only the published file
    itself, by its hash or its name and type, becomes that checkpoint; any other stays a file of
    its own. ``weights`` names one of several in the file (`read_weights`), ``null_class`` says
    that the last row of the labels means no class. ``classes`` are the ids and names the model
    was trained on; by default all of ImageNet for a published model or flags of 1,000 classes,
    and "class 0", "class 1", ... otherwise. ``output`` defaults to the place where `--model`
    looks for a preset, or beside ``path``. ``on_note`` is told what a person should know.

    Raises CheckpointError if the file is not safe, not whole, or does not fit; UsageError for a
    bad preset or flags; OutputError if the result cannot be written, or is there already and
    ``overwrite`` is not set.
    """
    if preset is not None and flags is not None:
        raise UsageError("--preset and --flags both describe the model: pass one of them")
    if kind is not None and flags is None:
        raise UsageError("--kind says which model --flags describe: pass it with --flags")
    row = find_checkpoint(preset) if preset is not None else None
    found = read_weights(path, weights)
    shapes = {name: tuple(tensor.shape) for name, tensor in found.tensors.items()}
    _check_channels(path, shapes)
    if flags is None:
        chosen = _published(path, row, found, named=classes is not None)
    else:
        reading = read_flags(flags, kind, family=family, strict=strict, command=command)
        own = path.with_suffix(".safetensors")
        chosen = _Chosen(reading.config, reading.diffusion, own, reading.notes)
    config = _with_null_class(chosen.config, shapes) if null_class else chosen.config
    output = chosen.place if output is None else output
    if output.resolve() == path.resolve():
        raise UsageError(f"{output} is the input itself: pass another --output")
    expected = _check_fit(path, config, shapes, flags)
    if output.is_dir():
        raise OutputError(f"{output} is a folder, expected a file name for --output")
    if output.exists() and not overwrite:
        raise OutputError(f"{output} exists already: pass --overwrite, or another --output")
    for text in (*found.notes, *chosen.notes):
        on_note(text)
    info = ModelInfo(
        config=config,
        diffusion=chosen.diffusion,
        classes=_classes(config, classes, imagenet=chosen.imagenet),
        source={"file": path.name, "sha256": file_sha256(path)},
    )
    save_model(output, {name: found.tensors[name] for name in expected}, info)
    return read_model_file(output)


@dataclass(frozen=True)
class _Chosen:
    """What a file is converted as."""

    config: UNetConfig | ClassifierConfig
    diffusion: DiffusionConfig
    place: Path  # by default
    notes: tuple[str, ...] = ()
    imagenet: bool = True  # 1,000 classes are those


def _published(path: Path, row: Checkpoint | None, found: Weights, *, named: bool) -> _Chosen:
    """The published checkpoint that a file is, or whose shapes it has."""
    asked = row is not None
    if row is None:
        row = _identify(path, {name: tuple(t.shape) for name, t in found.tensors.items()})
    itself = _is_published(path, row, found.tensors)
    if asked or itself:
        _check_published(path, row)
        known = row.file_bytes is not None and not itself
        note = f"taken for {row.name}, as --preset says: it is not the file that was published"
        place = checkpoint_path(row)
        return _Chosen(row.config, row.diffusion, place, (note,) if asked and known else ())
    note = f"{path.name} has the shapes of {row.name} and is not that file: it keeps its own name"
    if row.config.num_classes is not None and not named:
        note += "; its classes are unnamed: pass --classes"
    own = path.with_suffix(".safetensors")
    return _Chosen(row.config, row.diffusion, own, (note,), imagenet=False)


def _identify(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Checkpoint:
    """The published model whose tensors fit."""
    published = [row for row in CHECKPOINTS if not row.embedded]
    fitting = [row for row in published if expected_shapes(row.config) == shapes]
    if len(fitting) == 1:
        return fitting[0]
    named = [row for row in fitting if row.name == path.stem]
    if named:
        return named[0]
    if fitting:
        names = ", ".join(row.name for row in fitting)
        raise UsageError(f"{path.name} fits {names}: say which with --preset")
    raise UsageError(
        f"{path.name} is none of the published models: pass the flags it was trained with, "
        f'e.g. --flags "--image_size 64 --num_channels 128 ..."'
    )


def _is_published(path: Path, row: Checkpoint, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the file itself is the published one, and no other model of its shapes.

    By its type, float32 as all that was published, and its length (`_check_published` then wants
    the hash, where it is known); by its name only where no length is known.
    """
    if any(tensor.dtype != torch.float32 for tensor in tensors.values()):
        return False
    if row.file_bytes is None:
        return path.stem == row.name
    return path.stat().st_size == row.file_bytes


def _check_channels(path: Path, shapes: Shapes) -> None:
    channels = _first(shapes, "input_blocks.0.0.weight", 1)
    if channels not in (None, 3, 6):
        raise CheckpointError(
            f"{path} was trained on pictures of {channels} channel{'s' * (channels != 1)}, adm "
            f"draws RGB: models of 3 channels (6 for upsamplers) can be converted, others cannot"
        )


def _with_null_class(
    config: UNetConfig | ClassifierConfig, shapes: Shapes
) -> UNetConfig | ClassifierConfig:
    rows = _first(shapes, "label_emb.weight", 0)
    if isinstance(config, ClassifierConfig) or rows is None:
        raise UsageError("--null-class: the model has no labels, of which one could mean no class")
    if config.num_classes not in (rows, rows - 1) or rows < 2:
        raise UsageError(
            f"--null-class: the model has {rows} labels, so {rows - 1} classes: pass "
            f"--num_classes {rows - 1} in --flags"
        )
    return replace(config, num_classes=rows - 1, null_class=True)


def _check_published(path: Path, row: Checkpoint) -> None:
    """Length and hash, where the published file's are known."""
    size = path.stat().st_size
    if row.sha256 is None or row.file_bytes is None or size != row.file_bytes:
        return  # re-saved files differ in bytes and are fine if every tensor fits
    digest = file_sha256(path)
    if digest != row.sha256:
        raise CheckpointError(
            f"{path} is not the published {row.name}.pt: its SHA-256 is {digest[:12]}..., "
            f"expected {row.sha256[:12]}...; download it again"
        )


def _check_fit(
    path: Path,
    config: UNetConfig | ClassifierConfig,
    shapes: Shapes,
    flags: str | None,
) -> Shapes:
    """The expected shapes; raises CheckpointError with advice where they are not the file's."""
    expected = expected_shapes(config)
    if expected == shapes:
        return expected
    message = f"{path}: {describe_mismatch(expected, shapes)}"
    there, asked = kind_of_tensors(shapes), _kind(config)
    if there is not None and there != asked:
        message += f"; this is {_KINDS[there]}, not {_KINDS[asked]}"
        if _fits_as(there, flags, shapes):
            message += f"; flags that would explain it: --kind {there}"
        else:
            message += f": give the flags of {_KINDS[there]}"
        raise CheckpointError(message)
    if there is None:
        raise CheckpointError(f"{message}{_stranger(shapes)}")
    advice = explain_mismatch(config, shapes)
    if advice:
        message += f"; flags that would explain it: {' '.join(advice)}"
    if config.num_classes is not None and config.num_classes + 1 == _first(
        shapes, "label_emb.weight", 0
    ):
        message += ", or --null-class if the last label means no class"
    raise CheckpointError(message)


_KINDS: dict[Kind, str] = {
    "diffusion": "a diffusion model",
    "classifier": "a classifier",
    "upsampler": "an upsampler",
}


def _kind(config: UNetConfig | ClassifierConfig) -> Kind:
    if isinstance(config, ClassifierConfig):
        return "classifier"
    return "diffusion" if config.low_res_size is None else "upsampler"


def kind_of_tensors(shapes: Shapes) -> Kind | None:
    """What kind of model has such tensors; None for none of ours."""
    if "time_embed.0.weight" not in shapes:
        return None
    if not any(name.startswith("output_blocks.") for name in shapes):
        return "classifier"
    upsampler = _first(shapes, "input_blocks.0.0.weight", 1) == 6
    return "upsampler" if upsampler else "diffusion"


def _fits_as(kind: Kind, flags: str | None, shapes: Shapes) -> bool:
    """Whether the same flags describe the file where they are read for another kind."""
    if flags is None:
        return False
    try:
        return expected_shapes(read_flags(flags, kind).config) == shapes
    except ConfigError:
        return False


# Tensors by which networks of others are told.
_STRANGERS = (
    ("down_blocks.", "a UNet of diffusers"),
    ("double_blocks.", "a FLUX transformer"),
    ("blocks.0.adaLN_modulation", "a DiT transformer"),
    ("enc.", "an EDM network"),
    ("model.enc.", "an EDM network"),
    ("downs.", "a UNet of denoising-diffusion-pytorch"),
    ("first_stage_model.", "a latent diffusion model"),
    ("Mixed_5b.", "an Inception network"),
    ("visual.", "a CLIP model"),
    ("layer1.", "a ResNet"),
)


def _stranger(shapes: Shapes) -> str:
    for start, what in _STRANGERS:
        if any(name.startswith(start) for name in shapes):
            return f"; by its names it is {what}, which has another architecture than ADM"
    return ""


def _classes(
    config: UNetConfig | ClassifierConfig, classes: Mapping[int, str] | None, *, imagenet: bool
) -> Mapping[int, str]:
    count = config.num_classes
    if count is None:
        if classes is not None:
            raise UsageError("--classes: the model is unconditional, it has no classes")
        return {}
    if classes is not None:
        if not classes:
            raise UsageError("--classes names no class")
        if wrong := [i for i in classes if not 0 <= i < count]:
            raise UsageError(f"class {wrong[0]} is out of range: the model has {count} classes")
        if odd := [(i, name) for i, name in classes.items() if not name.isprintable()]:
            raise UsageError("class {} {!a:.60}: a name is one printable line".format(*odd[0]))
        return classes
    return (
        imagenet_names() if imagenet and count == 1000 else {i: f"class {i}" for i in range(count)}
    )


_PARTS = frozenset("time_embed label_emb input_blocks middle_block output_blocks out".split())


def explain_mismatch(config: UNetConfig | ClassifierConfig, found: Shapes) -> list[str]:
    """The flags of the original that would make a configuration fit; nothing if none would.

    Changes one setting at a time, keeps the change that mends most, and repeats until none helps.
    """
    if any(name.split(".")[0] not in _PARTS for name in found):
        return []  # no configuration has it
    advice: list[str] = []
    left = mismatches(expected_shapes(config), found)
    while left and len(advice) < 6:
        tried: list[tuple[int, str, UNetConfig | ClassifierConfig]] = []
        for flag, change in _variations(config, found):
            try:
                candidate = replace(config, **change)
                if candidate == config:
                    continue
                tried.append((mismatches(expected_shapes(candidate), found), flag, candidate))
            except ConfigError:
                continue  # an impossible combination explains nothing
        best = min(tried, key=lambda item: item[0], default=None)
        if best is None or best[0] >= left:
            break
        left, flag, config = best
        advice.append(flag)
    return [] if left else advice


def _variations(
    config: UNetConfig | ClassifierConfig, found: Shapes
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Changes of one flag, with values read off the shapes where they show there."""
    classifier = isinstance(config, ClassifierConfig)
    prefix = "classifier_" if classifier else ""
    flipped = not config.scale_shift_norm
    yield f"--{prefix}use_scale_shift_norm {flipped}", {"scale_shift_norm": flipped}
    flipped = not config.resblock_updown
    yield f"--{prefix}resblock_updown {flipped}", {"resblock_updown": flipped}
    for depth in range(1, 6):
        flag = "classifier_depth" if classifier else "num_res_blocks"
        yield f"--{flag} {depth}", {"num_res_blocks": depth}
    if width := _first(found, "time_embed.0.weight", 1):
        flag = "classifier_width" if classifier else "num_channels"
        yield f"--{flag} {width}", {"model_channels": width}
    levels = range(len(config.channel_mult))
    for first in levels:
        for last in levels[first:]:
            sizes = ",".join(str(config.image_size[0] >> k) for k in range(first, last + 1))
            factors = tuple(2**k for k in range(first, last + 1))
            yield f"--{prefix}attention_resolutions {sizes}", {"attention_factors": factors}
    sizes_and_mults = {
        (row.config.image_size, row.config.channel_mult)
        for row in CHECKPOINTS
        if not row.embedded and row.kind == "diffusion"
    }
    for size, mult in sorted(sizes_and_mults):
        yield f"--image_size {size[0]}", {"image_size": size, "channel_mult": mult}
    if isinstance(config, ClassifierConfig):
        yield from _classifier_variations(found)
    else:
        yield from _unet_variations(config, found)


def _unet_variations(config: UNetConfig, found: Shapes) -> Iterator[tuple[str, dict[str, Any]]]:
    classes = _first(found, "label_emb.weight", 0)
    count = f" --num_classes {classes}" if classes not in (None, 1000) else ""
    yield f"--class_cond {classes is not None}{count}", {"num_classes": classes}
    out = _first(found, "out.2.weight", 0)
    yield f"--learn_sigma {out == 6}", {"out_channels": out or 3}
    if _first(found, "input_blocks.0.0.weight", 1) == 2 * config.in_channels:
        large, small = config.image_size[0], config.image_size[0] // 4
        flag = f"--large_size {large} --small_size {small}"
        yield flag, {"low_res_size": (small, small)}


def _classifier_variations(found: Shapes) -> Iterator[tuple[str, dict[str, Any]]]:
    for pool in ("attention", "adaptive", "spatial", "spatial_v2"):
        yield f"--classifier_pool {pool}", {"pool": pool}
    for last in ("out.2.c_proj.weight", "out.3.weight", "out.2.weight"):
        if classes := _first(found, last, 0):
            yield f"--num_classes {classes}", {"num_classes": classes}


def _first(found: Shapes, name: str, axis: int) -> int | None:
    shape = found.get(name)
    return shape[axis] if shape is not None and len(shape) > axis else None
