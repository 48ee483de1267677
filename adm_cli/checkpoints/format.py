"""Weights files: safetensors that describe themselves, and the original's `.pt`.

A file's metadata holds its format version, kind, model and diffusion settings, the classes it
was trained on, a training summary, where it came from, and a content hash: the SHA-256 of the
whole file with the hash's own 64 digits as zeros. Nothing else is needed to load it, and a flipped
bit anywhere is noticed.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from adm_cli.checkpoints.pickles import load_pickle, zip_of_others
from adm_cli.checkpoints.stored import MAX_HEADER, NO_HASH, begin_hash, read_stored
from adm_cli.config import ClassifierConfig, DiffusionConfig, Recommended, UNetConfig
from adm_cli.errors import CheckpointError
from adm_cli.files.budget import parse_json, whole_text
from adm_cli.files.disk import atomic_write, file_digest, open_file
from adm_cli.files.foreign import START, describe_foreign
from adm_cli.files.strict import config_from_json, config_to_json

FORMAT_VERSION = "1"
KINDS = ("diffusion", "upsampler", "classifier")

# Far above any real model; a million of them keep torch busy for minutes.
_MAX_DIMENSIONS = 8
_MOST_SHARED = 8  # names for the same data, such as tied weights
_CHUNK = 1 << 24
_AGAIN = ": convert or download it again"
_DTYPES = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True)
class ModelInfo:
    """What a weights file says of itself, beside its tensors."""

    config: UNetConfig | ClassifierConfig
    diffusion: DiffusionConfig
    classes: Mapping[int, str] = field(default_factory=dict)  # trained ids and names
    training: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, str] = field(default_factory=dict)  # converted from: name, sha256
    recommended: Recommended | None = None  # how it is best sampled

    @property
    def kind(self) -> str:
        if isinstance(self.config, ClassifierConfig):
            return "classifier"
        return "diffusion" if self.config.low_res_size is None else "upsampler"


@dataclass(frozen=True)
class ModelFile:
    """A weights file whose header was read and checked; its tensors were not."""

    path: Path
    info: ModelInfo
    shapes: Mapping[str, tuple[int, ...]]  # in the order of the tensors, which have no gaps
    dtypes: Mapping[str, torch.dtype]
    content_sha256: str

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes.values())


def read_model_file(path: Path) -> ModelFile:
    """Reads and checks the header only.

    Raises CheckpointError for anything but a well-formed weights file of ours.
    """
    header = _read_header(path)
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or metadata.get("format") != "adm":
        raise CheckpointError(
            f"{path}: a safetensors file without adm's metadata; "
            f"adm convert {path.name} --preset NAME (or --flags ...) makes one of it"
        )
    if metadata.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format version {metadata.get('format_version')}, this adm reads "
            f"{FORMAT_VERSION}; a newer adm may be needed"
        )
    try:
        info = _parse_metadata(metadata)
    except KeyError as error:
        raise CheckpointError(f"{path}: damaged metadata (no {error})") from None
    except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged metadata ({error})") from None
    shapes, dtypes = {}, {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        if entry["dtype"] not in _DTYPES:
            raise CheckpointError(f"{path}: {name} has dtype {entry['dtype']}, expected floats")
        shapes[name] = tuple(entry["shape"])
        dtypes[name] = _DTYPES[entry["dtype"]]
    return ModelFile(path, info, shapes, dtypes, str(metadata.get("content_sha256")))


def _parse_metadata(metadata: Mapping[str, str]) -> ModelInfo:
    kind = metadata["kind"]
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}")
    config: UNetConfig | ClassifierConfig
    if kind == "classifier":
        config = config_from_json(ClassifierConfig, metadata["config"])
    else:
        config = config_from_json(UNetConfig, metadata["config"])
    info = ModelInfo(
        config=config,
        diffusion=config_from_json(DiffusionConfig, metadata["diffusion"]),
        classes={whole_text(i): str(name) for i, name in _object(metadata["classes"]).items()},
        training=_object(metadata["training"]),
        source=_object(metadata["source"]),
        recommended=config_from_json(Recommended, metadata["recommended"])
        if "recommended" in metadata
        else None,
    )
    if info.kind != kind:
        raise ValueError(f"kind {kind!r}, but settings of a {info.kind} model")
    count = config.num_classes or 0
    if bool(info.classes) != bool(count):
        raise ValueError(f"{len(info.classes)} names for {count} classes")
    for class_id, name in info.classes.items():
        if not 0 <= class_id < count or not name.isprintable():
            raise ValueError(f"class {class_id} {name!a:.60} of {count} classes")
    return info


def _object(text: str) -> dict[str, Any]:
    return dict(parse_json(text, object_pairs_hook=_no_duplicates))


def _read_header(path: Path) -> dict[str, Any]:
    """The JSON header, after checks of our own and all of the library's."""
    try:
        with open_file(path) as file:
            size = path.stat().st_size
            start = file.read(START)
            length = struct.unpack_from("<Q", start)[0] if len(start) >= 8 else 0
            if not 2 <= length <= min(MAX_HEADER, size - 8):
                if _is_pytorch(start):
                    if start[:2] == b"PK" and (foreign := zip_of_others(path)):
                        raise CheckpointError(f"{path} {foreign}")
                    raise CheckpointError(
                        f"{path} is a PyTorch file, expected safetensors: "
                        f"adm convert {path.name} makes one of it"
                    )
                foreign = describe_foreign(start, path.name)
                if foreign is None:
                    foreign = f"is not a safetensors file, or is cut short{_AGAIN}"
                raise CheckpointError(f"{path} {foreign}")
            file.seek(8)
            raw = file.read(length)
        header = parse_json(raw, object_pairs_hook=_no_duplicates)
        with safetensors.safe_open(path, framework="pt"):
            pass  # the library checks offsets, sizes and overlaps
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: damaged safetensors ({error}){_AGAIN}") from None
    assert isinstance(header, dict)  # or the library would have refused it
    for name, entry in header.items():
        if name != "__metadata__" and len(entry["shape"]) > _MAX_DIMENSIONS:
            raise CheckpointError(f"{path}: {name:.80} has {len(entry['shape'])} dimensions")
    return header


