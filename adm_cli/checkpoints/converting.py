"""From the original's checkpoints to weights files of ours."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from adm_cli.checkpoints.class_names import read_classes
from adm_cli.checkpoints.flags.given import Family
from adm_cli.checkpoints.flags.model import check_said, read_flags
from adm_cli.checkpoints.folders import read_model_folder
from adm_cli.checkpoints.format import save_model
from adm_cli.checkpoints.header import ModelFile, ModelInfo, file_sha256, read_model_file
from adm_cli.checkpoints.identity import check_published, is_published
from adm_cli.checkpoints.loading import (
    Shapes,
    axis_length,
    describe_mismatch,
    expected_shapes,
    explain_mismatch,
    kind_of_tensors,
)
from adm_cli.checkpoints.originals import Weights, read_weights
from adm_cli.checkpoints.places import checkpoint_path
from adm_cli.checkpoints.presets import CHECKPOINTS, Checkpoint, find_checkpoint
from adm_cli.classes.imagenet import imagenet_names
from adm_cli.config import ClassifierConfig, DiffusionConfig, Kind, UNetConfig
from adm_cli.errors import CheckpointError, ConfigError, OutputError, UsageError, how_many
from adm_cli.events import AnyPath, Doing, Note, OnEvent, ignore
from adm_cli.files.disk import file_stamp
from adm_cli.files.strict import type_checked


@type_checked
def convert(
    file: AnyPath,
    *,
    preset: str | None = None,
    flags: str | None = None,
    kind: Kind | None = None,
    flags_of: Family | None = None,
    strict_flags: bool = False,
    command: int | None = None,
    weights: str | None = None,
    null_class: bool = False,
    classes: str | Mapping[int, str] | None = None,
    output: AnyPath | None = None,
    overwrite: bool = False,
    on_event: OnEvent = ignore,
) -> ModelFile:
    """Turns an original `.pt` (or bare safetensors) into a weights file that describes itself.

    Also a folder of another program with ADM's UNet or classifier (`read_model_folder`), which
    says itself what it is.

    The architecture is that of ``preset`` (a published checkpoint's name), of ``flags`` (the
    original's, with ``kind``, ``flags_of``, ``strict_flags`` and ``command`` as `read_flags` takes
    them), or, with neither, of the one published checkpoint whose tensors fit. Only the published
    file itself, by its hash or its name and type, becomes that checkpoint; any other stays a file
    of its own. ``weights`` names one of several in the file (`read_weights`), ``null_class`` says
    that the last row of the labels means no class. ``classes`` are the ids and names the model
    was trained on, or what ``--classes`` takes; by default all of ImageNet for a published model
    or flags of 1,000 classes, and "class 0", "class 1", ... otherwise. ``output`` defaults to the
    place where `--model` looks for a preset, or beside ``file``. ``on_event`` takes a `Note` of
    each thing a person should know.

    Raises CheckpointError if the file is not safe, not whole, or does not fit; UsageError for a
    bad preset or flags; OutputError if the result cannot be written, or is there already and
    ``overwrite`` is not set.
    """
    on_event(Doing(f"converting {Path(file).name}"))
    plan = plan_conversion(
        file, preset=preset, flags=flags, kind=kind, flags_of=flags_of, strict_flags=strict_flags,
        command=command, weights=weights, null_class=null_class, classes=classes, output=output,
        overwrite=overwrite,
    )  # fmt: skip
    for text in plan.notes:
        on_event(Note(text))
    source = {"file": plan.file.name, "sha256": file_sha256(plan.file), **plan.info.source}
    info = replace(plan.info, source=source)
    save_model(plan.output, plan.tensors, info, plan.check_unchanged)
    return read_model_file(plan.output)


@dataclass(frozen=True)
class Conversion:
    """A file, what it is taken for, and where the result goes; nothing is written yet."""

    file: Path
    output: Path
    info: ModelInfo  # of its source only which published checkpoint it is, if it is one
    tensors: Mapping[str, Tensor]
    notes: tuple[str, ...]
    stamp: tuple[int, ...]  # of the file before it was read

    def check_unchanged(self) -> None:
        """Raises CheckpointError if the file has been written to since it was read."""
        if not self.file.exists() or file_stamp(self.file) != self.stamp:
            raise CheckpointError(f"{self.file} was changed meanwhile: run the same command again")

    @property
    def parameters(self) -> int:
        return sum(tensor.numel() for tensor in self.tensors.values())

    @property
    def bytes(self) -> int:
        """What the result takes on disk, but for its header."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())


