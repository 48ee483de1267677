"""What a measurement will cost, before it begins: counted, and its speed measured once."""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from adm_cli.models.cost import activation_bytes, forward_gflops
from adm_cli.models.unet import SuperResUNet, UNet
from adm_cli.reports.nll import Measurement, load_net

_PATIENCE = 3.0  # seconds: a first pass that takes longer is taken for all


def nll_costs(what: Measurement) -> dict[str, Any]:
    """Pictures, evaluations of the network, TFLOP, seconds, and bytes of memory."""
    net = load_net(what)
    pictures, steps = len(what.images), len(what.schedule)
    batch = min(what.batch_size, pictures)
    batches = math.ceil(pictures / batch)
    weights = sum(p.numel() * p.element_size() for p in net.parameters())
    return {
        "pictures": pictures,
        "steps": steps,
        "batch_size": batch,
        "evaluations": pictures * steps,
        "tflop": round(pictures * steps * forward_gflops(net) / 1e3, 3),
        "seconds": round(batches * steps * _pass_seconds(net, what, batch), 1),
        "memory_bytes": weights + batch * activation_bytes(what.file.info.config),
        "device": str(what.device),
        "dtype": str(what.dtype).removeprefix("torch."),
    }


def _pass_seconds(net: UNet, what: Measurement, batch: int) -> float:
    """Of one evaluation for a batch: the second, unless the first took long."""
    config = net.config
    real = torch.float64 if what.dtype == torch.float64 else torch.float32
    x = torch.zeros(batch, config.in_channels, *config.image_size, device=what.device, dtype=real)
    t = torch.zeros(batch, dtype=torch.int64, device=what.device)
    labels = None if config.num_classes is None else t
    taken = 0.0
    for _ in range(2):
        started = time.perf_counter()
        with torch.no_grad():
            if isinstance(net, SuperResUNet):
                net(x, t, labels, x)
            else:
                net(x, t, labels)
        if what.device.type == "cuda":
            torch.cuda.synchronize(what.device)
        taken = time.perf_counter() - started
        if taken > _PATIENCE:
            break
    return taken