def _is_pytorch(start: bytes) -> bool:
    """A zip archive or a bare pickle; safetensors start with a length, which may look alike, and
    then a brace."""
    zipped = start[:4] == b"PK\x03\x04"
    pickled = start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    return start[8:9] != b"{" and (zipped or pickled)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise ValueError(f"duplicate key {name!r:.80}")
        result[name] = value
    return result


def verify_content(file: ModelFile) -> None:
    """Hash the whole file; raises CheckpointError if it is not what was written."""
    try:
        digest = _hash_blanked(file.path, file.content_sha256)
    except OSError as error:
        raise CheckpointError(f"cannot read {file.path}: {error.strerror or error}") from None
    if digest != file.content_sha256:
        raise CheckpointError(
            f"{file.path} is damaged: its content hash is {digest[:12]}, "
            f"expected {file.content_sha256[:12]}{_AGAIN}"
        )


def _hash_blanked(path: Path, recorded: str) -> str:
    with path.open("rb") as file:
        digest = begin_hash(file, recorded)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def save_model(
    path: Path,
    tensors: Mapping[str, Tensor],
    info: ModelInfo,
    last_look: Callable[[], None] = lambda: None,
) -> str:
    """Write a weights file, atomically and one tensor at a time; returns its content hash.

    Raises OutputError if it cannot be written, and what ``last_look`` raises when all is written
    but its name; the old file, if any, is then untouched.
    """
    return write_tensors(path, tensors, info_metadata(info), last_look)


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    last_look: Callable[[], None] = lambda: None,
) -> str:
    """Write safetensors with a content hash in their metadata; as `save_model` otherwise."""
    # wide types first, so that every tensor starts on a multiple of its item size
    ordered = sorted(tensors.items(), key=lambda item: -item[1].element_size())
    # the hash first, so that it is found before anything looks like it
    header: dict[str, Any] = {"__metadata__": {"content_sha256": NO_HASH, **metadata}}
    offset = 0
    for name, tensor in ordered:
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-(8 + len(raw)) % 64)  # tensors start where kernels like them to
    start = struct.pack("<Q", len(raw)) + raw
    digest = hashlib.sha256(start)
    with atomic_write(path) as file:
        file.write(start)
        for _, tensor in ordered:
            data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            digest.update(data)
            file.write(data)
        file.seek(start.index(NO_HASH.encode()))
        file.write(digest.hexdigest().encode())
        last_look()
    return digest.hexdigest()


