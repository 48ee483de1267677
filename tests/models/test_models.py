"""What must hold of every network, whatever its weights."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from adm_cli.checkpoints.loading import Model, build_model
from adm_cli.checkpoints.presets import find_checkpoint
from adm_cli.config import ClassifierConfig, UNetConfig
from adm_cli.errors import ConfigError
from adm_cli.files.strict import config_from_json, config_to_json
from adm_cli.models.cost import activation_bytes, forward_gflops
from adm_cli.models.layers import (
    AttentionBlock,
    ResBlock,
    from_windows,
    qkv_attention,
    to_windows,
)
from tests.conftest import DEEP_CLASSIFIER as TOY_CLASSIFIER
from tests.conftest import DEEP_UNET as TOY_UNET
from tests.conftest import randomise
from tests.golden_arrays import close

TOY_UPSAMPLER = replace(TOY_UNET, low_res_size=(4, 4))


def toy(config: UNetConfig | ClassifierConfig, seed: int = 0) -> Any:
    return randomise(build_model(config), seed).eval()


def run(model: Model, batch: int = 2, size: tuple[int, int] = (8, 8), **inputs: Any) -> Any:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(batch, 3, *size, generator=generator, dtype=inputs.pop("dtype", torch.float32))
    t = torch.arange(batch) * 10
    if isinstance(model.config, UNetConfig) and model.config.num_classes:
        inputs.setdefault("y", torch.arange(batch) % 3)
    if isinstance(model.config, UNetConfig) and model.config.low_res_size:
        inputs.setdefault("low_res", F.avg_pool2d(x, 2))
    return model(x, t, **inputs)


@pytest.mark.parametrize("config", [TOY_UNET, TOY_CLASSIFIER, TOY_UPSAMPLER], ids=repr)
def test_gradient_checkpointing_changes_nothing(config: Any) -> None:
    plain, thrifty = toy(config), toy(replace(config, gradient_checkpointing=True))
    blocks = [m for m in thrifty.modules() if isinstance(m, (ResBlock, AttentionBlock))]
    assert blocks
    assert all(block.gradient_checkpointing for block in blocks)
    outputs = []
    for model in (plain, thrifty):
        output = run(model)
        output.square().sum().backward()
        outputs.append((output, [p.grad for p in model.parameters()]))
    assert torch.equal(outputs[0][0], outputs[1][0])
    for a, b in zip(outputs[0][1], outputs[1][1], strict=True):
        close(a, b, relative=1e-6)


def test_gradient_checkpointing_recomputes() -> None:
    """The blocks really run again in the backward pass."""
    for checkpointing, runs in ((False, 1), (True, 2)):
        model = toy(replace(TOY_UNET, gradient_checkpointing=checkpointing))
        calls: list[int] = []

        def count(*_: object, calls: list[int] = calls) -> None:
            calls.append(1)

        for block in model.modules():
            if isinstance(block, (ResBlock, AttentionBlock)):
                norm = block.norm if isinstance(block, AttentionBlock) else block.in_layers[0]
                norm.register_forward_hook(count)
        run(model).sum().backward()
        blocks = sum(isinstance(b, (ResBlock, AttentionBlock)) for b in model.modules())
        assert len(calls) == runs * blocks


@pytest.mark.parametrize("window", [1, 2, 4])
def test_local_attention_sees_only_its_window(window: int) -> None:
    config = replace(TOY_UNET, image_size=(8, 8), attention_factors=(1,), attention_window=window)
    block = AttentionBlock(config, 32)
    randomise(block)
    x = torch.randn(1, 32, 8, 8, requires_grad=True)
    # the norm spans the whole map, so look at attention's own path
    with torch.no_grad():
        base = from_attention(block, x)
        moved = x.clone()
        moved[:, :, 0, 0] += 1
        change = (from_attention(block, moved) - base).abs().amax(dim=(0, 1))
    assert bool((change[:window, :window] > 0).any())
    outside = change.clone()
    outside[:window, :window] = 0
    assert outside.max() == 0


def from_attention(block: AttentionBlock, x: torch.Tensor) -> torch.Tensor:
    assert block.window is not None
    window = (block.window, block.window)
    flat = to_windows(x, window)
    attended = block.proj_out(qkv_attention(block.qkv(flat), block.num_heads, block.order))
    return from_windows(attended, window, (8, 8))


def test_a_window_over_the_whole_map_is_full_attention() -> None:
    full, local = toy(TOY_UNET), toy(replace(TOY_UNET, attention_window=8))
    assert torch.equal(run(full), run(local))
    narrow = toy(replace(TOY_UNET, attention_window=2))
    assert not torch.allclose(run(full), run(narrow), atol=1e-4)


def test_windows_that_do_not_divide_the_map() -> None:
    model = toy(replace(TOY_UNET, attention_window=4))
    with pytest.raises(ValueError, match="do not divide"):
        run(model, size=(8, 12))


@pytest.mark.parametrize("window", [(2, 3), (4, 6), (1, 1)])
def test_windows_round_trip(window: tuple[int, int]) -> None:
    x = torch.randn(2, 5, 4, 6)
    assert torch.equal(from_windows(to_windows(x, window), window, (4, 6)), x)


def test_residual_rescaling() -> None:
    """With both branches alike in variance, the sum's variance stays what it was."""
    plain = ResBlock(TOY_UNET, 32, 32)
    scaled = ResBlock(replace(TOY_UNET, rescale_residual=True), 32, 32)
    randomise(plain, 3)
    scaled.load_state_dict(plain.state_dict())
    x, emb = torch.randn(2, 32, 4, 4), torch.randn(2, 128)
    close(scaled(x, emb) * 2**0.5, plain(x, emb), relative=1e-6)
    fresh = ResBlock(replace(TOY_UNET, rescale_residual=True), 32, 32)  # residual starts at 0
    close(fresh(x, emb) * 2**0.5, x, relative=1e-6)


