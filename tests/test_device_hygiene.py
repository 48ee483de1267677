"""What would go wrong on a GPU, without one: on the meta device mixing devices fails, and reading
a value back, which would wait for the device, does too. What is sent there is counted."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from adm_cli.checkpoints.loading import build_model
from adm_cli.config import DiffusionConfig, SamplingConfig
from adm_cli.devices import reproducible_kernels, send
from adm_cli.diffusion.finite import FiniteWatch
from adm_cli.diffusion.guidance import classifier_gradient
from adm_cli.diffusion.losses import bits_per_dim
from adm_cli.diffusion.samplers import SAMPLERS
from adm_cli.diffusion.schedule import NoiseSchedule, gather
from adm_cli.evaluation.metrics import InceptionScore, Moments
from adm_cli.reports.measure import _ClassifierNetwork
from adm_cli.reports.pictures import drawn_noise
from adm_cli.sampling.drawing.guiding import guided_by, labelled
from adm_cli.sampling.drawing.labels import Labels
from adm_cli.training.feed import Batch
from adm_cli.training.tasks import make_task
from adm_cli.training.trainer import Trainer
from tests.conftest import TOY_CLASSIFIER, TOY_UNET, TOY_UPSAMPLER
from tests.training.conftest import DIFFUSION, settings, toy_task
from tests.training.test_trainer import batch

META = torch.device("meta")
SCHEDULE = NoiseSchedule.linear(100).respace("5")


class Sent(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts tensors that go from the CPU to the meta device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            source = args[-1] if func is torch.ops.aten.copy_.default else args[0]
            self.count += source.device.type == "cpu" and result.device == META
        return result


def network(config: Any) -> Any:
    with META:
        return build_model(config).eval().requires_grad_(False)


def sent_by_step(sampler: str, *, cfg: float, upsampler: bool = False, **options: Any) -> list[int]:
    """How many tensors each step sends, of a sampler that is guided in every way."""
    config = SamplingConfig(
        seeds=(0, 1), classes=(0, 1), scale=2.0, guide_interval=(0.0, 0.9), cfg_interval=(0.1, 1.0)
    )
    diffusion = DiffusionConfig(num_timesteps=100, rescale_timesteps=True)
    y = torch.zeros(2, dtype=torch.int64, device=META)
    net, guidance = network(TOY_UNET), None
    if upsampler:
        net = partial(network(TOY_UPSAMPLER), low_res=torch.zeros(2, 3, 8, 8, device=META))
    else:
        classifier = network(TOY_CLASSIFIER)
        guidance = guided_by(classifier, diffusion, config, y, (1.0, 2.0), torch.float32)
    watch = FiniteWatch()
    side = 16 if upsampler else 8
    generator = torch.Generator().manual_seed(0)

    def noise(_i: int, like: Tensor) -> Tensor:
        return send(torch.randn(like.shape, generator=generator), like.device, like.dtype)

    counts = []
    steps = SAMPLERS[sampler](
        watch.watched(labelled(net, diffusion, config, Labels(y[None], None), 5, (cfg, cfg))),
        SCHEDULE,
        torch.zeros(2, 3, side, side, device=META),
        noise=noise,
        guidance=None if guidance is None else watch.watched(guidance),
        variance="learned_range",
        **options,
    )
    with Sent() as sent:
        for step in steps:
            assert step.x.device == step.pred_xstart.device == META
            counts.append(sent.count)
            sent.count = 0
        assert watch.marked(step.x).device == META
    return counts


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_a_guided_step_sends_its_noise_and_waits_for_nothing(sampler: str) -> None:
    counts = sent_by_step(sampler, cfg=3.0)
    assert len(counts) == 5
    # After the first steps, which move the tables: of a solver of second order, one more then.
    assert set(counts[2:]) == {1}


def test_an_upsampler_and_eta() -> None:
    assert set(sent_by_step("ddpm", cfg=1.0, upsampler=True)[2:]) == {1}
    assert set(sent_by_step("ddim", cfg=1.0, eta=0.5)[2:]) == {1}


def test_fixed_variance_tables_are_moved_once() -> None:
    like, t = torch.zeros(2, 3, 4, 4, device=META), torch.zeros(2, dtype=torch.int64, device=META)
    schedule = NoiseSchedule.linear(100)
    with Sent() as sent:
        for _ in range(3):
            assert gather(schedule.alphas_cumprod, t, like).shape == (2, 1, 1, 1)
            gather(schedule.fixed_large_log_variance, t, like)
            gather(schedule.alphas_cumprod, t, like.double())
    assert sent.count == 3


def test_a_value_beside_the_image_is_that_of_the_cpu() -> None:
    """The second way of `gather`, which a CPU does not take: the same bits."""
    from adm_cli.diffusion import schedule as module

    t, like = torch.tensor([0, 3, 4]), torch.zeros(3, 1, 1, 1)
    moved = module._moved(SCHEDULE.alphas_cumprod, like)[t]
    assert torch.equal(moved, gather(SCHEDULE.alphas_cumprod, t, like).flatten())


def test_second_order_weights() -> None:
    """By their definition: half the ratio of a step to that before it, none for the last two."""
    h = SCHEDULE.half_log_snr
    weights = SCHEDULE.second_order_weights
    assert weights.tolist()[:2] == [0, 0]
    for i in range(2, len(SCHEDULE) - 1):
        expected = (h[i - 1] - h[i]) / (2 * (h[i] - h[i + 1]))
        assert math.isclose(weights[i], expected, rel_tol=1e-12)
    for few in ("1", "2", "3"):
        assert NoiseSchedule.linear(100).respace(few).second_order_weights.abs().sum() == 0


def draw_no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_noise(_seed: int, _step: object, places: range, shape: Any, device: Any) -> Tensor:
        return torch.zeros(len(places), *shape, device=device)

    for module in ("trainer", "degradation"):
        monkeypatch.setattr(f"adm_cli.training.{module}.image_noise", no_noise)


@pytest.mark.parametrize("kind", ["diffusion", "classifier", "upsampler"])
def test_a_training_step(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its gradient; timesteps alone stay on the CPU, where the tables are. (There is no generator
    on meta: no noise is drawn.)"""

    draw_no_noise(monkeypatch)
    one = Trainer(toy_task(kind), settings(label_dropout=0.0), device=META)
    inputs = one.inputs(batch())
    found = {name: value for name, value in vars(inputs).items() if value is not None}
    assert {name for name, value in found.items() if value.device != META} == {"t"}
    for _ in range(2):  # the first moves the tables
        with Sent() as sent:
            metrics = one.accumulate(inputs)
    assert sent.count == 2  # timesteps, as the tables are read by and as the network sees them
    assert {value.device for value in metrics.values()} == {META}
    assert all(p.grad is not None and p.grad.device == META for p in one.parameters)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_an_optimizer_sends_nothing_and_waits_for_nothing(optimizer: str) -> None:
    one = Trainer(toy_task("diffusion"), settings(optimizer=optimizer), device=META)
    for parameter in one.parameters:
        parameter.grad = torch.zeros_like(parameter)
    for _ in range(2):  # the first makes the moments
        with Sent() as sent:
            one.optimizer.step()
    assert sent.count == 0