def plan_conversion(
    file: AnyPath,
    *,
    preset: str | None,
    flags: str | None,
    kind: Kind | None,
    flags_of: Family | None,
    strict_flags: bool,
    command: int | None,
    weights: str | None,
    null_class: bool,
    classes: str | Mapping[int, str] | None,
    output: AnyPath | None,
    overwrite: bool,
) -> Conversion:
    """All of `convert` but writing, and it raises the same."""
    path = Path(file)
    about = {"--flags-of": flags_of, "--strict-flags": strict_flags, "--command": command}
    _check_description(preset, flags, kind, about)
    if isinstance(classes, str):
        classes = read_classes(classes)
    if path.is_dir():
        if preset or flags or weights or null_class:
            mend = "leave out --flags, --preset, --weights and --null-class"
            raise UsageError(f"{path} is a folder, which says itself what it holds: {mend}")
        return _plan_folder(path, classes, output, overwrite=overwrite)
    row = find_checkpoint(preset) if preset is not None else None
    stamp = file_stamp(path) if path.exists() else ()
    found = read_weights(path, weights)
    shapes = {name: tuple(tensor.shape) for name, tensor in found.tensors.items()}
    _check_channels(path, shapes)
    if flags is None:
        chosen = _published(path, row, found, named=classes is not None)
    else:
        family = flags_of or "guided-diffusion"
        reading = read_flags(flags, kind, family=family, strict=strict_flags, command=command)
        own = path.with_suffix(".safetensors")
        chosen = _Chosen(reading.config, reading.diffusion, own, reading.notes)
    config = _with_null_class(chosen.config, shapes) if null_class else chosen.config
    place, source = chosen.place, {} if chosen.row is None else {"checkpoint": chosen.row.name}
    if config != chosen.config and source:  # none that was published has a null class
        place, source = path.with_suffix(".safetensors"), {}
    place = place if output is None else Path(output)
    if place.resolve() == path.resolve():
        raise UsageError(f"{place} is the input itself: pass another --output")
    expected = _check_fit(path, config, shapes, flags)
    _check_place(place, overwrite=overwrite)
    names = _classes(config, classes, imagenet=chosen.imagenet)
    info = ModelInfo(config=config, diffusion=chosen.diffusion, classes=names, source=source)
    tensors = {name: found.tensors[name] for name in expected}
    return Conversion(path, place, info, tensors, (*found.notes, *chosen.notes), stamp)


def _check_description(
    preset: str | None, flags: str | None, kind: Kind | None, about: Mapping[str, object]
) -> None:
    """Raises UsageError where what describes the model does so twice, or describes nothing."""
    if preset is not None and flags is not None:
        raise UsageError("--preset and --flags both describe the model: pass one of them")
    if flags is not None:
        check_said(flags)
    if kind not in (None, *_KINDS):
        raise UsageError(f"--kind must be diffusion, classifier or upsampler, got {kind}")
    if flags is None and kind is not None:
        raise UsageError("--kind says which model --flags describe: pass it with --flags")
    if flags is None and (alone := [name for name, value in about.items() if value]):
        raise UsageError(f"{alone[0]} says how to read --flags: pass it with --flags")


def _plan_folder(
    path: Path,
    classes: Mapping[int, str] | None,
    output: AnyPath | None,
    *,
    overwrite: bool,
) -> Conversion:
    """Of a UNet or classifier that another program wrote, or `adm export`."""
    found = read_model_folder(path)
    place = Path(f"{path.resolve()}.safetensors") if output is None else Path(output)
    shapes = {name: tuple(tensor.shape) for name, tensor in found.tensors.items()}
    _check_channels(found.weights, shapes)
    expected = _check_fit(found.weights, found.config, shapes, None, "the config.json beside it")
    _check_place(place, overwrite=overwrite)
    known = found.classes if classes is None and found.config.num_classes else classes
    names = _classes(found.config, known, imagenet=found.imagenet)
    info = ModelInfo(config=found.config, diffusion=found.diffusion, classes=names, source={})
    unnamed = names and known is None and names != imagenet_names()
    notes = ("the model's classes are unnamed: pass --classes",) if unnamed else ()
    tensors = {name: found.tensors[name] for name in expected}
    return Conversion(found.weights, place, info, tensors, (*found.notes, *notes), found.stamp)


def _check_place(place: Path, *, overwrite: bool) -> None:
    if place.is_dir():
        raise OutputError(f"{place} is a folder, expected a file name for --output")
    if place.exists() and not overwrite:
        raise OutputError(f"{place} exists already: pass --overwrite, or another --output")


@dataclass(frozen=True)
class _Chosen:
    """What a file is converted as."""

    config: UNetConfig | ClassifierConfig
    diffusion: DiffusionConfig
    place: Path  # by default
    notes: tuple[str, ...] = ()
    imagenet: bool = True  # 1,000 classes are those
    row: Checkpoint | None = None  # which published one it is


