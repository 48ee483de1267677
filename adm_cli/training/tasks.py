"""What is learned: noise by a diffusion model or upsampler, classes by a classifier.

B images, C channels, H W image, T timesteps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adm_cli.config import ClassifierConfig, DiffusionConfig, UNetConfig
from adm_cli.devices import send
from adm_cli.diffusion.finite import FiniteWatch
from adm_cli.diffusion.guidance import ClassifierFn, classifier_guidance
from adm_cli.diffusion.losses import training_loss
from adm_cli.diffusion.process import model_timesteps, q_sample, rescaled
from adm_cli.diffusion.samplers import ddim_sample
from adm_cli.diffusion.schedule import NoiseSchedule
from adm_cli.training.degradation import low_resolution, small_size

_GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, cover [0, 1) evenly
_SAMPLE_STEPS = "ddim25"

Metrics = dict[str, Tensor]


@dataclass(frozen=True)
class Inputs:
    """A batch and everything random about its step. Labels are -1 where there are none."""

    x_start: Tensor  # [B, C, H, W] in [-1, 1]
    labels: Tensor  # int64 [B]
    t: Tensor  # int64 [B], kept on the CPU, where it is counted and learned from
    weights: Tensor  # [B], of the timestep sampler
    noise: Tensor  # [B, C, H, W]
    low_res: Tensor | None = None  # [B, C, h, w] of an upsampler; None: x_start's areas
    low_res_noise: Tensor | None = None  # [B], how much lies on it; None: none

    def part(self, where: slice) -> Inputs:
        """Some of the images."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        parts: dict[str, Any] = {n: None if v is None else v[where] for n, v in values.items()}
        return Inputs(**parts)


