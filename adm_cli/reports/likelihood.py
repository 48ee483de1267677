"""Bits per dimension of pictures under a diffusion model, and their means over a set.

B pictures, S steps of the schedule, T timesteps of the original process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from adm_cli.config import DiffusionConfig
from adm_cli.devices import reproducible_kernels
from adm_cli.diffusion.losses import BitsPerDim, bits_per_dim
from adm_cli.diffusion.process import rescaled
from adm_cli.diffusion.schedule import NoiseSchedule
from adm_cli.errors import AdmError
from adm_cli.models.unet import UNet
from adm_cli.pictures.datasets import ImageSet
from adm_cli.pictures.images import to_model_range
from adm_cli.reports.pictures import OnNote, Row, drawn_noise, each_batch, noise_generators
from adm_cli.training.tasks import DiffusionTask

QUARTERS = 4


def likelihoods(
    model: UNet,
    diffusion: DiffusionConfig,
    schedule: NoiseSchedule,
    images: ImageSet,
    *,
    batch_size: int,
    seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    clip_denoised: bool = True,
    skip_bad: bool = False,
    on_step: Callable[[int, int], None] | None = None,
    on_note: OnNote | None = None,
) -> Iterator[tuple[ImageSet, BitsPerDim]]:
    """Some of the pictures and their bounds, a batch at a time, until all are done.

    Pictures are cropped as validation pictures are in training, and never mirrored (the original
    mirrors half of them). A conditional model sees the pictures' labels, or "no class" where they
    have none; an upsampler sees them made small. The noise of a picture depends on ``seed`` and
    its name alone, so the result does not depend on the batch size, beyond rounding.

    ``dtype`` is that of the model. ``on_step`` takes B and the steps to come. Raises AdmError for
    a picture that cannot be read or has no finite bound.
    """
    task = DiffusionTask(model.config, diffusion, schedule)
    real = torch.float64 if dtype == torch.float64 else torch.float32

    def compute(part: ImageSet, pixels: Tensor) -> BitsPerDim:
        x_start = to_model_range(pixels.to(device)).to(real)  # [B, C, H, W]
        labels = torch.from_numpy(part.labels())
        if model.config.num_classes is not None:  # the row after the classes means none of them
            labels[labels < 0] = model.config.num_classes
        net = partial(model, **task.conditions(x_start, labels.to(device)))
        generators = noise_generators(part, seed, "likelihood")

        def noise(i: int, like: Tensor) -> Tensor:
            if on_step is not None and i + 1 < len(schedule):  # drawn at the start of a step
                on_step(len(part), i + 1)
            return drawn_noise(generators, like)

        def seen(x: Tensor, t: Tensor) -> Tensor:
            seen_t = rescaled(t, diffusion.num_timesteps) if diffusion.rescale_timesteps else t
            output: Tensor = net(x, seen_t)
            return output

        with reproducible_kernels():
            found = bits_per_dim(
                schedule, seen, x_start, noise=noise, prediction=diffusion.prediction,
                variance=diffusion.variance, clip_denoised=clip_denoised,
            )  # fmt: skip
        return BitsPerDim(*(values.cpu() for values in found))

    for part, found in each_batch(
        images, model.config.image_size, batch_size, compute, skip_bad=skip_bad, on_note=on_note
    ):
        finite = found.total.isfinite().tolist()
        if not all(finite):
            raise AdmError(
                f"{part.name(finite.index(False))}: the bound is {found.total[finite.index(False)]}"
                f", not a number of bits: try --dtype float32, or another model"
            )
        yield part, found


class RunningMean:
    """Mean and standard error of vectors [D] that come a few at a time, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(0, dtype=torch.float64)
        self._squares = torch.zeros(0, dtype=torch.float64)  # of the distances from the mean

    def add(self, values: Tensor) -> None:
        """``values`` [B, D], D the same every time."""
        values = values.double()
        count, mean = len(values), values.mean(dim=0)
        squares = ((values - mean) ** 2).sum(dim=0)
        if not self.count:
            self.count, self.mean, self._squares = count, mean, squares
            return
        total, step = self.count + count, mean - self.mean
        self.mean = self.mean + step * (count / total)
        self._squares = self._squares + squares + step**2 * (self.count * count / total)
        self.count = total

    def state(self) -> dict[str, Tensor]:
        """For `load_state`, which goes on exactly here."""
        count = torch.tensor(self.count, dtype=torch.float64)
        return {"count": count, "mean": self.mean, "squares": self._squares}

    def load_state(self, state: Mapping[str, Tensor], dim: int) -> None:
        """Raises ValueError unless it is one of vectors [``dim``]."""
        count, mean, squares = (state[name] for name in ("count", "mean", "squares"))
        if mean.shape != (dim,) or squares.shape != (dim,) or count.numel() != 1:
            raise ValueError(f"means of {list(mean.shape)}, expected [{dim}]")
        self.count, self.mean, self._squares = int(count), mean.double(), squares.double()

    def stderr(self) -> Tensor:
        """[D]; NaN for a single vector, whose spread nobody knows."""
        if self.count < 2:
            return torch.full_like(self.mean, math.nan)
        return (self._squares / (self.count - 1) / self.count).sqrt()


