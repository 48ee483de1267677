"""A step of training: what it must not depend on, and what it must."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from adm_cli.errors import ConfigError
from adm_cli.training.degradation import low_resolution
from adm_cli.training.feed import Batch
from adm_cli.training.tasks import (
    Inputs,
    drop_labels,
    make_task,
    validation_timesteps,
)
from adm_cli.training.trainer import Trainer, ema_rate, learning_rate
from tests.conftest import TOY_CLASSIFIER
from tests.golden_arrays import close
from tests.training.conftest import DIFFUSION, same_state, settings, toy_task

CPU = torch.device("cpu")


def batch(count: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 8, 8, 3), dtype=torch.uint8, generator=generator)
    return Batch(pixels, torch.arange(count) % 2, [])


def trainer(
    kind: str = "diffusion", *, task: dict[str, Any] | None = None, **changes: Any
) -> Trainer:
    return Trainer(toy_task(kind, **(task or {})), settings(**changes), device=CPU)


def run(one: Trainer, steps: int = 3) -> list[float]:
    return [one.train_step(one.inputs(batch(one.config.batch_size))).loss for _ in range(steps)]


def test_metrics_are_read_before_the_optimizer_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU has been waited for by then; later it would be once more."""
    one, order = trainer(), list[str]()
    for owner, name in ((one.means, "add"), (one.optimizer, "step")):
        real = getattr(owner, name)

        def told(*args: Any, name: str = name, real: Any = real, **options: Any) -> Any:
            order.append(name)
            return real(*args, **options)

        monkeypatch.setattr(owner, name, told)
    run(one, 2)
    assert order == ["add", "step"] * 2


