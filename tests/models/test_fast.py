"""The networks as a CPU computes them faster: the same results, and the reference path kept."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from adm_cli import SamplingConfig, generate, load_pipeline
from adm_cli.checkpoints.loading import build_model, hasten_on_cpu
from adm_cli.diffusion.guidance import classifier_gradient
from adm_cli.models import fast, winograd
from adm_cli.models.fast import FastConv2d, FastGroupNorm32, attention, can_pack, hasten
from adm_cli.models.layers import Conv2d, GroupNorm32
from tests.conftest import TOY_CLASSIFIER, TOY_UNET, Toys, randomise
from tests.golden_arrays import close, inputs, load, stems
from tests.models.test_models import FOLDED_UNET, TOY_UPSAMPLER, run, toy

CPU = torch.device("cpu")
PACKS = pytest.mark.parametrize("pack", [False, True], ids=["unpacked", "packed"])


TILES = pytest.mark.usefixtures("tiling")


@pytest.fixture
def tiling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions of any width and size may be tiled, a few tiles at a time."""
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", 1)
    monkeypatch.setattr(fast, "_TILED_PIXELS", 1)
    monkeypatch.setattr(winograd, "_AT_ONCE", 2**12)


def hastened(model: Any, *, pack: bool, tile: bool = False) -> Any:
    hasten(model, pack=pack, tile=tile)
    return model


def tiled(model: Any) -> list[FastConv2d]:
    """Its convolutions that have been computed by tiles."""
    return [m for m in model.modules() if isinstance(m, FastConv2d) and m.tiled_from and m.kept]


@pytest.mark.parametrize("name", stems("models"))
def test_golden_outputs_and_gradients_float64(name: str) -> None:
    model, golden = load(name, torch.float64)
    hastened(model, pack=False).requires_grad_(True)
    x, t, extra = inputs(golden, torch.float64)
    x.requires_grad_(True)
    output = model(x, t, **extra)
    close(output.detach(), golden["output_f64"], relative=1e-9)
    (golden["vjp.v"].double() * output).sum().backward()
    assert x.grad is not None
    close(x.grad, golden["vjp.grad_x_f64"], relative=1e-9)
    parameters = dict(model.named_parameters())
    norms = torch.stack([parameters[key].grad.norm() for key in golden.meta["state_dict_keys"]])
    close(norms, golden["vjp.param_grad_norm_f64"], relative=1e-9)


@PACKS
@pytest.mark.parametrize("name", stems("models"))
def test_golden_outputs_float32(name: str, pack: bool) -> None:
    model, golden = load(name, torch.float32)
    hastened(model, pack=pack)
    x, t, extra = inputs(golden, torch.float32)
    for _ in range(2):  # packed at the first call, used at the second
        close(model(x, t, **extra), golden["output_f64"], absolute=1e-4)


@TILES
@pytest.mark.parametrize("name", stems("models"))
def test_golden_outputs_by_tiles(name: str) -> None:
    model, golden = load(name, torch.float32)
    hastened(model, pack=True, tile=True)
    x, t, extra = inputs(golden, torch.float32)
    close(model(x, t, **extra), golden["output_f64"], absolute=1e-4)
    assert tiled(model)


@PACKS
@pytest.mark.parametrize("name", stems("models", "cls*"))
def test_golden_classifier_gradient(name: str, pack: bool) -> None:
    model, golden = load(name, torch.float32)
    hastened(model, pack=pack)
    x, t, _ = inputs(golden, torch.float32)
    gradient = classifier_gradient(model, x, t, golden["y"])
    close(gradient, golden["grad_log_prob_y_f64"], relative=1e-4)


@TILES
@pytest.mark.parametrize("name", stems("models", "cls*"))
def test_golden_classifier_gradient_by_tiles(name: str) -> None:
    model, golden = load(name, torch.float32)
    hastened(model, pack=True, tile=True)
    x, t, _ = inputs(golden, torch.float32)
    gradient = classifier_gradient(model, x, t, golden["y"])
    close(gradient, golden["grad_log_prob_y_f64"], relative=1e-4)
    assert any(True in layer.kept for layer in tiled(model))


