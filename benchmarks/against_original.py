"""The published 64x64 networks, computed here and by a checkout of openai/guided-diffusion.

    python benchmarks/against_original.py FOLDER [--batch-size 1] [--device cpu] [--dtype float32]

FOLDER holds the package ``guided_diffusion``. Both have the same random weights, and their outputs
are compared before anything is timed. Prints seconds of an evaluation, a gradient and a guided
step, each measured in turn (medians; on a CPU seconds of the processor), and ratios to theirs.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from adm_cli import ddpm_sample
from adm_cli.checkpoints.loading import Model, hasten_on_cpu
from adm_cli.checkpoints.presets import find_checkpoint
from adm_cli.devices import DTYPES
from adm_cli.diffusion.guidance import classifier_gradient, classifier_guidance
from adm_cli.diffusion.schedule import NoiseSchedule
from adm_cli.reports.bench import random_model

_MODEL = {
    "attention_resolutions": "32,16,8", "class_cond": True, "diffusion_steps": 1000,
    "dropout": 0.1, "image_size": 64, "learn_sigma": True, "noise_schedule": "cosine",
    "num_channels": 192, "num_head_channels": 64, "num_res_blocks": 3, "resblock_updown": True,
    "use_new_attention_order": True, "use_scale_shift_norm": True, "timestep_respacing": "250",
}  # fmt: skip
_CLASSIFIER = {"image_size": 64, "classifier_depth": 4}
Calls = dict[str, Callable[[], object]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    sys.path.insert(0, options.folder)
    device, dtype = torch.device(options.device), DTYPES[options.dtype]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(options.batch_size, 3, 64, 64, generator=generator).to(device)
    y = torch.zeros(options.batch_size, dtype=torch.int64, device=device)
    variants = {"theirs": theirs(x, y, dtype), "ours": ours(x, y, dtype, fast=True)}
    if device.type == "cpu":
        variants["ours, plain"] = ours(x, y, dtype, fast=False)
    if dtype == torch.float32:
        check_agreement(variants)
    print(f"{options.device}, {options.dtype}, batch {options.batch_size}", flush=True)
    report(measure(variants, device, options.rounds))


def theirs(x: Tensor, y: Tensor, dtype: torch.dtype) -> Calls:
    """Their networks with our random weights; float16 as their scripts have it, else float32."""
    util: Any = importlib.import_module("guided_diffusion.script_util")
    settings = util.model_and_diffusion_defaults() | _MODEL
    net, diffusion = util.create_model_and_diffusion(**settings)
    classifier = util.create_classifier(**(util.classifier_defaults() | _CLASSIFIER))
    for module, name in ((net, "64x64_diffusion"), (classifier, "64x64_classifier")):
        module.load_state_dict(weights(name).state_dict())
        module.eval().to(x.device)  # their checkpointing wants parameters with gradients
    if dtype == torch.float16:
        net.convert_to_fp16()
    t = torch.full_like(y, 125)

    def gradient(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return classifier_gradient(classifier, x, t, y)

    def step() -> object:
        with torch.no_grad():
            return diffusion.p_sample(net, x, t, cond_fn=gradient, model_kwargs={"y": y})

    return {
        "evaluation": torch.no_grad()(lambda: net(x, 4 * t, y)),
        "gradient": lambda: gradient(x, 4 * t, y),
        "guided step": step,
    }


def weights(name: str, dtype: torch.dtype = torch.float32) -> Model:
    return random_model(find_checkpoint(name).config, dtype)


def ours(x: Tensor, y: Tensor, dtype: torch.dtype, *, fast: bool) -> Calls:
    half = torch.float32 if dtype == torch.float16 else dtype
    net = weights("64x64_diffusion", dtype).to(x.device)
    classifier = weights("64x64_classifier", half).to(x.device)
    if fast:
        hasten_on_cpu(net, x.device)
        hasten_on_cpu(classifier, x.device)
    t = torch.full_like(y, 500)
    schedule = NoiseSchedule.cosine(1000).respace("250")

    def steps() -> Iterator[object]:
        while True:
            yield from ddpm_sample(
                lambda x, t: net(x, t, y),
                schedule,
                x,
                noise=lambda _i, like: torch.randn_like(like),
                guidance=classifier_guidance(classifier, y, 1.0),
            )

    endless = steps()
    return {
        "evaluation": torch.no_grad()(lambda: net(x, t, y)),
        "gradient": lambda: classifier_gradient(classifier, x, t, y),
        "guided step": lambda: next(endless),
    }


def check_agreement(variants: dict[str, Calls]) -> None:
    for name in ("evaluation", "gradient"):
        expected = variants["theirs"][name]()
        assert isinstance(expected, Tensor)
        for who, calls in variants.items():
            found = calls[name]()
            assert isinstance(found, Tensor)
            gap = float((found - expected).abs().max() / expected.abs().max())
            if gap > 1e-3:
                sys.exit(f"{name}: {who} differ by {gap:.2g} of the largest value")


def measure(
    variants: dict[str, Calls], device: torch.device, rounds: int
) -> dict[str, dict[str, float]]:
    """Seconds by quantity and variant, after one round to warm up."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    times: dict[str, dict[str, list[float]]] = {}
    for round_ in range(rounds + 1):
        for quantity in ("evaluation", "gradient", "guided step"):
            for who, calls in variants.items():
                started = clock()
                calls[quantity]()
                if device.type == "cuda":
                    torch.cuda.synchronize()
                if round_:
                    found = times.setdefault(quantity, {}).setdefault(who, [])
                    found.append(clock() - started)
    return {q: {w: statistics.median(v) for w, v in t.items()} for q, t in times.items()}


def report(seconds: dict[str, dict[str, float]]) -> None:
    for quantity, found in seconds.items():
        for who, took in found.items():
            print(f"{quantity:12} {who:12} {took:8.4f} s  {found['theirs'] / took:5.2f} x")


if __name__ == "__main__":
    main()
