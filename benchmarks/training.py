"""Speed and memory of training the embedded models, and of feeding pictures.

    python benchmarks/training.py [--seconds 20] [--device cpu] [--dtype float32]

Every row runs in a process of its own, so that its peak memory is its own. The feed is measured
on pictures made up here, 64x64 WebP, at 32x32.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from adm_cli.checkpoints.architectures import starter_unet
from adm_cli.checkpoints.presets import find_checkpoint
from adm_cli.config import ClassifierConfig, DiffusionConfig, UNetConfig
from adm_cli.devices import choose_device, peak_bytes
from adm_cli.pictures.datasets import open_images
from adm_cli.training.config import TrainingConfig
from adm_cli.training.feed import Batch, CachedFeed, FeedOptions, make_feed
from adm_cli.training.setup import parse_size
from adm_cli.training.tasks import make_task
from adm_cli.training.trainer import Trainer

ROWS = ("base", "classifier", "upsampler")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--row", choices=(*ROWS, "feed"))
    options = parser.parse_args()
    if options.row is not None:
        measure = _feed if options.row == "feed" else _train
        print(json.dumps(measure(options)))
        return
    print(
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"{options.dtype}, batch {options.batch_size}"
    )
    for row in (*ROWS, "feed"):
        command = [sys.executable, __file__, *sys.argv[1:], "--row", row]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        print(f"{row:11} {json.loads(done.stdout)}", flush=True)


def config_of(row: str) -> UNetConfig | ClassifierConfig:
    """The architectures of examples/train-embedded.sh."""
    if row == "base":
        return find_checkpoint("tiny").config
    if row == "classifier":
        return find_checkpoint("tiny_classifier").config
    values = vars(starter_unet(parse_size("64"), 32)) | {
        "channel_mult": (1, 1, 2, 2),
        "attention_factors": (8,),
        "num_res_blocks": 1,
        "low_res_size": (32, 32),
    }
    return UNetConfig(**values)


def _train(options: argparse.Namespace) -> dict[str, Any]:
    """Images/s of whole steps after two to warm up."""
    device = choose_device(options.device)
    config = config_of(options.row)
    training = TrainingConfig(
        steps=10**6,
        batch_size=options.batch_size,
        dtype=options.dtype,
        channels_last=device.type == "cuda",
    )
    trainer = Trainer(make_task(config, DiffusionConfig()), training, device=device)
    shape = (options.batch_size, *config.image_size, 3)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
    batch = Batch(pixels, torch.zeros(options.batch_size, dtype=torch.int64), [])
    for _ in range(2):
        trainer.train_step(trainer.inputs(batch))
    started, steps = time.perf_counter(), 0
    while time.perf_counter() - started < options.seconds:
        trainer.train_step(trainer.inputs(batch))
        steps += 1
    rate = steps * options.batch_size / (time.perf_counter() - started)
    return {"images_per_second": round(rate, 1), "peak_gb": round(peak_bytes(device) / 1e9, 2)}


def _feed(options: argparse.Namespace) -> dict[str, Any]:
    """Decoding a set once, then batches of 128 from memory."""
    result: dict[str, Any] = {}
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pictures.zip"
        with zipfile.ZipFile(path, "w") as file:
            for i in range(4000):
                coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
                buffer = io.BytesIO()
                coarse.resize((64, 64), Image.Resampling.BICUBIC).save(buffer, "WEBP", quality=90)
                file.writestr(f"{i % 10}/{i}.webp", buffer.getvalue())
        images = open_images([path])
        for name, crop in (("center", False), ("random_crop", True)):
            started = time.perf_counter()
            feed = make_feed(images, FeedOptions((32, 32), 128, 0, random_crop=crop))
            assert isinstance(feed, CachedFeed)
            if not crop:
                result["decoded_per_second"] = round(len(images) / (time.perf_counter() - started))
            started, steps = time.perf_counter(), 0
            while time.perf_counter() - started < options.seconds / 4:
                feed.batch(steps)
                steps += 1
            rate = steps * 128 / (time.perf_counter() - started)
            result[f"{name}_per_second"] = round(rate)
    return result


if __name__ == "__main__":
    main()