def _published(path: Path, row: Checkpoint | None, found: Weights, *, named: bool) -> _Chosen:
    """The published checkpoint that a file is, or whose shapes it has."""
    asked = row is not None
    if row is None:
        row = _identify(path, {name: tuple(t.shape) for name, t in found.tensors.items()})
    itself = is_published(path, row, found)
    if not itself and (asked or path.stem == row.name):
        check_published(path, row)
    if asked or itself:
        known = row.file_bytes is not None and not itself
        note = f"taken for {row.name}, as --preset says: it is not the file that was published"
        place = checkpoint_path(row)
        notes = (note,) if asked and known else ()
        return _Chosen(row.config, row.diffusion, place, notes, row=row)
    own, called = path.with_suffix(".safetensors"), "it keeps its own name"
    if path.stem == row.name:  # which it may not bear: pictures and recipes would say it
        own = path.with_name(f"{row.name}-other.safetensors")
        called = f"it becomes {own.name}"
    note = f"{path.name} has the shapes of {row.name} and is not that file: {called}"
    if row.config.num_classes is not None and not named:
        note += "; its classes are unnamed: pass --classes"
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
    with suppress(CheckpointError):
        read_model_file(path)
        raise UsageError(f"{path} is a weights file of adm already: adm sample takes it as it is")
    kind = kind_of_tensors(shapes)
    what = f"{_KINDS[kind]}, and " if kind else ""
    width = "classifier_width" if kind == "classifier" else "num_channels"
    raise UsageError(
        f"{path.name} is {what}none of the published models: pass the flags it was trained with, "
        f'e.g. --flags "--image_size 64 --{width} 128 ..."'
    )


def _check_channels(path: Path, shapes: Shapes) -> None:
    channels = axis_length(shapes, "input_blocks.0.0.weight", 1)
    if channels not in (None, 3, 6):
        raise CheckpointError(
            f"{path} was trained on pictures of {channels} channel{'s' * (channels != 1)}, adm "
            f"draws RGB: models of 3 channels (6 for upsamplers) can be converted, others cannot"
        )


def _with_null_class(
    config: UNetConfig | ClassifierConfig, shapes: Shapes
) -> UNetConfig | ClassifierConfig:
    rows = axis_length(shapes, "label_emb.weight", 0)
    if isinstance(config, ClassifierConfig) or rows is None:
        raise UsageError("--null-class: the model has no labels, of which one could mean no class")
    if config.num_classes not in (rows, rows - 1) or rows < 2:
        raise UsageError(
            f"--null-class: the model has {how_many(rows, 'label')}, so "
            f"{how_many(rows - 1, 'class', 'classes')}: pass "
            f"--num_classes {rows - 1} in --flags"
        )
    return replace(config, num_classes=rows - 1, null_class=True)


def _check_fit(
    path: Path,
    config: UNetConfig | ClassifierConfig,
    shapes: Shapes,
    flags: str | None,
    settings: str | None = None,
) -> Shapes:
    """The expected shapes; raises CheckpointError with advice where they are not the file's.

    ``settings``: the file that says the configuration.
    """
    expected = expected_shapes(config)
    if expected == shapes:
        return expected
    message = f"{path}: {describe_mismatch(expected, shapes)}"
    there, asked = kind_of_tensors(shapes), config.kind
    if there is not None and there != asked:
        fits = _fits_as(there, flags, shapes)
        mend = f"pass --kind {there}" if fits else f"give the flags of {_KINDS[there]}"
        raise CheckpointError(f"{path} is {_KINDS[there]}, not {_KINDS[asked]}: {mend}")
    if there is None:
        raise CheckpointError(_stranger(path, shapes) or message)
    advice = explain_mismatch(config, shapes) if settings is None else []
    if settings is not None:
        message += f"; {settings} is of another model"
    elif advice:
        message += f"; flags that would explain it: {' '.join(advice)}"
    if config.num_classes is not None and config.num_classes + 1 == axis_length(
        shapes, "label_emb.weight", 0
    ):
        message += ", or --null-class if the last label means no class"
    elif not advice and flags is not None:
        message += "; no change of these --flags explains it, so it may be of changed code"
    elif not advice and settings is None:
        message += "; pass the --flags it was trained with"
    raise CheckpointError(message)


_KINDS: dict[Kind, str] = {
    "diffusion": "a diffusion model",
    "classifier": "a classifier",
    "upsampler": "an upsampler",
}


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
    ("down_blocks.", "a UNet of diffusers (convert takes its folder)"),
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


def _stranger(path: Path, shapes: Shapes) -> str:
    for start, what in _STRANGERS:
        if any(f".{start}" in f".{name}" for name in shapes):
            named = f"{path}: by its tensors' names {what}"
            return f"{named}, which has another architecture than ADM"
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
            raise UsageError(
                f"class {wrong[0]} is out of range: the model has "
                f"{how_many(count, 'class', 'classes')}"
            )
        if odd := [(i, name) for i, name in classes.items() if not name.isprintable()]:
            raise UsageError("class {} {!a:.60}: a name is one printable line".format(*odd[0]))
        return classes
    return (
        imagenet_names() if imagenet and count == 1000 else {i: f"class {i}" for i in range(count)}
    )
