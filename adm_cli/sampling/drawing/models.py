"""The weights of a run's stages: which files they are, and what of them is in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch

from adm_cli.checkpoints.header import verify_content
from adm_cli.checkpoints.sources import (
    Sources,
    check_cfg,
    check_classes,
    check_middle_attention,
    choose_low_res_noise,
)
from adm_cli.config import UNetConfig
from adm_cli.events import Note
from adm_cli.sampling.choosing.inputs import InputPicture
from adm_cli.sampling.choosing.photos import Photos
from adm_cli.sampling.drawing.memory import fit_together
from adm_cli.sampling.drawing.pipeline import Pipeline, load_stage
from adm_cli.sampling.run import Run, Stage
from adm_cli.sampling.settings import stage_bytes, stage_dtype, uses_cfg


@dataclass
class Models:
    """What draws a run: weights, loaded when they are first needed, and pictures to enlarge."""

    sources: list[Sources]  # one for each stage that has weights
    device: torch.device
    pictures: Mapping[str, InputPicture] = field(default_factory=dict)  # by the image's file
    resize: tuple[int, int] | None = None  # to which pictures are fitted
    photos: Photos = field(default_factory=dict)  # by the image's file, of edits
    pipelines: dict[int, Pipeline] = field(default_factory=dict)  # in memory
    apart: bool = False  # the small pictures of a stack come first
    keep_base: bool = False  # and stay
    processes: int = 1  # that hold the weights in the same memory
    _stages: list[Stage] = field(default_factory=list)

    def prepare(self, run: Run, *, keep_base: bool) -> Iterator[Note]:
        """Loads the weights of all stages, or the first where they do not fit into memory."""
        yield from self.plan(run, keep_base=keep_base)
        self.begin()

    def plan(self, run: Run, *, keep_base: bool) -> Iterator[Note]:
        """Checks the weights' headers, and whether all fit into memory at once."""
        self._stages = [stage for stage in run.stages if isinstance(stage, Stage)]
        for stage, sources in zip(self._stages, self.sources, strict=True):
            check_stage(stage, sources, run)
        together = len(self._stages) == 1 or self._fit(run)
        if not together:
            yield Note("both stages do not fit into memory at once: the small pictures come first")
        keep_base = keep_base and len(run.stages) > 1
        self.keep_base, self.apart = keep_base, keep_base or not together

    def begin(self) -> None:
        """Loads what is planned to be in memory first."""
        if self.apart and len(self._stages) > 1:
            verify_content(self.sources[1].model)  # now, not when the small ones are all drawn
        for i in range(1 if self.apart else len(self._stages)):
            self.load(i)

    def load(self, i: int) -> Pipeline:
        """Stage ``i``, which may be in memory."""
        if i not in self.pipelines:
            stage = self._stages[i]
            guided = stage.classifier is not None
            self.pipelines[i] = load_stage(
                self.sources[i], self.device, stage_dtype(stage), guided=guided, plain=stage.plain
            )
        return self.pipelines[i]

    def drop(self, i: int) -> None:
        """Makes room."""
        self.pipelines.pop(i, None)

    def first(self) -> Models:
        """Those of the run of the small pictures: the same, so that it can be dropped."""
        self.load(0)
        return Models(self.sources[:1], self.device, photos=self.photos, pipelines=self.pipelines)

    def _fit(self, run: Run) -> bool:
        """Whether the weights of both stages, and one image's activations, fit into memory."""
        weights = 0
        costs: list[int] = []
        for stage, sources in zip(self._stages, self.sources, strict=True):
            own, each = stage_bytes(stage, sources, run.images)
            weights, costs = weights + own, costs + each
        return fit_together(weights, max(costs), self.device, self.processes)


def check_stage(stage: Stage, sources: Sources, run: Run) -> None:
    """Raises UsageError where the weights cannot draw a run's images, which anyone may have asked
    for.
    """
    classes = list(dict.fromkeys(i for row in run.images.rows for i in row.first.class_ids))
    config = sources.model.info.config
    assert isinstance(config, UNetConfig)
    if stage.upsampler:
        choose_low_res_noise(sources, stage.low_res_noise)
    if not stage.upsampler or config.num_classes is not None:
        also = [] if stage.negative_class is None else [stage.negative_class]
        check_classes(sources, [*classes, *also])  # else labels only pass through
    check_middle_attention(sources, stage)
    if uses_cfg(stage, run.images):
        check_cfg(sources, stage.negative_class)
