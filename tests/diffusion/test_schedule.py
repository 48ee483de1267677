"""Schedules and respacing against the original's tables."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from adm_cli.diffusion.process import model_timesteps
from adm_cli.diffusion.schedule import (
    NoiseSchedule,
    betas_for_alpha_bar,
    gather,
    space_timesteps,
)
from adm_cli.errors import ConfigError
from tests.golden_arrays import ROOT, arrays, close

GOLDEN_STEPS = json.loads((ROOT / "diffusion" / "space_timesteps.json").read_text())


def table(schedule: NoiseSchedule, name: str) -> torch.Tensor:
    if name == "log_betas":
        return schedule.betas.log()
    if name == "fixed_large_log_variance":
        return schedule.fixed_large_variance.log()
    if name in ("use_timesteps", "timestep_map"):
        return schedule.timesteps
    value: torch.Tensor = getattr(schedule, name)
    return value


def test_schedule_tables() -> None:
    golden = arrays("diffusion/schedules.safetensors")
    checked = 0
    for key in golden.names():
        kind, name = key.split(".")
        if kind.startswith("alpha_bar_fn"):
            continue
        schedule_name, steps = kind.split("_")
        schedule = NoiseSchedule.named(schedule_name, int(steps))
        torch.testing.assert_close(table(schedule, name), golden[key], rtol=1e-12, atol=0)
        checked += 1
    assert checked >= 32


def test_betas_for_alpha_bar() -> None:
    golden = arrays("diffusion/schedules.safetensors")
    close(
        betas_for_alpha_bar(50, lambda u: math.exp(-5 * u * u)),
        golden["alpha_bar_fn.betas"],
        relative=1e-12,
    )
    close(
        betas_for_alpha_bar(50, lambda u: math.cos(math.pi * u / 2) ** 2, max_beta=0.5),
        golden["alpha_bar_fn_cap.betas"],
        relative=1e-12,
    )


def test_respaced_tables() -> None:
    golden = arrays("diffusion/spaced.safetensors")
    for case in golden.meta["keys"]:
        schedule = NoiseSchedule.named(case["schedule"], case["T"]).respace(case["spec"])
        assert schedule.original_timesteps == case["T"]
        for key in golden.names(case["key"] + "."):
            name = key.rsplit(".", 1)[1]
            torch.testing.assert_close(table(schedule, name), golden[key], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", GOLDEN_STEPS["valid"], ids=lambda c: f"{c['spec']}")
def test_space_timesteps(case: dict[str, Any]) -> None:
    if case["count"] == 0:  # the original accepts it and fails later
        with pytest.raises(ConfigError, match="at least one step"):
            space_timesteps(case["num_timesteps"], case["spec"])
    else:
        assert space_timesteps(case["num_timesteps"], case["spec"]) == case["steps"]


@pytest.mark.parametrize("case", GOLDEN_STEPS["invalid"], ids=lambda c: f"{c['spec']}")
def test_bad_steps(case: dict[str, Any]) -> None:
    spec, total = case["spec"], case["num_timesteps"]
    if spec == "":  # all steps, as the original's scripts take it
        assert space_timesteps(total, spec) == list(range(total))
        return
    count = spec.removeprefix("ddim")
    if spec.startswith("ddim") and count.isdecimal() and 1 <= int(count) <= total:
        # any ddimN: the original refuses those without an integer stride
        steps = space_timesteps(total, spec)
        assert len(steps) == int(count)
        return
    with pytest.raises(ConfigError, match="steps"):
        space_timesteps(total, spec)


def test_every_ddim_count() -> None:
    for count in range(1, 1001):
        steps = space_timesteps(1000, f"ddim{count}")
        assert len(set(steps)) == count
        assert steps == sorted(steps)
        assert steps[0] == 0
        assert steps[-1] < 1000


def test_every_count() -> None:
    for count in range(1, 1001):
        steps = space_timesteps(1000, str(count))
        assert space_timesteps(1000, count) == steps
        assert len(set(steps)) == count
        assert count == 1 or (steps[0], steps[-1]) == (0, 999)


def test_model_timesteps() -> None:
    golden = arrays("diffusion/model_timesteps.safetensors")
    for case in golden.meta["cases"]:
        schedule = NoiseSchedule.linear(case["T"])
        if case["timestep_respacing"]:
            schedule = schedule.respace(case["timestep_respacing"])
        seen = model_timesteps(
            schedule, golden[f"{case['key']}.t_in"], rescale=case["rescale_timesteps"]
        )
        expected = golden[f"{case['key']}.t_model"]
        assert seen.dtype == expected.dtype
        assert torch.equal(seen, expected)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_respacing_to_all_steps_is_the_identity(name: str) -> None:
    schedule = NoiseSchedule.named(name, 1000)
    for spec in ("", "1000", "ddim1000"):
        same = schedule.respace(spec)
        torch.testing.assert_close(same.betas, schedule.betas, rtol=1e-9, atol=1e-15)
        assert torch.equal(same.timesteps, schedule.timesteps)


def test_respacing_keeps_noise_levels_and_composes() -> None:
    schedule = NoiseSchedule.cosine(1000)
    short = schedule.respace("90,60,60,20,20")
    close(short.alphas_cumprod, schedule.alphas_cumprod[short.timesteps], relative=1e-12)
    shorter = short.respace("ddim50")
    assert shorter.original_timesteps == 1000
    close(shorter.alphas_cumprod, schedule.alphas_cumprod[shorter.timesteps], relative=1e-12)


def test_one_step() -> None:
    schedule = NoiseSchedule.linear(1000).respace("1")
    assert schedule.timesteps.tolist() == [0]
    for name in ("posterior_log_variance_clipped", "fixed_large_variance", "posterior_variance"):
        assert bool(torch.isfinite(getattr(schedule, name)).all())


def test_impossible_schedules() -> None:
    for count in (1, 2, 10, 19):
        with pytest.raises(ConfigError, match="at least 20"):
            NoiseSchedule.linear(count)
    assert NoiseSchedule.linear(20).betas[-1] == 1.0
    assert len(NoiseSchedule.cosine(1)) == 1
    for betas in ([0.0, 0.1], [0.5, 1.1], [float("nan")], []):
        with pytest.raises(ConfigError):
            NoiseSchedule.from_betas(torch.tensor(betas))
    with pytest.raises(ConfigError):
        NoiseSchedule.from_betas(torch.full((2, 2), 0.1))


def test_gather_rounds_after_indexing() -> None:
    schedule = NoiseSchedule.linear(1000)
    t = torch.tensor([3, 999])
    got = gather(schedule.betas, t, torch.zeros(2, 3, 4, 4))
    assert got.shape == (2, 1, 1, 1)
    assert torch.equal(got.flatten(), schedule.betas[t].float())


@pytest.mark.parametrize("indices", [range(0), [3, 2], [1, 1], [-1], [9, 10]])
def test_only_rising_indices_are_kept(indices: list[int]) -> None:
    with pytest.raises(ConfigError, match="expected at least one of the 10 indices from 0, rising"):
        NoiseSchedule.cosine(10).keep(indices)


def test_an_unknown_schedule_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown schedule 'sqrt': expected linear or cosine"):
        NoiseSchedule.named("sqrt", 10)
