"""How many images a second can be written safely, beside what a plain save would take.

    python benchmarks/writing.py [--images 2000] [--size 64] [--batch 16] [--folder .]

Pictures are noise (the worst case for PNG) or a smooth gradient. The figure of a run includes
encoding, hashing, syncing every file, and the manifest.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from adm_cli.pictures.images import Pixels, encode_image
from adm_cli.sampling.choosing.images import Images, drawn_row
from adm_cli.sampling.drawing.writer import DrawnImage, ImageWriter
from adm_cli.sampling.folder import RunFolder, Shard
from adm_cli.sampling.run import Run, Stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--folder", type=Path, default=Path())
    options = parser.parse_args()
    print(f"{platform.machine()}, {options.images} images of {options.size}x{options.size}")
    ramp = np.linspace(0, 255, options.size).astype(np.uint8)
    smooth = np.broadcast_to(ramp[:, None, None], (options.size, options.size, 3)).copy()
    noise = np.random.default_rng(0).integers(0, 256, smooth.shape).astype(np.uint8)
    for name, pixels in (("noise", noise), ("smooth", smooth)):
        started = time.perf_counter()
        for _ in range(options.images):
            encode_image(pixels, ".png", None)
        encoding = options.images / (time.perf_counter() - started)
        folder = Path(tempfile.mkdtemp(dir=options.folder))
        try:
            rate = options.images / _write(folder, pixels, options.images, options.batch)
        finally:
            shutil.rmtree(folder)
        print(
            f"{name:7} encoded only {encoding:8.0f} images/s   safely written {rate:8.0f} images/s"
        )


def _write(folder: Path, pixels: Pixels, count: int, batch: int) -> float:
    images, run = Images([drawn_row(0, range(count), ".png")]), RunFolder(folder)
    stage = Stage(
        model="none", model_sha256="", scale=0, sampler="ddpm", steps="1", num_steps=1, eta=None,
        clip_denoised=True, size=pixels.shape[:2], dtype="float32",
    )  # fmt: skip
    asked = Run(
        stages=(stage,), images=images, device="cpu", threads=None, batch_size=batch, format="png",
        versions={},
    )  # fmt: skip
    run.begin(asked)
    started = time.perf_counter()
    writer = ImageWriter(run, Shard())
    writer.open()
    for start in range(0, count, batch):
        writer.add([DrawnImage(one, pixels, None) for one in images[start : start + batch]])
    writer.close()
    writer.check()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
