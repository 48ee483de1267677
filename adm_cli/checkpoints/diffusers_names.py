"""The tensors of ADM's UNet under the names of diffusers' `UNet2DModel`, and back.

Queries, keys and values are one layer here and three there; the channels of a head, which the
published models have in two orders (`models.layers.qkv_attention`), are in one there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from adm_cli.config import QkvOrder, UNetConfig

_RESIDUAL = {  # parts of a residual block
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_ATTENTION = {"norm": "group_norm", "proj_out": "to_out.0"}


def _modules(config: UNetConfig) -> Iterator[tuple[str, str, str]]:
    """Every block or layer: its name here, there, and "residual", "attention" or "layer"."""
    yield from (
        ("time_embed.0", "time_embedding.linear_1", "layer"),
        ("time_embed.2", "time_embedding.linear_2", "layer"),
        ("label_emb", "class_embedding", "layer"),
        ("input_blocks.0.0", "conv_in", "layer"),
        ("out.0", "conv_norm_out", "layer"),
        ("out.2", "conv_out", "layer"),
    )
    middle = ["residual", *(["attention"] if config.middle_attention else []), "residual"]
    counts = {"residual": 0, "attention": 0}
    for i, kind in enumerate(middle):
        group = "resnets" if kind == "residual" else "attentions"
        yield f"middle_block.{i}", f"mid_block.{group}.{counts[kind]}", kind
        counts[kind] += 1
    levels, each = len(config.channel_mult), config.num_res_blocks
    kind = "residual" if config.resblock_updown else "layer"
    here = 1
    for level in range(levels):
        there = f"down_blocks.{level}"
        for j in range(each):
            yield from _block(f"input_blocks.{here}", there, j, config.attends(level))
            here += 1
        if level < levels - 1:
            ours, theirs = (".0", "") if config.resblock_updown else (".0.op", ".conv")
            yield f"input_blocks.{here}{ours}", f"{there}.downsamplers.0{theirs}", kind
            here += 1
    here = 0
    for level in reversed(range(levels)):
        there = f"up_blocks.{levels - 1 - level}"
        for j in range(each + 1):
            yield from _block(f"output_blocks.{here}", there, j, config.attends(level))
            if level and j == each:
                ours, theirs = ("", "") if config.resblock_updown else (".conv", ".conv")
                place = f"output_blocks.{here}.{2 if config.attends(level) else 1}{ours}"
                yield place, f"{there}.upsamplers.0{theirs}", kind
            here += 1


def _block(here: str, there: str, j: int, attends: bool) -> Iterator[tuple[str, str, str]]:
    yield f"{here}.0", f"{there}.resnets.{j}", "residual"
    if attends:
        yield f"{here}.1", f"{there}.attentions.{j}", "attention"


def _names(config: UNetConfig) -> Iterator[tuple[str, str]]:
    """Names here and there of every parameter but queries, keys and values."""
    for ours, theirs, kind in _modules(config):
        parts = {"residual": _RESIDUAL, "attention": _ATTENTION}.get(kind, {"": ""})
        for mine, other in parts.items():
            for leaf in ("weight", "bias"):
                pair = (ours, mine, leaf), (theirs, other, leaf)
                mine_, other_ = (".".join(filter(None, names)) for names in pair)
                yield mine_, other_


def to_diffusers(tensors: Mapping[str, Tensor], config: UNetConfig) -> dict[str, Tensor]:
    """A state dict of ours as `UNet2DModel` has it."""
    found = {}
    for mine, other in _names(config):
        if mine in tensors:
            value = tensors[mine]
            found[other] = value[:, :, 0] if value.ndim == 3 else value  # [C, C, 1] is linear
    for ours, theirs, kind in _modules(config):
        for leaf in ("weight", "bias") if kind == "attention" else ():
            parts = _split(tensors[f"{ours}.qkv.{leaf}"], _heads(config, ours), config.qkv_order)
            for letter, part in zip("qkv", parts, strict=True):
                found[f"{theirs}.to_{letter}.{leaf}"] = part
    return found


def from_diffusers(tensors: Mapping[str, Tensor], config: UNetConfig) -> dict[str, Tensor]:
    """The inverse; raises KeyError with the name of a tensor that is missing."""
    found = {}
    for mine, other in _names(config):
        optional = mine.startswith("label_emb") or "skip_connection" in mine
        if other in tensors or not optional:
            value = tensors[other]
            found[mine] = value[:, :, None] if mine.endswith("proj_out.weight") else value
    for ours, theirs, kind in _modules(config):
        for leaf in ("weight", "bias") if kind == "attention" else ():
            parts = [tensors[f"{theirs}.to_{letter}.{leaf}"] for letter in "qkv"]
            found[f"{ours}.qkv.{leaf}"] = _join(parts, _heads(config, ours), config.qkv_order)
    return found


def _heads(config: UNetConfig, name: str) -> int:
    """Of the attention block of that name."""
    if not name.startswith("output_blocks"):
        return config.heads(_channels(config, name))
    return config.heads(_channels(config, name), config.num_heads_upsample)


def _channels(config: UNetConfig, name: str) -> int:
    part, number = name.split(".")[:2]
    each, levels = config.num_res_blocks + 1, config.level_channels
    if part == "middle_block":
        return levels[-1]
    if part == "input_blocks":
        return levels[(int(number) - 1) // each]
    return levels[len(levels) - 1 - int(number) // each]


def _split(qkv: Tensor, heads: int, order: QkvOrder) -> list[Tensor]:
    """[3 * C, ...] as three of [C, ...], whose channels are (head, D); see `qkv_attention`."""
    width = len(qkv) // 3
    shape = (heads, 3, -1) if order == "legacy" else (3, heads, -1)
    flat = qkv.reshape(*shape, *qkv.shape[1:2])
    axis = 1 if order == "legacy" else 0
    return [part.reshape(width, *qkv.shape[1:2]).clone() for part in flat.unbind(axis)]


def _join(parts: list[Tensor], heads: int, order: QkvOrder) -> Tensor:
    """The inverse of `_split`; weights [C, C] become [3 * C, C, 1]."""
    split = [part.reshape(heads, -1, *part.shape[1:]) for part in parts]
    whole = torch.stack(split, dim=1 if order == "legacy" else 0).reshape(-1, *parts[0].shape[1:])
    return whole[:, :, None] if whole.ndim == 2 else whole
