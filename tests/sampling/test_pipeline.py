"""Sampling end to end in Python: one seed is one image, whatever is drawn beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import adm_cli.sampling.drawing.memory as memory_module
from adm_cli.checkpoints.loading import build_model, load_model
from adm_cli.checkpoints.sources import find_sources
from adm_cli.config import DiffusionConfig, SamplingConfig
from adm_cli.devices import choose_device, choose_dtype, has_bfloat16
from adm_cli.diffusion.samplers import SAMPLERS
from adm_cli.diffusion.steps import SampleStep
from adm_cli.errors import CheckpointError, ConfigError, DeviceError, UsageError
from adm_cli.models.classifier import NoisyClassifier
from adm_cli.models.unet import UNet
from adm_cli.sampling.drawing.memory import fitting_batch, image_costs
from adm_cli.sampling.drawing.pipeline import Pipeline, generate, load_pipeline
from tests.conftest import TOY_CLASSIFIER, TOY_DIFFUSION, TOY_UNET, Toys, save_toy

Images = dict[tuple[int, int | None], Tensor]


@pytest.fixture(scope="module")
def tiny() -> Pipeline:
    return load_pipeline("tiny", device="cpu")


@pytest.fixture(scope="module")
def toy(toys: Toys) -> Pipeline:
    return load_pipeline(toys.model, toys.classifier, device="cpu")


def draw(pipeline: Pipeline, pairs: list[tuple[int, int | None]], **settings: Any) -> Images:
    """Images by (seed, class)."""
    config = SamplingConfig(
        seeds=tuple(seed for seed, _ in pairs),
        classes=tuple(c for _, c in pairs),
        **{"scale": 2.0, "sampler": "ddim", "steps": "3", **settings},
    )
    images: Images = {}
    for batch in generate(pipeline, config):
        assert batch.images.shape[0] == len(batch.seeds) == len(batch.classes)
        images |= dict(zip(zip(batch.seeds, batch.classes, strict=True), batch.images, strict=True))
    return images


PAIRS: dict[str, list[tuple[int, int | None]]] = {
    "tiny": [(0, 207), (1, 1), (2, 207), (3, 970), (4, 291), (0, 1)],
    "toy": [(0, 0), (1, 1), (2, 0), (3, 3), (4, 1), (0, 1)],
}
# every sampler on the quick one; pictures of a real size once, as kernels depend on it
of_both = pytest.mark.parametrize(
    ("model", "sampler"), [("tiny", "ddpm"), *(("toy", name) for name in sorted(SAMPLERS))]
)


@of_both
def test_an_image_depends_on_nothing_beside_it(
    model: str, sampler: str, request: pytest.FixtureRequest
) -> None:
    """At one compute batch size the bytes do not depend on selection, order or neighbours."""
    pipeline, pairs = request.getfixturevalue(model), PAIRS[model]
    for size in (1, 3) if model == "toy" else (3,):
        settings: dict[str, Any] = {"batch_size": size, "sampler": sampler, "steps": "2"}
        whole = draw(pipeline, pairs, **settings)
        backwards = draw(pipeline, pairs[::-1], **settings)
        some = draw(pipeline, pairs[3:], **settings)
        alone = draw(pipeline, pairs[2:3], **settings)
        for other in (backwards, some, alone):
            assert other
            assert all(torch.equal(image, whole[key]) for key, image in other.items())


def test_seeds_of_all_64_bits_matter(toy: Pipeline) -> None:
    """torch's own generator would give the first three the same picture."""
    seeds = (5, 5 + 2**32, 5 + 2**63, 2**64 - 1)
    images = list(draw(toy, [(seed, 0) for seed in seeds], steps="1").values())
    for i, one in enumerate(images):
        assert not any(torch.equal(one, other) for other in images[:i])


@of_both
def test_batch_sizes_differ_by_rounding_only(
    model: str, sampler: str, request: pytest.FixtureRequest
) -> None:
    pipeline, pairs = request.getfixturevalue(model), PAIRS[model]
    base = draw(pipeline, pairs, batch_size=1, sampler=sampler)
    for size in (2, 3, 5, 8) if model == "toy" else (2, 5):
        other = draw(pipeline, pairs, batch_size=size, sampler=sampler)
        gaps = torch.stack([(other[k].int() - base[k].int()).abs() for k in base])
        assert (gaps > 1).sum() <= 6  # a handful of 18,432 values
        assert (gaps > 0).float().mean() < 0.01