class LikelihoodReport:
    """Means over the pictures so far: of the bound, its prior, each step, each quarter of noise."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        self.timesteps = schedule.timesteps.flip(0)  # [S], most noise first, as the terms come
        self.original_timesteps = schedule.original_timesteps
        self.quarter = self.timesteps * QUARTERS // schedule.original_timesteps
        self._whole, self._quarters, self._steps = RunningMean(), RunningMean(), RunningMean()

    @property
    def images(self) -> int:
        return self._whole.count

    def add(self, found: BitsPerDim) -> None:
        """The bounds of more pictures."""
        vb = found.vb.double()  # [B, S]
        sums = [vb[:, self.quarter == q].sum(dim=1) for q in range(QUARTERS)]
        self._quarters.add(torch.stack(sums, dim=1))
        self._whole.add(torch.stack([found.prior.double() + vb.sum(dim=1), found.prior], dim=1))
        self._steps.add(torch.cat([vb, found.mse, found.xstart_mse], dim=1))

    def state(self) -> dict[str, Tensor]:
        """All of it, as tensors by name."""
        parts = {"whole": self._whole, "quarters": self._quarters, "steps": self._steps}
        return {f"{name}.{n}": t for name, part in parts.items() for n, t in part.state().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Goes on with what another one knew; KeyError or ValueError where it does not fit."""
        parts = (("whole", self._whole, 2), ("quarters", self._quarters, QUARTERS),
                 ("steps", self._steps, 3 * len(self.timesteps)))  # fmt: skip
        for name, part, dim in parts:
            start = f"{name}."
            mine = {n.removeprefix(start): t for n, t in state.items() if n.startswith(start)}
            part.load_state(mine, dim)

    def totals(self) -> Row:
        """ "bits_per_dim", "prior", "vb" with standard errors, and the mean squared errors."""
        (total, prior), (total_error, prior_error) = self._whole.mean, self._whole.stderr()
        _, mse, xstart_mse = self._steps.mean.chunk(3)
        return {
            "images": self.images,
            "bits_per_dim": total.item(),
            "bits_per_dim_stderr": _known(total_error),
            "prior": prior.item(),
            "prior_stderr": _known(prior_error),
            "vb": (total - prior).item(),
            "mse": mse.mean().item(),
            "xstart_mse": xstart_mse.mean().item(),
        }

    def quarters(self) -> list[Row]:
        """The quarters of the noise that the schedule visits, the least noise first."""
        means, errors = self._quarters.mean, self._quarters.stderr()
        _, mse, xstart_mse = self._steps.mean.chunk(3)
        rows = []
        for q in range(QUARTERS):
            there = self.quarter == q
            if there.any():
                first, last = (-(-k * self.original_timesteps // QUARTERS) for k in (q, q + 1))
                rows.append({
                    "quarter": q,
                    "timesteps": [first, last - 1],
                    "steps": int(there.sum()),
                    "vb": means[q].item(),
                    "vb_stderr": _known(errors[q]),
                    "mse": mse[there].mean().item(),
                    "xstart_mse": xstart_mse[there].mean().item(),
                })  # fmt: skip
        return rows

    def steps(self) -> list[Row]:
        """Every step, the least noise first: its terms, averaged over the pictures."""
        vb, mse, xstart_mse = (m.flip(0).tolist() for m in self._steps.mean.chunk(3))
        errors = self._steps.stderr().chunk(3)[0].flip(0)
        timesteps = self.timesteps.flip(0).tolist()
        return [
            {
                "step": i,
                "timestep": timesteps[i],
                "vb": vb[i],
                "vb_stderr": _known(errors[i]),
                "mse": mse[i],
                "xstart_mse": xstart_mse[i],
            }
            for i in range(len(timesteps))
        ]


def _known(value: Tensor) -> float | None:
    """A number, or None for NaN, which JSON lacks."""
    number = value.item()
    return None if math.isnan(number) else number