def read_metadata(path: Path) -> dict[str, str]:
    """What safetensors of anyone say of themselves; raises CheckpointError."""
    return dict(_read_header(path).get("__metadata__") or {})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and metadata that `write_tensors` wrote, hash checked.

    Raises CheckpointError for anything else.
    """
    header = _read_header(path)
    metadata = dict(header.pop("__metadata__", None) or {})
    recorded = str(metadata.get("content_sha256", ""))
    try:
        with open_file(path) as file:
            digest = begin_hash(file, recorded)
            tensors = read_stored(file, header, digest)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from None
    if digest.hexdigest() != recorded:
        raise CheckpointError(f"{path} is damaged: its content hash is not what it records")
    return tensors, metadata


def info_metadata(info: ModelInfo) -> dict[str, str]:
    """What a file says of itself, by the names of its metadata."""
    recommended = info.recommended
    return {
        "format": "adm",
        "format_version": FORMAT_VERSION,
        "kind": info.kind,
        "config": config_to_json(info.config),
        "diffusion": config_to_json(info.diffusion),
        "classes": json.dumps({str(i): name for i, name in sorted(info.classes.items())}),
        "training": json.dumps(dict(info.training)),
        "source": json.dumps(dict(info.source)),
        **({} if recommended is None else {"recommended": config_to_json(recommended)}),
    }


def file_sha256(path: Path) -> str:
    """SHA-256 of a file as it is, as `sha256sum` prints it."""
    return file_digest(path)[1]


def read_original(path: Path, *, ignore: str | None = None) -> dict[str, Tensor]:
    """The state dict of an original `.pt` (zip or old format), or of bare safetensors.

    Tensors whose names end in ``ignore`` are left out. Raises CheckpointError for anything but a
    dictionary of finite floating-point tensors.
    """
    state = load_original(path)
    if ignore is not None and isinstance(state, dict):
        state = {k: v for k, v in state.items() if not (isinstance(k, str) and k.endswith(ignore))}
    return check_state(path, state)


def load_original(path: Path) -> object:
    """Whatever an original `.pt` or bare safetensors hold, unpickled as `pickles` says."""
    try:
        with open_file(path) as file:
            start = file.read(START)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from None
    if _is_pytorch(start):
        return load_pickle(path, zipped=start[:2] == b"PK")
    if foreign := describe_foreign(start, path.name):
        raise CheckpointError(f"{path} {foreign}")
    header = _read_header(path)
    header.pop("__metadata__", None)
    try:
        with open_file(path) as file:
            file.seek(8 + int.from_bytes(file.read(8), "little"))
            return read_stored(file, header)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from None


def check_state(path: Path, state: object) -> dict[str, Tensor]:
    """``state``, if it is a dictionary of finite floating-point tensors; else CheckpointError."""
    if not isinstance(state, dict) or not state:
        raise CheckpointError(
            f"{path}: expected a dictionary of tensors, got {type(state).__name__}"
        )
    said = held = 0
    storages: set[int] = set()
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            if name in ("state", "param_groups"):
                raise CheckpointError(
                    f"{path} holds an optimizer's state (opt*.pt): give the model or ema file"
                )
            raise CheckpointError(
                f"{path}: expected only tensors, got {type(tensor).__name__} under {name!r:.60}"
            )
        if tensor.layout != torch.strided or tensor.is_meta or _expanded(tensor):
            raise CheckpointError(f"{path}: {name} is not a plain tensor")
        if tensor.dtype not in _DTYPE_NAMES:
            raise CheckpointError(f"{path}: {name} is {tensor.dtype}, expected floating point")
        said += tensor.numel() * tensor.element_size()
        storage = tensor.untyped_storage()
        held += 0 if storage.data_ptr() in storages else storage.nbytes()
        storages.add(storage.data_ptr())
        if said > _MOST_SHARED * held:  # names cost nothing, looking at each value does
            raise CheckpointError(f"{path}: {said:,} bytes of tensors in {held:,} bytes of data")
        check_finite(path, name, tensor)
    return state


def check_finite(path: Path, name: str, tensor: Tensor) -> None:
    """Raises CheckpointError if a tensor holds NaN or infinite values."""
    if tensor.numel():  # one pass and no mask as large as the tensor; NaN shows in either
        low, high = torch.aminmax(tensor.detach())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise CheckpointError(f"{path}: {name} holds NaN or infinite values")


def _expanded(tensor: Tensor) -> bool:
    """Larger than its storage: a tiny file could ask for any amount of memory."""
    return tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()
