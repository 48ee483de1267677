"""Small pictures, small models, and whole runs of a second."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from adm_cli.checkpoints.header import ModelInfo
from adm_cli.config import DiffusionConfig
from adm_cli.pictures.datasets import ImageSet, open_images
from adm_cli.training.config import TrainingConfig
from adm_cli.training.feed import FeedOptions, decode_validation, make_feed
from adm_cli.training.loop import Job, TrainingRun
from adm_cli.training.runs import TrainingFolder
from adm_cli.training.tasks import Task, make_task
from adm_cli.training.trainer import Trainer
from tests.conftest import TOY_CLASSIFIER, TOY_UNET

DIFFUSION = DiffusionConfig(noise_schedule="cosine", num_timesteps=100)


@pytest.fixture(autouse=True)
def _quick(quick_training: None) -> None:
    """Here, every training is."""


def draw_pictures(folder: Path, count: int = 8, size: int = 12) -> Path:
    """Bright circles in one folder, dark squares in another: easy to tell apart."""
    rng = np.random.default_rng(0)
    for kind in ("circle", "square"):
        (folder / kind).mkdir(parents=True)
        for i in range(count):
            noise = rng.integers(0, 60, (size, size, 3), dtype=np.uint8)
            image = Image.fromarray(noise)
            pen = ImageDraw.Draw(image)
            x, y = (int(v) for v in rng.integers(1, size // 4, 2))
            box = (x, y, x + size // 2, y + size // 2)
            if kind == "circle":
                pen.ellipse(box, fill=(250, 200, 40))
            else:
                pen.rectangle(box, fill=(30, 30, 160))
            image.save(folder / kind / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("pictures") / "shapes")


@pytest.fixture(scope="session")
def images(pictures: Path) -> ImageSet:
    return open_images([pictures])


def settings(**changes: Any) -> TrainingConfig:
    values: dict[str, Any] = {
        "steps": 6, "batch_size": 4, "lr": 1e-3, "ema_rates": (0.9,), "log_every": 2,
        "eval_every": 3, "save_every": 2, "sample_every": 0, "seed": 3,
    }  # fmt: skip
    return TrainingConfig(**{**values, **changes})


def toy_task(kind: str = "diffusion", **changes: Any) -> Task:
    if kind == "classifier":
        return make_task(TOY_CLASSIFIER, DIFFUSION, **changes)
    return make_task(replace(TOY_UNET, **changes), DIFFUSION)


def make_run(
    folder: Path,
    images: ImageSet,
    config: TrainingConfig | None = None,
    task: Task | None = None,
    *,
    resume: bool = False,
) -> TrainingRun:
    config, task = config or settings(), task or toy_task()
    options = FeedOptions(
        task.config.image_size, config.batch_size, config.seed, random_crop=config.random_crop
    )
    pixels, labels, _ = decode_validation(images, options, 6)
    trainer = Trainer(task, config, device=torch.device("cpu"))
    info = ModelInfo(task.config, task.diffusion, images.classes)
    job = Job(TrainingFolder(folder), make_feed(images, options), info, (pixels, labels))
    return TrainingRun(trainer, job, resume=resume)


def finish(run: TrainingRun, stop_after: int | None = None) -> list[Any]:
    """Runs to the end, or until a step is done; returns what happened."""
    stop = (lambda: False) if stop_after is None else (lambda: run.trainer.step >= stop_after)
    return list(run.events(stop))


def same_state(a: Trainer, b: Trainer) -> bool:
    """Whether two trainers agree to the last bit in all that the next step depends on."""
    (tensors_a, facts_a), (tensors_b, facts_b) = a.state(), b.state()
    return (
        facts_a == facts_b
        and tensors_a.keys() == tensors_b.keys()
        and all(torch.equal(tensors_a[name], tensors_b[name]) for name in tensors_a)
    )
