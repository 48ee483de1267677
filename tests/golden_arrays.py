"""The golden arrays: the choice in `tests/golden`, or all of them in ``ADM_REFERENCE``."""

from __future__ import annotations

import gzip
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from adm_cli.checkpoints.loading import Model, build_model
from adm_cli.config import ClassifierConfig, UNetConfig

CHOICE = Path(__file__).parent / "golden"
ROOT = Path(os.environ.get("ADM_REFERENCE") or CHOICE).resolve()


class Arrays:
    """The tensors and the metadata of one golden file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tensors: dict[str, Tensor]
        with safe_open(path, framework="pt") as handle:
            self.tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
            self.meta: dict[str, Any] = json.loads((handle.metadata() or {}).get("meta", "{}"))

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def names(self, prefix: str = "") -> list[str]:
        return sorted(name for name in self.tensors if name.startswith(prefix))


@cache
def arrays(name: str) -> Arrays:
    return Arrays(ROOT / name)


def stems(folder: str, pattern: str = "*") -> list[str]:
    """Names of the golden files of a folder, for parametrizing."""
    found = sorted(path.stem for path in (ROOT / folder).glob(f"{pattern}.safetensors"))
    assert found, f"no golden files {folder}/{pattern}"
    return found


@cache
def architectures() -> dict[str, Any]:
    full = ROOT / "architectures.json"
    if full.is_file():
        return json.loads(full.read_text())  # type: ignore[no-any-return]
    return json.loads(gzip.decompress((ROOT / "architectures.json.gz").read_bytes()))  # type: ignore[no-any-return]


def config_from_constructor(kind: str, args: dict[str, Any]) -> UNetConfig | ClassifierConfig:
    """Our settings for the original's constructor arguments."""

    def optional(name: str) -> int | None:
        return None if args[name] == -1 else int(args[name])

    shared: dict[str, Any] = {
        "image_size": (args["image_size"], args["image_size"]),
        "model_channels": args["model_channels"],
        "num_res_blocks": args["num_res_blocks"],
        "channel_mult": tuple(args["channel_mult"]),
        "attention_factors": tuple(args["attention_resolutions"]),
        "num_heads": args["num_heads"],
        "num_head_channels": optional("num_head_channels"),
        "qkv_order": "new" if args["use_new_attention_order"] else "legacy",
        "scale_shift_norm": args["use_scale_shift_norm"],
        "resblock_updown": args["resblock_updown"],
        "conv_resample": args["conv_resample"],
        "dropout": args["dropout"],
        "in_channels": args["in_channels"],
        "use_fp16": args["use_fp16"],
    }
    if kind == "EncoderUNetModel":
        return ClassifierConfig(**shared, num_classes=args["out_channels"], pool=args["pool"])
    return UNetConfig(
        **shared,
        out_channels=args["out_channels"],
        num_classes=args["num_classes"],
        num_heads_upsample=optional("num_heads_upsample"),
        low_res_size=(8, 8) if kind == "SuperResModel" else None,
    )


def golden_model(
    golden: Arrays, config: UNetConfig | ClassifierConfig, dtype: torch.dtype
) -> Model:
    """The network with its golden parameters, loaded strictly under the original's names."""
    model = build_model(config)
    prefix = "state_dict."
    state = {name.removeprefix(prefix): golden[name] for name in golden.names(prefix)}
    model.load_state_dict(state, strict=True)
    model.set_dtype(dtype)
    return model.eval().requires_grad_(False)


def close(
    actual: Tensor, expected: Tensor, *, relative: float = 0.0, absolute: float = 0.0
) -> None:
    """Largest deviation within ``absolute`` plus ``relative`` times the largest expected value."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    if not expected.numel():
        return
    error = (actual.double() - expected.double()).abs().max().item()
    scale = expected.double().abs().max().item()
    assert error <= absolute + relative * scale, f"off by {error:.3g}, largest value {scale:.3g}"
