"""--set: a setting written as --dry-run shows it, as JSON, or as people write it."""

from __future__ import annotations

import dataclasses
from typing import Any, get_type_hints

import pytest

from adm_cli.checkpoints.presets import CHECKPOINTS
from adm_cli.config import ClassifierConfig, UNetConfig
from adm_cli.errors import ConfigError, UsageError
from adm_cli.files.strict import with_settings
from adm_cli.training.changes import parse_value, read_changes
from adm_cli.training.config import TrainingConfig
from tests.training.conftest import DIFFUSION

UNET = next(row.config for row in CHECKPOINTS if isinstance(row.config, UNetConfig))
CLASSIFIER = next(row.config for row in CHECKPOINTS if isinstance(row.config, ClassifierConfig))
TRAINING = TrainingConfig(steps=10, batch_size=4, clip_norm=1.0, ema_rates=(0.999,))
CONFIGS = [UNET, CLASSIFIER, DIFFUSION, TRAINING]


def change(*texts: str, config: Any = UNET) -> Any:
    return with_settings(config, read_changes(texts, [config])[0])


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: type(c).__name__)
def test_what_dry_run_prints_is_read(config: Any) -> None:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        hint = get_type_hints(type(config))[field.name]
        assert parse_value(str(value), hint) == value, field.name
    assert change(*(f"{k}={v}" for k, v in vars(config).items()), config=config) == config


@pytest.mark.parametrize("text", ["1,2,2", "(1, 2, 2)", "[1,2,2]", "1 2 2", "1;2;2", "(1,2,2,)"])
def test_numbers(text: str) -> None:
    assert change(f"channel_mult={text}", config=UNET).channel_mult == (1, 2, 2)
    assert change(f"channel-mult = {text}").channel_mult == (1, 2, 2)


@pytest.mark.parametrize("text", ["None", "none", "null", "NULL", "nil", "nothing", "", "~", "off"])
@pytest.mark.parametrize("name", ["respacing", "clip_norm", "attention_window"])
def test_nothing(text: str, name: str) -> None:
    config = next(c for c in (UNET, DIFFUSION, TRAINING) if hasattr(c, name))
    changed = change(f"{name}={text}", config=config)
    assert getattr(changed, name) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("flip=True", True), ("flip=no", False), ("flip=0", False), ("flip=yes", True),
        ("steps=1e5", 100_000), ("lr=1e-4", 1e-4), ("lr=1", 1.0), ("dtype='bfloat16'", "bfloat16"),
        ('anneal="linear"', "linear"), ("betas=0.5,0.9", (0.5, 0.9)), ("ema_rates=0.9", (0.9,)),
        ("ema_rates=(0.9,)", (0.9,)),
    ],
)  # fmt: skip
def test_values(text: str, value: Any) -> None:
    assert getattr(change(text, config=TRAINING), text.partition("=")[0]) == value


def test_respacing_of_numbers_is_a_word() -> None:
    for text in ("250", "ddim25", "90,60,60,20,20"):
        assert change(f"respacing={text}", config=DIFFUSION).respacing == text


def test_settings_that_are_right_only_together() -> None:
    both = change("in_channels=1", "out_channels=2")
    assert (both.in_channels, both.out_channels) == (1, 2)
    with pytest.raises(ConfigError, match="out_channels must be 1"):
        change("in_channels=1")
    last = change("dropout=0.1", "dropout=0.2")
    assert last.dropout == 0.2


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("dropout", "expected NAME=VALUE"),
        ("chanels=3", "no such setting"),
        ("dropout=high", "dropout has an unexpected value .* expected a number"),
        ("use_fp16=maybe", "use_fp16 has an unexpected value .* expected true or false"),
        (
            "channel_mult=1,x,2",
            "channel_mult has an unexpected value .* expected a list of numbers",
        ),
        (
            "image_size=64",
            "image_size has an unexpected value .* expected a list of 2 whole numbers",
        ),
        (
            "num_res_blocks=None",
            "num_res_blocks has an unexpected value .* expected a whole number",
        ),
        ("num_res_blocks=1.5", "num_res_blocks has an unexpected value"),
        ("qkv_order=none", "qkv_order has an unexpected value .* expected legacy or new"),
    ],
)
def test_no_value(text: str, match: str) -> None:
    with pytest.raises((ConfigError, UsageError), match=match):
        change(text)
