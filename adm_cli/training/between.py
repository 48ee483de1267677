"""What a training does between steps, how often, and how much of its time that takes."""

from __future__ import annotations

from typing import NamedTuple

from adm_cli.training.config import TrainingConfig
from adm_cli.training.samples import SAMPLES
from adm_cli.training.tasks import DiffusionTask, Task
from adm_cli.training.trainer import LEAST_VALIDATED


class Between(NamedTuple):
    """Something that is done ``every`` so many steps, and after the last."""

    every: int  # 0: never
    images: float  # that are learned from in that time

    def times(self, step: int, steps: int) -> int:
        """How often after ``step`` of ``steps``."""
        if not self.every:
            return 0
        return steps // self.every - step // self.every + bool(steps % self.every)


def between(config: TrainingConfig, task: Task, held: int | None) -> dict[str, Between]:
    """What is done between steps, by what it is called; ``held`` pictures are validated on.

    A forward pass is a third of what learning from an image takes. Saving is guessed as nothing.
    """
    validated = 0 if held is None else max(LEAST_VALIDATED, held)
    drawn = SAMPLES * task.draw_steps if isinstance(task, DiffusionTask) else 0
    return {
        "validating": Between(config.eval_every if validated else 0, validated / 3),
        "drawing samples": Between(config.sample_every if drawn else 0, drawn / 3),
        "saving": Between(config.save_every, 0.0),
    }
