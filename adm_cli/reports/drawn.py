"""Samples that `adm evaluate` draws itself, and keeps none of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from adm_cli.checkpoints.sources import find_sources
from adm_cli.config import SamplingConfig
from adm_cli.diffusion.steps import SampleStep
from adm_cli.events import Count, Note, OnEvent
from adm_cli.reports.measure import Extractor, Measured, features_needed, measure
from adm_cli.sampling.defaults import choose_schedule
from adm_cli.sampling.pipeline import Pipeline, generate, load_pipeline
from adm_cli.sampling.recipe import stage_config
from adm_cli.sampling.select import select_images
from adm_cli.sampling.settings import (
    Machine,
    StageOptions,
    distinct_kinds,
    make_stage,
    sampling_config,
)

DEFAULT_NUM = 1000  # images drawn with --model


@dataclass(frozen=True)
class Drawing:
    """What to draw where there are no samples yet; None: the preset's."""

    model: str | None
    guide: str | None
    classes: list[str] | None
    num: int | None
    scale: float | None
    cfg: float | None
    sampler: str | None
    steps: str | None
    seed: int | None


@dataclass(frozen=True)
class Drawn:
    """Samples that are to be drawn."""

    name: str
    pipeline: Pipeline
    config: SamplingConfig
    remarks: list[str]

    @property
    def size(self) -> tuple[int, int]:
        return self.pipeline.model.config.image_size

    @property
    def count(self) -> int:
        return len(self.config.seeds)

    def measure(
        self, extractor: Extractor, metrics: tuple[str, ...], on_event: OnEvent
    ) -> Measured:
        """Draws and measures batch by batch: no image is kept."""
        steps = len(choose_schedule(self.pipeline.diffusion, self.config.steps))
        done = 0

        def on_step(step: SampleStep) -> None:
            batch = min(step.x.shape[0], self.count - done)
            on_event(Count("images", done + batch * (1 - step.i / steps), self.count))

        def batches() -> Iterator[Tensor]:
            nonlocal done
            for batch in generate(
                self.pipeline, self.config, on_step=on_step,
                on_note=lambda text: on_event(Note(text)),
            ):  # fmt: skip
                batch.check_finite()
                yield batch.images
                done += len(batch.seeds)

        return measure(batches(), extractor, count=self.count, keep=features_needed(metrics))


def open_drawn(drawing: Drawing, device: str) -> Drawn:
    """The models loaded and the images chosen; raises UsageError as ``adm sample`` does."""
    assert drawing.model is not None
    sources = find_sources(drawing.model, drawing.guide, guided=drawing.scale != 0)
    num = DEFAULT_NUM if drawing.num is None else drawing.num
    images = select_images(sources, drawing.classes, ".png", seed=drawing.seed, num=num)
    options = StageOptions(
        scale=drawing.scale, sampler=drawing.sampler, steps=drawing.steps, cfg=drawing.cfg
    )
    config = sampling_config(sources, distinct_kinds(images), options)
    pipeline = load_pipeline(sources, guided=config.scale != 0, device=device)
    stage = make_stage(sources, config, Machine(pipeline.device))
    whole = replace(stage_config(stage, images, 1), batch_size=None)
    return Drawn(sources.model_name, pipeline, whole, [])
