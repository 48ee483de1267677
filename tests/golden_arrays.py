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
from adm_cli.devices import reproducible_kernels
from adm_cli.diffusion.guidance import classifier_gradient

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


def inputs(golden: Arrays, dtype: torch.dtype) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """x, t and what else the network takes; floating inputs in ``dtype``."""
    extra = {}
    if golden.meta["model_class"] != "EncoderUNetModel" and "y" in golden:
        extra["y"] = golden["y"]
    if "low_res" in golden:
        extra["low_res"] = golden["low_res"].to(dtype)
    return golden["x"].to(dtype), golden["timesteps"], extra


def load(name: str, dtype: torch.dtype) -> tuple[Any, Arrays]:
    """A network of ``models``, and its arrays."""
    golden = arrays(f"models/{name}.safetensors")
    config = config_from_constructor(golden.meta["model_class"], golden.meta["constructor_args"])
    if isinstance(config, ClassifierConfig) and config.pool == "attention":
        size = golden["x"].shape[2:]
        assert config.image_size == tuple(size)
    return golden_model(golden, config, dtype), golden


def check_on_device(name: str, device: torch.device) -> None:
    """Output, and a classifier's gradient, there in float32."""
    model, golden = load(name, torch.float32)
    model.to(device)
    x, t, extra = inputs(golden, torch.float32)
    extra = {key: value.to(device) for key, value in extra.items()}
    with reproducible_kernels():
        output = model(x.to(device), t.to(device), **extra)
        close(output.cpu(), golden["output_f64"], absolute=1e-4)
        if golden.meta["model_class"] == "EncoderUNetModel":
            y = golden["y"].to(device)
            gradient = classifier_gradient(model, x.to(device), t.to(device), y)
            close(gradient.cpu(), golden["grad_log_prob_y_f64"], relative=1e-4)