@pytest.mark.parametrize("at_once", [2**21, 2**14, 1], ids=["whole", "parts", "rows"])
@pytest.mark.parametrize("shape", [(3, 5, 7, 8, 12), (1, 64, 32, 20, 4), (2, 3, 3, 4, 4)])
def test_convolution_by_tiles(
    shape: tuple[int, ...], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The definition, in batches, bands of rows and borders of every kind."""
    monkeypatch.setattr(winograd, "_AT_ONCE", at_once)
    b, c, o, h, w = shape
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(b, c, h, w, generator=generator)
    weight = torch.randn(o, c, 3, 3, generator=generator) / (9 * c) ** 0.5
    bias = torch.randn(o, generator=generator)
    expected = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    last = x.contiguous(memory_format=torch.channels_last)
    kernels = winograd.change_kernels(weight)
    found = winograd.convolve(last, kernels, bias)
    assert found.is_contiguous(memory_format=torch.channels_last)
    close(found.double(), expected, absolute=2e-5)
    without = winograd.convolve(last, kernels, None).double()
    close(without + bias.view(-1, 1, 1), expected, absolute=2e-5)


def test_tiles_of_an_image_do_not_depend_on_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bits of an image, wherever in a batch that does not divide evenly."""
    monkeypatch.setattr(winograd, "_AT_ONCE", 2 * 36 * 136 * 16)  # two images at once
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(1, 136, 16, 16, generator=generator).expand(5, -1, -1, -1)
    kernels = winograd.change_kernels(torch.randn(128, 136, 3, 3, generator=generator))
    found = winograd.convolve(x.contiguous(memory_format=torch.channels_last), kernels, None)
    assert all(torch.equal(image, found[0]) for image in found)


def test_which_convolutions_are_tiled() -> None:
    """Wide ones of 3x3, at the full and half resolution of a model, whatever the batch."""

    def layer(c: int, o: int, kernel: int = 3) -> FastConv2d:
        model = toy(TOY_UNET).requires_grad_(False)
        convolution = Conv2d(c, o, kernel, padding=kernel // 2).requires_grad_(False)
        model.middle_block = torch.nn.Sequential(convolution)
        model.config = replace(TOY_UNET, image_size=(64, 64))
        hastened(model, pack=True, tile=True)
        assert isinstance(convolution, FastConv2d)
        return convolution

    def is_tiled(convolution: FastConv2d, *shape: int) -> bool:
        x = torch.zeros(shape)
        assert convolution(x).shape == (shape[0], convolution.out_channels, *shape[2:])
        return bool(tiled(convolution))

    assert is_tiled(layer(128, 128), 1, 128, 32, 32)
    assert is_tiled(layer(128, 256), 2, 128, 64, 16)
    assert not is_tiled(layer(128, 128), 16, 128, 16, 16)
    assert not is_tiled(layer(128, 128), 1, 128, 62, 64)
    assert not is_tiled(layer(128, 127), 1, 128, 32, 32)
    assert not is_tiled(layer(128, 128, kernel=1), 1, 128, 32, 32)
    both = layer(128, 128)
    small, large = torch.ones(1, 128, 16, 16), torch.ones(1, 128, 32, 32)
    first = both(small), both(large)
    assert torch.equal(both(small), first[0])
    assert torch.equal(both(large), first[1])
    assert both.weight.is_mkldnn


@TILES
def test_of_large_maps_no_kernels_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model = toy(TOY_UNET).requires_grad_(False)
    expected = run(model)
    monkeypatch.setattr(fast, "_KEPT_PIXELS", 1)
    close(run(hastened(model, pack=True, tile=True)), expected, relative=1e-5)
    assert not tiled(model)


@pytest.mark.parametrize("name", stems("models"))
def test_golden_outputs_bfloat16(name: str) -> None:
    model, golden = load(name, torch.bfloat16)
    hastened(model, pack=can_pack(torch.bfloat16))
    x, t, extra = inputs(golden, torch.float32)
    output = model(x, t, **extra)
    assert output.dtype == torch.float32
    close(output, golden["output_f64"], relative=0.15)


def test_this_torch_packs() -> None:
    """Where this fails, torch's private functions have changed: weights are then not packed."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        pytest.skip("a torch without oneDNN")
    assert can_pack(torch.float32)


def test_without_those_functions_nothing_is_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise AttributeError("no such operator")

    monkeypatch.setattr(fast, "convolve_packed", missing)
    monkeypatch.setattr("adm_cli.checkpoints.loading.can_pack", can_pack.__wrapped__)
    model = toy(TOY_UNET).requires_grad_(False)
    expected = run(model)
    hasten_on_cpu(model, CPU)
    close(run(model), expected, relative=1e-5)
    assert not any(p.is_mkldnn for p in model.parameters())


VARIANTS = [
    TOY_UNET,
    TOY_UPSAMPLER,
    FOLDED_UNET,
    replace(TOY_UNET, qkv_order="new", attention_window=2, attention_factors=(1, 2)),
    replace(TOY_UNET, scale_shift_norm=False, rescale_residual=True),
    replace(TOY_UNET, scale_shift_norm=False, concat_embedding=True),
    replace(TOY_UNET, resblock_updown=False),
    TOY_CLASSIFIER,
]


@TILES
@pytest.mark.parametrize("tile", [False, True], ids=["", "tiled"])
@PACKS
@pytest.mark.parametrize("config", VARIANTS, ids=range(len(VARIANTS)))
def test_every_architecture(config: Any, pack: bool, tile: bool) -> None:
    model = toy(config).requires_grad_(False)
    size = config.image_size
    expected = run(model, size=size)
    close(run(hastened(model, pack=pack, tile=tile), size=size), expected, relative=1e-5)
    assert bool(tiled(model)) == (pack and tile)


@TILES
def test_packed_and_tiled_weights_are_saved_as_they_were() -> None:
    model = toy(TOY_UNET).requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run(hastened(model, pack=True, tile=True))
    assert any(p.is_mkldnn for p in model.parameters())
    assert tiled(model)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


@TILES
@pytest.mark.parametrize("tile", [False, True], ids=["packed", "tiled"])
def test_a_packed_model_is_copied_moved_and_loaded_like_any(tile: bool) -> None:
    model = hastened(toy(TOY_UNET), pack=True, tile=tile)
    expected = run(model)
    assert run(copy.deepcopy(model)).equal(expected)
    assert run(pickle.loads(pickle.dumps(model))).equal(expected)
    assert run(model).equal(expected)
    other = randomise(build_model(TOY_UNET), seed=1).state_dict()
    model.load_state_dict(other)
    plain = build_model(TOY_UNET).eval()
    plain.load_state_dict(other)
    torch.testing.assert_close(run(model), run(plain), rtol=1e-4, atol=1e-4)
    model.set_dtype(torch.float64)
    plain.set_dtype(torch.float64)
    double: dict[str, Any] = {"dtype": torch.float64}
    torch.testing.assert_close(run(model, **double), run(plain, **double))


def test_packed_weights_do_not_learn() -> None:
    """Those that learn before they are used are not packed."""
    model = hastened(toy(TOY_UNET), pack=True).requires_grad_(True)
    run(model).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    used = hastened(toy(TOY_UNET), pack=True).requires_grad_(False)
    with torch.no_grad():
        run(used)
    with pytest.raises(RuntimeError, match="plain=True"):
        run(used.requires_grad_(True))


def test_an_image_does_not_depend_on_the_batch_packed_for() -> None:
    """The bits of one image, whether a large batch or it came first."""
    first, second = (hastened(toy(TOY_UNET).requires_grad_(False), pack=True) for _ in range(2))
    run(first, batch=16)
    assert torch.equal(run(first, batch=1), run(second, batch=1))


@pytest.mark.parametrize("shape", [(3, 64, 4, 6), (2, 64, 32, 32), (4, 256, 8, 8), (1, 32, 2, 2)])
def test_group_norm(shape: tuple[int, ...]) -> None:
    """Small and large maps, few and many values: torch's result and gradients."""
    reference = randomise(GroupNorm32(shape[1]))
    quick = FastGroupNorm32(shape[1])
    quick.load_state_dict(reference.state_dict())
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)) + 0.5
    last = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        close(quick(last), reference(x), absolute=1e-5)
        half = quick(last.bfloat16())
        assert half.dtype == torch.bfloat16
        close(half.float(), reference(x), absolute=0.06)
    gradients = []
    for norm, values in ((reference, x), (quick, last)):
        values = values.clone().requires_grad_(True)
        norm(values).pow(3).sum().backward()
        gradients.append([values.grad, norm.weight.grad, norm.bias.grad])
    for expected, found in zip(*gradients, strict=True):
        close(found, expected, relative=1e-5)


