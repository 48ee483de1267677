"""From the original's checkpoints to weights files of ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from adm_cli.config import ClassifierConfig, UNetConfig
from adm_cli.errors import CheckpointError, ConfigError, OutputError, UsageError
from adm_cli.imagenet import imagenet_names
from adm_cli.loading import (
    Shapes,
    checkpoint_path,
    describe_mismatch,
    expected_shapes,
    mismatches,
)
from adm_cli.openai_flags import Kind, openai_flags
from adm_cli.presets import CHECKPOINTS, Checkpoint, find_checkpoint
from adm_cli.storage.checkpoints import (
    ModelFile,
    ModelInfo,
    file_sha256,
    read_model_file,
    read_original,
    save_model,
)


def convert(
    path: Path,
    *,
    preset: str | None = None,
    flags: str | None = None,
    kind: Kind | None = None,
    classes: Mapping[int, str] | None = None,
    output: Path | None = None,
    overwrite: bool = False,
) -> ModelFile:
    """Turns an original `.pt` (or bare safetensors) into a weights file that describes itself.

    The architecture is that of ``preset`` (a published checkpoint's name), of ``flags`` (the
    original's), or, with neither, of the one published checkpoint whose tensors fit. ``classes``
    are the ids and names the model was trained on; by default all of ImageNet for 1,000 classes,
    and "class 0", "class 1", ... otherwise. ``output`` defaults to the place where `--model` looks
    for a preset, or beside ``path``.

    Raises CheckpointError if the file is not safe, not whole, or does not fit; UsageError for a
    bad preset or flags; OutputError if the result cannot be written, or is there already and
    ``overwrite`` is not set.
    """
    if preset is not None and flags is not None:
        raise UsageError("--preset and --flags both describe the model: pass one of them")
    if kind is not None and flags is None:
        raise UsageError("--kind says which model --flags describe: pass it with --flags")
    row = find_checkpoint(preset) if preset is not None else None
    state = read_original(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if row is None and flags is None:
        row = _identify(path, shapes)
    if row is not None:
        _check_published(path, row)
        config, diffusion = row.config, row.diffusion
    else:
        config, diffusion = openai_flags(flags or "", kind)
    if output is None:
        output = path.with_suffix(".safetensors") if row is None else checkpoint_path(row)
    if output.resolve() == path.resolve():
        raise UsageError(f"{output} is the input itself: pass another --output")
    expected = _check_fit(path, config, shapes)
    if output.is_dir():
        raise OutputError(f"{output} is a folder, expected a file name for --output")
    if output.exists() and not overwrite:
        raise OutputError(f"{output} exists already: pass --overwrite, or another --output")
    info = ModelInfo(
        config=config,
        diffusion=diffusion,
        classes=_classes(config, classes),
        source={"file": path.name, "sha256": file_sha256(path)},
    )
    save_model(output, {name: state[name] for name in expected}, info)
    return read_model_file(output)


def _identify(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Checkpoint:
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
    shapes: Mapping[str, tuple[int, ...]],
) -> list[str]:
    expected = expected_shapes(config)
    if not mismatches(expected, shapes):
        return list(expected)
    message = f"{path}: {describe_mismatch(expected, shapes)}"
    advice = explain_mismatch(config, shapes)
    if advice:
        message += f"; flags that would explain it: {' '.join(advice)}"
    raise CheckpointError(message)


def _classes(
    config: UNetConfig | ClassifierConfig, classes: Mapping[int, str] | None
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
    return imagenet_names() if count == 1000 else {i: f"class {i}" for i in range(count)}


def explain_mismatch(config: UNetConfig | ClassifierConfig, found: Shapes) -> list[str]:
    """The flags of the original that would make a configuration fit better, best last step first.

    Changes one setting at a time, keeps the change that mends most, and repeats until none helps.
    """
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
    return advice


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
