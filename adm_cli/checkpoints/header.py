"""What a weights file says of itself, read without torch: its header, and the hash of its content.

A file's metadata holds its format version, kind, model and diffusion settings, the classes it
was trained on, a training summary, where it came from, and a content hash: the SHA-256 of the
whole file with the hash's own 64 digits as zeros. Nothing else is needed to load it, and a flipped
bit anywhere is noticed.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shlex
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import safetensors

from adm_cli.config import ClassifierConfig, DiffusionConfig, Kind, Recommended, UNetConfig
from adm_cli.errors import CheckpointError, ConfigError, an, how_many, trim, why_unread
from adm_cli.files.budget import parse_json, whole_text
from adm_cli.files.disk import file_digest, open_file
from adm_cli.files.foreign import START, describe_foreign, describe_zip
from adm_cli.files.strict import config_from_json, config_to_json
from adm_cli.files.zips import ForeignZip

FORMAT_VERSION = "1"
KINDS = ("diffusion", "upsampler", "classifier")
DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
AGAIN = ": convert or download it again"
_OF_LIBRARY = "Error while deserializing header: "
MOST_ENTRIES = 100_000  # tensors and numbers of a file, far above any real one

# Far above any real model; a million of them keep torch busy for minutes.
_MAX_DIMENSIONS = 8
_CHUNK = 1 << 24

# Far above any real model, whose header is 0.2 MB at most. A hostile one of a hundred megabytes,
# which the library takes, grows to gigabytes in Python.
MAX_HEADER = 10_000_000
NO_HASH = "0" * 64
_OF_TRAINING = re.compile(r"(model|best)(-ema.*)?$")
STATE_FORMAT = "adm-training"  # of a training's state, where weights have "adm"


def begin_hash(file: IO[bytes], recorded: str) -> hashlib._Hash:
    """The hash of a file up to its tensors, with the ``recorded`` digits as zeros.

    What ``file`` has left is to be added, to make it the content hash.
    """
    start = file.read(8)
    header = file.read(min(int.from_bytes(start, "little"), MAX_HEADER))
    return hashlib.sha256(start + header.replace(recorded.encode(), NO_HASH.encode(), 1))


@dataclass(frozen=True)
class ModelInfo:
    """What a weights file says of itself, beside its tensors."""

    config: UNetConfig | ClassifierConfig
    diffusion: DiffusionConfig
    # trained ids and names
    classes: Mapping[int, str] = field(default_factory=dict, repr=False)
    training: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, str] = field(default_factory=dict)  # converted from: name, sha256
    recommended: Recommended | None = None  # how it is best sampled

    @property
    def kind(self) -> Kind:
        return self.config.kind

    @property
    def noised(self) -> bool | None:
        """Whether a classifier was trained on noisy pictures; None where its file does not say."""
        settings = self.training.get("settings")
        found = settings.get("noised") if isinstance(settings, dict) else None
        return found if type(found) is bool else None


@dataclass(frozen=True)
class ModelFile:
    """A weights file whose header was read and checked; its tensors were not."""

    path: Path
    info: ModelInfo
    # in the order of the tensors, which have no gaps
    shapes: Mapping[str, tuple[int, ...]] = field(repr=False)
    dtypes: Mapping[str, str] = field(repr=False)  # by torch's names: "float32"
    content_sha256: str

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def called(self) -> str:
        """As messages name it: every training's files are called alike, so those by their path."""
        return str(self.path) if _OF_TRAINING.match(self.name) else self.name

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes.values())


