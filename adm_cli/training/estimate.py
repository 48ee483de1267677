"""What a run will cost, before it begins: counted where possible, measured where not."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch

from adm_cli.checkpoints.loading import build_model
from adm_cli.devices import free_bytes
from adm_cli.models.cost import forward_gflops, training_bytes
from adm_cli.training.between import between
from adm_cli.training.feed import Batch
from adm_cli.training.options import VAL_IMAGES
from adm_cli.training.setup import Settings
from adm_cli.training.tasks import make_task
from adm_cli.training.trainer import Trainer

_PATIENCE = 8.0  # seconds of measuring


def estimate(settings: Settings, device: torch.device) -> dict[str, Any]:
    """Parameters, GFLOP an image and step, memory in GB, images/s and hours.

    Speed is measured on random pictures, unless the memory would not do: then it is None.
    """
    with torch.device("meta"):
        twin = build_model(settings.config)
    parameters = sum(p.numel() for p in twin.parameters())
    training = settings.training
    at_once = training.microbatch or training.batch_size
    memory = training_bytes(settings.config, parameters, at_once)
    facts: dict[str, Any] = {
        "parameters": parameters,
        "gflop_per_image": round(3 * forward_gflops(twin), 3),  # backward costs twice forward
        "memory_gb": round(memory / 1e9, 2),
        "images_per_second": None,
        "hours": None,
    }
    free = free_bytes(device)
    facts["free_gb"] = round(free / 1e9, 2)
    if memory > free:
        while at_once > 1 and memory > free:
            at_once //= 2
            memory = training_bytes(settings.config, parameters, at_once)
        mend = "lower --channels" if memory > free else f"--microbatch {at_once} fits"
        facts["note"] = f"more memory than is free: {mend}"
        return facts
    speed = _measure(settings, device)
    facts["images_per_second"] = round(speed, 1)
    images = training.steps * training.batch_size + _between(settings)
    facts["hours"] = round(images / speed / 3600, 6)
    return facts


def _between(settings: Settings) -> float:
    """Images that could be learned from in the time of validating and drawing samples."""
    training = settings.training
    task = make_task(settings.config, settings.diffusion, noised=training.noised)
    most = int(settings.options.get("val_images", VAL_IMAGES))
    held = min(most, int(settings.data["validation_pictures"])) or None
    found = between(training, task, held).values()
    return sum(each.times(0, training.steps) * each.images for each in found)


def _measure(settings: Settings, device: torch.device) -> float:
    """Images a second, of whole steps, after one to warm up; a single image if that is slow."""
    training = settings.training
    task = make_task(settings.config, settings.diffusion, noised=training.noised)
    height, width = settings.config.image_size
    speed = 0.0
    for size in (1, training.batch_size):
        sized = replace(
            training, batch_size=size, microbatch=min(size, training.microbatch or size)
        )
        trainer = Trainer(task, sized, device=device)
        pixels = torch.randint(0, 256, (size, height, width, 3), dtype=torch.uint8)
        label = next(iter(settings.data["classes"]), "-1")
        batch = Batch(pixels, torch.full((size,), int(label)), [])
        started = time.perf_counter()
        steps = 0
        while steps < 4 and time.perf_counter() - started < _PATIENCE:
            if steps == 1:
                warm = time.perf_counter()
            trainer.train_step(trainer.inputs(batch))
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            steps += 1
        now = time.perf_counter()
        speed = size * (steps - 1) / (now - warm) if steps > 1 else size / (now - started)
        if size / speed * training.batch_size > 4 * _PATIENCE:
            break
    return speed
