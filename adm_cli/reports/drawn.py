"""Samples that `adm evaluate` draws itself, and keeps none of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adm_cli.checkpoints.sources import find_sources
from adm_cli.devices import choose_device
from adm_cli.events import Count, Note, OnEvent, as_words
from adm_cli.pictures.images import Pixels
from adm_cli.reports.measure import Extractor, ImageFeatures, measure
from adm_cli.reports.scores import features_needed
from adm_cli.sampling.asked import asked_options, choose_weak, with_negative_class
from adm_cli.sampling.choosing.select import select_images
from adm_cli.sampling.defaults import remarks
from adm_cli.sampling.drawing.batch import class_and_seed, refuse_overflow
from adm_cli.sampling.drawing.paint import DrawnBatch, ImageTask, NetworkPainter, paint
from adm_cli.sampling.drawing.pipeline import Pipeline, load_stage
from adm_cli.sampling.events import Step
from adm_cli.sampling.run import Run
from adm_cli.sampling.settings import (
    Machine,
    StageOptions,
    check_modifiers,
    distinct_kinds,
    make_run,
    make_stage,
    sampling_config,
)

DEFAULT_NUM = 1000  # images drawn with --model


@dataclass(frozen=True)
class DrawingOptions:
    """What to draw where there are no samples yet; None: the preset's."""

    model: str | None
    guide: str | None
    weak: str | Path | None
    classes: list[str] | None
    num: int | None
    seed: int | None
    options: StageOptions
    negative_class: str | int | None

    @property
    def asked(self) -> bool:
        """Whether anything is said of it."""
        words = (value for name, value in vars(self).items() if name != "options")
        return self.options != StageOptions() or any(value is not None for value in words)


def asked_drawing(given: Mapping[str, Any]) -> DrawingOptions:
    """What the arguments of `evaluation.evaluate` say of it; raises UsageError or ConfigError."""
    weak = choose_weak(given["weak_model"], [given["weak_scale"]])
    return DrawingOptions(
        given["model"], given["classifier"], weak,
        as_words(given["class_"]), given["num"], given["seed"], asked_options(given),
        given["negative_class"],
    )  # fmt: skip


@dataclass(frozen=True)
class SamplesToDraw:
    """Samples that are to be drawn."""

    name: str
    run: Run
    pipeline: Pipeline
    remarks: list[str]
    notes: list[str]  # what a person should know of the settings

    @property
    def size(self) -> tuple[int, int]:
        return self.run.size

    @property
    def count(self) -> int:
        return len(self.run.images)

    @property
    def guides(self) -> set[str | None]:
        return {self.run.first.classifier_sha256}

    def measure(
        self, extractor: Extractor, metrics: tuple[str, ...], on_event: OnEvent
    ) -> ImageFeatures:
        """Draws and measures batch by batch: no image is kept."""
        for text in self.notes:
            on_event(Note(text))
        return measure(
            self._batches(on_event), extractor, count=self.count, keep=features_needed(metrics)
        )

    def _batches(self, on_event: OnEvent) -> Iterator[Pixels]:
        """uint8 [n, H, W, 3] each; raises NotFiniteError."""
        painter, done = NetworkPainter(self.run, self.run.first, self.pipeline), 0
        tasks = [ImageTask(image) for image in self.run.images]
        for found in paint([painter], self.run, tasks):
            if isinstance(found, Note):
                on_event(found)
            elif isinstance(found, Step):
                batch = min(found.images, self.count - done)
                part = 1 - found.left / painter.steps
                on_event(Count("images", done + batch * part, self.count))
            else:
                yield _pixels(found)
                done += len(found)


def _pixels(batch: DrawnBatch) -> Pixels:
    lost = [done.image for done in batch if done.pixels is None]
    refuse_overflow([class_and_seed(image.class_id, image.seed) for image in lost], len(batch))
    return np.stack([done.pixels for done in batch if done.pixels is not None])


def open_drawn(drawing: DrawingOptions, device: str) -> SamplesToDraw:
    """The models loaded and the images chosen; raises UsageError as ``adm sample`` does."""
    assert drawing.model is not None
    sources = find_sources(
        drawing.model, drawing.guide, guided=drawing.options.scale != 0,
        weak=drawing.weak, noisy=drawing.options.classifier_on != "x0",
    )  # fmt: skip
    num = DEFAULT_NUM if drawing.num is None else drawing.num
    images = select_images(sources, drawing.classes, ".png", seed=drawing.seed, num=num)
    options = with_negative_class(drawing.options, drawing.negative_class, sources)
    config = sampling_config(sources, distinct_kinds(images), options)
    check_modifiers(options, [config])
    machine = Machine(choose_device(device))
    stage = make_stage(sources, config, machine)
    run = make_run([stage], [sources], images, machine, "png")
    pipeline = load_stage(
        sources, machine.device, machine.precision(sources), guided=config.guided,
        plain=machine.plain,
    )  # fmt: skip
    notes = [*remarks(config, sources.model.info.diffusion)]
    return SamplesToDraw(sources.model_name, run, pipeline, [], notes)
