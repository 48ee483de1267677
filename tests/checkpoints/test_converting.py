"""Which flags of the original would explain a file that does not fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from adm_cli.checkpoints import loading
from adm_cli.checkpoints.loading import expected_shapes, explain_mismatch
from adm_cli.checkpoints.presets import find_checkpoint
from tests.conftest import DEEP_CLASSIFIER as TOY_CLASSIFIER
from tests.conftest import DEEP_UNET as TOY_UNET


@pytest.mark.parametrize(
    ("truth", "guess", "flags"),
    [
        ({"num_classes": None}, {}, {"--class_cond False"}),
        ({}, {"num_classes": None}, {"--class_cond True --num_classes 5"}),
        ({"out_channels": 3}, {}, {"--learn_sigma False"}),
        ({"resblock_updown": False}, {}, {"--resblock_updown False"}),
        ({"scale_shift_norm": False}, {}, {"--use_scale_shift_norm False"}),
        ({"num_res_blocks": 3}, {}, {"--num_res_blocks 3"}),
        ({"model_channels": 64}, {}, {"--num_channels 64"}),
        ({"low_res_size": (4, 4)}, {}, {"--large_size 8 --small_size 2"}),
        ({"num_classes": 1000}, {}, {"--class_cond True --num_classes 1000"}),
        ({"channel_mult": (1.0, 2.0)}, {"channel_mult": (1.0, 1.0)}, {"--channel_mult 1,2"}),
        ({"channel_mult": (1.0, 2.0)}, {"channel_mult": (1.0, 2.0, 2.0)}, {"--channel_mult 1,2"}),
        (
            {"out_channels": 3, "num_res_blocks": 2},
            {},
            {"--learn_sigma False", "--num_res_blocks 2"},
        ),
    ],
)
def test_which_flag_explains_a_mismatch(
    truth: dict[str, Any], guess: dict[str, Any], flags: set[str]
) -> None:
    found = expected_shapes(replace(TOY_UNET, **truth))
    assert set(explain_mismatch(replace(TOY_UNET, **guess), found)) == flags


def test_which_flag_explains_a_classifier() -> None:
    found = expected_shapes(replace(TOY_CLASSIFIER, pool="adaptive", num_res_blocks=2))
    advice = explain_mismatch(TOY_CLASSIFIER, found)
    assert set(advice) == {"--classifier_pool adaptive", "--classifier_depth 2"}


def test_a_real_mistake_is_explained() -> None:
    """The classic: the 64x64 classifier without its --classifier_depth 4."""
    right = find_checkpoint("64x64_classifier").config
    wrong = replace(right, num_res_blocks=2)
    assert explain_mismatch(wrong, expected_shapes(right)) == ["--classifier_depth 4"]


def test_all_flags_wrong_cost_a_few_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values are read off the shapes: trying them would build hundreds of models, for minutes."""
    truth: dict[str, Any] = {
        "num_classes": None,
        "out_channels": 3,
        "resblock_updown": False,
        "num_res_blocks": 2,
        "scale_shift_norm": False,
        "model_channels": 64,
        "attention_factors": (1, 2),
    }
    found = expected_shapes(replace(TOY_UNET, **truth))
    built = []

    def count(config: Any) -> Any:
        built.append(config)
        return expected_shapes(config)

    monkeypatch.setattr(loading, "expected_shapes", count)
    assert set(explain_mismatch(TOY_UNET, found)) == {
        "--class_cond False", "--learn_sigma False", "--resblock_updown False",
        "--num_res_blocks 2", "--use_scale_shift_norm False", "--num_channels 64",
        "--attention_resolutions 8,4",
    }  # fmt: skip
    assert replace(TOY_UNET, **truth) in built
    assert len(built) < 15
