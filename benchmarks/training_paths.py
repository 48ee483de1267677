"""Training by the reference path and by the faster one, step by step in turn.

    python benchmarks/training_paths.py [--model tiny] [--batch-size 64] [--dtype float32]

Prints processor seconds a step (medians, and the least) and ratios to the first variant: channels
outermost, channels innermost by torch's own kernels, channels innermost by the faster blocks.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from adm_cli.checkpoints.presets import find_checkpoint
from adm_cli.config import DiffusionConfig
from adm_cli.training import trainer as trainer_module
from adm_cli.training.config import TrainingConfig
from adm_cli.training.feed import Batch
from adm_cli.training.tasks import make_task
from adm_cli.training.trainer import Trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    config = find_checkpoint(options.model).config

    def trainer(*, plain: bool, last: bool) -> Trainer:
        training = TrainingConfig(
            steps=10**6, batch_size=options.batch_size, dtype=options.dtype, channels_last=last
        )
        kept = trainer_module.hastens
        if plain:
            trainer_module.hastens = lambda *_: False
        try:
            return Trainer(
                make_task(config, DiffusionConfig()), training, device=torch.device("cpu")
            )
        finally:
            trainer_module.hastens = kept

    variants = {
        "plain": trainer(plain=True, last=False),
        "plain, channels-last": trainer(plain=True, last=True),
        "fast, channels-last": trainer(plain=False, last=True),
    }
    shape = (options.batch_size, *config.image_size, 3)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
    batch = Batch(pixels, torch.zeros(options.batch_size, dtype=torch.int64), [])
    times: dict[str, list[float]] = {name: [] for name in variants}
    for round_ in range(options.rounds + 1):  # the first to warm up
        for name, one in variants.items():
            started = time.process_time()
            one.train_step(one.inputs(batch))
            if round_:
                times[name].append(time.process_time() - started)
    first = times["plain"]
    for name, found in times.items():
        print(
            f"{name:21} {statistics.median(found):7.2f} s ({min(found):.2f})   "
            f"{statistics.median(first) / statistics.median(found):5.2f} x "
            f"({min(first) / min(found):.2f})"
        )


if __name__ == "__main__":
    main()
