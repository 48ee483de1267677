"""Noise schedules and timestep respacing.

T steps of the original process, S of the respaced one. All tables are float64, on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from adm_cli.errors import ConfigError, how_many, trim


def linear_betas(num_timesteps: int) -> Tensor:
    """[T] float64 from 1e-4 to 0.02 (arXiv 2006.11239, section 4), scaled by 1000 / T.

    Raises ConfigError below T = 20, where the last beta would exceed 1.
    """
    if num_timesteps < 20:
        raise ConfigError(f"a linear schedule needs at least 20 timesteps, got {num_timesteps}")
    scale = 1000 / num_timesteps
    return torch.linspace(
        scale * 1e-4, scale * 0.02, num_timesteps, dtype=torch.float64, device="cpu"
    )


def cosine_betas(num_timesteps: int) -> Tensor:
    """[T] float64 with alphas_cumprod a squared cosine (arXiv 2102.09672, equation 17)."""
    return betas_for_alpha_bar(
        num_timesteps, lambda u: math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
    )


def betas_for_alpha_bar(
    num_timesteps: int, alpha_bar: Callable[[float], float], max_beta: float = 0.999
) -> Tensor:
    """[T] betas whose cumulative product follows ``alpha_bar``, a function of t/T in [0, 1]."""
    betas = [
        min(1 - alpha_bar((i + 1) / num_timesteps) / alpha_bar(i / num_timesteps), max_beta)
        for i in range(num_timesteps)
    ]
    return torch.tensor(betas, dtype=torch.float64, device="cpu")


def space_timesteps(num_timesteps: int, spec: str | int | Sequence[int]) -> list[int]:
    """The original timesteps that a respaced process keeps, ascending.

    ``spec`` is one of: "" for all; "250" or 250, that many steps from 0 to T - 1;
    "90,60,60,20,20" (or a list), that many in each of as many equal sections; "ddim25", every
    (T/25)-th step from 0, as in the DDIM paper. "ddimN" takes the integer stride that gives
    exactly N steps where there is one, and rounds k T/N down elsewhere.

    Raises ConfigError for anything else, and for more steps than there are.
    """
    spec = str(spec) if isinstance(spec, int) else spec
    if spec == "":
        return list(range(num_timesteps))
    if isinstance(spec, str) and spec.startswith("ddim"):
        return _ddim_timesteps(num_timesteps, _integer(spec[4:], spec))
    counts = [_integer(part, spec) for part in spec.split(",")] if isinstance(spec, str) else spec
    if min(counts, default=0) < 0 or sum(counts) < 1:
        raise ConfigError(f"steps {trim(spec)}: expected at least one step, and no negative counts")
    size, extra = divmod(num_timesteps, len(counts))
    start, kept = 0, []
    for i, count in enumerate(counts):
        length = size + (i < extra)
        if count > length:
            raise ConfigError(
                f"steps {trim(spec)}: cannot take {how_many(count, 'step')} from a section of "
                f"{length} "
                f"(the model has {num_timesteps} timesteps)"
            )
        stride = (length - 1) / (count - 1) if count > 1 else 1.0
        position = 0.0  # summed, not multiplied: rounding as in the original
        for _ in range(count):
            kept.append(start + round(position))
            position += stride
        start += length
    return kept


def _ddim_timesteps(num_timesteps: int, count: int) -> list[int]:
    if not 1 <= count <= num_timesteps:
        raise ConfigError(
            f"steps 'ddim{count}': expected from 1 to {num_timesteps} steps, the model's timesteps"
        )
    for stride in range(1, num_timesteps):
        steps = range(0, num_timesteps, stride)
        if len(steps) == count:
            return list(steps)
    return [k * num_timesteps // count for k in range(count)]


def _integer(text: str, spec: object) -> int:
    try:
        return int(text)
    except ValueError:
        lsun = ": write --steps 250 --spacing lsun" if text.lower().startswith("lsun") else ""
        raise ConfigError(
            f"steps {trim(spec)}: expected a number such as 250, sections such as 90,60,60,20,20, "
            f"or ddimN such as ddim25{lsun}"
        ) from None


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """A (respaced) diffusion process: betas, and which original timestep each one stands for.

    ``betas`` [S] float64 in (0, 1]; ``timesteps`` [S] int64, the original timesteps, ascending;
    ``original_timesteps`` T; ``original`` the process it was respaced from, None where that is
    not known. Index 0 is the least noise.
    """

    betas: Tensor
    timesteps: Tensor
    original_timesteps: int
    original: NoiseSchedule | None = None

    def __post_init__(self) -> None:
        if self.betas.dim() != 1 or self.betas.shape != self.timesteps.shape or not len(self):
            raise ConfigError("betas and timesteps must be lists of the same length, at least 1")
        if not bool(((self.betas > 0) & (self.betas <= 1)).all()):
            raise ConfigError("betas must be above 0 and at most 1")

    @classmethod
    def from_betas(cls, betas: Tensor) -> NoiseSchedule:
        return cls(betas.double().cpu(), torch.arange(len(betas), device="cpu"), len(betas))

    @classmethod
    def linear(cls, num_timesteps: int = 1000) -> NoiseSchedule:
        return cls.from_betas(linear_betas(num_timesteps))

    @classmethod
    def cosine(cls, num_timesteps: int = 1000) -> NoiseSchedule:
        return cls.from_betas(cosine_betas(num_timesteps))

    @classmethod
    def named(cls, name: str, num_timesteps: int) -> NoiseSchedule:
        """The "linear" or "cosine" schedule; ConfigError for another name."""
        if name not in ("linear", "cosine"):
            raise ConfigError(f"unknown schedule {trim(name)}: expected linear or cosine")
        return {"linear": cls.linear, "cosine": cls.cosine}[name](num_timesteps)

    def respace(self, spec: str | int | Sequence[int]) -> NoiseSchedule:
        """The shorter process over `space_timesteps` (arXiv 2102.09672, section 4).

        Its betas are 1 - abar_i / abar_{i-1} over the kept steps, so that its alphas_cumprod are
        the original ones there.
        """
        return self.keep(space_timesteps(len(self), spec))

    def keep(self, indices: Sequence[int]) -> NoiseSchedule:
        """Likewise, over rising ``indices`` of this process; ConfigError for any others."""
        chosen = [int(i) for i in indices]
        if not chosen or sorted(set(chosen) & set(range(len(self)))) != chosen:
            raise ConfigError(
                f"expected at least one of the {len(self)} indices from 0, rising, "
                f"got {trim(chosen)}"
            )
        kept = torch.tensor(chosen, device="cpu")
        abar = self.alphas_cumprod[kept]
        previous = F.pad(abar[:-1], (1, 0), value=1)
        return NoiseSchedule(
            1 - abar / previous, self.timesteps[kept], self.original_timesteps, self.unspaced
        )

    @property
    def unspaced(self) -> NoiseSchedule:
        """The original process; this one, where it was respaced from none."""
        return self if self.original is None else self.original

    def place(self, original_t: int) -> tuple[NoiseSchedule, int]:
        """A process that visits a timestep, and its index there: this one, else the original."""
        for process in (self, self.unspaced):
            if (index := process._indices.get(original_t)) is not None:
                return process, index
        raise ConfigError(f"timestep {original_t} is none of the process")

    @cached_property
    def _indices(self) -> dict[int, int]:
        return {t: i for i, t in enumerate(self.timesteps.tolist())}

    def __len__(self) -> int:
        return len(self.betas)

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        return torch.cumprod(1 - self.betas, 0)

    @cached_property
    def alphas_cumprod_prev(self) -> Tensor:
        return F.pad(self.alphas_cumprod[:-1], (1, 0), value=1)

    @cached_property
    def alphas_cumprod_next(self) -> Tensor:
        return F.pad(self.alphas_cumprod[1:], (0, 1))

    @cached_property
    def sqrt_alphas_cumprod(self) -> Tensor:
        return self.alphas_cumprod.sqrt()

    @cached_property
    def sqrt_one_minus_alphas_cumprod(self) -> Tensor:
        return (1 - self.alphas_cumprod).sqrt()

    @cached_property
    def log_one_minus_alphas_cumprod(self) -> Tensor:
        return (1 - self.alphas_cumprod).log()

    @cached_property
    def one_minus_alphas_cumprod(self) -> Tensor:
        return 1 - self.alphas_cumprod

    @cached_property
    def log_betas(self) -> Tensor:
        return self.betas.log()

    @cached_property
    def half_log_snr(self) -> Tensor:
        """log(sqrt(abar) / sqrt(1 - abar)), the lambda_t of DPM-Solver (arXiv 2206.00927)."""
        return (self.alphas_cumprod.log() - self.log_one_minus_alphas_cumprod) / 2

    @cached_property
    def sigmas(self) -> Tensor:
        """sqrt(1 - abar) / sqrt(abar), the noise of x / sqrt(abar) (arXiv 2206.00364)."""
        return (1 / self.alphas_cumprod - 1).sqrt()

    @cached_property
    def sqrt_recip_alphas_cumprod(self) -> Tensor:
        return (1 / self.alphas_cumprod).sqrt()

    @cached_property
    def sqrt_recipm1_alphas_cumprod(self) -> Tensor:
        return (1 / self.alphas_cumprod - 1).sqrt()

    @cached_property
    def posterior_variance(self) -> Tensor:
        """Variance of q(x_{t-1} | x_t, x_0), 0 at index 0 (arXiv 2006.11239, equation 7)."""
        return self.betas * (1 - self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)

    @cached_property
    def posterior_log_variance_clipped(self) -> Tensor:
        """Its logarithm, index 0 (minus infinity) replaced by index 1."""
        if len(self) == 1:  # nothing to borrow from, and no noise is added at index 0
            return self.betas.log()
        return torch.cat([self.posterior_variance[1:2], self.posterior_variance[1:]]).log()

    @cached_property
    def posterior_mean_coef1(self) -> Tensor:
        """Weight of x_0 in the mean of q(x_{t-1} | x_t, x_0)."""
        return self.betas * self.alphas_cumprod_prev.sqrt() / (1 - self.alphas_cumprod)

    @cached_property
    def posterior_mean_coef2(self) -> Tensor:
        """Weight of x_t in the same mean."""
        return (1 - self.alphas_cumprod_prev) * (1 - self.betas).sqrt() / (1 - self.alphas_cumprod)

    @cached_property
    def fixed_large_variance(self) -> Tensor:
        """The betas, index 0 replaced by the posterior variance at index 1."""
        return torch.cat([self.posterior_log_variance_clipped[:1].exp(), self.betas[1:]])

    @cached_property
    def fixed_large_log_variance(self) -> Tensor:
        return self.fixed_large_variance.log()

    @cached_property
    def second_order_weights(self) -> Tensor:
        """By how much of its last change `process.dpm_solver_xstart` goes on with x_0."""
        steps = self.half_log_snr[:-1] - self.half_log_snr[1:]  # from index i + 1 to i, at i
        weights = torch.zeros_like(self.betas)
        weights[2:-1] = steps[1:-1] / (2 * steps[2:])
        return weights


def gather(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """``table[t]`` as [B, 1, 1, 1] in the dtype and on the device of ``like`` [B, ...].

    The float64 tables are rounded where they are, on the CPU, as in the original. Where ``t``
    lies beside ``like`` on another device a table is moved there once, and nothing waits for it.
    """
    if t.device == like.device and t.device.type != "cpu":
        values = _moved(table, like)[t]
    else:
        values = table[t.cpu()].to(like.dtype).to(like.device)
    return values.reshape(-1, *[1] * (like.dim() - 1))


def timestep_everywhere(value: int, like: Tensor) -> Tensor:
    """int64 [B] of one timestep, made beside ``like`` [B, ...]."""
    t = torch.full((like.shape[0],), value, dtype=torch.int64, device=like.device)
    t.on_host = value  # type: ignore[attr-defined]
    return t


def common_timestep(t: Tensor) -> int:
    """The one timestep of ``t`` [B], where it came from rather than from the device, which would
    have to be waited for."""
    known: int | None = getattr(t, "on_host", None)
    return int(t[0]) if known is None else known


_MOVED = WeakIdKeyDictionary()  # of a table: its copies by device and dtype, as long as it lives


def _moved(table: Tensor, like: Tensor) -> Tensor:
    if table not in _MOVED:
        _MOVED[table] = {}
    copies: dict[tuple[torch.device, torch.dtype], Tensor] = _MOVED[table]
    place = (like.device, like.dtype)
    if place not in copies:
        copies[place] = table.to(like.dtype).to(like.device)
    return copies[place]
