"""From weights files of ours to what other programs read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, get_args

import torch
from torch import Tensor

from adm_cli.checkpoints.diffusers import (
    WEIGHTS,
    metadata,
    misfits,
    scheduler_settings,
    unet_settings,
)
from adm_cli.checkpoints.diffusers_names import to_diffusers
from adm_cli.checkpoints.finding import find_weights
from adm_cli.checkpoints.flags.written import edits, lacks, write_flags
from adm_cli.checkpoints.format import check_finite, write_tensors
from adm_cli.checkpoints.header import ModelFile
from adm_cli.checkpoints.loading import describe_mismatch, expected_shapes
from adm_cli.checkpoints.onnx import check_installed, write_onnx
from adm_cli.checkpoints.tensors import stream_tensors
from adm_cli.config import UNetConfig
from adm_cli.devices import made_on_cpu
from adm_cli.errors import CheckpointError, OutputError, UsageError, one_of
from adm_cli.events import AnyPath, Doing, Note, OnEvent, ignore
from adm_cli.files.disk import atomic_write, check_writable
from adm_cli.files.links import check_below
from adm_cli.files.strict import type_checked
from adm_cli.files.tables import write_json

Target = Literal["original", "diffusers", "onnx"]


@dataclass(frozen=True)
class Export:
    """What was written, and how it is loaded there."""

    path: Path
    to: Target
    kind: str
    parameters: int
    flags: str | None  # of the original, that build the model
    output_bytes: int  # of its weights

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return {**vars(self), "path": str(self.path)}


@type_checked
@made_on_cpu()
def export(
    model: AnyPath,
    output: AnyPath,
    *,
    to: Target,
    overwrite: bool = False,
    dry_run: bool = False,
    on_event: OnEvent = ignore,
) -> Export:
    """Writes a model for another program; ``model`` is a preset, checkpoint name or file.

    "original": ``output`` is a .pt, a state dict that the original (openai/guided-diffusion) loads
    strictly into what `Export.flags` build; `convert` makes the same tensors of it again.
    "diffusers": ``output`` is a folder with a `UNet2DModel` in ``unet/`` and a `DDPMScheduler` in
    ``scheduler/``; of an unconditional model it is a whole `DDPMPipeline`. "onnx": ``output`` is an
    .onnx, the network in float32 (`checkpoints.onnx`). With ``dry_run`` all is checked but the
    weights' values, and nothing is written. ``on_event`` takes a `Note` of each thing a
    person should know.

    Raises UsageError for a model that the other program's code cannot be, with what it lacks;
    OutputError where ``output`` cannot be written, or is there and ``overwrite`` is not set;
    and as `find_weights`.
    """
    if to not in get_args(Target):
        raise UsageError(f"--to {to}: expected {one_of(get_args(Target))}")
    on_event(Doing(f"exporting {model}"))
    file, path = find_weights(model), Path(output)
    if to == "original":
        return _to_original(file, path, overwrite=overwrite, dry_run=dry_run, on_event=on_event)
    if to == "onnx":
        return _to_onnx(file, path, overwrite=overwrite, dry_run=dry_run)
    return _to_diffusers(file, path, overwrite=overwrite, dry_run=dry_run)


def _to_original(
    file: ModelFile, path: Path, *, overwrite: bool, dry_run: bool, on_event: OnEvent
) -> Export:  # fmt: skip
    config, diffusion = file.info.config, file.info.diffusion
    _refuse(file, "a model of the original", lacks(config, diffusion))
    if path.suffix not in (".pt", ".pth"):
        raise UsageError(f"{path}: expected a name that ends in .pt")
    _check_output(path, [path], overwrite=overwrite)
    for text in edits(config, diffusion):
        on_event(Note(f"the original's script_util.py needs an edit: {text}"))
    if isinstance(config, UNetConfig) and config.null_class:
        on_event(Note("its last label means no class: adm convert takes it with --null-class"))
    if not dry_run:
        tensors = _tensors(file)
        with atomic_write(path) as opened:
            _save(tensors, opened)
    return _export(file, path, "original", write_flags(config, diffusion))


def _to_onnx(file: ModelFile, path: Path, *, overwrite: bool, dry_run: bool) -> Export:
    if path.suffix != ".onnx":
        raise UsageError(f"{path}: expected a name that ends in .onnx")
    _check_output(path, [path], overwrite=overwrite)
    check_installed()
    if not dry_run:
        write_onnx(file, path)
    return _export(file, path, "onnx")


def _to_diffusers(file: ModelFile, path: Path, *, overwrite: bool, dry_run: bool) -> Export:
    config, diffusion = file.info.config, file.info.diffusion
    if not isinstance(config, UNetConfig):
        raise UsageError(f"{file.called} is a classifier, for which diffusers has no model")
    _refuse(file, "a UNet2DModel of diffusers", misfits(config, diffusion))
    unet, noise = path / "unet", path / "scheduler"
    if path.is_file():
        raise OutputError(f"{path} is a file, expected a folder for diffusers")
    files = {
        noise / "scheduler_config.json": scheduler_settings(diffusion),
        unet / "config.json": unet_settings(config),
    }
    if config.num_classes is None:
        files[path / "model_index.json"] = {
            "_class_name": "DDPMPipeline",
            "scheduler": ["diffusers", "DDPMScheduler"],
            "unet": ["diffusers", "UNet2DModel"],
        }
    check_below(path, (unet.name, noise.name))
    _check_output(path, [unet / WEIGHTS[0], *files], overwrite=overwrite)
    if not dry_run:
        tensors = to_diffusers(_tensors(file), config)
        write_tensors(unet / WEIGHTS[0], tensors, metadata(file.info))
        for place, settings in files.items():  # what makes it a model comes after the weights
            write_json(place, settings)
    return _export(file, path, "diffusers")


def _export(file: ModelFile, path: Path, to: Target, flags: str | None = None) -> Export:
    sizes = {
        name: 4 if to == "onnx" else getattr(torch, kind).itemsize
        for name, kind in file.dtypes.items()
    }
    count = sum(math.prod(shape) * sizes[name] for name, shape in file.shapes.items())
    return Export(path, to, file.info.kind, file.parameters, flags, count)


def _save(tensors: Mapping[str, Tensor], opened: IO[bytes]) -> None:
    try:
        torch.save(tensors, opened)
    except RuntimeError as error:  # of the archive that it cannot end, instead of the disk's
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _refuse(file: ModelFile, what: str, reasons: list[str]) -> None:
    if reasons:
        raise UsageError(f"{file.called} cannot be {what}: {'; '.join(reasons)}")


def _check_output(path: Path, files: list[Path], *, overwrite: bool) -> None:
    for place in files:
        if place.exists() and not overwrite:
            raise OutputError(f"{place} exists already: pass --overwrite, or another name")
    check_writable(path.parent)


def _tensors(file: ModelFile) -> Mapping[str, Tensor]:
    """As they are stored, in the order of the modules; hash, shapes and values checked."""
    expected = expected_shapes(file.info.config)
    if dict(file.shapes) != expected:
        raise CheckpointError(f"{file.path}: {describe_mismatch(expected, file.shapes)}")
    found = dict(stream_tensors(file))
    for name, tensor in found.items():
        check_finite(file.path, name, tensor)
    return {name: found[name] for name in expected}
