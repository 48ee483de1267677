"""Training by the faster blocks: the reference's gradients; resumed, a run differs in no bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from adm_cli.models.fast import FastGroupNorm32
from adm_cli.training.trainer import Trainer, hastens
from tests.training.conftest import same_state, settings
from tests.training.test_trainer import batch, run, trainer

KINDS = [("bfloat16", False), ("float32", True)]


def plain_trainer(kind: str, **changes: Any) -> Trainer:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("adm_cli.training.trainer.hastens", lambda *_: False)
        return trainer(kind, **changes)


def test_where_it_pays() -> None:
    def found(device: str, **changes: Any) -> bool:
        return hastens(settings(**changes), torch.device(device))

    assert found("cpu", dtype="bfloat16")
    assert found("cpu", channels_last=True)
    assert not found("cpu")
    assert not found("cuda", dtype="bfloat16", channels_last=True)
    plain = plain_trainer("diffusion", dtype="bfloat16")
    assert not any(isinstance(m, FastGroupNorm32) for m in plain.model.modules())


def gradient(one: Trainer) -> torch.Tensor:
    """Of all parameters, moved a little: those that begin at zero would let nothing through."""
    generator = torch.Generator().manual_seed(3)
    for parameter in one.parameters:
        with torch.no_grad():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    one.accumulate(one.inputs(batch()))
    found = [p.grad for p in one.parameters if p.grad is not None]
    assert len(found) == len(one.parameters)
    assert {g.dtype for g in found} == {torch.float32}
    return torch.cat([g.flatten() for g in found])


@pytest.mark.parametrize("kind", ["diffusion", "classifier"])
def test_gradients_are_the_reference_ones(kind: str) -> None:
    """In float32 to rounding; in bfloat16 about as far from that as the reference's are."""
    exact = gradient(plain_trainer(kind))
    quick = gradient(trainer(kind, channels_last=True))
    assert (quick - exact).norm() < 1e-5 * exact.norm()
    half = gradient(trainer(kind, dtype="bfloat16"))
    plain_half = gradient(plain_trainer(kind, dtype="bfloat16"))
    assert 0 < (half - exact).norm() < 1.5 * (plain_half - exact).norm()


@pytest.mark.parametrize(("dtype", "channels_last"), KINDS)
def test_resumed_is_uninterrupted(dtype: str, channels_last: bool) -> None:
    whole, first = (trainer(dtype=dtype, channels_last=channels_last) for _ in range(2))
    losses = run(whole, 4)
    begun = run(first, 2)
    second = trainer(dtype=dtype, channels_last=channels_last)
    second.load_state(*first.state())
    assert begun + run(second, 2) == losses
    assert same_state(whole, second)
