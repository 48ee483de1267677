"""From the original's checkpoints to weights files of ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from adm_cli.config import ClassifierConfig, UNetConfig
from adm_cli.errors import CheckpointError, UsageError
from adm_cli.imagenet import imagenet_names
from adm_cli.loading import (
    checkpoint_path,
    describe_mismatch,
    expected_shapes,
    explain_mismatch,
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
) -> ModelFile:
    """Turns an original `.pt` (or bare safetensors) into a weights file that describes itself.

    The architecture is that of ``preset`` (a published checkpoint's name), of ``flags`` (the
    original's), or, with neither, of the one published checkpoint whose tensors fit. ``classes``
    are the ids and names the model was trained on; by default all of ImageNet for 1,000 classes,
    and "class 0", "class 1", ... otherwise. ``output`` defaults to the place where `--model` looks
    for a preset, or beside ``path``.

    Raises CheckpointError if the file is not safe, not whole, or does not fit; UsageError for a
    bad preset or flags; OutputError if the result cannot be written.
    """
    if preset is not None and flags is not None:
        raise UsageError("--preset and --flags both describe the model: pass one of them")
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
    expected = _check_fit(path, config, shapes)
    info = ModelInfo(
        config=config,
        diffusion=diffusion,
        classes=_classes(config, classes),
        source={"file": path.name, "sha256": file_sha256(path)},
    )
    if output is None:
        output = path.with_suffix(".safetensors") if row is None else checkpoint_path(row)
    if output.resolve() == path.resolve():
        raise UsageError(f"{output} is the input itself: pass another --output")
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
        return {}
    if classes is not None:
        if wrong := [i for i in classes if not 0 <= i < count]:
            raise UsageError(f"class {wrong[0]} is out of range: the model has {count} classes")
        return classes
    return imagenet_names() if count == 1000 else {i: f"class {i}" for i in range(count)}
