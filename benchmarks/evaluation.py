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
from adm_cli.evaluating import Extractor, measure
from adm_cli.evaluation.inception import Features, InceptionV3
from adm_cli.evaluation.metrics import GROUPS, FrechetTo, Gaussian, Moments, frechet_estimate
from adm_cli.evaluation.neighbours import precision_recall
from adm_cli.storage.pixels import open_pixels

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


def extraction(count: int, size: int, device: torch.device) -> None:
    """Interleaved, so that both see the same load of the machine."""
    model = InceptionV3().to(device).eval().requires_grad_(False)

    def network(images: torch.Tensor) -> Features:
        found: Features = model(images.permute(0, 3, 1, 2))
        return found

    extractor = Extractor("inception", "random", "0" * 64, None, device, network, 64)
    data = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    bare, whole = [], []
    with tempfile.TemporaryDirectory() as folder:
        for i, pixels in enumerate(data):
            Image.fromarray(pixels).save(Path(folder, f"{i:06}.png"))
        images = open_pixels(Path(folder))
        bare_seconds(network, data[:64], device)  # warm
        for _ in range(3):
            bare.append(bare_seconds(network, data, device))
            started = time.perf_counter()
            measure(images.batches(64), extractor, count=count, keep=None)
            whole.append(time.perf_counter() - started)
    print(
        f"extraction  network alone {count / min(bare):8.1f} images/s, PNG files to statistics "
        f"{count / min(whole):8.1f} images/s: {min(bare) / min(whole):.1%}",
        flush=True,
    )


def bare_seconds(network: object, data: np.ndarray, device: torch.device) -> float:
    assert callable(network)
    images = torch.from_numpy(data)
    started = time.perf_counter()
    with torch.no_grad(), reproducible_kernels():
        for begin in range(0, len(images), 64):
            found = network(images[begin : begin + 64].to(device))
    found.pool.cpu()
    return time.perf_counter() - started


def root() -> None:
    x = torch.randn(4 * DIM, DIM, dtype=torch.float64)
    half = 2 * DIM
    one, other = (Gaussian(part.mean(0), part.T.cov()) for part in (x[:half], x[half:]))
    started = time.perf_counter()
    distance = FrechetTo(one)
    factored = time.perf_counter() - started
    distance(other)
    seconds = time.perf_counter() - started
    print(f"root        {DIM}x{DIM}: {seconds:.2f} s, of which the reference's {factored:.2f} s")
    moments = Moments()
    for begin in range(0, half, 512):
        moments.add(x[begin : begin + 512])
    started = time.perf_counter()
    frechet_estimate(moments, other)
    print(f"            with its error ({GROUPS} more): {time.perf_counter() - started:.2f} s")
    low = x[:300].T.cov()
    started = time.perf_counter()
    FrechetTo(Gaussian(one.mean, low))(other)
    print(f"            to a singular reference: {time.perf_counter() - started:.2f} s", flush=True)


def neighbours(samples: int, reference: int, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(n, DIM, generator=generator).to(device) for n in (samples, reference))
    started = time.perf_counter()
    found = precision_recall(x, y)
    print(
        f"neighbours  {samples:,} against {reference:,} of {DIM}: "
        f"{time.perf_counter() - started:.1f} s (precision {found.precision.value:.3f})",
        flush=True,
    )


if __name__ == "__main__":
    main()