@dataclass(frozen=True)
class DiffusionTask:
    """Denoising, class-conditional or not; an upsampler if the config says so.

    Metrics in ``by_quartile`` are told apart by noise level.
    """

    config: UNetConfig
    diffusion: DiffusionConfig
    schedule: NoiseSchedule
    by_quartile: tuple[str, ...] = ("loss",)

    def losses(self, model: nn.Module, inputs: Inputs) -> Metrics:
        """The training loss and, where it has them, its parts "mse" and "vb"."""
        t, model_t = _timesteps(self, inputs.t, inputs.x_start.device)
        result = training_loss(
            self.schedule,
            partial(
                model,
                **self.conditions(
                    inputs.x_start, inputs.labels, inputs.low_res, inputs.low_res_noise
                ),
            ),
            inputs.x_start,
            t,
            model_t,
            inputs.noise,
            prediction=self.diffusion.prediction,
            variance=self.diffusion.variance,
            loss=self.diffusion.loss,
        )
        parts = {"loss": result.loss, "mse": result.mse, "vb": result.vb}
        return {name: value for name, value in parts.items() if value is not None}

    def conditions(
        self,
        x_start: Tensor,
        labels: Tensor,
        low_res: Tensor | None = None,
        low_res_noise: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """What the model sees beside x_t and t; an upsampler ``x_start`` made small, if None."""
        conditions = {}
        if self.config.num_classes is not None:
            conditions["y"] = labels
        if self.config.low_res_size is not None:
            if low_res is None:
                low_res = low_resolution(x_start, small_size(self.config, x_start))
            conditions["low_res"] = low_res
            if low_res_noise is not None:
                conditions["low_res_noise"] = low_res_noise
        return conditions

    def bits_per_dim(self, vb: float, prior: float, images: int) -> float | None:
        """The bound on the negative log-likelihood, from terms at timesteps spread evenly.

        ``vb`` and ``prior`` are means over ``images``; with fewer of them than timesteps the one
        term that matters most, at no noise, might be missing: then None.
        """
        if images < len(self.schedule) or self.diffusion.loss == "rescaled_mse":
            return None
        return len(self.schedule) * vb + prior

    @property
    def untaught(self) -> tuple[str, float]:
        """A metric, and the most that it is where the model answers 0: v's and noise's variance."""
        return "mse", 1.0

    @property
    def draw_steps(self) -> int:
        """Evaluations of the network that `draw` takes."""
        return len(self.schedule.respace(_SAMPLE_STEPS))

    @torch.no_grad()
    def draw(
        self,
        model: nn.Module,
        x_T: Tensor,
        x_start: Tensor,
        labels: Tensor,
        guide: ClassifierFn | None = None,
        scale: float = 0.0,
    ) -> Tensor:
        """Images [B, C, H, W] by 25 DDIM steps; an upsampler enlarges ``x_start`` made small.

        NaN in every place of an image that was not finite at some step.
        """
        see = partial(rescaled, original_timesteps=self.schedule.original_timesteps)
        seen = see if self.diffusion.rescale_timesteps else (lambda t: t)
        net = partial(model, **self.conditions(x_start, labels))
        guidance = None
        if guide is not None and scale != 0:
            seeing = guide
            guidance = classifier_guidance(lambda x, t: seeing(x, seen(t)), labels, scale)
        x, watch = x_T, FiniteWatch()
        for step in ddim_sample(
            watch.watched(lambda x, t: net(x, seen(t))),
            self.schedule.respace(_SAMPLE_STEPS),
            x_T,
            noise=lambda _i, like: torch.zeros_like(like),
            guidance=None if guidance is None else watch.watched(guidance),
            prediction=self.diffusion.prediction,
            variance=self.diffusion.variance,
        ):
            x = step.x
        return watch.marked(x)


@dataclass(frozen=True)
class ClassifierTask:
    """Naming the class of a noisy image (arXiv 2105.05233, section 4.1 and appendix H)."""

    config: ClassifierConfig
    diffusion: DiffusionConfig
    schedule: NoiseSchedule
    noised: bool = True
    label_smoothing: float = 0.0  # arXiv 1512.00567, section 7
    classes: tuple[int, ...] = ()  # those with pictures, which share what is smoothed; empty: all
    by_quartile: tuple[str, ...] = ("loss", "acc1", "acc5")

    def losses(self, model: nn.Module, inputs: Inputs) -> Metrics:
        """Cross-entropy, and whether the class is the first or among the first five guesses.

        Labels are smoothed while ``model`` trains; validation (`eval`) counts plain nats.
        """
        x = inputs.x_start
        drawn = inputs.t if self.noised else torch.zeros_like(inputs.t)
        t, model_t = _timesteps(self, drawn, x.device)
        if self.noised:
            x = q_sample(self.schedule, x, t, inputs.noise)
        logits = model(x, model_t)  # [B, K]
        metrics = classifier_metrics(logits, inputs.labels)
        if model.training and self.label_smoothing:
            rows = list(self.classes) or slice(None)
            others = -logits.log_softmax(dim=1)[:, rows].mean(dim=1)
            metrics["loss"] = metrics["loss"].lerp(others, self.label_smoothing)
        return metrics

    @property
    def untaught(self) -> tuple[str, float]:
        """A metric, and what it is where every class is as likely."""
        return "loss", math.log(self.config.num_classes)


Task = DiffusionTask | ClassifierTask


def _timesteps(task: Task, t: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """``t`` [B] of the CPU, and what the network sees for it, beside the images.

    There tables are read without waiting for the device.
    """
    seen = model_timesteps(task.schedule, t, rescale=task.diffusion.rescale_timesteps)
    return send(t, device), send(seen, device)


def classifier_metrics(logits: Tensor, labels: Tensor) -> Metrics:
    """Per image [B]: "loss" in nats, "acc1" and "acc5" 0 or 1. ``logits`` [B, K]."""
    best = logits.detach().topk(min(5, logits.shape[1]), dim=1).indices  # [B, 5]
    right = best == labels[:, None]
    return {
        "loss": F.cross_entropy(logits, labels, reduction="none"),
        "acc1": right[:, 0].float(),
        "acc5": right.any(dim=1).float(),
    }


def drop_labels(labels: Tensor, uniform: Tensor, rate: float, num_classes: int) -> Tensor:
    """Labels with a fraction ``rate`` of them, chosen by uniform numbers [B], "no class"."""
    return torch.where(uniform < rate, num_classes, labels)


def validation_timesteps(count: int, num_timesteps: int) -> Tensor:
    """Timesteps int64 [count] spread evenly, whatever the order of the images."""
    place = (torch.arange(count, dtype=torch.float64) + 0.5) * _GOLDEN % 1.0
    return (place * num_timesteps).long()


def make_task(
    config: UNetConfig | ClassifierConfig,
    diffusion: DiffusionConfig,
    *,
    noised: bool = True,
    label_smoothing: float = 0.0,
    classes: tuple[int, ...] = (),
) -> Task:
    """The task that a model's settings mean; ``classes`` are those with pictures (empty: all)."""
    schedule = NoiseSchedule.named(diffusion.noise_schedule, diffusion.num_timesteps)
    if isinstance(config, ClassifierConfig):
        return ClassifierTask(config, diffusion, schedule, noised, label_smoothing, classes)
    return DiffusionTask(config, diffusion, schedule)