@pytest.mark.parametrize("size", [(8, 12), (16, 8), (2, 2)])
def test_any_size_divisible_by_the_stride(size: tuple[int, int]) -> None:
    config = replace(TOY_UNET, image_size=size)
    assert run(toy(config), size=size).shape == (2, 6, *size)
    classifier = replace(TOY_CLASSIFIER, image_size=size)
    assert run(toy(classifier), size=size).shape == (2, 5)


FOLDED_UNET = replace(TOY_UNET, image_size=(16, 8), patch=2, attention_factors=(4,), out_channels=6)
FOLDED_CLASSIFIER = replace(TOY_CLASSIFIER, image_size=(16, 16), patch=2, attention_factors=(4,))


def test_a_folded_unet_is_one_of_small_maps_with_more_channels() -> None:
    """patch 2: 2x2 pixels become channels, then an ordinary UNet, then pixels again."""
    folded = toy(FOLDED_UNET)
    inner = build_model(
        replace(
            FOLDED_UNET, image_size=(8, 4), patch=1, attention_factors=(2,),
            in_channels=12, out_channels=24,
        )
    )  # fmt: skip
    inner.load_state_dict(folded.state_dict(), strict=True)
    x, t, y = torch.randn(2, 3, 16, 8), torch.tensor([3, 900]), torch.tensor([0, 2])
    blocks = x.view(2, 3, 8, 2, 4, 2).permute(0, 1, 3, 5, 2, 4).reshape(2, 12, 8, 4)
    out = inner.eval()(blocks, t, y)  # [2, 24, 8, 4]
    expected = out.view(2, 6, 2, 2, 8, 4).permute(0, 1, 4, 2, 5, 3).reshape(2, 6, 16, 8)
    close(folded(x, t, y), expected, absolute=1e-6)


def test_a_folded_upsampler_and_classifier_see_ordinary_pictures() -> None:
    upsampler = toy(replace(FOLDED_UNET, low_res_size=(8, 4)))
    x, t, y = torch.randn(2, 3, 16, 8), torch.tensor([3, 900]), torch.tensor([0, 2])
    assert upsampler(x, t, y, torch.randn(2, 3, 8, 4)).shape == (2, 6, 16, 8)
    classifier = toy(FOLDED_CLASSIFIER)
    assert classifier(torch.randn(2, 3, 16, 16), t).shape == (2, FOLDED_CLASSIFIER.num_classes)


@pytest.mark.parametrize("config", [FOLDED_UNET, FOLDED_CLASSIFIER], ids=["unet", "classifier"])
def test_folding_costs_less(config: Any) -> None:
    plain = replace(config, patch=1, attention_factors=(2,))
    assert forward_gflops(toy(config)) < 0.35 * forward_gflops(toy(plain))
    assert activation_bytes(config) < 0.35 * activation_bytes(plain)


def test_an_unfolded_model_has_no_patch_to_speak_of() -> None:
    """Files written before the setting was there mean patch 1."""
    without = json.loads(config_to_json(TOY_UNET))
    assert without.pop("patch") == 1
    assert config_from_json(UNetConfig, json.dumps(without)) == TOY_UNET


@pytest.mark.parametrize("patch", [0, 3, 16])
def test_patches_that_do_not_fit(patch: int) -> None:
    with pytest.raises(ConfigError, match=r"patch|patches of"):
        replace(TOY_UNET, image_size=(16, 16), patch=patch)


def test_attention_pool_is_locked_to_its_size() -> None:
    with pytest.raises(ValueError, match="takes 8x8 images"):
        run(toy(TOY_CLASSIFIER), size=(16, 16))
    free = toy(replace(TOY_CLASSIFIER, pool="adaptive"))
    assert run(free, size=(16, 16)).shape == (2, 5)


