"""Settings: what they refuse, and their way through JSON."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch

from adm_cli.checkpoints.architectures import ABLATIONS
from adm_cli.checkpoints.presets import CHECKPOINTS
from adm_cli.config import (
    ClassifierConfig,
    DiffusionConfig,
    Recommended,
    SamplingConfig,
    UNetConfig,
)
from adm_cli.errors import ConfigError
from adm_cli.files.strict import config_from_json, config_to_json
from tests.conftest import DEEP_CLASSIFIER as TOY_CLASSIFIER
from tests.conftest import DEEP_UNET as TOY_UNET


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": (9, 8)}, "8x9 is not divisible by the model's total stride 2"),
        ({"image_size": (0, 8)}, "image_size must be from 1"),
        ({"model_channels": 48}, "multiple of 32 channels"),
        ({"channel_mult": (0.1, 1)}, "multiple of 32 channels"),
        ({"channel_mult": ()}, "channel_mult"),
        ({"num_head_channels": 48}, "not divisible by num_head_channels 48"),
        ({"num_head_channels": None, "num_heads": 5}, "not divisible by num_heads 5"),
        ({"num_head_channels": None, "num_heads_upsample": 5}, "num_heads 5"),
        ({"num_res_blocks": 0}, "num_res_blocks"),
        ({"num_res_blocks": 10**9}, "num_res_blocks"),
        ({"dropout": 1.0}, "dropout"),
        ({"out_channels": 4}, "out_channels must be 3 .* or 6"),
        ({"num_classes": 0}, "num_classes"),
        ({"low_res_size": (0, 4)}, "low_res_size"),
        ({"image_size": (12, 12), "attention_window": 4}, "does not divide the 6 cells"),
        ({"attention_window": 0}, "attention_window"),
    ],
)
def test_impossible_unets(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(TOY_UNET, **change)


def test_impossible_classifier() -> None:
    with pytest.raises(ConfigError, match="num_head_channels"):
        replace(TOY_CLASSIFIER, num_head_channels=None)
    with pytest.raises(ConfigError, match="num_classes"):
        replace(TOY_CLASSIFIER, num_classes=0)


def test_num_head_channels_wins_over_every_head_count() -> None:
    config = replace(TOY_UNET, num_heads=7, num_heads_upsample=5, num_head_channels=16)
    assert config.heads(32) == 2
    assert config.heads(32, config.num_heads_upsample) == 2
    assert replace(TOY_UNET, num_head_channels=None).heads(32, 8) == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": ()}, "at least one"),
        ({"classes": (1, 2)}, "as many classes as seeds"),
        ({"seeds": (-1,)}, "2\\^64 - 1, got -1"),
        ({"seeds": (2**64,)}, "2\\^64 - 1"),
        ({"scale": float("nan")}, "finite"),
        ({"scale": float("inf")}, "finite"),
        ({"classes": (None,), "scale": 1.0}, "needs a class"),
        ({"scales": (1.0, 2.0)}, "2 scales for 1 image$"),
        ({"scales": (float("nan"),)}, "finite"),
        ({"classes": (None,), "scales": (1.0,)}, "needs a class"),
        ({"cfg": float("nan")}, "guidance cfg must be a finite number"),
        ({"cfgs": (1.0, 2.0)}, "2 cfgs for 1 image$"),
        ({"classes": (None,), "cfg": 2.0}, "needs a class.*--cfg 1"),
        ({"cfg_interval": (0.5, 0.2)}, "cfg_interval must be two rising numbers"),
        ({"cfg_interval": (0.5, 1.2)}, "cfg_interval must be two rising numbers"),
        ({"eta": 1.5}, "eta"),
        ({"eta": float("nan")}, "eta"),
        ({"batch_size": 0}, "batch size must be from 1 to 4096, got 0"),
        ({"batch_size": 10**9}, "batch size must be from 1"),
    ],
)
def test_impossible_sampling(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SamplingConfig(**{"seeds": (0,), "classes": (1,), **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"classes": "dog"},
            "classes must be whole numbers .adm classes .*, got 'dog'",
        ),
        ({"classes": ("dog",)}, "must be whole numbers"),
        ({"seeds": (0.5,)}, "seeds must be whole numbers, such as .*, got .0.5"),
        ({"seeds": (True,)}, "seeds must be whole numbers"),
        ({"seeds": None}, "seeds must be whole numbers"),
        ({"seeds": "0-3"}, "seeds must be whole numbers, such as .*, got '0-3'"),
        ({"steps": 2.5}, "steps must be a number or text such as 250 or 'ddim25', got 2.5"),
        ({"steps": True}, "got True"),
    ],
)
def test_what_is_no_setting(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SamplingConfig(**{"seeds": (0,), "classes": (1,), **change})


def test_other_ways_to_write_settings() -> None:
    plain = SamplingConfig(seeds=(0, 1), classes=(7, 7), sampler="dpm++2m", steps="20")
    changes: list[dict[str, Any]] = [
        {"classes": 7},
        {"classes": (7,)},
        {"classes": [7, 7], "seeds": range(2)},
        {"classes": np.array([7, 7]), "seeds": torch.arange(2)},
        {"steps": 20},
        {"steps": " 20 "},
        *({"sampler": name} for name in ("DPM++ 2M", "dpmpp_2m", "DPM-Solver++(2M)", "DPM++2M")),
    ]
    for change in changes:
        assert replace(plain, **change) == plain
    assert replace(plain, steps="DDIM25").steps == "ddim25"
    assert replace(plain, sampler="DDIM").sampler == "ddim"
    assert replace(plain, sampler="Heun").sampler == "heun"
    assert replace(plain, sampler="Milstein").sampler == "Milstein"  # as typed, to be refused
    assert SamplingConfig(seeds=3, classes=None) == SamplingConfig(seeds=(3,), classes=(None,))  # type: ignore[arg-type]


def test_largest_seed_and_negative_scale_are_fine() -> None:
    config = SamplingConfig(seeds=(2**64 - 1,), classes=(0,), scale=-2.0)
    assert config.scale == -2.0


def test_json_round_trip() -> None:
    configs: list[Any] = [row.config for row in CHECKPOINTS]
    configs += [row.config for row in ABLATIONS]
    configs += [row.diffusion for row in CHECKPOINTS]
    for config in configs:
        assert config_from_json(type(config), config_to_json(config)) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"surprise": 1}, "unknown settings: surprise"),
        ({"model_channels": "32"}, "model_channels has an unexpected value"),
        ({"model_channels": 32.0}, "model_channels"),
        ({"model_channels": True}, "model_channels"),
        ({"image_size": [8]}, "image_size"),
        ({"image_size": [8, 8, 8]}, "image_size"),
        ({"image_size": 8}, "image_size"),
        ({"qkv_order": "other"}, "qkv_order"),
        ({"scale_shift_norm": 1}, "scale_shift_norm"),
        ({"channel_mult": [1, "2"]}, "channel_mult"),
        ({"channel_mult": [1, {}]}, "channel_mult"),
        ({"num_classes": "5"}, "num_classes"),
        ({"dropout": None}, "dropout"),
    ],
)
def test_json_is_read_strictly(change: dict[str, Any], message: str) -> None:
    data = {**json.loads(config_to_json(TOY_UNET)), **change}
    with pytest.raises(ConfigError, match=message):
        config_from_json(UNetConfig, json.dumps(data))


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "1", "[" * 10000])
def test_not_even_an_object(text: str) -> None:
    with pytest.raises(ConfigError):
        config_from_json(ClassifierConfig, text)
    with pytest.raises(ConfigError):
        config_from_json(UNetConfig, "{}")


def test_diffusion_needs_enough_steps() -> None:
    with pytest.raises(ConfigError, match="at least 20"):
        DiffusionConfig(num_timesteps=19)
    assert DiffusionConfig(noise_schedule="cosine", num_timesteps=1).num_timesteps == 1


_ARRAY = np.array([1.5, 2.5], dtype=np.float32)


@pytest.mark.parametrize("config", [TOY_UNET, TOY_CLASSIFIER, DiffusionConfig(), Recommended()])
def test_values_of_other_types_are_told_of_by_name(config: Any) -> None:
    for field in fields(config):
        for wrong in (object(), b"x", {}, ("x", 1)):
            with pytest.raises(ConfigError, match=rf"^{field.name} must be .*, got "):
                replace(config, **{field.name: wrong})


def test_values_of_other_types_in_what_is_drawn() -> None:
    asked = SamplingConfig(seeds=(0, 1), classes=(1, 2))
    for field in fields(asked):
        for wrong in (object(), b"x", {"a": 1}, ("x", 1)):
            change: dict[str, Any] = {field.name: wrong}
            with pytest.raises(ConfigError, match=rf"^{field.name} must be "):
                replace(asked, **change)
    with pytest.raises(ConfigError, match=r"^scale must be a number or None, got '4'$"):
        replace(asked, scale="4")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^cfg_interval must be a list of 2 numbers or None"):
        replace(asked, cfg_interval=0.5)  # type: ignore[arg-type]


def test_lists_and_numbers_of_numpy_and_torch_become_what_is_declared() -> None:
    many: dict[str, Any] = {
        "scales": _ARRAY, "cfg": np.float32(1.5), "project": np.int64(3), "steps": np.int64(20),
        "cfg_interval": [0, 0.5], "temperature": torch.tensor(0.5), "entropy_scaling": np.True_,
    }  # fmt: skip
    found = SamplingConfig(seeds=(0, 1), classes=(1, 2), **many)
    plain = SamplingConfig(
        seeds=(0, 1), classes=(1, 2), scales=(1.5, 2.5), cfg=1.5, project=3, steps="20",
        cfg_interval=(0, 0.5), temperature=0.5, entropy_scaling=True,
    )  # fmt: skip
    assert found == plain
    assert config_to_json(found) == config_to_json(plain)
    listed: dict[str, Any] = {"image_size": [8, 8]}
    assert hash(replace(TOY_UNET, **listed)) == hash(replace(TOY_UNET, image_size=(8, 8)))