@pytest.mark.parametrize("kind", ["diffusion", "classifier"])
@pytest.mark.parametrize("micro", [1, 3])
def test_microbatches_change_nothing(kind: str, micro: int) -> None:
    whole, cut = trainer(kind), trainer(kind, microbatch=micro)
    for one in (whole, cut):
        one.model.set_dtype(torch.float64)
        metrics = one.accumulate(_double(one.inputs(batch())))
        assert metrics["loss"].shape == (4,)
    for a, b in zip(whole.parameters, cut.parameters, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        close(b.grad, a.grad, absolute=1e-12)


def _double(inputs: Inputs) -> Inputs:
    return replace(inputs, x_start=inputs.x_start.double(), noise=inputs.noise.double())


def test_gradient_checkpointing_changes_nothing() -> None:
    plain, checkpointed = trainer(), trainer(task={"gradient_checkpointing": True})
    assert run(plain) == run(checkpointed)
    assert same_state(plain, checkpointed)


def test_a_seed_decides_everything() -> None:
    assert run(trainer()) == run(trainer())
    assert run(trainer()) != run(trainer(seed=4))


def test_dropout_repeats_itself() -> None:
    assert run(trainer(task={"dropout": 0.5})) == run(trainer(task={"dropout": 0.5}))
    assert run(trainer(task={"dropout": 0.5})) != run(trainer())


@pytest.mark.parametrize("dtype", ["bfloat16"])
def test_half_precision_keeps_float32_weights(dtype: str) -> None:
    exact, half = trainer(), trainer(dtype=dtype)
    assert run(half, 2) == pytest.approx(run(exact, 2), rel=0.02)
    assert run(half, 1) != run(exact, 1)
    assert {p.dtype for p in half.parameters} == {torch.float32}
    moved = [p for p in half.parameters if p.grad is not None]
    assert {p.grad.dtype for p in moved if p.grad is not None} == {torch.float32}


def test_channels_last_changes_only_the_layout() -> None:
    plain, last = trainer(), trainer(channels_last=True)
    assert run(last) == pytest.approx(run(plain), rel=1e-4)
    convolution = dict(last.model.named_parameters())["input_blocks.0.0.weight"]
    assert convolution.is_contiguous(memory_format=torch.channels_last)


def test_compile_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def compiled(net: torch.nn.Module) -> torch.nn.Module:
        asked.append(net)
        return net

    monkeypatch.setattr(torch, "compile", compiled)
    one = trainer(compile=True)
    assert asked == [one.model]


def test_label_dropout_trains_the_row_without_a_class() -> None:
    labels = torch.arange(1000) % 5
    dropped = drop_labels(labels, torch.rand(1000), 0.3, 5)
    assert 0.2 < (dropped == 5).float().mean() < 0.4
    assert torch.equal(dropped[dropped != 5], labels[dropped != 5])
    one = trainer(task={"null_class": True}, label_dropout=1.0)
    rows = dict(one.model.named_parameters())["label_emb.weight"].detach()
    before = rows.clone()
    assert before.shape[0] == 6
    run(one, 4)  # what comes after the embedding begins at zero and must move first
    change = (rows - before).abs().sum(dim=1)
    assert (change > 0).tolist() == [False] * 5 + [True]
    with pytest.raises(ConfigError, match="null_class"):
        toy_task(null_class=True, num_classes=None)


def test_unconditional_ignores_labels() -> None:
    one, other = trainer(task={"num_classes": None}), trainer(task={"num_classes": None})
    first = one.train_step(one.inputs(batch())).loss
    second = other.train_step(other.inputs(batch()._replace(labels=torch.full((4,), -1)))).loss
    assert first == second


def test_upsampler_sees_area_averages() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert low_resolution(x, (2, 2)).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    one = trainer(task={"low_res_size": (4, 4)})
    assert len(run(one)) == 3
    seen: list[Tensor] = []
    one.model.register_forward_pre_hook(
        lambda _m, _a, kwargs: seen.append(kwargs["low_res"]), with_kwargs=True
    )
    inputs = one.inputs(batch())
    one.train_step(inputs)
    assert torch.equal(seen[0], low_resolution(inputs.x_start, (4, 4)))


def test_clean_classifier_sees_no_noise() -> None:
    task = make_task(TOY_CLASSIFIER, DIFFUSION, noised=False)
    clean = Trainer(task, settings(), device=CPU)
    seen: list[tuple[Tensor, Tensor]] = []
    clean.model.register_forward_pre_hook(lambda _m, args: seen.append(args))
    inputs = clean.inputs(batch())
    clean.train_step(inputs)
    assert torch.equal(seen[0][0], inputs.x_start)
    assert not seen[0][1].any()


def test_loss_aware_timesteps_learn() -> None:
    one = trainer(timestep_sampler="loss-second-moment")
    run(one, 2)
    assert int(one.timesteps.state()["counts"].sum()) == 8
    other = trainer(timestep_sampler="loss-second-moment")
    other.load_state(*one.state())
    assert same_state(one, other)


def test_learning_rate() -> None:
    config = settings(steps=10, lr=1.0, warmup=4)
    assert [learning_rate(config, k) for k in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    cosine = replace(config, warmup=0, anneal="cosine")
    assert learning_rate(cosine, 0) == 1
    assert learning_rate(cosine, 5) == pytest.approx(0.5)
    assert learning_rate(cosine, 9) < 0.03


def test_averages_warm_up() -> None:
    assert [ema_rate(0.99, k, warmup=True) for k in (0, 8, 10**6)] == [0.1, 0.5, 0.99]
    assert ema_rate(0.99, 0, warmup=False) == 0.99


def test_clipping_bounds_the_gradient() -> None:
    one = trainer(clip_norm=1e-3)
    result = one.train_step(one.inputs(batch()))
    assert result.grad_norm > 1e-3
    norms = torch.stack([p.grad.norm() for p in one.parameters if p.grad is not None])
    assert float(norms.norm()) == pytest.approx(1e-3, rel=1e-3)


def test_validation_does_not_depend_on_seed_or_batch_size() -> None:
    one = trainer()
    other = trainer(seed=9, batch_size=3)
    other.load_state(*one.state())
    pixels, labels, _ = batch(7)
    a, b = one.validate(pixels, labels), other.validate(pixels, labels)
    assert a == pytest.approx(b, rel=1e-5)
    assert {"loss", "loss_q0", "loss_q3", "mse", "vb"} <= set(a)
    assert "bits_per_dim" not in a  # from fewer images than timesteps
    many = one.validate(*batch(150)[:2])
    assert many["bits_per_dim"] > 100 * many["vb"]  # 100 timesteps, and the prior
    t = validation_timesteps(1000, 100)
    assert torch.bincount(t, minlength=100).tolist() == pytest.approx([10] * 100, abs=2)


def test_classifier_metrics_by_quartile() -> None:
    found = trainer("classifier").validate(*batch(40)[:2])
    assert {"acc1", "acc5", "acc1_q0", "acc5_q3"} <= set(found)
    assert found["acc5"] == 1.0  # of five classes


def test_a_model_learns_what_it_is_shown() -> None:
    """The loss of a toy falls well below that of predicting no noise, which is 1."""
    one = trainer(lr=3e-3, ema_rates=(0.5,))
    losses = run(one, 60)
    assert sum(losses[-10:]) / 10 < 0.6 < losses[0]


def test_stratified_timesteps_cover_the_noise() -> None:
    one = trainer(timestep_sampler="stratified")
    count = len(one.task.schedule)
    for _ in range(3):
        t = one.inputs(batch()).t
        assert (t * len(t) // count).tolist() == list(range(len(t)))
        one.step += 1


@pytest.mark.parametrize("classes", [(), (1, 3)])
def test_labels_are_smoothed_in_training_and_not_in_validation(classes: tuple[int, ...]) -> None:
    """Loss (1 - s) nll + s * mean over the trained classes of -log p; validation: plain nats."""
    plain = trainer("classifier")
    smooth = trainer("classifier", task={"label_smoothing": 0.2, "classes": classes})
    task, model = smooth.task, smooth.model
    inputs = smooth.inputs(batch())

    def nats_of(label: int) -> Tensor:
        asked = replace(inputs, labels=torch.full_like(inputs.labels, label))
        return plain.task.losses(model, asked)["loss"]

    with torch.no_grad():
        hard = plain.task.losses(model, inputs)["loss"]
        soft = task.losses(model, inputs)["loss"]
        shared = torch.stack([nats_of(label) for label in classes or range(5)]).mean(dim=0)
        torch.testing.assert_close(soft, 0.8 * hard + 0.2 * shared)
        assert not torch.allclose(soft, hard)
        model.eval()
        torch.testing.assert_close(task.losses(model, inputs)["loss"], hard)
