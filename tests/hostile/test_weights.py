"""Hostile safetensors, through every command that reads weights."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from adm_cli.checkpoints.header import ModelInfo
from adm_cli.checkpoints.loading import build_model
from adm_cli.files.strict import config_to_json
from tests.conftest import TOY_CLASSES, TOY_CLASSIFIER, TOY_DIFFUSION, TOY_UNET, Toys, randomise
from tests.hostile.files import entry, safetensors, weights
from tests.hostile.sandbox import Arguments, harmless, in_groups, refused, slug

FLAGS = "--image_size 8 --num_channels 32 --channel_mult 1,1 --num_res_blocks 1"


def refused_everywhere(folder: Path, toys: Toys, *paths: Path, converted: bool = True) -> None:
    """By all that read weights; ``converted`` False leaves out what passes over metadata."""
    commands: list[Arguments] = []
    for path in paths:
        commands += [
            ["info", path],
            ["sample", "--model", path, "--scale", 0, "--device", "cpu", "--num", 1],
            ["sample", "--model", toys.model, "--classifier", path, "--scale", 1],
            ["classes", "--model", path],
        ]
        if converted:
            commands.append(["convert", path, "--flags", FLAGS, "-o", "converted.safetensors"])
    refused(folder, *commands)


DATA = bytes(16)
GOOD = {"a": entry()}
DEEP = 200_000
HEADERS: dict[str, bytes] = {
    "nothing": b"",
    "half a length": b"\x10\0\0",
    "a length alone": struct.pack("<Q", 2),
    "length 0": safetensors(GOOD, DATA, 0),
    "length 1": safetensors(GOOD, DATA, 1),
    "length too small": safetensors(GOOD, DATA, 20),
    "length into the data": safetensors(GOOD, DATA, len(json.dumps(GOOD)) + 4),
    "length past the end": safetensors(GOOD, DATA, 10**6),
    "length 2^31": safetensors(GOOD, DATA, 2**31),
    "length 2^62": safetensors(GOOD, DATA, 2**62),
    "length 2^63": safetensors(GOOD, DATA, 2**63),
    "length 2^64 - 1": safetensors(GOOD, DATA, 2**64 - 1),
    "a list": safetensors([GOOD], DATA),
    "a number": safetensors(b"12345678"),
    "a string": safetensors(b'"tensors"'),
    "null": safetensors(b"null    "),
    "no JSON": safetensors(b"{tensors}"),
    "single quotes": safetensors(b"{'a': 1}"),
    "not closed": safetensors(b'{"a": {"dtype": "F32"'),
    "two objects": safetensors(b"{}{}"),
    "byte order mark": safetensors(b"\xef\xbb\xbf{}"),
    "UTF-16": safetensors(json.dumps(GOOD).encode("utf-16"), DATA),
    "not UTF-8": safetensors(b'{"\xff\xfe": 1}'),
    "half a surrogate": safetensors(b'{"\\ud800": 1}'),
    "NUL bytes": safetensors(bytes(64)),
    "not a number": safetensors({"a": entry(shape=[float("nan")])}, DATA),
    "infinity": safetensors({"a": entry(data_offsets=[0, float("inf")])}, DATA),
    "5,000 digits": safetensors(b'{"a": ' + b"9" * 5000 + b"}"),
    "deep lists": safetensors(b"[" * DEEP + b"]" * DEEP),
    "deep objects": safetensors(b'{"a":' * DEEP + b"1" + b"}" * DEEP),
    "duplicate tensor": safetensors(
        b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},'
        b'"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}',
        DATA,
    ),
    "duplicate shape": safetensors(
        b'{"a":{"dtype":"F32","shape":[4],"shape":[2],"data_offsets":[0,16]}}', DATA
    ),
    "duplicate metadata": safetensors(b'{"__metadata__":{},"__metadata__":{}}'),
    "metadata list": safetensors({"__metadata__": ["adm"], **GOOD}, DATA),
    "metadata null": safetensors({"__metadata__": None, **GOOD}, DATA),
    "metadata numbers": safetensors({"__metadata__": {"format": 1}, **GOOD}, DATA),
    "metadata objects": safetensors({"__metadata__": {"format": {}}, **GOOD}, DATA),
    "entry null": safetensors({"a": None}, DATA),
    "entry list": safetensors({"a": [0, 16]}, DATA),
    "no dtype": safetensors({"a": entry(dtype=None)}, DATA),
    "no shape": safetensors({"a": entry(shape=None)}, DATA),
    "no offsets": safetensors({"a": entry(data_offsets=None)}, DATA),
    "unknown dtype": safetensors({"a": entry(dtype="F7")}, DATA),
    "dtype 32": safetensors({"a": entry(dtype=32)}, DATA),
    "int64": safetensors({"a": entry(dtype="I64", shape=[2])}, DATA),
    "bool": safetensors({"a": entry(dtype="BOOL", shape=[16])}, DATA),
    "complex": safetensors({"a": entry(dtype="C64", shape=[2])}, DATA),
    "negative shape": safetensors({"a": entry(shape=[-4])}, DATA),
    "fractional shape": safetensors({"a": entry(shape=[4.5])}, DATA),
    "shape of text": safetensors({"a": entry(shape="4")}, DATA),
    "shape 10^9 x 10^9": safetensors({"a": entry(shape=[10**9, 10**9])}, DATA),
    "shape overflows to 4": safetensors({"a": entry(shape=[2**32, 2**32, 4])}, DATA),
    "shape 2^64": safetensors({"a": entry(shape=[2**64])}, DATA),
    "a million dimensions": safetensors({"a": entry(shape=[1] * 10**6 + [4])}, DATA),
    "shape disagrees": safetensors({"a": entry(shape=[5])}, DATA),
    "negative begin": safetensors({"a": entry(data_offsets=[-16, 0])}, DATA),
    "negative end": safetensors({"a": entry(data_offsets=[0, -16])}, DATA),
    "end before begin": safetensors({"a": entry(data_offsets=[16, 0])}, DATA),
    "one offset": safetensors({"a": entry(data_offsets=[0])}, DATA),
    "three offsets": safetensors({"a": entry(data_offsets=[0, 8, 16])}, DATA),
    "offsets of text": safetensors({"a": entry(data_offsets=["0", "16"])}, DATA),
    "fractional offsets": safetensors({"a": entry(data_offsets=[0.0, 16.0])}, DATA),
    "offset past the end": safetensors({"a": entry(data_offsets=[16, 32])}, DATA),
    "offset 2^63": safetensors({"a": entry(data_offsets=[2**63 - 16, 2**63])}, DATA),
    "offset 2^64": safetensors({"a": entry(data_offsets=[2**64 - 16, 2**64])}, DATA),
    "overlap": safetensors({"a": entry(), "b": entry()}, DATA),
    "partial overlap": safetensors({"a": entry(), "b": entry(data_offsets=[8, 24])}, bytes(24)),
    "a hole": safetensors({"a": entry(), "b": entry(data_offsets=[32, 48])}, bytes(48)),
    "a hole in front": safetensors({"a": entry(data_offsets=[16, 32])}, bytes(32)),
    "more data": safetensors(GOOD, bytes(17)),
    "less data": safetensors(GOOD, bytes(15)),
    "no data": safetensors(GOOD),
    "names to eat memory": safetensors(
        b"{" + b",".join(b'"%x":0' % i for i in range(2 * 10**6)) + b"}"
    ),
}


@pytest.mark.parametrize("names", in_groups(HEADERS))
def test_headers(folder: Path, toys: Toys, names: list[str]) -> None:
    for name in names:
        (folder / f"{slug(name)}.safetensors").write_bytes(HEADERS[name])
    refused_everywhere(folder, toys, *sorted(folder.iterdir()))


@pytest.mark.parametrize("length", [10**8, 10**8 + 1, 2**32], ids=str)
def test_headers_that_fill_a_sparse_file(folder: Path, toys: Toys, length: int) -> None:
    """A hundred megabytes and more of header that take no disk."""
    path = folder / "x.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", length))
        file.truncate(8 + length)
    refused_everywhere(folder, toys, path)


def toy_state(**_: object) -> dict[str, torch.Tensor]:
    return dict(randomise(build_model(TOY_UNET)).state_dict())


INFO = ModelInfo(TOY_UNET, TOY_DIFFUSION, TOY_CLASSES)
CONFIG = json.loads(config_to_json(TOY_UNET))
DIFFUSION = json.loads(config_to_json(TOY_DIFFUSION))


def config(**changes: Any) -> dict[str, str]:
    return {"config": json.dumps({**CONFIG, **changes})}


def diffusion(**changes: Any) -> dict[str, str]:
    return {"diffusion": json.dumps({**DIFFUSION, **changes})}


HUGE: dict[str, Any] = {
    "image_size": [16384, 16384], "model_channels": 16384, "num_res_blocks": 64,
    "channel_mult": [1] * 12, "attention_factors": [2**k for k in range(12)],
}  # fmt: skip
METADATA: dict[str, dict[str, str]] = {
    "another format": {"format": "pt"},
    "format version 2": {"format_version": "2"},
    "unknown kind": {"kind": "pickle"},
    "a classifier's kind": {"kind": "classifier"},
    "an upsampler's kind": {"kind": "upsampler"},
    "config no JSON": {"config": "__import__('os')"},
    "config a list": {"config": "[]"},
    "config empty": {"config": "{}"},
    "config deep": {"config": "[" * DEEP},
    "config unknown key": config(exec="ls"),
    "size 0": config(image_size=[0, 0]),
    "size -8": config(image_size=[-8, -8]),
    "size 2^70": config(image_size=[2**70, 2**70]),
    "size not a number": config(image_size=[float("nan"), 8]),
    "size text": config(image_size="8x8"),
    "size of three": config(image_size=[8, 8, 8]),
    "the largest model that is allowed": config(**HUGE),
    "channels 10^12": config(model_channels=10**12),
    "blocks 10^9": config(num_res_blocks=10**9),
    "no levels": config(channel_mult=[]),
    "a million levels": config(channel_mult=[1] * 10**6),
    "channels not a number": config(channel_mult=[float("nan")]),
    "channels infinite": config(channel_mult=[float("inf"), 1]),
    "channels 1e308": config(channel_mult=[1e308, 1]),
    "heads 0": config(num_heads=0),
    "head channels 0": config(num_head_channels=0),
    "head channels -16": config(num_head_channels=-16),
    "window 0": config(attention_window=0),
    "classes 10^12": config(num_classes=10**12),
    "classes -1": config(num_classes=-1),
    "classes true": config(num_classes=True),
    "dropout not a number": config(dropout=float("nan")),
    "timesteps 10^9": diffusion(num_timesteps=10**9),
    "timesteps 0": diffusion(num_timesteps=0),
    "timesteps text": diffusion(num_timesteps="many"),
    "schedule unknown": diffusion(noise_schedule="exec"),
    "prediction unknown": diffusion(prediction="__class__"),
    "classes a list": {"classes": "[1, 2]"},
    "classes null": {"classes": "null"},
    "classes not JSON": {"classes": "{1: 2}"},
    "class -1": {"classes": '{"-1": "x"}'},
    "class 5 of 5": {"classes": '{"5": "x"}'},
    "class 1e3": {"classes": '{"1e3": "x"}'},
    "class of 5,000 digits": {"classes": json.dumps({"9" * 5000: "x"})},
    "class twice": {"classes": '{"1": "a", "1": "b"}'},
    "class clears the screen": {"classes": '{"1": "\\u001b[2J"}'},
    "class of two lines": {"classes": '{"1": "a\\nadm: all is well"}'},
    "class turns text around": {"classes": '{"1": "\\u202egnp.exe"}'},
    "class of 10 MB": {"classes": json.dumps({"1": "\x07" * 10**7})},
    "training a list": {"training": "[1]"},
    "training deep": {"training": '{"a":' * DEEP},
    "source a number": {"source": "7"},
}


@pytest.mark.parametrize("names", in_groups(METADATA))
def test_metadata(folder: Path, toys: Toys, names: list[str]) -> None:
    """The content hash is right: whoever made the file meant it."""
    tensors = {"a": torch.zeros(4)}
    for name in names:
        weights(folder / f"{slug(name)}.safetensors", INFO, tensors, **METADATA[name])
    refused_everywhere(folder, toys, *sorted(folder.iterdir()), converted=False)


@pytest.mark.parametrize(
    "fields",
    [
        {
            "training": '{"\\u001b[2J": "\\u001b]0;title\\u0007", "deep": '
            + "[" * 50
            + "]" * 50
            + "}"
        },
        {"source": '{"file": "../../../etc/passwd\\nadm: error"}'},
        diffusion(respacing="9" * 5000),
        diffusion(respacing="ddim0"),
        diffusion(respacing="1," * 100_000 + "1"),
        diffusion(respacing="\x1b[2J"),
    ],
)
def test_metadata_that_only_talks(folder: Path, toys: Toys, fields: dict[str, str]) -> None:
    path = weights(folder / "x.safetensors", INFO, toy_state(), **fields)
    for done in harmless(
        folder,
        ["info", path],
        ["info", path, "--json"],
        ["sample", "--model", path, "--scale", 0, "--num", 1, "--dry-run"],
    ):
        assert len(done.err.splitlines()) <= 1
        assert len(done.err) < 4000


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_weights_that_are_no_numbers(folder: Path, toys: Toys, dtype: torch.dtype) -> None:
    """One value in 185,478, under a content hash that is right."""
    commands: list[Arguments] = []
    values = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}
    for which, toy in (("model", TOY_UNET), ("classifier", TOY_CLASSIFIER)):
        state = {n: t.to(dtype) for n, t in randomise(build_model(toy)).state_dict().items()}
        info = ModelInfo(toy, TOY_DIFFUSION, TOY_CLASSES)
        for name, value in values.items():
            state["time_embed.2.weight"][3, 5] = value
            path = weights(folder / f"{which}{name}.safetensors", info, state)
            models = {"model": toys.model, "classifier": toys.classifier, which: path}
            commands.append(
                ["sample", "--model", models["model"], "--classifier", models["classifier"],
                 "--num", 1, "--steps", 1, "--scale", 1]
            )  # fmt: skip
    for done in refused(folder, *commands):
        assert "time_embed.2.weight holds NaN or infinite values" in done.err


def test_cut_at_many_lengths(folder: Path, toys: Toys) -> None:
    data = toys.model.read_bytes()
    header = 8 + struct.unpack("<Q", data[:8])[0]
    for length in [*range(0, 64, 9), 200, header - 1, header, header + 1, len(data) - 1]:
        (folder / f"{length}.safetensors").write_bytes(data[:length])
    refused_everywhere(folder, toys, *sorted(folder.iterdir()))


def test_the_file_is_another_one_meanwhile(folder: Path, toys: Toys) -> None:
    """Links, folders, devices and things that are no files."""
    (folder / "folder.safetensors").mkdir()
    (folder / "circle.safetensors").symlink_to("circle.safetensors")
    (folder / "gone.safetensors").symlink_to("nowhere")
    (folder / "zero.safetensors").symlink_to("/dev/zero")
    (folder / "memory.safetensors").symlink_to("/proc/self/mem")
    refused_everywhere(folder, toys, *sorted(folder.iterdir()))


NAMES = [
    "../../../../etc/passwd", "/etc/passwd", "/dev/zero", "/dev/stdin", "..", ".", "/", "~root",
    "\x1b[2J", "a\nb", "x" * 5000, "x/" * 3000, "$(touch canary)", "`touch canary`", "; ls",
    "%s%n", "{0.__class__}", "-", "--help", "tiny\u202e", "https://example.com/x.safetensors",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:24])
def test_names_of_models(folder: Path, toys: Toys, name: str) -> None:
    refused(
        folder,
        ["info", "--", name],
        ["sample", f"--model={name}", "--num", 1],
        ["sample", "--model", toys.model, f"--classifier={name}", "--num", 1],
        ["classes", f"--model={name}"],
    )
