"""The timestep (and class) embedding concatenated, beside AdaGN and addition."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

import adm_cli
from adm_cli.checkpoints.diffusers import misfits
from adm_cli.checkpoints.loading import expected_shapes
from adm_cli.config import ClassifierConfig, UNetConfig
from adm_cli.errors import ConfigError, UsageError
from adm_cli.files.strict import config_from_json, config_to_json
from adm_cli.models.cost import forward_gflops
from adm_cli.models.layers import ResBlock
from tests.conftest import (
    DEEP_CLASSIFIER,
    DEEP_UNET,
    TOY_CLASSES,
    TOY_DIFFUSION,
    TOY_UPSAMPLER,
    randomise,
    save_toy,
)
from tests.golden_arrays import close
from tests.models.test_models import run, toy
from tests.training.conftest import draw_pictures

CONCAT: dict[str, Any] = {"scale_shift_norm": False, "concat_embedding": True}
MODELS = [DEEP_UNET, DEEP_CLASSIFIER, TOY_UPSAMPLER]


@pytest.mark.parametrize("config", MODELS, ids=["unet", "classifier", "upsampler"])
def test_only_the_last_convolution_of_a_block_is_another(config: Any) -> None:
    """Names as with addition; shapes found on the meta device, too."""
    added = expected_shapes(replace(config, scale_shift_norm=False))
    concatenated = expected_shapes(replace(config, **CONCAT))
    assert list(concatenated) == list(added)
    wider = {name for name in added if concatenated[name] != added[name]}
    assert wider
    assert all(name.endswith("out_layers.3.weight") for name in wider)
    for name in wider:
        out, into, *kernel = added[name]
        assert concatenated[name] == (out, 2 * into, *kernel)
    assert forward_gflops(toy(replace(config, **CONCAT))) > forward_gflops(toy(config))


def block(resample: str | None = None) -> Any:
    return randomise(ResBlock(replace(DEEP_UNET, **CONCAT), 32, 64, resample))


def test_the_embedding_acts_as_a_map_that_is_the_same_everywhere() -> None:
    """By the formula: conv(silu([norm(h), e])), whose second half sees e alone."""
    made = block()
    x, emb = torch.randn(2, 32, 4, 4), torch.randn(2, 128)
    norm, act, _, conv = made.out_layers
    with torch.no_grad():
        h = norm(made.in_layers(x))
        e = made.emb_layers(emb)[:, :, None, None].expand(2, 64, 4, 4)
        of_h = torch.nn.functional.conv2d(act(h), conv.weight[:, :64], conv.bias, padding=1)
        of_e = torch.nn.functional.conv2d(act(e), conv.weight[:, 64:], padding=1)
        close(made(x, emb), made.skip_connection(x) + of_h + of_e, relative=1e-5)


@pytest.mark.parametrize("resample", [None, "up", "down"])
def test_gradients_reach_the_embedding_and_the_input(resample: str | None) -> None:
    made = block(resample).double()
    x = torch.randn(1, 32, 4, 4, dtype=torch.float64, requires_grad=True)
    emb = torch.randn(1, 128, dtype=torch.float64, requires_grad=True)
    made(x, emb).square().sum().backward()
    for leaf in (x, emb):
        assert leaf.grad is not None
        direction = torch.randn_like(leaf)
        with torch.no_grad():
            ends = []
            for sign in (1, -1):
                moved = {"x": x, "emb": emb}
                name = "x" if leaf is x else "emb"
                moved[name] = leaf + sign * 1e-5 * direction
                ends.append(made(moved["x"], moved["emb"]).square().sum())
        expected = (ends[0] - ends[1]) / 2e-5
        close((leaf.grad * direction).sum(), expected, relative=1e-6)
    assert all(p.grad is not None and bool(p.grad.any()) for p in made.parameters())


def test_a_new_block_is_the_identity() -> None:
    made = ResBlock(replace(DEEP_UNET, **CONCAT), 32, 32)
    x = torch.randn(1, 32, 4, 4)
    assert torch.equal(made(x, torch.randn(1, 128)), x)


def test_timestep_and_class_change_what_comes_out() -> None:
    model = toy(replace(DEEP_UNET, **CONCAT))
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([3])
    outputs = [model(x, t, torch.tensor([y])) for y in (0, 1)]
    outputs.append(model(x, t + 50, torch.tensor([0])))
    assert not torch.allclose(outputs[0], outputs[1], atol=1e-4)
    assert not torch.allclose(outputs[0], outputs[2], atol=1e-4)


@pytest.mark.parametrize("config", MODELS, ids=["unet", "classifier", "upsampler"])
def test_the_default_is_written_as_before_there_was_a_choice(
    config: UNetConfig | ClassifierConfig,
) -> None:
    text = config_to_json(config)
    assert "concat_embedding" not in text
    assert config_from_json(type(config), text) == config
    chosen = replace(config, **CONCAT)
    assert json.loads(config_to_json(chosen))["concat_embedding"] is True
    assert config_from_json(type(config), config_to_json(chosen)) == chosen
    close(run(toy(config)), run(toy(replace(config, concat_embedding=False))), relative=0)


def test_it_takes_the_place_of_adagn() -> None:
    with pytest.raises(ConfigError, match="scale_shift_norm must be false"):
        replace(DEEP_UNET, concat_embedding=True)


def test_half_of_the_torso_computes_in_half() -> None:
    model = toy(replace(DEEP_UNET, **CONCAT))
    expected = run(model)
    model.set_dtype(torch.bfloat16)
    close(run(model), expected, absolute=0.3)
    assert not torch.equal(run(model), expected)


def test_a_file_is_sampled_and_is_no_model_of_the_others(adm: Any, tmp_path: Any) -> None:
    config = replace(DEEP_UNET, **CONCAT)
    save_toy(tmp_path / "m.safetensors", config, TOY_CLASSES)
    model = str(tmp_path / "m.safetensors")
    done = adm("sample", "--model", model, "--class", "0", "-n", "1", "--out", "drawn")
    assert done.code == 0, done.err
    with pytest.raises(UsageError, match="embedding concatenated"):
        adm_cli.export(model, "m.pt", to="original")
    with pytest.raises(UsageError, match="concatenates the embedding"):
        adm_cli.export(model, "folder", to="diffusers")
    assert misfits(config, TOY_DIFFUSION) == ["it concatenates the embedding"]


def test_one_is_trained_by_its_settings(adm: Any, tmp_path: Any) -> None:
    shapes = draw_pictures(tmp_path / "shapes", count=4)
    done = adm(
        "train-diffusion", shapes, "--size", "8", "--set", "scale_shift_norm=false",
        "--set", "concat_embedding=true", "--dry-run", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert json.loads(done.out)["concat_embedding"] is True