def test_seed_and_class_and_scale_all_matter(tiny: Pipeline) -> None:
    images = draw(tiny, [(0, 207), (1, 207), (0, 1)], batch_size=1)
    unguided = draw(tiny, [(0, 207)], batch_size=1, scale=0.0)
    away = draw(tiny, [(0, 207)], batch_size=1, scale=-2.0)
    all_images = [*images.values(), *unguided.values(), *away.values()]
    for i, one in enumerate(all_images):
        assert not any(torch.equal(one, other) for other in all_images[:i])


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_an_image_does_not_depend_on_the_scales_beside_it(toy: Pipeline, sampler: str) -> None:
    scales = (2.0, 0.0, 0.5, 2.0, 0.0, -1.0)
    pairs: list[tuple[int, int | None]] = [(seed, (0, 1, 3)[seed % 3]) for seed in range(6)]
    settings: dict[str, Any] = {"batch_size": 3, "sampler": sampler}
    together = draw(toy, pairs, scales=scales, **settings)
    for pair, scale in zip(pairs, scales, strict=True):
        alone = draw(toy, [pair], scale=scale, **settings)
        assert torch.equal(alone[pair], together[pair])


def test_scale_0_runs_no_classifier(tiny: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(tiny.classifier, "forward", lambda *_: calls.append(1))
    draw(tiny, [(0, 207)], scale=0.0)
    assert not calls
    unguided = load_pipeline("tiny", guided=False)
    assert unguided.classifier is None
    with pytest.raises(UsageError, match="needs a classifier"):
        draw(unguided, [(0, 207)], scale=1.0)


def test_classifier_parameters_never_need_gradients(tiny: Pipeline) -> None:
    assert tiny.classifier is not None
    for model in (tiny.model, tiny.classifier):
        assert not model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())
    draw(tiny, [(0, 207)])
    assert all(parameter.grad is None for parameter in tiny.classifier.parameters())


def test_unconditional_models(tmp_path: Path, toys: Toys) -> None:
    """Unguided they take no class; guided, the classifier's."""
    path = save_toy(tmp_path / "free.safetensors", replace(TOY_UNET, num_classes=None), {})
    free = load_pipeline(path, device="cpu")
    images = draw(free, [(0, None), (1, None)], scale=0.0)
    assert set(images) == {(0, None), (1, None)}
    guided = load_pipeline(path, toys.classifier, device="cpu")
    assert set(guided.sources.classes) == {0, 1, 3}
    assert not torch.equal(draw(guided, [(0, 3)])[0, 3], images[0, None])


def test_rescaled_timesteps_reach_both_networks(tmp_path: Path) -> None:
    diffusion = replace(TOY_DIFFUSION, rescale_timesteps=True)
    model = save_toy(tmp_path / "m.safetensors", TOY_UNET, diffusion=diffusion)
    classifier = save_toy(tmp_path / "c.safetensors", TOY_CLASSIFIER, diffusion=diffusion)
    pipe = load_pipeline(model, classifier, device="cpu")
    seen: list[Tensor] = []
    for net in (pipe.model, pipe.classifier):
        assert net is not None
        net.register_forward_pre_hook(lambda _net, inputs: seen.append(inputs[1]))
    draw(pipe, [(0, 1)], steps="2")
    assert [(t.dtype, t.tolist()) for t in seen] == [
        (torch.float32, [990.0]),
        (torch.float32, [990.0]),
        (torch.float32, [0.0]),
        (torch.float32, [0.0]),
    ]


@pytest.mark.parametrize(
    "change", [{"prediction": "x_start"}, {"prediction": "v"}, {"variance": "fixed_small"}]
)
def test_every_parameterisation_samples(tmp_path: Path, change: dict[str, Any]) -> None:
    diffusion = replace(TOY_DIFFUSION, **change)
    channels = 6 if diffusion.variance == "learned_range" else 3
    config = replace(TOY_UNET, out_channels=channels)
    pipe = load_pipeline(save_toy(tmp_path / "m.safetensors", config, diffusion=diffusion))
    for sampler in SAMPLERS:
        assert draw(pipe, [(0, 0)], scale=0.0, sampler=sampler)


def test_non_square_images(tmp_path: Path) -> None:
    config = replace(TOY_UNET, image_size=(8, 16))
    pipe = load_pipeline(save_toy(tmp_path / "wide.safetensors", config))
    assert draw(pipe, [(0, 0)], scale=0.0)[0, 0].shape == (8, 16, 3)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_precisions(toys: Toys, toy: Pipeline, dtype: str) -> None:
    base = draw(toy, [(0, 0), (1, 1)])
    pipe = load_pipeline(toys.model, toys.classifier, device="cpu", dtype=dtype)
    assert pipe.classifier is not None
    # a float16 classifier's gradient would underflow
    assert pipe.classifier.torso_dtype == (
        torch.float32 if dtype == "float16" else getattr(torch, dtype)
    )
    other = draw(pipe, [(0, 0), (1, 1)])
    for key, image in base.items():
        gap = (other[key].float() - image.float()).abs().mean()
        assert gap < (0.5 if dtype == "float64" else 6)


