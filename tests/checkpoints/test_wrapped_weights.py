"""The weights within whatever was saved around them, and files that hold none."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from adm_cli.checkpoints.converting import convert
from adm_cli.checkpoints.header import read_model_file
from adm_cli.checkpoints.originals import read_weights
from adm_cli.errors import CheckpointError, UsageError

NET: dict[str, Tensor] = {
    "time_embed.0.weight": torch.full((2, 2), 1.0),
    "input_blocks.1.1.qkv.weight": torch.full((6, 2, 1), 1.0),
}
AVERAGE = {name: value + 1 for name, value in NET.items()}
SLOWER = {name: value + 2 for name, value in NET.items()}
OPTIMIZER = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))]).state_dict()


def under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in state.items()}


def read(folder: Path, content: object, wanted: str | None = None) -> tuple[float, str]:
    """What all values of the weights taken are, and what was told."""
    torch.save(content, folder / "m.pt")
    found = read_weights(folder / "m.pt", wanted)
    assert {name: value.shape for name, value in found.tensors.items()} == {
        name: value.shape for name, value in NET.items()
    }
    values = {float(v) for value in found.tensors.values() for v in value.flatten().tolist()}
    assert len(values) == 1
    return values.pop(), "; ".join(found.notes)


@pytest.mark.parametrize(
    ("content", "value", "note"),
    [
        (NET, 1, ""),
        ({"state_dict": NET}, 1, "the weights are those under state_dict"),
        (under("module.", NET), 1, "the weights are those under module"),
        (under("_orig_mod.", NET), 1, ""),
        (under("module._orig_mod.", NET), 1, "the weights are those under module"),
        ({"a": {"b": under("denoise_fn.", NET)}}, 1, "the weights are those under a.b.denoise_fn"),
        (
            {"model": NET, "ema": AVERAGE, "opt": OPTIMIZER, "step": 7},
            2,
            "of several weights took ema (an average); --weights for model; "
            "left out, as no weights of the model: opt, step",
        ),
        (
            {"model": NET, "ema_0.9": AVERAGE, "ema_0.9999": SLOWER},
            3,
            "of several weights took ema_0.9999 (an average); --weights for model, ema_0.9",
        ),
        ({**under("model.", NET), **under("model_ema.", AVERAGE)}, 2,
         "of several weights took model_ema (an average); --weights for model"),
        (
            {**under("net.", NET), "net.betas": torch.ones(9),
             **{f"net_ema.{name.replace('.', '')}": value for name, value in AVERAGE.items()}},
            2,
            "of several weights took net_ema (an average); --weights for net",
        ),
        (
            {
                "state_dict": {
                    **under("model.diffusion_model.", NET),
                    **{
                        f"model_ema.diffusion_model{name.replace('.', '')}": value
                        for name, value in AVERAGE.items()
                    },
                    "betas": torch.ones(9),
                    "first_stage_model.x": torch.ones(2),
                }
            },
            2,
            "of several weights took state_dict.model_ema (an average); --weights for "
            "state_dict.model.diffusion_model; left out, as no weights of the model: betas, "
            "first_stage_model",
        ),
        (
            {**NET, "step": torch.tensor(3), "betas": torch.ones(9), "note": "x",
             "sqrt_alphas_cumprod": torch.ones(9)},
            1,
            "left out, as no weights of the model: step, betas, note, sqrt_alphas_cumprod",
        ),
        ({n: v.unsqueeze(-1) if "qkv" in n else v for n, v in NET.items()}, 1,
         "1 attention weight in the original's shape"),
        ({n: v.squeeze(-1) if "qkv" in n else v for n, v in NET.items()}, 1,
         "1 attention weight in the original's shape"),
    ],
)  # fmt: skip
def test_which_weights(tmp_path: Path, content: object, value: float, note: str) -> None:
    taken, told = read(tmp_path, content)
    assert taken == value
    assert told == note


def shadow(state: dict[str, Tensor]) -> dict[str, object]:
    """As torch-ema saves an average: a list in the order of the parameters."""
    return {"decay": 0.9, "num_updates": 5, "shadow_params": list(state.values())}


def test_an_average_without_names(tmp_path: Path) -> None:
    model = {**under("module.", NET), "module.betas": torch.ones(9)}
    taken, told = read(tmp_path, {"model": model, "ema": shadow(AVERAGE), "step": 1})
    assert taken == 2
    assert "took ema.shadow_params (an average); --weights for model.module;" in told
    assert read(tmp_path, {"model": NET, "ema": shadow(AVERAGE)}, "model")[0] == 1
    turned = dict(reversed(AVERAGE.items()))
    taken, told = read(tmp_path, {"model": NET, "ema": shadow(turned)})
    assert taken == 1
    assert "ema.shadow_params is an average without names that does not fit the model" in told


@pytest.mark.parametrize("content", [shadow(AVERAGE), list(NET.values())])
def test_an_average_alone_has_no_names(tmp_path: Path, content: object) -> None:
    with pytest.raises(CheckpointError, match=r"without names.*: give the file that holds"):
        read(tmp_path, content)


def test_others_by_name(tmp_path: Path) -> None:
    content = {"model": NET, "ema_0.9": AVERAGE, "ema_0.99": SLOWER}
    for wanted, value in (("model", 1), ("ema", 3), ("ema_0.9", 2), ("ema_0.99", 3)):
        assert read(tmp_path, content, wanted)[0] == value
    with pytest.raises(UsageError, match=r"--weights avg: m\.pt holds model, ema_0\.9, ema_0\.99"):
        read(tmp_path, content, "avg")
    with pytest.raises(UsageError, match="holds no named weights"):
        read(tmp_path, {"a": torch.ones(2)}, "ema")


def test_what_stays_refused(tmp_path: Path) -> None:
    deep: Any = NET
    for _ in range(40):
        deep = {"x": deep}
    laughs: Any = {"a": torch.ones(2)}
    for _ in range(30):
        laughs = {"a": laughs, "b": laughs}
    for content in (deep, laughs):
        with pytest.raises(CheckpointError, match=r"over 100,000 entries|too many entries"):
            read(tmp_path, content)
    with pytest.raises(CheckpointError, match="holds NaN"):
        read(tmp_path, {"ema": {**NET, "x": torch.tensor([[float("nan")]])}})
    with pytest.raises(CheckpointError, match="holds an optimizer's state"):
        read(tmp_path, OPTIMIZER)


def packed(names: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in names.items():
            file.writestr(name, data)
    return buffer.getvalue()


def pictured(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def scripted() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            file.writestr(f"net/{name}", b"x")
    return buffer.getvalue()


FOREIGN: dict[str, tuple[Callable[[], bytes], str]] = {
    "lfs.pt": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
               "is a Git LFS pointer, not the file itself: git lfs pull"),
    "page.pt": (lambda: b"\n<!DOCTYPE html><html>" + b"x" * 300, "is a web page"),
    "empty.pt": (bytes, "is empty: its download or copy was cut short"),
    "x.json": (lambda: json.dumps({"a": [1]}).encode(), "is JSON, not weights"),
    "list.pt": (lambda: b"[\n 1, 2, 3, 4, 5]", "is JSON, not weights"),
    "run.json": (lambda: b'{\n "format": 1}', "is the record of a run: adm info"),
    "x.pt.gz": (lambda: gzip.compress(b"x" * 99), "is compressed with gzip: unpack it first"),
    "zip.pt": (lambda: packed({"a/weights.pt": b"x"}), "is a zip archive .*unpack it first"),
    "npz.pt": (lambda: packed({"arr_0.npy": b"x"}), "is npz, arrays of NumPy"),
    "script.pt": (scripted, "is TorchScript.*torch.jit.load"),
    "png.pt": (lambda: pictured("PNG"), r"is a picture \(PNG\): adm info"),
    "webp.pt": (lambda: pictured("WEBP"), r"is a picture \(WebP\): adm info"),
    "jpeg.pt": (lambda: pictured("JPEG"), r"is a picture \(JPEG\)"),
    "keras.pt": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(99), "is HDF5, as Keras writes it"),
    "tar.pt": (lambda: bytes(257) + b"ustar" + bytes(99), "is a tar archive"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_what_a_file_is(tmp_path: Path, name: str) -> None:
    make, message = FOREIGN[name]
    (tmp_path / name).write_bytes(make())
    with pytest.raises(CheckpointError, match=message):
        read_weights(tmp_path / name)
    if "zip" not in message and "NumPy" not in message and "TorchScript" not in message:
        expected = "cut short" if name == "empty.pt" else message
        with pytest.raises(CheckpointError, match=expected):
            read_model_file(tmp_path / name)


class Net(torch.nn.Linear):
    """A module of somebody's own."""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (Net(2, 2), r"whole pickled module.*torch\.save\(model\.state_dict\(\)"),
        ({"model": NET, "args": argparse.Namespace(a=1)}, r"settings.*torch\.save\(checkpoint"),
    ],
)
def test_pickles_of_more_than_weights(tmp_path: Path, content: object, words: str) -> None:
    torch.save(content, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=f"holds more than tensors .* refused.*{words}"):
        read_weights(tmp_path / "m.pt")


def test_networks_of_others_within_whatever_was_saved_around_them(tmp_path: Path) -> None:
    others = {"unet": {"down_blocks.0.conv.weight": torch.zeros(2, 2)}, "step": 3}
    torch.save(others, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match="by its tensors' names a UNet of diffusers"):
        convert(tmp_path / "m.pt", flags="--image_size 64")