def test_small_pictures_that_vary_are_made_there(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_no_noise(monkeypatch)
    task = make_task(replace(TOY_UPSAMPLER, low_res_noise=0.5), DIFFUSION)
    one = Trainer(task, settings(crop=8, vary_kernel=True), device=META)
    pictures = Batch(torch.zeros(4, 16, 16, 3, dtype=torch.uint8), torch.zeros(4).long(), [])
    for _ in range(2):  # the first sends the filters
        with Sent() as sent:
            inputs = one.inputs(pictures)
    assert sent.count == 4  # pictures, labels, weights, and how much noise lies on small pictures
    assert inputs.low_res is not None
    assert inputs.low_res.device == META


def test_features_stay_where_they_are() -> None:
    """What is sent says which images are of a group."""
    images = torch.zeros(4, 8, 8, 3, dtype=torch.uint8, device=META)
    extract = _ClassifierNetwork(network(TOY_CLASSIFIER))
    moments, score = Moments(groups=2), InceptionScore(groups=2)
    with Sent() as sent:
        found = extract(images)
        assert sent.count == 0
        moments.add(found.pool)
        score.add(found.logits)
    assert sent.count == 3
    assert moments.products.device == META


def test_a_likelihood_sends_its_noise_and_waits_for_nothing() -> None:
    net, x = network(TOY_UNET), torch.zeros(2, 3, 8, 8, device=META)
    y = torch.zeros(2, dtype=torch.int64, device=META)
    counts: list[int] = []
    generators = [torch.Generator().manual_seed(i) for i in range(2)]

    def noise(_i: int, like: Tensor) -> Tensor:
        counts.append(sent.count)
        return drawn_noise(generators, like)

    for _ in range(2):  # the first moves the tables
        counts.clear()
        with Sent() as sent:
            found = bits_per_dim(SCHEDULE, lambda x, t: net(x, t, y), x, noise=noise)
    assert counts == list(range(5))  # one a step, so far
    assert found.total.device == META


def test_a_gradient_that_repeats_itself_is_of_no_fused_attention(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A GPU's fused kernels add theirs up in any order. Where nothing is differentiated, or need
    not repeat itself, they are taken."""
    fused: list[bool] = []
    real = functional.scaled_dot_product_attention

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        fused.append(q.requires_grad)
        return real(q, k, v)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", attention)
    x = torch.zeros(2, 3, 8, 8, device=META)
    t = torch.zeros(2, dtype=torch.int64, device=META)
    classifier = network(TOY_CLASSIFIER)
    with reproducible_kernels():
        assert classifier_gradient(classifier, x, t, t).shape == x.shape
        assert fused == []
        network(TOY_UNET)(x, t, t)
        assert set(fused) == {False}
    classifier_gradient(classifier, x, t, t)
    assert True in fused
