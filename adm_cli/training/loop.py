"""The loop around `Trainer.train_step`: reports, validation, pictures, saving, and going back.

It yields what happened, for whoever shows it; process 0 alone writes files.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adm_cli.checkpoints.format import save_model
from adm_cli.checkpoints.header import ModelInfo
from adm_cli.devices import peak_bytes
from adm_cli.diffusion.finite import finite_images
from adm_cli.diffusion.guidance import ClassifierFn
from adm_cli.errors import AdmError, CheckpointError, are, why_unread
from adm_cli.events import Note
from adm_cli.pictures.images import save_image, to_model_range, to_uint8
from adm_cli.training.between import Clock, between
from adm_cli.training.config import steadier
from adm_cli.training.feed import Feed
from adm_cli.training.randomness import image_noise
from adm_cli.training.runs import MetricsFile, TrainingFolder, draw_plot
from adm_cli.training.samples import SAMPLES, sample_labels, samples_sheet
from adm_cli.training.tasks import DiffusionTask
from adm_cli.training.trainer import StepResult, Trainer

MOST_SKIPS = 5  # steps in a row without a finite loss, then back to the last good state
MOST_RETURNS = 3
POOR = 2.0  # times what an untaught model loses; after two reports in a row that is told
_PLOT_SECONDS = 20.0  # a plot takes half a second, a step of a small model far less


@dataclass(frozen=True)
class Begun:
    """Pictures are read and the model is built: steps are about to be made."""

    step: int  # made before
    steps: int
    batch_size: int
    pictures: int  # an epoch


@dataclass(frozen=True)
class Busy:
    """Something else than steps begins, which takes a while."""

    step: int
    what: str


@dataclass(frozen=True)
class Progress:
    """After a step: its loss, and the means since the last report where one is due."""

    step: int
    loss: float
    images_per_second: float
    seconds_left: float
    row: dict[str, float] | None = None  # as in metrics.csv


@dataclass(frozen=True)
class Validated:
    step: int
    metrics: dict[str, float]
    best: bool


@dataclass(frozen=True)
class Saved:
    step: int
    path: Path


@dataclass(frozen=True)
class Sampled:
    step: int
    path: Path


TrainingEvent = Begun | Busy | Progress | Validated | Saved | Sampled | Note


@dataclass(frozen=True)
class Job:
    """What a run needs beside its trainer. Validation and sample pictures may be absent."""

    folder: TrainingFolder
    feed: Feed
    info: ModelInfo  # of the files it writes; the training summary is added
    validation: tuple[Tensor, Tensor] | None = None  # uint8 [N, H, W, 3], labels [N]
    guide: ClassifierFn | None = None
    guide_scale: float = 0.0
    save_dtype: torch.dtype = torch.float32
    tensorboard: bool = False


@dataclass
class _Best:
    loss: float = math.inf
    step: int = -1
    metrics: dict[str, float] = field(default_factory=dict)


class TrainingRun:
    """A training run, fresh or resumed; iterate `events` to make it happen."""

    def __init__(self, trainer: Trainer, job: Job, *, resume: bool = False) -> None:
        self.trainer, self.job = trainer, job
        self.config, self.world = trainer.config, trainer.world
        self.clock, self.best = Clock(), _Best()
        self.returns = self.skips = self.poor = 0
        self.bad: list[str] = []  # unreadable pictures met while streaming
        self.stopped = False
        self.notes: list[str] = []
        self._plotted = time.monotonic()
        if resume:
            self._load()
        self.metrics: MetricsFile | None = None
        self._board: Any = None
        if self.world.writes:
            upto = trainer.step if resume else None
            job.folder.clean()
            self.metrics = MetricsFile(job.folder.path / "metrics.csv", upto)
            if job.tensorboard:
                from torch.utils.tensorboard import SummaryWriter

                self._board = SummaryWriter(str(job.folder.path / "tensorboard"))

    def events(self, should_stop: Callable[[], bool] = lambda: False) -> Iterator[TrainingEvent]:
        """Trains to the last step, or until ``should_stop`` after a step; saves in either case.

        Raises AdmError if losses stay NaN or infinite, OutputError if a file cannot be written;
        the last state is then still whole.
        """
        yield from (Note(text) for text in self.notes)
        trainer, config = self.trainer, self.config
        if trainer.step == 0:
            yield from self._save()  # the first to go back to; a full disk shows itself now
        elif trainer.step >= config.steps:
            yield Note(
                f"this run is finished, at step {trainer.step} of {config.steps}: a larger --steps "
                f"goes on, such as --steps {2 * trainer.step}; --fresh begins anew"
            )
            self._save_results()  # which may have failed after the last state
        batches = self.job.feed.batches(trainer.step)
        stop = False
        while trainer.step < config.steps and not stop:
            started = time.perf_counter()
            batch = next(batches)
            for text in dict.fromkeys(batch.bad):
                if text not in self.bad:
                    self.bad.append(text)
                    yield Note(f"passed over {text} ({len(self.bad)} so far)")
            result = trainer.train_step(trainer.inputs(batch))
            self.clock.seconds += time.perf_counter() - started
            self.clock.steps += 1
            yield (progress := self._report(result))
            yield from self._diverged(progress.row or {})
            stop = self.world.any(should_stop(), trainer.device)
            if result.applied:
                self.skips = 0
                yield from self._after(stop=stop)
                continue
            yield from self._skip(result)
            if self.skips == 0:  # went back
                batches = self.job.feed.batches(trainer.step)
            elif stop or trainer.step >= config.steps:
                yield from self._after(stop=stop)  # what the steps before have learned
        self.stopped = trainer.step < config.steps
        if self._board is not None:
            self._board.close()

    def _after(self, *, stop: bool) -> Iterator[TrainingEvent]:
        """What is due after a good step."""
        step, config = self.trainer.step, self.config
        last = step >= config.steps
        due = {
            name: every > 0 and (step % every == 0 or last)
            for name, every in (
                ("eval", config.eval_every),
                ("save", config.save_every),
                ("sample", config.sample_every),
            )
        }
        if due["eval"] and self.job.validation is not None:
            yield from self._timed("validating", self._validate())
        if due["sample"]:
            yield from self._timed("drawing samples", self._sample())
        if due["save"] or stop:
            yield from self._timed("saving", self._save())

    def _timed(self, what: str, events: Iterator[TrainingEvent]) -> Iterator[TrainingEvent]:
        yield Busy(self.trainer.step, what)
        started = time.perf_counter()
        yield from events
        self.clock.between.setdefault(what, []).append(time.perf_counter() - started)

    def _seconds_left(self) -> float:
        """Of steps, and of what comes between them: as long as before, else as an estimate."""
        rate, step, config = self.clock.rate(), self.trainer.step, self.config
        if not rate:
            return math.inf
        image = 1 / (rate * config.batch_size)
        left = (config.steps - step) / rate
        held = None if self.job.validation is None else len(self.job.validation[0])
        for what, each in between(config, self.trainer.task, held).items():
            spent = self.clock.between.get(what, [each.images * image])
            left += each.times(step, config.steps) * sum(spent) / len(spent)
        return left

    def _report(self, result: StepResult) -> Progress:
        config, step = self.config, self.trainer.step
        rate = self.clock.rate()
        row = None
        if step % config.log_every == 0 or step >= config.steps:
            means = self.trainer.means.take(self.world, self.trainer.device)
            row = {
                "step": float(step),
                "images": float(step * config.batch_size),
                "lr": result.lr,
                "grad_norm": result.grad_norm,
                **means,
                "images_per_second": rate * config.batch_size,
                "memory_gb": peak_bytes(self.trainer.device) / 1e9,
            }
            self._write(row)
        return Progress(step, result.loss, rate * config.batch_size, self._seconds_left(), row)

    def _diverged(self, row: Mapping[str, float]) -> Iterator[Note]:
        """Tells of losses that are finite, and far above what knowing nothing costs."""
        name, untaught = self.trainer.task.untaught
        if name in row:
            self.poor = self.poor + 1 if row[name] > POOR * untaught else 0
        if name in row and self.poor == 2:
            yield Note(
                f"step {self.trainer.step}: {name} is {row[name]:.3g} on average, where a model "
                f"that has learned nothing has at most {untaught:.3g}: it seems to diverge; "
                f"if it goes on so, begin anew (--fresh) with {steadier(self.config)}"
            )

    def _write(self, row: dict[str, float]) -> None:
        if self.metrics is not None:
            self.metrics.add(row)
        if self._board is not None:
            for name, value in row.items():
                if name not in ("step", "images"):
                    self._board.add_scalar(name, value, int(row["step"]))

    def _validate(self) -> Iterator[TrainingEvent]:
        assert self.job.validation is not None
        found = self.trainer.validate(*self.job.validation)
        better = found["loss"] < self.best.loss
        self._write({"step": float(self.trainer.step), **{f"val_{n}": v for n, v in found.items()}})
        if better:
            self.best = _Best(found["loss"], self.trainer.step, found)
            if self.world.writes:
                self._save_model(self.job.folder.best, found)
        yield Validated(self.trainer.step, found, better)

    def _save(self) -> Iterator[TrainingEvent]:
        if not self.world.writes:
            return
        tensors, facts = self.trainer.state()
        facts |= {
            "returns": self.returns,
            "best": [self.best.loss, self.best.step, self.best.metrics],
            "seconds": self.clock.total(),
        }
        if self.metrics is not None:
            self.metrics.sync()  # rows up to the state are not written again
        self.job.folder.save_state(self.trainer.step, tensors, facts)
        if self.trainer.step:
            self._save_results()
        yield Saved(self.trainer.step, self.job.folder.model)

    def _save_results(self) -> None:
        """What is made of the newest state."""
        if self.world.writes:
            self._save_model(self.job.folder.model, {})
            self._draw_plot(last=self.trainer.step >= self.config.steps)

    def _draw_plot(self, *, last: bool) -> None:
        if self.metrics is not None and (last or time.monotonic() - self._plotted > _PLOT_SECONDS):
            draw_plot(self.job.folder.plot, self.metrics)
            self._plotted = time.monotonic()

    def _save_model(self, path: Path, metrics: Mapping[str, float]) -> None:
        """The averaged weights; further EMA rates in files of their own."""
        summary = {
            "steps": self.trainer.step,
            "images_seen": self.trainer.step * self.config.batch_size,
            "seconds": round(self.clock.total(), 1),
            "pictures": len(self.job.feed.images),
            "validation": {n: round(v, 5) for n, v in metrics.items()},
            **self.job.info.training,
        }
        for i, rate in enumerate(self.config.ema_rates):
            place = path if i == 0 else path.with_name(f"{path.stem}-ema{rate}.safetensors")
            weights = self.trainer.averaged(i)
            info = replace(self.job.info, training={**summary, "ema_rate": rate})
            save_model(place, {n: w.to(self.job.save_dtype) for n, w in weights.items()}, info)

    def _load(self) -> None:
        tensors, facts, wrong = self.job.folder.load_state()
        self.notes += [f"passed over a damaged state: {text}" for text in wrong]
        try:
            self.trainer.load_state(tensors, facts)
            self.returns = int(facts["returns"])
            if min(self.trainer.step, self.trainer.updates, self.returns) < 0:
                raise ValueError(f"step {self.trainer.step}")
            loss, step, metrics = facts["best"]
            self.best = _Best(float(loss), int(step), dict(metrics))
            self.clock.before = float(facts["seconds"])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise CheckpointError(
                f"the newest state in {self.job.folder.path} is not one of this run "
                f"({why_unread(error):.160}): remove it, and an older one is taken"
            ) from error

    def _skip(self, result: StepResult) -> Iterator[TrainingEvent]:
        """A step without a finite loss or gradient: pass over it, or go back and slow down."""
        self.skips += 1
        step = self.trainer.step
        what = f"step {step}: loss {result.loss:.3g}, gradient norm {result.grad_norm:.3g}"
        if step >= self.config.steps and not self.trainer.updates:
            raise AdmError(
                f"{what}, and no step had finite ones: nothing was learned; begin anew (--fresh) "
                f"with {steadier(self.config)}"
            )
        if self.skips < MOST_SKIPS:
            yield Note(f"{what}: skipped")
            return
        if self.returns == MOST_RETURNS:
            raise AdmError(
                f"{what}, {self.skips} times in a row after {self.returns} returns to an earlier "
                f"state: stopped at the last good one; begin anew (--fresh, or elsewhere with "
                f"--init from its weights) with {steadier(self.config)}"
            )
        returns, scale = self.returns + 1, self.trainer.rate_scale / 2
        self._load()
        self.returns, self.trainer.rate_scale, self.skips = returns, scale, 0
        if self.metrics is not None:
            self.metrics = MetricsFile(self.metrics.path, self.trainer.step)
        yield Note(
            f"{what}, {MOST_SKIPS} times in a row: back to step {self.trainer.step} "
            f"with the learning rate times {scale:g}"
        )

    def _sample(self) -> Iterator[TrainingEvent]:
        """A grid of pictures from the averaged weights: the same noise and classes every time."""
        task = self.trainer.task
        if not isinstance(task, DiffusionTask) or not self.world.writes:
            return
        if task.config.low_res_size is not None and self.job.validation is None:
            return
        device = self.trainer.device
        shape = (task.config.in_channels, *task.config.image_size)
        noise = image_noise(0, "samples", range(SAMPLES), shape, device)
        labels = sample_labels(self.job.info.classes)
        x_start = torch.zeros_like(noise)
        if task.config.low_res_size is not None and self.job.validation is not None:
            pixels, labels = self.job.validation
            pick = torch.linspace(0, len(pixels) - 1, SAMPLES).long()
            x_start, labels = to_model_range(pixels[pick].to(device)), labels[pick]
        x = task.draw(
            self.trainer.ema_model, noise, x_start, labels.to(device),
            self.job.guide, self.job.guide_scale,
        )  # fmt: skip
        finite = finite_images(x)
        if not finite.all():
            bad = int((~finite).sum())
            yield Note(
                f"step {self.trainer.step}: {bad} of {len(x)} sample pictures {are(bad)} not "
                f"finite and left out"
            )
        if finite.any():
            path = self.job.folder.samples / f"step-{self.trainer.step:08d}.png"
            drawn = to_uint8(x.nan_to_num()).cpu().numpy()
            pictures = [drawn[i] if finite[i] else None for i in range(len(drawn))]
            save_image(path, samples_sheet(pictures, labels.tolist(), self.job.info.classes))
            yield Sampled(self.trainer.step, path)