def read_model_file(path: Path) -> ModelFile:
    """Reads and checks the header only.

    Raises CheckpointError for anything but a well-formed weights file of ours.
    """
    header = read_header(path)
    metadata = header.pop("__metadata__", None)
    refuse_state(path, metadata)
    if not isinstance(metadata, dict) or metadata.get("format") != "adm":
        raise CheckpointError(
            f"{path}: a safetensors file without adm's metadata; "
            f"adm convert {shlex.quote(str(path))} --preset NAME (or --flags ...) makes one of it"
        )
    if metadata.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format version {metadata.get('format_version', 'unknown')}, this adm reads "
            f"{FORMAT_VERSION}; a newer adm may be needed"
        )
    try:
        info = _parse_metadata(metadata)
    except KeyError as error:
        raise CheckpointError(f"{path}: damaged metadata (no {error}){AGAIN}") from None
    except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged metadata ({why_unread(error)}){AGAIN}") from None
    shapes, dtypes = {}, {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        if entry["dtype"] not in DTYPES:
            raise CheckpointError(f"{path}: {name} has dtype {entry['dtype']}, expected floats")
        shapes[name] = tuple(entry["shape"])
        dtypes[name] = DTYPES[entry["dtype"]]
    return ModelFile(path, info, shapes, dtypes, str(metadata.get("content_sha256", "none")))


def refuse_state(path: Path, metadata: object) -> None:
    """Raises CheckpointError for the metadata of a training's state, which is to go on from."""
    if isinstance(metadata, dict) and metadata.get("format") == STATE_FORMAT:
        raise CheckpointError(
            f"{path} is a state that its training goes on from: pass {path.parent}, whose "
            f"model.safetensors is made of the newest one, or best.safetensors there"
        )


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
    check_detail(config, info.diffusion)
    if info.kind != kind:
        raise ValueError(f"kind {kind!r}, but settings of {an(info.kind)} model")
    count = config.num_classes or 0
    if bool(info.classes) != bool(count):
        raise ValueError(
            f"{how_many(len(info.classes), 'name')} for {how_many(count, 'class', 'classes')}"
        )
    for class_id, name in info.classes.items():
        if not 0 <= class_id < count or not name.isprintable():
            raise ValueError(
                f"class {class_id} {trim(name)} of {how_many(count, 'class', 'classes')}"
            )
    return info


def check_detail(config: UNetConfig | ClassifierConfig, diffusion: DiffusionConfig) -> None:
    """Raises ConfigError for a process that an upsampler of detail cannot tell the noise of."""
    if isinstance(config, ClassifierConfig) or config.detail_scale is None:
        return
    steps = 1000 if diffusion.rescale_timesteps else diffusion.num_timesteps
    if (diffusion.prediction, diffusion.noise_schedule, steps) != ("v", "cosine", 1000):
        raise ConfigError(
            f"detail_scale needs prediction v and a cosine noise_schedule of 1000 timesteps, got "
            f"{diffusion.prediction}, {diffusion.noise_schedule}, {diffusion.num_timesteps}"
        )


def _object(text: str) -> dict[str, Any]:
    return dict(parse_json(text, object_pairs_hook=_no_duplicates))


def read_header(path: Path) -> dict[str, Any]:
    """The JSON header, after checks of our own and all of the library's."""
    try:
        with open_file(path) as file:
            size = path.stat().st_size
            start = file.read(START)
            length = struct.unpack_from("<Q", start)[0] if len(start) >= 8 else 0
            if not 2 <= length <= min(MAX_HEADER, size - 8):
                if is_pytorch(start):
                    if start[:2] == b"PK" and (foreign := zip_of_others(path)):
                        raise CheckpointError(f"{path} {foreign}")
                    raise CheckpointError(
                        f"{path} is a PyTorch file, expected safetensors: "
                        f"adm convert {shlex.quote(str(path))} makes one of it"
                    )
                foreign = describe_foreign(start, path.name)
                if foreign is None:
                    foreign = f"is not a safetensors file, or is cut short{AGAIN}"
                raise CheckpointError(f"{path} {foreign}")
            file.seek(8)
            raw = file.read(length)
        header = parse_json(raw, object_pairs_hook=_no_duplicates)
        with safetensors.safe_open(path, framework="np"):
            pass  # the library checks offsets, sizes and overlaps
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, safetensors.SafetensorError) as error:
        why = why_unread(error).removeprefix(_OF_LIBRARY).split(", expected one of")[0]
        raise CheckpointError(f"{path}: damaged safetensors ({why}){AGAIN}") from None
    assert isinstance(header, dict)  # or the library would have refused it
    for name, entry in header.items():
        if name != "__metadata__" and len(entry["shape"]) > _MAX_DIMENSIONS:
            raise CheckpointError(f"{path}: {name:.80} has {len(entry['shape'])} dimensions")
    return header


def is_pytorch(start: bytes) -> bool:
    """A zip archive or a bare pickle; safetensors start with a length, which may look alike, and
    then a brace."""
    zipped = start[:4] == b"PK\x03\x04"
    pickled = start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    return start[8:9] != b"{" and (zipped or pickled)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise ValueError(f"duplicate key {trim(name, 80)}")
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
            f"expected {file.content_sha256[:12]}{AGAIN}"
        )


def _hash_blanked(path: Path, recorded: str) -> str:
    with path.open("rb") as file:
        digest = begin_hash(file, recorded)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def read_metadata(path: Path) -> dict[str, str]:
    """What safetensors of anyone say of themselves; raises CheckpointError."""
    return dict(read_header(path).get("__metadata__") or {})


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


def zip_of_others(path: Path) -> str | None:
    """What a zip is that torch.save did not write (`describe_zip`); None for one that it wrote.

    Also None for one whose list cannot be read, which is told when it is opened.
    """
    try:
        with ForeignZip(path, 2 * MOST_ENTRIES) as file:
            return describe_zip(file.namelist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return None