def test_steps_and_notes_are_told(toy: Pipeline) -> None:
    steps: list[SampleStep] = []
    config = SamplingConfig(seeds=(0, 1, 2), classes=(0, 1, 3), scale=1.0, steps="4", batch_size=2)
    sizes = [len(b.seeds) for b in generate(toy, config, on_step=steps.append)]
    assert sizes == [2, 1]
    assert [step.i for step in steps] == [3, 2, 1, 0] * 2
    assert all(step.x.shape[0] == 2 for step in steps)  # padded


def test_recommended_steps_are_the_default(toy: Pipeline) -> None:
    steps: list[SampleStep] = []
    config = SamplingConfig(seeds=(0,), classes=(0,), scale=0.0)
    list(generate(toy, config, on_step=steps.append))
    assert len(steps) == 5  # TOY_DIFFUSION's respacing


def limit_memory(model: UNet, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = model.forward

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if x.shape[0] > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB")
        return real(x, *args, **kwargs)

    monkeypatch.setattr(model, "forward", forward)


def test_out_of_memory_halves_the_batch(toy: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs: list[tuple[int, int | None]] = [(seed, 0) for seed in range(7)]
    expected = draw(toy, pairs, batch_size=2)
    limit_memory(toy.model, 2, monkeypatch)
    notes: list[str] = []
    config = SamplingConfig(
        seeds=tuple(range(7)), classes=(0,) * 7, scale=2.0, sampler="ddim", steps="3", batch_size=8
    )
    batches = list(generate(toy, config, on_note=notes.append))
    assert [note.rsplit(" ", 1)[1] for note in notes] == ["4", "2"]
    assert [b.batch_size for b in batches] == [2, 2, 2, 2]
    images = torch.cat([b.images for b in batches])
    assert torch.equal(images, torch.stack(list(expected.values())))


def test_not_even_one_image_fits(toy: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_memory(toy.model, 0, monkeypatch)
    with pytest.raises(DeviceError, match="not enough memory on cpu for a single image"):
        draw(toy, [(0, 0)], batch_size=4)


def test_other_errors_are_not_taken_for_memory(
    toy: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(*_args: Any, **_kwargs: Any) -> Tensor:
        raise RuntimeError("a bug")

    monkeypatch.setattr(toy.model, "forward", forward)
    with pytest.raises(RuntimeError, match="a bug"):
        draw(toy, [(0, 0)], batch_size=4)


def test_automatic_batch_size(toy: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shared out evenly, never above 16, never below 1, fewer where memory is short."""

    def size(count: int) -> int:
        costs = image_costs(toy.sources, guided=True, classifier_free=False)
        return fitting_batch(costs, toy.device, count)

    assert [size(n) for n in (1, 4, 16, 17, 32, 100)] == [1, 4, 16, 9, 16, 15]
    monkeypatch.setattr(memory_module, "free_bytes", lambda _device: 0)
    assert size(100) == 1


def test_guidance_in_an_interval(toy: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """At all steps it is guidance, at none it is none; outside the classifier is not called."""
    asked: list[int] = []
    real = NoisyClassifier.forward

    def forward(self: NoisyClassifier, x: Tensor, t: Tensor) -> Tensor:
        asked.append(int(t[0]))
        return real(self, x, t)

    monkeypatch.setattr(NoisyClassifier, "forward", forward)
    options: dict[str, Any] = {"sampler": "ddpm", "steps": "5"}  # 0, 25, 50, 74, 99
    whole = draw(toy, [(0, 3)], guide_interval=(0.0, 1.0), **options)
    assert asked == [99, 74, 50, 25, 0]
    asked.clear()
    half = draw(toy, [(0, 3)], guide_interval=(0.25, 0.6), **options)
    assert asked == [50, 25]
    asked.clear()
    never = draw(toy, [(0, 3)], guide_interval=(0.1, 0.2), **options)
    assert asked == []
    key = (0, 3)
    assert torch.equal(whole[key], draw(toy, [key], **options)[key])
    assert torch.equal(never[key], draw(toy, [key], scale=0.0, **options)[key])
    assert not torch.equal(half[key], whole[key])
    assert not torch.equal(half[key], never[key])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": "101"}, "cannot take 101 steps from a section of 100"),
        ({"steps": "ddim101"}, "from 1 to 100 steps"),
        ({"steps": "many"}, "expected a number such as 250"),
        ({"steps": "lsun250"}, "write --steps 250 --spacing lsun"),
        ({"sampler": "dpm"}, "unknown sampler 'dpm'.*did you mean ddpm"),
        ({"sampler": "ddpm", "eta": 0.5}, "no meaning for the ddpm sampler"),
    ],
)
def test_settings_that_do_not_fit(toy: Pipeline, settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, UsageError), match=message):
        draw(toy, [(0, 0)], **settings)


def test_untrained_classes_are_refused(toy: Pipeline) -> None:
    with pytest.raises(UsageError, match="not trained on class 2"):
        draw(toy, [(0, 2)])
    with pytest.raises(UsageError, match="every image needs one"):
        draw(toy, [(0, None)], scale=0.0)


@pytest.mark.parametrize(
    ("classifier", "classes", "diffusion", "message"),
    [
        (replace(TOY_CLASSIFIER, image_size=(16, 16)), None, TOY_DIFFUSION, "is for 16x16 images"),
        (replace(TOY_CLASSIFIER, num_classes=7), None, TOY_DIFFUSION, "knows 7 classes"),
        (TOY_CLASSIFIER, {4: "moon"}, TOY_DIFFUSION, "trained on different classes"),
        (TOY_CLASSIFIER, {0: "disc", 1: "square"}, TOY_DIFFUSION, "class 0 is circle to"),
        (TOY_CLASSIFIER, None, DiffusionConfig(noise_schedule="cosine"), "cosine schedule"),
        (TOY_UNET, None, TOY_DIFFUSION, "expected a classifier"),
    ],
)
def test_a_classifier_that_does_not_belong(
    tmp_path: Path, toys: Toys, classifier: Any, classes: Any, diffusion: Any, message: str
) -> None:
    path = save_toy(tmp_path / "c.safetensors", classifier, classes, diffusion)
    with pytest.raises(UsageError, match=message):
        find_sources(toys.model, path)
    assert find_sources(toys.model, path, guided=False).classifier is None


def test_a_classifier_is_no_diffusion_model(toys: Toys) -> None:
    with pytest.raises(UsageError, match=r"--model expects a diffusion model: pass .* as --class"):
        find_sources(toys.classifier)


@pytest.mark.parametrize(
    ("typed", "dtype"),
    [
        *(("fp16", "float16"), ("HALF", "float16"), ("torch.float16", "float16")),
        *(("bf16", "bfloat16"), ("fp32", "float32"), ("double", "float64"), ("Float64", "float64")),
    ],
)
def test_dtypes_and_devices_as_people_write_them(typed: str, dtype: str) -> None:
    device = choose_device(" CPU")
    assert device == torch.device("cpu")
    assert choose_dtype(typed, device, use_fp16=False) == getattr(torch, dtype)


@pytest.mark.parametrize(
    ("vectors", "has", "able"),
    [
        ("AVX512", {"avx512_bf16": True}, True),
        ("AVX512", {"avx512_bf16": False, "amx_bf16": True}, True),
        ("AVX512", {"avx512_bf16": False, "avx512_f": True}, False),
        ("AVX2", {"avx512_bf16": True}, False),  # torch was told not to use them
        ("DEFAULT", {}, False),
    ],
)
def test_which_processors_compute_in_bfloat16(
    monkeypatch: pytest.MonkeyPatch, vectors: str, has: dict[str, bool], able: bool
) -> None:
    assert torch.cpu.get_capabilities()["architecture"]  # what torch knows of this one
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: vectors)
    assert has_bfloat16(torch.device("cpu")) is able


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match="unknown device 'gpu'"):
        choose_device("gpu")
    with pytest.raises(UsageError, match="unknown device 'meta'"):
        choose_device("meta")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="sees 0 CUDA devices"):
            choose_device("cuda")
        assert choose_device("auto").type in ("cpu", "mps")
    with pytest.raises(UsageError, match="unknown dtype 'int8'"):
        load_pipeline("tiny", dtype="int8")


def test_a_file_whose_tensors_do_not_fit_its_settings(tmp_path: Path) -> None:
    from adm_cli.checkpoints.format import save_model
    from adm_cli.checkpoints.header import ModelInfo

    path = tmp_path / "odd.safetensors"
    state = build_model(TOY_UNET).state_dict()
    state["surprise"] = state.pop("out.2.bias")
    state["out.0.weight"] = torch.zeros(7)
    save_model(path, state, ModelInfo(TOY_UNET, TOY_DIFFUSION, {0: "a"}))
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    message = str(caught.value)
    assert "missing: out.2.bias" in message
    assert "unexpected: surprise" in message
    assert "out.0.weight is [7], expected [32]" in message


def test_in_a_notebook_a_pipeline_is_a_line(toys: Toys) -> None:
    shown = repr(load_pipeline(toys.model, toys.classifier, device="cpu"))
    assert shown == "<Pipeline toy: diffusion of 8x8, 3 classes, a classifier; cpu, float32>"
    sources = find_sources(toys.model, toys.classifier)
    assert len(repr(sources)) < 5000  # no tensor and no class by name
    assert "input_blocks" not in repr(sources)
