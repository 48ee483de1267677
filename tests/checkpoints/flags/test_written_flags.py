"""Flags that are written are read back as the same model; what the original lacks is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from adm_cli.checkpoints.flags.model import openai_flags
from adm_cli.checkpoints.flags.written import edits, lacks, write_flags
from adm_cli.checkpoints.presets import CHECKPOINTS, Checkpoint
from adm_cli.config import ClassifierConfig, DiffusionConfig, UNetConfig
from tests.conftest import DEEP_CLASSIFIER, DEEP_UNET, TOY_DIFFUSION, TOY_UPSAMPLER

PUBLISHED = [row for row in CHECKPOINTS if not row.embedded]


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row.name)
def test_every_published_model(row: Checkpoint) -> None:
    """All of them by the original's own flags, without an edit."""
    text = write_flags(row.config, row.diffusion)
    kind: Any = row.kind
    assert openai_flags(text, kind) == (row.config, row.diffusion)
    assert lacks(row.config, row.diffusion) == edits(row.config, row.diffusion) == []
    assert row.kind != "upsampler" or not {"--channel_mult", "--use_new_attention_order"} & set(
        text.split()
    )  # which super_res_sample.py has not


@pytest.mark.parametrize(
    "config",
    [
        replace(DEEP_UNET, qkv_order="new", dropout=0.25, num_heads_upsample=2, use_fp16=True),
        replace(DEEP_UNET, num_classes=None, scale_shift_norm=False, resblock_updown=False),
        replace(TOY_UPSAMPLER, attention_factors=(1,)),
        replace(TOY_UPSAMPLER, attention_factors=(1,), qkv_order="new"),
        replace(
            DEEP_CLASSIFIER, num_heads=1, num_head_channels=64, model_channels=64, pool="spatial"
        ),
        replace(DEEP_CLASSIFIER, num_heads=1, num_head_channels=16, qkv_order="new"),
        replace(DEEP_CLASSIFIER, num_heads=1, num_head_channels=None, pool="adaptive"),
    ],
    ids=[
        "unet", "unconditional", "upsampler", "upsampler of the new order", "classifier",
        "classifier of narrow heads", "classifier of one head",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "diffusion",
    [
        TOY_DIFFUSION,
        DiffusionConfig(noise_schedule="cosine", loss="rescaled_kl", rescale_timesteps=True),
        DiffusionConfig(prediction="x_start", loss="rescaled_mse", num_timesteps=4000),
    ],
    ids=["linear", "cosine", "x_start"],
)
def test_any_other(config: UNetConfig | ClassifierConfig, diffusion: DiffusionConfig) -> None:
    kind: Any = "classifier" if isinstance(config, ClassifierConfig) else "diffusion"
    kind = "upsampler" if getattr(config, "low_res_size", None) else kind
    assert lacks(config, diffusion) == []
    assert openai_flags(write_flags(config, diffusion), kind) == (config, diffusion)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"patch": 2, "image_size": (16, 16)}, "patches of 2x2 pixels"),
        ({"image_size": (8, 16)}, "not square"),
        ({"attention_window": 4}, "windows"),
        ({"rescale_residual": True}, "residual"),
        ({"scale_shift_norm": False, "concat_embedding": True}, "embedding concatenated"),
        ({"middle_attention": False}, "a middle without attention"),
        ({"low_res_size": (4, 4), "detail_scale": 0.3}, "the detail alone predicted"),
        ({"conv_resample": False, "resblock_updown": False}, "resampling without convolutions"),
        ({"out_channels": 3}, "variance"),
    ],
)
def test_what_the_original_has_not(changes: dict[str, Any], word: str) -> None:
    (reason,) = lacks(replace(DEEP_UNET, **changes), TOY_DIFFUSION)
    assert word in reason


def test_what_has_to_be_edited_there() -> None:
    (by_v,) = lacks(DEEP_UNET, replace(TOY_DIFFUSION, prediction="v"))
    assert by_v == "v-prediction (one trained with --set prediction=eps can)"
    narrow = replace(DEEP_CLASSIFIER, num_head_channels=16, qkv_order="new")
    assert not lacks(narrow, replace(TOY_DIFFUSION, prediction="v"))  # it predicts classes
    told = edits(narrow, TOY_DIFFUSION)
    assert [t.split(" in ")[0] for t in told[-2:]] == [
        "use_new_attention_order=True", "num_head_channels=16",
    ]  # fmt: skip
    several = replace(DEEP_CLASSIFIER, num_head_channels=None, num_heads=2, pool="adaptive")
    assert lacks(several, TOY_DIFFUSION) == ["a classifier's 2 heads, whatever the width"]
    told = edits(replace(DEEP_UNET, channel_mult=(1, 1.0)), TOY_DIFFUSION)
    assert told == ["NUM_CLASSES = 5, and no --num_classes"]
    halves = replace(DEEP_UNET, model_channels=64, channel_mult=(0.5, 1), num_classes=None)
    (text,) = edits(halves, TOY_DIFFUSION)
    assert text.startswith("float instead of int")
    small = replace(TOY_DIFFUSION, variance="fixed_small")
    assert any("sigma_small" in text for text in edits(DEEP_UNET, small))
    assert any("create_classifier" in text for text in edits(DEEP_CLASSIFIER, TOY_DIFFUSION))
    told = edits(replace(TOY_UPSAMPLER, qkv_order="new", num_classes=None), TOY_DIFFUSION)
    assert [text.split(" in ")[1].split(",")[0] for text in told] == ["sr_create_model"] * 2
