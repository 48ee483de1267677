"""From names and files to ready modules, and why a checkpoint does not fit a configuration."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from adm_cli.checkpoints.finding import find_weights
from adm_cli.checkpoints.format import check_finite, read_original
from adm_cli.checkpoints.header import ModelFile, file_sha256
from adm_cli.checkpoints.presets import (
    CHECKPOINTS,
    INCEPTION,
)
from adm_cli.checkpoints.tensors import stream_tensors
from adm_cli.config import ClassifierConfig, Kind, UNetConfig
from adm_cli.devices import choose_device, choose_dtype, enough_memory
from adm_cli.errors import (
    CheckpointError,
    ConfigError,
    MissingWeightsError,
    UsageError,
)
from adm_cli.evaluation.inception import InceptionV3
from adm_cli.files.disk import inception_path
from adm_cli.files.strict import type_checked
from adm_cli.models.classifier import NoisyClassifier
from adm_cli.models.fast import can_pack, hasten
from adm_cli.models.unet import SuperResUNet, UNet
from adm_cli.models.winograd import LEAST_CHANNELS

Model = UNet | NoisyClassifier
Shapes = Mapping[str, tuple[int, ...]]


def build_model(config: UNetConfig | ClassifierConfig) -> Model:
    """A freshly initialised model on torch's current default device."""
    if isinstance(config, ClassifierConfig):
        return NoisyClassifier(config)
    return UNet(config) if config.low_res_size is None else SuperResUNet(config)


