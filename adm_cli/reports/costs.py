"""What a measurement will cost, before it begins: counted, and its speed measured on one batch."""

from __future__ import annotations

import itertools
import math
import time
from pathlib import Path
from typing import Any, Protocol

import torch

from adm_cli.devices import peak_bytes
from adm_cli.models.cost import activation_bytes, forward_gflops
from adm_cli.models.unet import SuperResUNet, UNet
from adm_cli.pictures.pixels import PixelSet, holds_statistics, open_pixels
from adm_cli.pictures.references import MOST_FEATURES, Reference
from adm_cli.reports.drawn import SamplesToDraw
from adm_cli.reports.measure import Extractor, make_reference, measure
from adm_cli.reports.nll import Measurement, load_net
from adm_cli.sampling.settings import most_parts, uses_cfg
from adm_cli.sampling.verifying import costs

_PATIENCE = 3.0  # seconds: a first pass that takes longer is taken for all


class Counted(Protocol):
    """Samples, stored or to be drawn."""

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def count(self) -> int: ...


def evaluation_costs(
    samples: Counted, extractor: Extractor | None, ref: Path | None, device: torch.device
) -> dict[str, Any]:
    """Pictures, passes of networks, seconds and bytes of memory.

    The seconds are a guess by one batch: of features, and where samples are drawn of one
    evaluation of their model and its guidance. Copies and neighbours are searched beside that.
    """
    reference = _reference_pictures(ref)
    pictures = samples.count + reference
    seconds = 0.0
    if extractor is not None:
        batch = min(extractor.batch_size, pictures)
        images = torch.zeros(batch, *(extractor.size or samples.size), 3, dtype=torch.uint8)
        once = _seconds(lambda: extractor.network(images.to(extractor.device)), device)
        seconds += once * math.ceil(pictures / batch)
    evaluations = 0
    if isinstance(samples, SamplesToDraw):
        evaluations = samples.count * costs.evaluations(samples.run)
        seconds += _drawing_seconds(samples) * evaluations
    return {
        "samples": samples.count,
        "reference_pictures": reference,
        "feature_passes": 0 if extractor is None else pictures,
        "evaluations": evaluations,
        "seconds": round(seconds, 1),
        "memory_bytes": peak_bytes(device),  # of this process after a batch of each
        "output_bytes": 0,
        "device": str(device),
    }


def reference_costs(images: PixelSet, extractor: Extractor) -> dict[str, Any]:
    """Of measuring a set once, as `evaluation_costs`: by one batch of it, which is read, too.

    Raises as `measure`.
    """
    batch = min(extractor.batch_size, len(images))
    found: list[Reference] = []

    def act() -> None:
        first = itertools.islice(images.batches(batch), 1)
        found[:] = [make_reference(measure(first, extractor, count=batch, keep=None), "")]

    once = _seconds(act, extractor.device)
    shapes = (found[0].mu, found[0].sigma, found[0].mu_s, found[0].sigma_s)
    statistics = sum(0 if tensor is None else tensor.nbytes for tensor in shapes)
    kept = found[0].kept.nbytes // batch * min(MOST_FEATURES, len(images))
    return {
        "images": len(images),
        "feature_passes": len(images),
        "seconds": round(once * math.ceil(len(images) / batch), 1),
        "memory_bytes": peak_bytes(extractor.device),
        "output_bytes": statistics + kept,
        "device": str(extractor.device),
    }


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
    """Of one evaluation for a batch."""
    config = net.config
    real = torch.float64 if what.dtype == torch.float64 else torch.float32
    x = torch.zeros(batch, config.in_channels, *config.image_size, device=what.device, dtype=real)
    t = torch.zeros(batch, dtype=torch.int64, device=what.device)
    labels = None if config.num_classes is None else t
    small = (x,) if isinstance(net, SuperResUNet) else ()
    return _seconds(lambda: net(x, t, labels, *small), what.device)


def _reference_pictures(ref: Path | None) -> int:
    """Whose features must be computed: none of a file of adm reference, or of the original's."""
    if ref is None or ref.suffix == ".safetensors" or holds_statistics(ref):
        return 0
    return len(open_pixels(ref))


def _drawing_seconds(samples: SamplesToDraw) -> float:
    """Of one evaluation for one image, by one batch; a gradient counts as much again, twice."""
    pipeline = samples.pipeline
    config = pipeline.model.config
    batch = min(16, samples.count)
    x = torch.zeros(batch, config.in_channels, *config.image_size, device=pipeline.device)
    t = torch.zeros(batch, dtype=torch.int64, device=pipeline.device)
    labels = None if config.num_classes is None else t
    once = _seconds(lambda: pipeline.model(x, t, labels), pipeline.device)
    stage, images = samples.run.first, samples.run.images
    outputs = most_parts(images) + uses_cfg(stage, images)
    return once / batch * (outputs + 2 * (stage.classifier is not None))


def _seconds(act: Any, device: torch.device) -> float:
    """Of doing something: the second time, unless the first took long."""
    taken = 0.0
    for _ in range(2):
        started = time.perf_counter()
        with torch.no_grad():
            act()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken = time.perf_counter() - started
        if taken > _PATIENCE:
            break
    return taken
