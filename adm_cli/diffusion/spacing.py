"""Which timesteps a given number of steps visits, where not evenly many lie between them.

T timesteps, N steps; lists ascend, are without repeats, and all but the paper's end at T - 1.
"""

from __future__ import annotations

import torch

from adm_cli.diffusion.modifiers import Spacing
from adm_cli.diffusion.schedule import NoiseSchedule, space_timesteps
from adm_cli.errors import ConfigError

_LSUN = (90, 60, 60, 20, 20)  # of 250 steps, in fifths of the timesteps (arXiv 2105.05233)
_RHO, _MOST_SIGMA = 7, 80.0  # arXiv 2206.00364, table 1
_LEAST_LSUN = 25  # so that each fifth has both its ends


def spaced_timesteps(schedule: NoiseSchedule, count: int, spacing: Spacing) -> list[int]:
    """Indices of ``schedule`` that ``count`` steps visit.

    "uniform" as `space_timesteps`; "trailing" (arXiv 2305.08891, table 2) evenly down from T - 1,
    so that pure noise is where sampling begins even with few steps; "quadratic" (arXiv 2010.02502,
    appendix D.2) with gaps that grow with the noise; "log-snr" (arXiv 2206.00927)
    even in the logarithm of the signal-to-noise ratio; "rho" (arXiv 2206.00364, equation 5) even
    in the seventh root of sigma, from 80 down where T - 1 is noisier, nearest in sigma; "lsun" the
    paper's shares for LSUN, 90, 60, 60, 20 and 20 of 250 in fifths from little noise to much.

    Raises ConfigError for more steps than there are, fewer than 1, or fewer than 25 for "lsun".
    """
    last = len(schedule) - 1
    if not 1 <= count <= len(schedule):
        raise ConfigError(f"steps {count}: expected from 1 to {len(schedule)}, the timesteps")
    if spacing == "uniform":
        return space_timesteps(len(schedule), str(count))
    if spacing == "lsun":
        return space_timesteps(len(schedule), _shares(count))
    rising = torch.arange(1, count + 1, dtype=torch.float64, device="cpu")
    if spacing == "trailing":
        return _distinct(rising * len(schedule) / count - 1, last)
    places = (rising - 1) / (count - 1) if count > 1 else rising
    if spacing == "quadratic":
        return _distinct(places**2 * last, last)
    if spacing == "rho":
        return _rho_timesteps(schedule, places)
    ratio = schedule.half_log_snr  # falls
    wanted = ratio[0] + places * (ratio[-1] - ratio[0])
    return _distinct((ratio[:, None] - wanted).abs().argmin(0).double(), last)


def _rho_timesteps(schedule: NoiseSchedule, places: torch.Tensor) -> list[int]:
    """Begun at T - 1 whatever its sigma; ``places`` rise from 0 to 1."""
    sigmas = schedule.sigmas
    low, high = (float(s) ** (1 / _RHO) for s in (sigmas[0], sigmas[-1].clamp(max=_MOST_SIGMA)))
    wanted = (low + places * (high - low)) ** _RHO
    nearest = (sigmas[:, None] - wanted).abs().argmin(0).double()
    nearest[-1] = len(schedule) - 1
    return _distinct(nearest, len(schedule) - 1)


def _shares(count: int) -> list[int]:
    """``count`` steps in the proportions of the paper's, the largest remainders rounded up."""
    if count < _LEAST_LSUN:
        raise ConfigError(f"lsun spacing shares at least {_LEAST_LSUN} steps, got {count}")
    exact = [count * share / sum(_LSUN) for share in _LSUN]
    found = [int(share) for share in exact]
    rest = sorted(range(len(exact)), key=lambda i: found[i] - exact[i])
    for i in rest[: count - sum(found)]:
        found[i] += 1
    return found


def _distinct(places: torch.Tensor, last: int) -> list[int]:
    """Rounded, each above the one before, none above ``last``."""
    found: list[int] = []
    for place in places.round().long().tolist():
        found.append(max(place, found[-1] + 1) if found else max(place, 0))
    for i in reversed(range(len(found))):
        found[i] = min(found[i], last - (len(found) - 1 - i))
    return found
