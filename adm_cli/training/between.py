"""What a training does between steps, how often, and how its time is shared out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from adm_cli.training.config import TrainingConfig
from adm_cli.training.samples import SAMPLES
from adm_cli.training.tasks import DiffusionTask, Task
from adm_cli.training.trainer import LEAST_VALIDATED


@dataclass
class Clock:
    """Time spent on steps, and on what comes between them."""

    seconds: float = 0.0  # on steps of this run of the program
    steps: int = 0
    before: float = 0.0  # of earlier runs
    between: dict[str, list[float]] = field(default_factory=dict)  # each time, by what it was

    def rate(self) -> float:
        return self.steps / self.seconds if self.seconds else 0.0

    def total(self) -> float:
        return self.before + self.seconds + sum(map(sum, self.between.values()))


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
