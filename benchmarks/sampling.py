"""Throughput and peak memory of guided sampling with the embedded model.

    python benchmarks/sampling.py [--images 16] [--steps 50] [--device cpu]

Prints images/s for several batch sizes and precisions, and what guidance costs: each figure beside
its ratio to the first row of the same run.
"""

from __future__ import annotations

import argparse
import platform
import resource
import time

import torch

from adm_cli import SamplingConfig, generate, load_pipeline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--steps", default="50")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"{options.images} images of 32x32, {options.steps} steps"
    )
    base = 0.0
    for dtype, batch, scale in (
        ("float32", 16, 4.0),
        ("float32", 4, 4.0),
        ("float32", 1, 4.0),
        ("float32", 16, 0.0),
        ("bfloat16", 16, 4.0),
    ):
        pipeline = load_pipeline("tiny", device=options.device, dtype=dtype)
        config = SamplingConfig(
            seeds=tuple(range(options.images)),
            classes=(207,) * options.images,
            scale=scale,
            sampler="ddpm",
            steps=options.steps,
            batch_size=batch,
        )
        started = time.perf_counter()
        for _ in generate(pipeline, config):
            pass
        rate = options.images / (time.perf_counter() - started)
        base = base or rate
        print(
            f"{dtype:9} batch {batch:3} scale {scale:3.0f}  {rate:7.2f} images/s  "
            f"{rate / base:5.2f} x",
            flush=True,
        )
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