def expected_shapes(config: UNetConfig | ClassifierConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a model's parameters, in order; allocates nothing."""
    with torch.device("meta"):
        model = build_model(config)
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


@type_checked
@torch.inference_mode(False)  # wherever it is loaded, gradients can go through it
def load_model(
    name: str | Path | ModelFile,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = torch.float32,
) -> Model:
    """A ready model: hash and shapes checked, in evaluation mode, no gradients for parameters.

    ``dtype`` float32, float64, or bfloat16/float16 for the torso's convolutions. The file may be
    written to or removed afterwards: it is read once and not mapped, and no more than the model
    itself is held. Raises as `find_weights`, UsageError or DeviceError for a dtype or device that
    cannot be, and CheckpointError if the content is damaged, not finite, or does not fit its own
    configuration.
    """
    where = choose_device(device)
    compute = choose_dtype(dtype, where, use_fp16=False)
    file = name if isinstance(name, ModelFile) else find_weights(name)
    with torch.device("meta"):
        model = build_model(file.info.config)
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    if dict(file.shapes) != expected:
        raise CheckpointError(f"{file.path}: {describe_mismatch(expected, file.shapes)}")
    torso = set(model.torso_parameters())
    rest = torch.float64 if compute == torch.float64 else torch.float32
    wanted = {key: compute if key in torso else rest for key in expected}
    needed, mend = f"the weights of {file.path}", "try --dtype bfloat16 or another --device"
    with enough_memory(where, needed, mend):
        state = _read_state(file, wanted, where)
    model.load_state_dict(state, strict=True, assign=True)
    model.torso_dtype = compute
    return model.eval().requires_grad_(False)


def hasten_on_cpu(model: Model, device: torch.device, *, gradient: bool = True) -> None:
    """`hasten` of a loaded ``model`` in the dtypes and on the processors where that pays.

    In float32 on x86 wide convolutions are tiled, and with vectors of 256 bits the ``gradient``
    of a classifier, if that is wanted of it, gains nothing where none is wide.
    """
    if device.type != "cpu" or model.torso_dtype not in (torch.float32, torch.bfloat16):
        return
    vectors = torch.backends.cpu.get_cpu_capability()
    single = model.torso_dtype == torch.float32
    short = single and vectors in ("DEFAULT", "AVX2")
    wide = model.config.model_channels >= LEAST_CHANNELS
    if gradient and short and isinstance(model, NoisyClassifier) and not wide:
        return
    tile = single and vectors in ("AVX2", "AVX512")  # elsewhere not tried
    hasten(model, pack=can_pack(model.torso_dtype), tile=tile)


def _read_state(
    file: ModelFile, wanted: Mapping[str, torch.dtype], device: torch.device
) -> dict[str, torch.Tensor]:
    state = {}
    for name, tensor in stream_tensors(file):
        check_finite(file.path, name, tensor)
        state[name] = tensor.to(device=device, dtype=wanted[name])
    return state


def load_inception(
    path: Path | None = None, *, device: str | torch.device = "cpu"
) -> tuple[InceptionV3, str]:
    """The network of FID, in evaluation mode, and the SHA-256 of its file.

    ``path`` None takes the published weights, whose hash must be theirs; a path is believed.
    Raises MissingWeightsError, or CheckpointError for weights that are not what they should be.
    """
    file = inception_path() if path is None else path
    if not os.path.isfile(file):
        if path is not None:
            raise UsageError(f"no such file: {path}")
        error = MissingWeightsError(
            f"the Inception weights are not on this machine ({file}): run adm fetch inception, or "
            f"pass --inception FILE, or --features classifier for distances that need no download"
        )
        error.published = (INCEPTION.name,)
        raise error
    counters = "num_batches_tracked"  # of the batch norms' training; some copies have none
    digest = file_sha256(file)
    state = read_original(file, ignore=counters)
    if path is None and digest != INCEPTION.sha256:
        raise CheckpointError(
            f"{file} is damaged: its SHA-256 is {digest[:12]}..., expected "
            f"{INCEPTION.sha256[:12]}...; "
            f"run adm fetch inception again"
        )
    with torch.device("meta"):
        model = InceptionV3()
    names = {k: tuple(v.shape) for k, v in model.state_dict().items() if not k.endswith(counters)}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if found != names:
        raise CheckpointError(
            f"{file} is not the Inception network of FID: {describe_mismatch(names, found)}"
        )
    ready = {name: value.to(device, torch.float32, copy=True) for name, value in state.items()}
    if file_sha256(file) != digest:  # they are copies: what is written to it later is not seen
        raise CheckpointError(f"{file} was changed while it was read: run the same command again")
    model.load_state_dict(ready, strict=False, assign=True)
    model.eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.num_batches_tracked = None  # never read, and still on the meta device
    if torch.device(device).type == "cpu":  # 1.4 times as fast: benchmarks/NOTES.md
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model, digest


def describe_mismatch(expected: Shapes, found: Shapes) -> str:
    """Missing, unexpected and misshapen tensors: one of each by name, two if that is all."""
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    wrong = [
        f"{name} is {list(found[name])}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    parts = []
    for what, names in (("missing", missing), ("unexpected", unexpected), ("misshapen", wrong)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 2 else ""
            parts.append(f"{what}: {', '.join(names[:1] if more else names)}{more}")
    return "the tensors do not fit the configuration; " + "; ".join(parts)


def mismatches(expected: Shapes, found: Shapes) -> int:
    """How many tensors are missing, unexpected or misshapen."""
    both = set(expected) & set(found)
    wrong = sum(tuple(expected[name]) != tuple(found[name]) for name in both)
    return len(set(expected) ^ set(found)) + wrong


_PARTS = frozenset("time_embed label_emb input_blocks middle_block output_blocks out".split())


def explain_mismatch(config: UNetConfig | ClassifierConfig, found: Shapes) -> list[str]:
    """The flags of the original that would make a configuration fit; nothing if none would.

    Changes one setting after the other to what the shapes say, keeps each change that mends
    something, and goes on until none does.
    """
    if any(name.split(".")[0] not in _PARTS for name in found):
        return []  # no configuration has it
    asked, advice = config, dict[str, str]()  # by the flag's name
    left, before = mismatches(expected_shapes(config), found), None
    while left and left != before:
        before = left
        for read in _READ_OFF:
            for flag, change in read(config, found):
                try:
                    candidate = replace(config, **change)
                    if candidate == config:
                        continue
                    remaining = mismatches(expected_shapes(candidate), found)
                except ConfigError:
                    continue  # an impossible combination explains nothing
                if remaining < left:
                    left, config = remaining, candidate
                    advice[flag.split()[0]] = flag
            if not left:
                break
    if left:
        return []
    flags = [_attention_flag(config) if "attention" in n else flag for n, flag in advice.items()]
    return flags if len(flags) > 1 else [*flags, *_other_size(asked, config)]


def _other_size(
    asked: UNetConfig | ClassifierConfig, fitting: UNetConfig | ClassifierConfig
) -> list[str]:
    """The size at which the attention asked for is where the tensors have it, if that differs.

    The tensors are those of either: the size shows in no shape.
    """
    pairs = zip(sorted(asked.attention_factors), sorted(fitting.attention_factors), strict=False)
    sides = {asked.image_size[0] * there / wanted for wanted, there in pairs}
    same = len(asked.attention_factors) == len(fitting.attention_factors)
    upsampler = isinstance(asked, UNetConfig) and asked.low_res_size is not None
    if not same or upsampler or len(sides) != 1 or sides == {asked.image_size[0]}:
        return []
    return [f"(or --image_size {sides.pop():g})"]


Change = tuple[str, dict[str, Any]]  # a flag of the original, and the settings that it changes


def _width(config: UNetConfig | ClassifierConfig, found: Shapes) -> Iterator[Change]:
    if width := axis_length(found, "time_embed.0.weight", 1):
        flag = "classifier_width" if isinstance(config, ClassifierConfig) else "num_channels"
        yield f"--{flag} {width}", {"model_channels": width}


def _ends(config: UNetConfig | ClassifierConfig, found: Shapes) -> Iterator[Change]:
    """What the first and last tensors tell: labels, variance, a second picture; the pool."""
    if isinstance(config, ClassifierConfig):
        for last, sides, pool in _POOLS:
            if len(found.get(last, ())) == sides:
                yield f"--classifier_pool {pool}", {"pool": pool}
                count = found[last][0]
                yield f"--num_classes {count}", {"num_classes": count}
        return
    classes = axis_length(found, "label_emb.weight", 0)
    many = f" --num_classes {classes}" if classes is not None else ""
    yield f"--class_cond {classes is not None}{many}", {"num_classes": classes}
    out = axis_length(found, "out.2.weight", 0)
    yield f"--learn_sigma {out == 6}", {"out_channels": out or 3}
    if axis_length(found, "input_blocks.0.0.weight", 1) == 2 * config.in_channels:
        large, small = config.image_size[0], config.image_size[0] // 4
        flag = f"--large_size {large} --small_size {small}"
        yield flag, {"low_res_size": (small, small)}


def _blocks(config: UNetConfig | ClassifierConfig, found: Shapes) -> Iterator[Change]:
    """How a block adds the embedding, and by what the picture is made smaller."""
    prefix = "classifier_" if isinstance(config, ClassifierConfig) else ""
    inside, outside = (
        axis_length(found, f"input_blocks.1.0.{layer}.weight", 0)
        for layer in ("emb_layers.1", "in_layers.2")
    )
    shift = inside != outside
    yield f"--{prefix}use_scale_shift_norm {shift}", {"scale_shift_norm": shift}
    updown = not any(name.endswith(".op.weight") for name in found)
    yield f"--{prefix}resblock_updown {updown}", {"resblock_updown": updown}


def _levels(config: UNetConfig | ClassifierConfig, found: Shapes) -> Iterator[Change]:
    """Sizes into whose levels the blocks go, and whose last level is as wide as the middle."""
    name = "classifier_depth" if isinstance(config, ClassifierConfig) else "num_res_blocks"
    blocks = len({key.split(".")[1] for key in found if key.startswith("input_blocks.")})
    middle = axis_length(found, "middle_block.0.in_layers.0.weight", 0)
    published = {
        (row.config.image_size, row.config.channel_mult)
        for row in CHECKPOINTS
        if not row.embedded and row.kind == "diffusion"
    }
    for size, mult in [(config.image_size, config.channel_mult), *sorted(published)]:
        rows, rest = divmod(blocks, len(mult))
        if rest or rows < 2 or middle != int(config.model_channels * mult[-1]):
            continue
        flags = [f"--image_size {size[0]}"] if size != config.image_size else []
        flags += [f"--{name} {rows - 1}"] if rows - 1 != config.num_res_blocks else []
        change = {"image_size": size, "channel_mult": mult, "num_res_blocks": rows - 1}
        yield " ".join(flags), change


def _multipliers(config: UNetConfig | ClassifierConfig, found: Shapes) -> Iterator[Change]:
    """The width of each level's first block, as a multiple of the model's."""
    blocks = len({key.split(".")[1] for key in found if key.startswith("input_blocks.")})
    firsts = range(1, blocks, config.num_res_blocks + 1)
    widths = [axis_length(found, f"input_blocks.{i}.0.out_layers.3.weight", 0) for i in firsts]
    mult = tuple(width / config.model_channels for width in widths if width)
    if len(mult) == len(widths):
        prefix = "classifier_" if isinstance(config, ClassifierConfig) else ""
        said = ",".join(f"{m:g}" for m in mult)
        yield f"--{prefix}channel_mult {said}", {"channel_mult": mult}


def _attention(config: UNetConfig | ClassifierConfig, found: Shapes) -> Iterator[Change]:
    names = [name.split(".") for name in found if name.endswith(".qkv.weight")]
    blocks = [int(n[1]) for n in names if n[0] == "input_blocks" and n[1].isdecimal()]
    factors = tuple(2**k for k in sorted({(i - 1) // (config.num_res_blocks + 1) for i in blocks}))
    yield (
        _attention_flag(replace(config, attention_factors=factors)),
        {"attention_factors": factors},
    )


def _attention_flag(config: UNetConfig | ClassifierConfig) -> str:
    prefix = "classifier_" if isinstance(config, ClassifierConfig) else ""
    sizes = ",".join(str(config.image_size[0] // factor) for factor in config.attention_factors)
    return f"--{prefix}attention_resolutions {sizes}"


# The tensor that gives out the classes, its sides, and the pool that has it.
_POOLS = (
    ("out.2.c_proj.weight", 3, "attention"),
    ("out.3.weight", 4, "adaptive"),
    ("out.3.weight", 2, "spatial_v2"),
    ("out.2.weight", 2, "spatial"),
)
_READ_OFF = (_width, _ends, _blocks, _levels, _multipliers, _attention)


def axis_length(found: Shapes, name: str, axis: int) -> int | None:
    """A side of the tensor of that name, if there is one."""
    shape = found.get(name)
    return shape[axis] if shape is not None and len(shape) > axis else None


def kind_of_tensors(shapes: Shapes) -> Kind | None:
    """What kind of model has such tensors; None for none of ours."""
    if "time_embed.0.weight" not in shapes:
        return None
    if not any(name.startswith("output_blocks.") for name in shapes):
        return "classifier"
    upsampler = axis_length(shapes, "input_blocks.0.0.weight", 1) == 6
    return "upsampler" if upsampler else "diffusion"
