"""How a model is trained, as a frozen dataclass that is checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from adm_cli.config import LEAST_CROP
from adm_cli.errors import ConfigError, one_of

Anneal = Literal["none", "linear", "cosine"]
TimestepSamplerName = Literal["uniform", "stratified", "loss-second-moment"]
OptimizerName = Literal["adamw", "muon"]
TrainingDtype = Literal["float32", "bfloat16", "float16"]

# Smallest and largest whole numbers, and the bounds of others; None is always one of the first.
_WHOLE: dict[str, tuple[int, int]] = {
    "steps": (1, 10**9),
    "batch_size": (1, 10**6),
    "warmup": (0, 10**9),
    "seed": (0, 2**64 - 1),
    "crop": (1, 16384),
    "log_every": (1, 10**9),
    "eval_every": (1, 10**9),
    "save_every": (1, 10**9),
    "sample_every": (0, 10**9),
}
_BOUNDS: dict[str, tuple[float, float]] = {
    "lr": (0, 10),
    "weight_decay": (0, 10),
    "label_dropout": (0, 1),
    "label_smoothing": (0, 0.9),
    "least_crop": (0.05, 1),
}
_SPOKEN = {"batch_size": "the batch size", "seed": "the seed", "lr": "the learning rate"}


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a model is trained. Defaults are the diffusion model's of arXiv 2105.05233, table 11."""

    steps: int
    batch_size: int  # over all processes
    microbatch: int | None = None  # images a forward pass and process; None: all of its share
    optimizer: OptimizerName = "adamw"  # muon: for the torso's matrices, AdamW for the rest
    lr: float = 1e-4
    warmup: int = 0  # steps over which the rate rises from 0
    anneal: Anneal = "none"  # to 0 at `steps`
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float | None = None  # largest norm of the whole gradient
    ema_rates: tuple[float, ...] = (0.9999,)  # the first makes the model that is kept
    ema_warmup: bool = True  # rates at most (1 + step) / (10 + step): short runs average too
    seed: int = 0
    dtype: TrainingDtype = "float32"  # of the torso's computation; weights stay float32
    channels_last: bool = False
    compile: bool = False
    random_crop: bool = False
    least_crop: float = LEAST_CROP  # smallest side of a random crop, of the shorter side
    crop: int | None = None  # an upsampler learns from random squares of this side; None: from all
    vary_kernel: bool = False  # its small pictures are made by one of several filters
    flip: bool = True
    timestep_sampler: TimestepSamplerName = "uniform"
    label_dropout: float = 0.0  # fraction of labels replaced by "no class"
    noised: bool = True  # a classifier sees noisy images; False: clean ones only
    label_smoothing: float = 0.0  # part of a classifier's target that its classes share
    log_every: int = 50  # these in steps
    eval_every: int = 1000
    save_every: int = 1000
    sample_every: int = 1000  # 0: no pictures

    def __post_init__(self) -> None:
        for name, (least, most) in {**_WHOLE, "microbatch": (1, self.batch_size)}.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                what = _SPOKEN.get(name, name)
                raise ConfigError(f"{what} must be from {least} to {most}, got {value}")
        for name, (low, high) in _BOUNDS.items():
            value = getattr(self, name)
            if not low <= value <= high:  # False for NaN too
                what = _SPOKEN.get(name, name)
                raise ConfigError(f"{what} must be in [{low}, {high}], got {value}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ConfigError(f"clip_norm must be above 0, got {self.clip_norm}")
        if not self.ema_rates:
            raise ConfigError("ema_rates needs at least one rate (0 is no averaging)")
        for rate in (*self.ema_rates, *self.betas):
            if not 0 <= rate < 1:
                raise ConfigError(f"EMA rates and betas must be in [0, 1), got {rate}")


def steadier(config: TrainingConfig) -> str:
    """Options that may keep losses finite, in words: those that ``config`` has not yet."""
    options = [f"a lower --lr than {config.lr:g}"]
    if config.clip_norm is None or config.clip_norm > 1:
        options.append("--clip-norm 1")
    if config.dtype != "float32":
        options.append("--dtype float32")
    return one_of(options)