def test_labels_and_low_res_must_fit_the_model() -> None:
    x, t = torch.zeros(1, 3, 8, 8), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match="a label for every image"):
        toy(TOY_UNET)(x, t)
    with pytest.raises(ValueError, match="no labels"):
        toy(replace(TOY_UNET, num_classes=None))(x, t, t)
    with pytest.raises(ValueError, match=r"a label for every image, \[2\], got \[1\]"):
        toy(TOY_UNET)(x.repeat(2, 1, 1, 1), t.repeat(2), t)
    with pytest.raises(ValueError, match=r"a label for every image, \[1\], got 3$"):
        toy(TOY_UNET)(x, t, 3)
    with pytest.raises(ValueError, match="low_res"):
        toy(TOY_UPSAMPLER)(x, t, t)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"x": torch.zeros(2, 8, 8, 3)},
            r"as \[B, 3, H, W\].*, got \[2, 8, 8, 3\]",
        ),
        ({"x": torch.zeros(2, 3, 7, 8)}, r"H and W multiples of 2, got \[2, 3, 7, 8\]"),
        ({"x": torch.zeros(2, 3, 8, 8, dtype=torch.uint8)}, "as floats .*, got torch.uint8"),
        ({"t": 5}, "expected t as a tensor .*, got 5"),
        ({"t": torch.tensor(5)}, "expected t as a tensor"),
        ({"y": torch.tensor([0, 99])}, "expected class ids from 0 to .*, got 99"),
        ({"y": torch.tensor([0.0, 1.0])}, "expected class ids as int64"),
    ],
)
def test_a_network_says_what_it_takes(change: dict[str, Any], message: str) -> None:
    inputs = {"x": torch.zeros(2, 3, 8, 8), "t": torch.tensor([1, 2]), "y": torch.tensor([0, 1])}
    toy(TOY_UNET)(**inputs)
    with pytest.raises(ValueError, match=message):
        toy(TOY_UNET)(**inputs | change)
    if "y" not in change and "multiples" not in message:
        with pytest.raises(ValueError, match=message):
            toy(TOY_CLASSIFIER)(**{name: (inputs | change)[name] for name in ("x", "t")})


def test_upsampler_sees_the_small_image_after_x() -> None:
    """Same weights with the small image's channels cut off: a plain UNet on x."""
    upsampler, plain = toy(TOY_UPSAMPLER), toy(TOY_UNET)
    state = upsampler.state_dict()
    state["input_blocks.0.0.weight"] = state["input_blocks.0.0.weight"][:, :3]
    plain.load_state_dict(state)
    upsampler.input_blocks[0][0].weight.data[:, 3:] = 0
    close(run(upsampler), run(plain), absolute=1e-5)


def test_a_new_model_predicts_nothing_yet() -> None:
    """Residual branches and the output start at zero."""
    assert run(build_model(TOY_UNET)).abs().max() == 0


@pytest.mark.parametrize("config", [TOY_UNET, TOY_CLASSIFIER], ids=["unet", "classifier"])
def test_images_of_a_batch_do_not_meet(config: Any) -> None:
    model = toy(config)
    whole = run(model, batch=4)
    model.double()
    model.torso_dtype = torch.float64
    exact = run(model, batch=4, dtype=torch.float64)
    assert exact.dtype == torch.float64
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(4, 3, 8, 8, generator=generator, dtype=torch.float64)
    t, y = torch.arange(4) * 10, torch.arange(4) % 3
    labels = {} if isinstance(config, ClassifierConfig) else {"y": y[2:3]}
    close(model(x[2:3], t[2:3], **labels), exact[2:3], relative=1e-12)
    assert whole.dtype == torch.float32


def test_dropout_only_when_training() -> None:
    model = toy(replace(TOY_UNET, dropout=0.5))
    assert torch.equal(run(model), run(model))
    model.train()
    assert not torch.equal(run(model), run(model))


def test_cost_of_a_convolution() -> None:
    """The count grows with the pixels, and a known layer is counted exactly."""
    small, large = toy(TOY_UNET), toy(replace(TOY_UNET, image_size=(16, 16)))
    ratio = forward_gflops(large) / forward_gflops(small)
    assert 3.5 < ratio < 5  # four times the pixels; attention grows faster, embeddings not


@pytest.mark.parametrize("pool", ["attention", "adaptive"])
@pytest.mark.parametrize("size", [(16, 16), (32, 64)])
def test_estimate_covers_what_a_gradient_saves(pool: Any, size: tuple[int, int]) -> None:
    for name in ("tiny_classifier", "64x64_classifier"):
        config = replace(find_checkpoint(name).config, image_size=size)
        assert isinstance(config, ClassifierConfig)
        config = replace(config, pool=pool, model_channels=64, num_classes=10)
        model = build_model(config).eval().requires_grad_(False)
        saved: dict[int, int] = {}

        def pack(tensor: torch.Tensor, saved: dict[int, int] = saved) -> torch.Tensor:
            saved[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        x = torch.zeros(1, 3, *size, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(x, torch.zeros(1, dtype=torch.int64))
        parameters = {p.data_ptr() for p in model.parameters()}
        held = sum(count for address, count in saved.items() if address not in parameters)
        assert 0.4 * activation_bytes(config) < held < activation_bytes(config)


def test_counting_leaves_a_model_usable() -> None:
    model = toy(TOY_UNET)
    before = run(model)
    forward_gflops(model)
    assert torch.equal(run(model), before)