@pytest.mark.parametrize("most", [2**24, 100])
def test_attention_by_matrix_products(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16, all at once and in parts of some heads, with a gradient."""
    monkeypatch.setattr(fast, "_MOST_SCORES", most)
    q, k, v = torch.randn(3, 2, 5, 7, 16, generator=torch.Generator().manual_seed(2)).bfloat16()
    expected = F.scaled_dot_product_attention(q.float(), k.float(), v.float())
    q.requires_grad_(True)
    out = attention(q, k, v)
    assert out.dtype == torch.bfloat16
    close(out.detach().float(), expected, absolute=0.05)
    out.sum().backward()  # type: ignore[no-untyped-call]
    assert q.grad is not None
    assert q.grad.isfinite().all()


def test_which_networks_are_hastened(monkeypatch: pytest.MonkeyPatch) -> None:
    """UNets always, narrow classifiers in float32 only with long vectors, none in float64 or on a
    GPU; wide ones in float32 on x86 by tiles."""

    def hastens(config: Any, dtype: torch.dtype, device: torch.device, capability: str) -> bool:
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
        model = build_model(config).requires_grad_(False)
        model.set_dtype(dtype)
        hasten_on_cpu(model, device)
        tiles = any(getattr(m, "tiled_from", None) for m in model.modules())
        wide = config.model_channels >= winograd.LEAST_CHANNELS
        on_x86 = capability in ("AVX2", "AVX512")
        assert tiles == (wide and on_x86 and dtype == torch.float32)
        return any(isinstance(m, FastGroupNorm32) for m in model.modules())

    wide_unet, wide_classifier = (
        replace(config, model_channels=128) for config in (TOY_UNET, TOY_CLASSIFIER)
    )
    for capability in ("AVX2", "AVX512"):
        assert hastens(wide_unet, torch.float32, CPU, capability)
        assert hastens(wide_classifier, torch.float32, CPU, capability)
        assert hastens(wide_unet, torch.bfloat16, CPU, capability)

    assert hastens(wide_unet, torch.float32, CPU, "DEFAULT")
    assert hastens(TOY_UNET, torch.float32, CPU, "AVX2")
    assert hastens(TOY_UNET, torch.bfloat16, CPU, "AVX2")
    assert hastens(TOY_CLASSIFIER, torch.bfloat16, CPU, "AVX512")
    assert hastens(TOY_CLASSIFIER, torch.float32, CPU, "AVX512")
    assert not hastens(TOY_CLASSIFIER, torch.float32, CPU, "AVX2")
    assert not hastens(TOY_UNET, torch.float64, CPU, "AVX512")
    assert not hastens(TOY_UNET, torch.float32, torch.device("cuda"), "AVX512")


def draw(pipeline: Any, **settings: Any) -> torch.Tensor:
    """Guided, of the first class the model knows."""
    seeds = settings.pop("seeds", (0, 1))
    config = SamplingConfig(
        seeds=seeds,
        classes=(min(pipeline.sources.classes),) * len(seeds),
        scale=2.0,
        sampler="ddim",
        steps="5",
        **settings,
    )
    return torch.cat([batch.images for batch in generate(pipeline, config)]).int()


def test_both_paths_draw_the_same_pictures(toys: Toys) -> None:
    quick = load_pipeline(toys.model, toys.classifier)
    plain = load_pipeline(toys.model, toys.classifier, plain=True)
    kinds = [any(isinstance(m, FastGroupNorm32) for m in p.model.modules()) for p in (quick, plain)]
    assert kinds == [True, False]
    assert (draw(quick) - draw(plain)).abs().max() <= 1
    together, alone = draw(quick, seeds=(3, 4, 5)), draw(quick, seeds=(4,))
    assert (together[1] - alone[0]).abs().max() <= 1


def test_the_embedded_stack_on_both_paths() -> None:
    """A guided picture of the embedded base and its enlargement, within one of 255."""
    from adm_cli.checkpoints.sources import find_upsampler
    from adm_cli.sampling.drawing.pipeline import enlarge

    results = []
    for plain in (False, True):
        small = draw(load_pipeline("tiny", plain=plain), seeds=(0,))
        enlarger = load_pipeline(find_upsampler("tiny_upsampler"), plain=plain)
        config = SamplingConfig(
            seeds=(0,), classes=(None,), scale=0.0, sampler="ddim", steps="1",
            project=0,  # which would lay the small pictures' difference on top
        )  # fmt: skip
        results.append((small, next(enlarge(enlarger, small.to(torch.uint8), config)).images))
    for quick, reference in zip(*results, strict=True):
        assert (quick.int() - reference.int()).abs().max() <= 1
