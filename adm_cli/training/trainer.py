"""One step of training: gradients over microbatches, optimizer, moving averages; and validation.

B the global batch, b this process's share of it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from adm_cli.checkpoints.loading import build_model
from adm_cli.devices import DTYPES, send
from adm_cli.diffusion.losses import prior_bits_per_dim
from adm_cli.diffusion.timesteps import TIMESTEP_SAMPLERS, draw_timesteps, stratified
from adm_cli.models.fast import hasten
from adm_cli.pictures.images import to_model_range
from adm_cli.training.config import TrainingConfig
from adm_cli.training.degradation import crop_squares, degraded
from adm_cli.training.distributed import World
from adm_cli.training.feed import Batch, share_of
from adm_cli.training.muon import make_optimizer, moments
from adm_cli.training.randomness import image_noise, key, uniforms
from adm_cli.training.tasks import DiffusionTask, Inputs, Task, drop_labels, validation_timesteps

_QUARTILES = 4
LEAST_VALIDATED = 64


class StepResult(NamedTuple):
    """What a step did; not ``applied`` if anything was NaN or infinite."""

    loss: float  # mean over the global batch, with the timestep sampler's weights
    grad_norm: float  # before clipping
    lr: float
    applied: bool


def learning_rate(config: TrainingConfig, step: int) -> float:
    """The rate of step 0, 1, ...: warmed up, then annealed to reach 0 after the last step."""
    rate = config.lr
    if step < config.warmup:
        rate *= (step + 1) / config.warmup
    done = step / config.steps
    if config.anneal == "linear":
        rate *= 1 - done
    elif config.anneal == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * done))
    return rate


def ema_rate(rate: float, step: int, *, warmup: bool) -> float:
    """The averaging rate of a step; warmed up, at most (1 + step) / (10 + step)."""
    return min(rate, (1 + step) / (10 + step)) if warmup else rate


@torch.no_grad()
def update_ema(averages: Sequence[Tensor], parameters: Sequence[Tensor], rate: float) -> None:
    """average = rate * average + (1 - rate) * parameter, in place."""
    torch._foreach_mul_(list(averages), rate)
    torch._foreach_add_(list(averages), list(parameters), alpha=1 - rate)


def hastens(config: TrainingConfig, device: torch.device) -> bool:
    """Whether training computes by `adm_cli.models.fast`: on a CPU, in bfloat16 or channels-last.

    In float32 with channels outermost torch's own kernels are as fast.
    """
    wanted = config.dtype == "bfloat16" or (config.channels_last and config.dtype == "float32")
    return device.type == "cpu" and wanted


class Means:
    """Running means of metrics, overall and by quartile of the noise level, over all processes."""

    def __init__(self, num_timesteps: int, by_quartile: tuple[str, ...]) -> None:
        self.num_timesteps, self.by_quartile = num_timesteps, by_quartile
        self.names: list[str] = []
        self.sums = torch.zeros(0, 2, dtype=torch.float64)  # of values, and how many

    def add(self, metrics: Mapping[str, Tensor], t: Tensor) -> None:
        """Metrics [b] of images at timesteps t [b]."""
        values = torch.stack([m.detach().float() for m in metrics.values()]).cpu().double()
        quartile = _QUARTILES * t // self.num_timesteps
        names, sums = [], []
        for name, value in zip(metrics, values, strict=True):
            names.append(name)
            sums.append(torch.tensor([float(value.sum()), len(value)], dtype=torch.float64))
            for q in range(_QUARTILES) if name in self.by_quartile else ():
                chosen = value[quartile == q]
                names.append(f"{name}_q{q}")
                sums.append(torch.tensor([float(chosen.sum()), len(chosen)], dtype=torch.float64))
        new = torch.stack(sums)
        self.sums = self.sums + new if self.names else new
        self.names = names

    def take(self, world: World, device: torch.device) -> dict[str, float]:
        """The means so far, then begins anew."""
        if not self.names:
            return {}
        where = device if device.type == "cuda" else torch.device("cpu")
        totals = world.total(self.sums.to(where)).cpu()
        result = {
            name: float(total / count)
            for name, (total, count) in zip(self.names, totals.tolist(), strict=True)
            if count
        }
        self.names, self.sums = [], torch.zeros(0, 2, dtype=torch.float64)
        return result


class Trainer:
    """A model with its optimizer and moving averages, on a device.

    ``init`` are weights to begin with instead of random ones.
    """

    def __init__(
        self,
        task: Task,
        config: TrainingConfig,
        *,
        device: torch.device,
        world: World | None = None,
        init: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.task, self.config, self.device = task, config, device
        self.world = world or World()
        torch.manual_seed(key(config.seed, "weights"))
        self.model = build_model(task.config)
        if init is not None:
            self.model.load_state_dict(init, strict=True)
        self.model.to(device)
        if hastens(config, device):
            hasten(self.model, pack=False)
        if config.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model.torso_dtype = DTYPES[config.dtype]
        self.model.train()
        self.names = [name for name, _ in self.model.named_parameters()]
        self.parameters = list(self.model.parameters())
        self.ema_model = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.averages: list[list[Tensor]] = [list(self.ema_model.parameters())]
        for _ in config.ema_rates[1:]:
            self.averages.append([p.detach().clone() for p in self.parameters])
        self.optimizer = make_optimizer(self.model, config)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.dtype == "float16")
        self.timesteps = TIMESTEP_SAMPLERS[config.timestep_sampler](len(task.schedule))
        self.means = Means(len(task.schedule), task.by_quartile)
        self.step = 0  # steps done
        self.updates = 0  # of them, those that changed the weights
        self.rate_scale = 1.0  # lowered after losses that were not finite
        self.net: nn.Module = self.model
        if self.world.size > 1:
            ids = [device.index] if device.type == "cuda" else None
            self.net = DistributedDataParallel(self.model, device_ids=ids)
        if config.compile:
            self.net = torch.compile(self.net)  # type: ignore[assignment]

    @property
    def share(self) -> tuple[int, int]:
        return self.world.rank, self.world.size

    def inputs(self, batch: Batch) -> Inputs:
        """This process's share of the current step, with everything random about it."""
        c, step = self.config, self.step
        mine = share_of(c.batch_size, self.share)
        u = uniforms(c.seed, step, "timesteps", c.batch_size, 2)
        where = stratified(u[:, 0]) if c.timestep_sampler == "stratified" else u[:, 0]
        t, weights = draw_timesteps(self.timesteps, where)
        x = to_model_range(send(batch.images, self.device))
        if c.crop is not None:
            x = crop_squares(x, uniforms(c.seed, step, "crops", c.batch_size, 2)[mine], c.crop)
        labels = batch.labels
        if c.label_dropout > 0:
            classes = self.task.config.num_classes
            assert classes is not None  # or the settings would have been refused
            labels = drop_labels(labels, u[mine, 1], c.label_dropout, classes)
        noise = image_noise(
            c.seed, step, range(mine.start, mine.stop), tuple(x.shape[1:]), self.device
        )
        small: tuple[Tensor | None, Tensor | None] = (None, None)
        if isinstance(self.task, DiffusionTask):
            small = degraded(x, self.task.config, c, step, mine)
        if c.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        weights = send(weights[mine], self.device)
        return Inputs(x, send(labels, self.device), t[mine], weights, noise, *small)

    def train_step(self, inputs: Inputs) -> StepResult:
        """One step, and one of the averages; raises nothing for losses that are not finite."""
        lr = learning_rate(self.config, self.step) * self.rate_scale
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        torch.manual_seed(key(self.config.seed, "dropout", self.step, self.world.rank))
        self.optimizer.zero_grad(set_to_none=True)
        metrics = self.accumulate(inputs)
        self.scaler.unscale_(self.optimizer)
        limit = self.config.clip_norm or math.inf
        norm = float(nn.utils.clip_grad_norm_(self.parameters, limit))
        total = self.world.total((metrics["loss"] * inputs.weights).sum())
        loss = float(total) / self.config.batch_size
        overflow = self.scaler.is_enabled() and not math.isfinite(norm)  # it lowers its own scale
        applied = math.isfinite(loss) and (math.isfinite(norm) or overflow)
        if applied:
            self._learn_timesteps(inputs, metrics["loss"])
            self.means.add(metrics, inputs.t)  # read now, when the device was waited for anyway
            self.scaler.step(self.optimizer)
            if not overflow:
                self.updates += 1
                for averages, rate in zip(self.averages, self.config.ema_rates, strict=True):
                    now = ema_rate(rate, self.updates - 1, warmup=self.config.ema_warmup)
                    update_ema(averages, self.parameters, now)
        self.scaler.update()
        self.step += 1
        return StepResult(loss, norm, lr, applied)

    def accumulate(self, inputs: Inputs) -> dict[str, Tensor]:
        """Adds the gradient of the mean loss over the batch; returns the metrics, each [b].

        Microbatches are weighted by their size, so that cutting a batch up changes nothing. (The
        original sums their means.)
        """
        count = len(inputs.t)
        micro = self.config.microbatch or count
        parts: list[dict[str, Tensor]] = []
        for start in range(0, count, micro):
            part = inputs.part(slice(start, start + micro))
            with self._sync(last=start + micro >= count):
                metrics = self.task.losses(self.net, part)
                loss = (metrics["loss"] * part.weights).sum() / count
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            parts.append({name: value.detach() for name, value in metrics.items()})
        return {name: torch.cat([p[name] for p in parts]) for name in parts[0]}

    def _sync(self, *, last: bool) -> AbstractContextManager[Any]:
        """Processes exchange gradients once a step, after the last microbatch."""
        if last or self.world.size == 1:
            return nullcontext()
        assert isinstance(self.net, DistributedDataParallel) or self.config.compile
        return self.net.no_sync()  # type: ignore[no-any-return,operator]

    def _learn_timesteps(self, inputs: Inputs, losses: Tensor) -> None:
        if self.config.timestep_sampler != "loss-second-moment":
            return
        where = losses.device
        t = self.world.gather(inputs.t.to(where)).cpu()
        self.timesteps.update(t, self.world.gather(losses).cpu())

    @torch.no_grad()
    def validate(self, images: Tensor, labels: Tensor) -> dict[str, float]:
        """Mean metrics of the averaged weights on uint8 images [N, H, W, 3], noise fixed.

        The same images give comparable numbers in every run, whatever its seed. Few images are
        seen several times, at other noise levels.
        """
        size = max(1, self.config.microbatch or self.config.batch_size // self.world.size)
        means = Means(len(self.task.schedule), self.task.by_quartile)
        total = max(len(images), LEAST_VALIDATED)
        t = validation_timesteps(total, len(self.task.schedule))
        prior = torch.zeros(2, dtype=torch.float64)
        self.model.eval()
        for start in range(self.world.rank * size, total, size * self.world.size):
            places = range(start, min(start + size, total))
            where = torch.tensor(places) % len(images)
            x = to_model_range(images[where].to(self.device))
            noise = image_noise(0, "validation", places, tuple(x.shape[1:]), self.device)
            inputs = Inputs(
                x, labels[where].to(self.device), t[torch.tensor(places)], torch.ones(len(x)), noise
            )
            means.add(self.task.losses(self.ema_model, inputs), inputs.t)
            prior_bits = prior_bits_per_dim(self.task.schedule, x)
            prior += torch.tensor([float(prior_bits.sum()), len(x)], dtype=torch.float64)
        self.model.train()
        if not means.names:  # more processes than batches: take part in the sum all the same
            means.add(*self._empty_metrics())
        result = means.take(self.world, self.device)
        if isinstance(self.task, DiffusionTask) and "vb" in result:
            where_to = self.device if self.device.type == "cuda" else torch.device("cpu")
            bits, count = self.world.total(prior.to(where_to)).tolist()
            bound = self.task.bits_per_dim(result["vb"], bits / count, total)
            result |= {} if bound is None else {"bits_per_dim": bound}
        return result

    def _empty_metrics(self) -> tuple[dict[str, Tensor], Tensor]:
        """Metrics of no images, with the right names."""
        shape = (1, self.task.config.in_channels, *self.task.config.image_size)
        x = torch.zeros(shape, device=self.device)
        label = torch.zeros(1, dtype=torch.int64, device=self.device)
        none = torch.zeros(1, dtype=torch.int64)
        inputs = Inputs(x, label, none, torch.ones(1, device=self.device), x)
        found = self.task.losses(self.ema_model, inputs)
        return {name: value[:0] for name, value in found.items()}, none[:0]

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that the next step depends on: tensors, and numbers for JSON."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in zip(self.names, self.parameters, strict=True):
            tensors[f"model.{name}"] = parameter
        for rate, averages in zip(self.config.ema_rates, self.averages, strict=True):
            tensors |= {f"ema{rate}.{n}": a for n, a in zip(self.names, averages, strict=True)}
        for name, parameter in zip(self.names, self.parameters, strict=True):
            held = self.optimizer.state.get(parameter, {})
            names = moments(self.optimizer, parameter)
            tensors |= {f"{moment}.{name}": held[moment] for moment in names if moment in held}
        tensors |= {f"timesteps.{n}": v for n, v in self.timesteps.state().items()}
        facts = {
            "step": self.step,
            "updates": self.updates,
            "rate_scale": self.rate_scale,
            "scaler": self.scaler.state_dict(),
        }
        return {n: v.detach().cpu().contiguous() for n, v in tensors.items()}, facts

    @torch.no_grad()
    def load_state(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        for name, parameter in zip(self.names, self.parameters, strict=True):
            parameter.copy_(tensors[f"model.{name}"])
            names = moments(self.optimizer, parameter)
            held = {
                moment: torch.empty_like(parameter).copy_(tensors[f"{moment}.{name}"])
                for moment in (names if any(f"{m}.{name}" in tensors for m in names) else ())
            }
            self.optimizer.state.pop(parameter, None)
            if held:
                count = torch.tensor(float(facts["updates"]))
                self.optimizer.state[parameter] = {"step": count, **held}
        for rate, averages in zip(self.config.ema_rates, self.averages, strict=True):
            for name, average in zip(self.names, averages, strict=True):
                average.copy_(tensors[f"ema{rate}.{name}"])
        prefix = "timesteps."
        self.timesteps.load(
            {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
        )
        self.step, self.updates = int(facts["step"]), int(facts["updates"])
        self.rate_scale = float(facts["rate_scale"])
        if facts["scaler"]:
            self.scaler.load_state_dict(facts["scaler"])

    def averaged(self, rate: int = 0) -> dict[str, Tensor]:
        """The averaged weights by name; ``rate`` indexes the EMA rates."""
        return dict(zip(self.names, self.averages[rate], strict=True))
