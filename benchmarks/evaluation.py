"""What evaluation costs beside the network, the matrix root, and neighbours in blocks.

    python benchmarks/evaluation.py [--images 256] [--samples 50000] [--reference 10000]

Prints images/s of Inception alone on images in memory, and of the whole way from PNG files on disk
to statistics, beside their ratio; seconds of a Fréchet distance of 2048 features with its error;
and seconds of precision and recall. Inception's weights are random: its speed does not depend on
them. Pass --only to run one of extraction, root, neighbours.
"""

from __future__ import annotations

import argparse
import platform
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from adm_cli.devices import choose_device, reproducible_kernels
from adm_cli.evaluation.inception import Features, InceptionV3
from adm_cli.evaluation.metrics import GROUPS, FrechetTo, Gaussian, Moments, frechet_estimate
from adm_cli.evaluation.neighbours import precision_recall
from adm_cli.pictures.pixels import open_pixels
from adm_cli.reports.measure import Extractor, measure

DIM = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--reference", type=int, default=10_000)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", choices=("extraction", "root", "neighbours"))
    options = parser.parse_args()
    device = choose_device(options.device)
    print(
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"{torch.cuda.get_device_name() if device.type == 'cuda' else 'cpu'}"
    )
    if options.only in (None, "extraction"):
        extraction(options.images, options.size, device)
    if options.only in (None, "root"):
        root()
    if options.only in (None, "neighbours"):
        neighbours(options.samples, options.reference, device)
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


class Clock:
    """Seconds on the wall, and of all processors together, which a busy machine disturbs less."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self.wall, time.process_time() - self.cpu

    def __str__(self) -> str:
        wall, cpu = self.read()
        return f"{wall:.2f} s ({cpu:.2f} s of CPU)"


def extraction(count: int, size: int, device: torch.device) -> None:
    """Interleaved, so that both see the same load of the machine; the best of three each."""
    model = InceptionV3().to(device).eval().requires_grad_(False)

    def network(images: torch.Tensor) -> Features:
        found: Features = model(images.permute(0, 3, 1, 2))
        return found

    def bare(images: torch.Tensor) -> tuple[float, float]:
        clock = Clock()
        with torch.no_grad(), reproducible_kernels():
            for begin in range(0, len(images), 64):
                network(images[begin : begin + 64].to(device)).pool.cpu()
        return clock.read()

    extractor = Extractor("inception", "random", "0" * 64, None, device, network, 64)
    data = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    alone, whole = [], []
    with tempfile.TemporaryDirectory() as folder:
        for i, pixels in enumerate(data):
            Image.fromarray(pixels).save(Path(folder, f"{i:06}.png"))
        images = open_pixels(Path(folder))
        bare(torch.from_numpy(data[:64]))  # warm
        for _ in range(3):
            alone.append(bare(torch.from_numpy(data)))
            clock = Clock()
            measure(images.batches(64), extractor, count=count, keep=None)
            whole.append(clock.read())
    for i, kind in enumerate(("wall", "CPU")):
        one, other = min(times[i] for times in alone), min(times[i] for times in whole)
        print(
            f"extraction  {kind:4}: network alone {count / one:7.2f} images/s, PNG files to "
            f"statistics {count / other:7.2f} images/s: {one / other:.1%}",
            flush=True,
        )


def root() -> None:
    x = torch.randn(4 * DIM, DIM, dtype=torch.float64)
    half = 2 * DIM
    one, other = (Gaussian(part.mean(0), part.T.cov()) for part in (x[:half], x[half:]))
    clock = Clock()
    FrechetTo(one)(other)
    print(f"root        {DIM}x{DIM}: {clock}", flush=True)
    moments = Moments()
    for begin in range(0, half, 512):
        moments.add(x[begin : begin + 512])
    clock = Clock()
    frechet_estimate(moments, other)
    print(f"            with its error ({GROUPS} more): {clock}", flush=True)
    low = x[:300].T.cov()
    clock = Clock()
    FrechetTo(Gaussian(one.mean, low))(other)
    print(f"            to a singular reference: {clock}", flush=True)


def neighbours(samples: int, reference: int, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(n, DIM, generator=generator).to(device) for n in (samples, reference))
    clock = Clock()
    found = precision_recall(x, y)
    print(
        f"neighbours  {samples:,} against {reference:,} of {DIM}: {clock}, "
        f"precision {found.precision.value:.3f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
