"""Back projection: what is enlarged agrees with what it was made from."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F

from adm_cli.diffusion.projection import back_project


def seeded(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64) - 0.5


def gap(x: torch.Tensor, low_res: torch.Tensor) -> float:
    return float((F.interpolate(x, low_res.shape[2:], mode="area") - low_res).abs().max())


def test_averages_become_the_small_picture() -> None:
    """Also of noise, the worst case; not square, and not twice the size either."""
    for size in ((12, 20), (18, 30)):
        x, low_res = 0.2 * seeded(2, 3, *size), 0.2 * seeded(2, 3, 6, 10, seed=1)
        gaps = [gap(back_project(x, low_res, passes), low_res) for passes in range(9)]
        assert gaps[0] > 0.05
        assert all(after < 0.7 * before for before, after in pairwise(gaps))
        assert gaps[8] < 0.01 * gaps[0]


def test_what_agrees_is_left_alone() -> None:
    x = seeded(1, 3, 8, 8)
    low_res = F.interpolate(x, (4, 4), mode="area")
    assert torch.allclose(back_project(x, low_res, 3), x, atol=1e-12)
    assert torch.equal(back_project(3 * x, low_res, 0), 3 * x)


def test_it_stays_in_range() -> None:
    low_res = torch.ones(1, 3, 4, 4)
    found = back_project(-torch.ones(1, 3, 8, 8), low_res, 4)
    assert float(found.abs().max()) <= 1
    assert gap(found, low_res) < 0.05
