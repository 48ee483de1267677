"""Muon beside torch's own, which knows matrices alone, and where it may be used."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adm_cli.training.muon import Muon, moments, orthogonal, torso_matrices
from adm_cli.training.trainer import Trainer
from tests.training.conftest import settings, toy_task

CPU = torch.device("cpu")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(8, 8), (6, 54), (54, 6)])
def test_a_direction_keeps_its_singular_vectors(shape: tuple[int, int]) -> None:
    u, s, v = torch.linalg.svd(random(*shape), full_matrices=False)
    found = orthogonal(u @ torch.diag(s) @ v)
    inner = u.T @ found @ v.T
    assert torch.allclose(inner, torch.diag(inner.diagonal()), atol=1e-4)
    large = inner.diagonal()[s > 0.1 * s.max()]
    assert bool(((large > 0.6) & (large < 1.3)).all())
    assert torch.allclose(orthogonal(1e-3 * random(*shape)), orthogonal(random(*shape)), atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_of_few_directions_stay_bounded(dtype: torch.dtype) -> None:
    """As all are where a network begins with zeros."""
    one = random(16, 1) @ random(1, 40, seed=1)
    assert torch.linalg.matrix_norm(orthogonal(one, dtype), ord=2) < 1.3
    assert not orthogonal(torch.zeros(16, 40), dtype).any()


@pytest.mark.parametrize("shape", [(16, 16), (8, 72), (72, 8)])
def test_steps_are_those_of_torch(shape: tuple[int, int]) -> None:
    ours, theirs = nn.Parameter(random(*shape)), nn.Parameter(random(*shape))
    bias, other = nn.Parameter(random(5)), nn.Parameter(random(5))
    start = ours.detach().clone()
    options: dict[str, Any] = {"lr": 0.03, "weight_decay": 0.1}
    one = Muon([ours], [bias], torch.bfloat16, betas=(0.8, 0.9), **options)
    both = (
        torch.optim.Muon([theirs], adjust_lr_fn="match_rms_adamw", **options),
        torch.optim.AdamW([other], betas=(0.8, 0.9), **options),
    )
    for step in range(1, 4):
        for parameter in (ours, theirs):
            parameter.grad = random(*shape, seed=step)
        for parameter in (bias, other):
            parameter.grad = random(5, seed=step)
        for group in (*one.param_groups, *(g for o in both for g in o.param_groups)):
            group["lr"] = 0.03 / step
        one.step()
        for optimizer in both:
            optimizer.step()  # type: ignore[no-untyped-call]
    way = (theirs - start).norm()
    assert (ours - theirs).norm() < 0.03 * way  # bfloat16 rounds by 0.004 each time
    assert torch.equal(bias, other)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_a_convolution_is_a_matrix(memory: torch.memory_format) -> None:
    flat = nn.Parameter(random(8, 4 * 9))
    folded = nn.Parameter(random(8, 4 * 9).view(8, 4, 3, 3).to(memory_format=memory))
    for parameter in (flat, folded):
        optimizer = Muon(
            [parameter], [nn.Parameter(random(1))], torch.float32, lr=0.1, weight_decay=0.0
        )
        parameter.grad = random(8, 4 * 9, seed=1).view(parameter.shape)
        optimizer.step()
    assert torch.allclose(folded.flatten(1), flat, atol=1e-6)
    assert folded.is_contiguous(memory_format=memory)


@pytest.mark.parametrize("kind", ["diffusion", "classifier"])
def test_what_it_moves(kind: str) -> None:
    one = Trainer(toy_task(kind), settings(optimizer="muon"), device=CPU)
    named = dict(one.model.named_parameters())
    chosen = set(torso_matrices(named))
    assert {n for n in chosen if named[n].dim() == 1} == set()
    assert "input_blocks.0.0.weight" not in chosen
    assert not [n for n in chosen if n.startswith(("out.", "label", "time"))]
    assert any(named[n].dim() == 4 for n in chosen)
    assert any("emb_layers" in n for n in chosen)
    kept = {n: moments(one.optimizer, p) for n, p in named.items()}
    assert {n for n in kept if kept[n] == ("exp_avg",)} == chosen


def test_one_rate_sets_both_parts() -> None:
    one = Trainer(toy_task("diffusion"), settings(optimizer="muon"), device=CPU)
    for group in one.optimizer.param_groups:
        group["lr"] = 0.0
    before = [p.detach().clone() for p in one.parameters]
    for parameter in one.parameters:
        parameter.grad = torch.ones_like(parameter)
    one.optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, one.parameters, strict=True))
