"""Peak memory of one guided step of a published size on a CPU, with random weights.

    python benchmarks/guided_peak.py [--model imagenet256] [--dtype float32] [--plain]

One evaluation of the UNet, then one gradient of the classifier, as a step of sampling has them;
the kernel's maximum resident set after each, against 1.25 times both models' weights and 1 GB.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from adm_cli.checkpoints.loading import hasten_on_cpu
from adm_cli.checkpoints.presets import find_checkpoint, find_preset
from adm_cli.devices import DTYPES, peak_bytes
from adm_cli.diffusion.guidance import classifier_gradient
from adm_cli.reports.bench import random_model
from adm_cli.sampling.drawing.memory import classifier_dtype

CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="imagenet256")
    parser.add_argument("--dtype", default="float32", choices=list(DTYPES))
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--plain", action="store_true")
    args = parser.parse_args()
    preset, dtype, batch = find_preset(args.model), DTYPES[args.dtype], args.batch_size
    assert preset is not None
    assert preset.classifier is not None
    report(f"imported, {torch.get_num_threads()} threads", 0)
    net = random_model(find_checkpoint(preset.model).config, dtype)
    guide = random_model(find_checkpoint(preset.classifier).config, classifier_dtype(dtype))
    models = (net, guide)
    weights = sum(p.numel() * p.element_size() for m in models for p in m.parameters())
    if not args.plain:
        for model in models:
            hasten_on_cpu(model, CPU)
    report("both networks loaded", 0)
    x, t = torch.zeros(batch, 3, *net.config.image_size), torch.full((batch,), 500)
    y = torch.zeros(batch, dtype=torch.int64)
    labels = (y,) if net.config.num_classes is not None else ()
    measure("UNet, once", torch.no_grad()(lambda: net(x, t, *labels)))
    measure("classifier's gradient, once", lambda: classifier_gradient(guide, x, t, y))
    peak, most = peak_bytes(CPU), 1.25 * weights + 1e9
    print(f"weights {weights / 1e9:.2f} GB; peak {peak / most:.2f} of {most / 1e9:.2f} GB")


def measure(what: str, call: Callable[[], object]) -> None:
    started = time.process_time()
    call()
    report(what, time.process_time() - started)


def report(what: str, seconds: float) -> None:
    print(f"{what:32} {seconds:7.1f} s of the processor, peak {peak_bytes(CPU) / 1e9:5.2f} GB",
          flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
