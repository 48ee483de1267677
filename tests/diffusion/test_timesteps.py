"""Timestep samplers against the original's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adm_cli.diffusion.timesteps import (
    LossSecondMomentTimesteps,
    TimestepSampler,
    UniformTimesteps,
    draw_timesteps,
    stratified,
)
from tests.golden_arrays import arrays, close

GOLDEN = arrays("training/schedule_samplers.safetensors")


@pytest.mark.parametrize("case", ["default", "h3"])
def test_weights_after_every_loss(case: str) -> None:
    meta = GOLDEN.meta["cases"][case]
    sampler = LossSecondMomentTimesteps(
        meta["num_timesteps"], history=meta["history_per_term"], uniform=meta["uniform_prob"]
    )
    fed = 0
    for row, after in enumerate(GOLDEN[f"{case}.after"].tolist()):
        sampler.update(GOLDEN[f"{case}.ts"][fed:after], GOLDEN[f"{case}.losses"][fed:after])
        fed = after
        weights = GOLDEN[f"{case}.weights"][row]
        close(sampler.probabilities(), weights / weights.sum(), absolute=1e-12)
        assert torch.equal(sampler.counts, GOLDEN[f"{case}.counts"][row])
    close(sampler.losses, GOLDEN[f"{case}.history"], absolute=1e-12)
    _check_draws(sampler, case, seed=GOLDEN.meta["numpy_global_seed"]["loss_aware"])


def test_uniform() -> None:
    sampler = UniformTimesteps(GOLDEN.meta["uniform_num_timesteps"])
    _check_draws(sampler, "uniform", seed=GOLDEN.meta["numpy_global_seed"]["uniform"])


def _check_draws(sampler: TimestepSampler, case: str, seed: int) -> None:
    expected = GOLDEN[f"{case}.sample_indices"]
    uniform = np.random.RandomState(seed).random_sample(len(expected))
    t, weights = draw_timesteps(sampler, torch.from_numpy(uniform))
    assert torch.equal(t, expected)
    close(weights, GOLDEN[f"{case}.sample_weights"], relative=1e-6)


def test_expected_loss_is_that_of_uniform_sampling() -> None:
    sampler = LossSecondMomentTimesteps(4, history=2)
    sampler.update(torch.tensor([0, 1, 2, 3] * 2), torch.tensor([1.0, 2.0, 4.0, 8.0] * 2))
    uniform = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    t, weights = draw_timesteps(sampler, uniform)
    mean = (torch.tensor([1.0, 2.0, 4.0, 8.0])[t] * weights).mean()
    assert float(mean) == pytest.approx(15 / 4, rel=1e-3)
    counts = torch.bincount(t, minlength=4)
    assert bool((counts.diff() > 0).all())  # a large loss is seen more often


def test_numbers_next_to_1_stay_in_range() -> None:
    t, _ = draw_timesteps(UniformTimesteps(1000), torch.tensor([0.0, 1.0 - 2**-24, 1.0]))
    assert t.tolist() == [0, 999, 999]


def test_state_round_trip() -> None:
    sampler = LossSecondMomentTimesteps(5, history=3)
    sampler.update(torch.tensor([0, 0, 4, 2]), torch.tensor([0.1, 0.2, 0.3, 0.4]))
    other = LossSecondMomentTimesteps(5, history=3)
    other.load(sampler.state())
    assert torch.equal(other.losses, sampler.losses)
    assert torch.equal(other.counts, sampler.counts)


def test_stratified_batches_cover_all_noise_levels() -> None:
    for seed in range(20):
        uniform = torch.rand(64, generator=torch.Generator().manual_seed(seed))
        u = stratified(uniform)
        assert (u * 64).long().tolist() == list(range(64))
        t, weights = draw_timesteps(UniformTimesteps(1000), u)
        assert (t * 64 // 1000).float().sub(torch.arange(64)).abs().max() <= 1
        assert (weights == 1).all()
    top = stratified(torch.full((4,), 1 - 2**-24))
    assert top.max() < 1


def test_stratified_numbers_are_uniform() -> None:
    u = torch.stack([stratified(torch.rand(8, generator=_seeded(s))) for s in range(4000)])
    counts = torch.histc(u.flatten().float(), bins=20, min=0, max=1)
    close(counts / counts.sum(), torch.full((20,), 0.05), absolute=0.004)


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
