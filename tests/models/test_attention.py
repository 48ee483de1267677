"""A UNet whose middle attention is taken out or looked at, as written down and made faster."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from adm_cli.checkpoints.loading import build_model
from adm_cli.models.attention import WatchedAttention, watching_attention, without_attention
from adm_cli.models.fast import hasten
from adm_cli.models.layers import AttentionBlock
from adm_cli.models.unet import UNet
from tests.conftest import TOY_UNET, randomise

KINDS: dict[str, dict[str, Any]] = {
    "legacy": {},
    "new": {"qkv_order": "new"},
    "windows": {"attention_window": 4},
    "rescaled": {"rescale_residual": True},
}


def network(kind: str) -> UNet:
    model = randomise(build_model(replace(TOY_UNET, **KINDS[kind]))).eval()
    assert isinstance(model, UNet)
    return model


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(2, 3, 8, 8, generator=generator),
        torch.tensor([10, 10]),
        torch.tensor([0, 3]),
    )


def middle_input(model: UNet) -> tuple[AttentionBlock, Tensor]:
    """The block of attention, and what it is given."""
    block, seen = model.middle_block[1], []
    assert isinstance(block, AttentionBlock)
    handle = block.register_forward_pre_hook(lambda _block, args: seen.append(args[0]))
    model(*inputs())
    handle.remove()
    return block, seen[0]


def attention_maps(block: AttentionBlock, x: Tensor) -> tuple[Tensor, Tensor]:
    """Of one window, written out: maps [B, N, L, L] and values [B, N, L, D]."""
    b, c = x.shape[:2]
    flat = block.qkv(block.norm(x).flatten(2)).transpose(1, 2)  # [B, L, 3C]
    n = block.num_heads
    if block.order == "legacy":
        q, k, v = flat.reshape(b, -1, n, 3, c // n).unbind(3)
    else:
        q, k, v = flat.reshape(b, -1, 3, n, c // n).unbind(2)
    weights = torch.einsum("bqnd,bknd->bnqk", q, k) / (c // n) ** 0.5
    return weights.softmax(-1), v.transpose(1, 2)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_each_position_attends_to_itself_alone(kind: str) -> None:
    model = network(kind)
    before = model(*inputs())
    perturbed = without_attention(model)
    block, x = middle_input(model)
    _, values = attention_maps(block, x)
    out = block.proj_out(values.transpose(2, 3).reshape(2, x.shape[1], -1)).reshape(x.shape)
    wanted = (x + out) * (0.5**0.5 if block.rescale_residual else 1)
    torch.testing.assert_close(perturbed.middle_block[1](x), wanted)
    assert not torch.allclose(perturbed(*inputs()), before)
    assert torch.equal(model(*inputs()), before)  # which stays as it is
    mine, other = dict(model.named_parameters()), list(perturbed.parameters())
    assert {id(p) for p in other} == {id(p) for p in mine.values()}


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_attended_to(kind: str) -> None:
    model = network(kind)
    watched, attention = watching_attention(model)
    assert torch.equal(watched(*inputs()), model(*inputs()))
    found = attention.salient()
    assert found.shape == (2, 1, 8, 8)
    assert found.dtype == torch.bool
    assert 0 < found.sum() < found.numel()
    block, x = middle_input(model)
    if kind != "windows":
        maps, _ = attention_maps(block, x)
        wanted = maps.mean(1).sum(1).reshape(2, 1, 8, 8) > 1
        assert torch.equal(found, wanted)
        return
    normed = block.norm(x)
    block.norm = torch.nn.Identity()  # type: ignore[assignment]
    for i in (0, 4):  # each window as if it were the whole map
        for j in (0, 4):
            part = WatchedAttention(block)
            part(normed[..., i : i + 4, j : j + 4])
            assert torch.equal(part.salient(), found[..., i : i + 4, j : j + 4])


@torch.no_grad()
@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_faster_network_agrees(kind: str, pack: bool) -> None:
    model, fast = network(kind), network(kind)
    hasten(fast, pack=pack)
    other, found = without_attention(model)(*inputs()), without_attention(fast)(*inputs())
    torch.testing.assert_close(found, other, rtol=1e-4, atol=1e-4)
    (plain, seen), (quick, also) = watching_attention(model), watching_attention(fast)
    torch.testing.assert_close(quick(*inputs()), plain(*inputs()), rtol=1e-4, atol=1e-4)
    assert torch.equal(also.salient(), seen.salient())
