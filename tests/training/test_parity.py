"""Training numbers of the original: losses, accuracies, averages, learning rates, whole steps."""

from __future__ import annotations

import json

import pytest
import torch

from adm_cli.config import DiffusionConfig, UNetConfig
from adm_cli.training.config import TrainingConfig
from adm_cli.training.distributed import World
from adm_cli.training.tasks import Inputs, classifier_metrics, make_task
from adm_cli.training.trainer import Means, Trainer, learning_rate, update_ema
from tests.golden_arrays import ROOT, arrays, close, config_from_constructor


def test_classifier_losses_and_accuracies() -> None:
    golden = arrays("training/classifier_losses.safetensors")
    metrics = classifier_metrics(golden["logits"], golden["labels"])
    close(metrics["loss"], golden["loss.f64"], relative=1e-6)
    assert torch.equal(metrics["acc1"], golden["acc@1"])
    assert torch.equal(metrics["acc5"], golden["acc@5"])
    means = Means(golden.meta["num_timesteps"], ("loss", "acc1", "acc5"))
    for start in range(0, 24, 7):
        where = slice(start, start + 7)
        part = {name: value[where] for name, value in metrics.items()}
        means.add(part, golden["t"][where])
    found = means.take(World(), torch.device("cpu"))
    for name, value in golden.meta["logged_means"].items():
        ours = name.removeprefix("train_").replace("acc@1", "acc1").replace("acc@5", "acc5")
        assert found[ours] == pytest.approx(value, rel=1e-6), name
    assert means.take(World(), torch.device("cpu")) == {}  # begun anew


def test_moving_averages() -> None:
    golden = arrays("training/ema.safetensors")
    for rate in golden.meta["rates"]:
        for j in range(2):
            average = golden[f"init.{j}"].clone()
            for step, source in enumerate(golden[f"source.{j}"]):
                update_ema([average], [source], rate)
                close(average, golden[f"rate{rate}.{j}.f64"][step], relative=1e-6)


def test_annealed_learning_rate() -> None:
    book = json.loads((ROOT / "training" / "bookkeeping.json").read_text())
    for case in book["lr_anneal_classifier"]:
        config = TrainingConfig(
            steps=case["iterations"], batch_size=1, lr=case["lr"], anneal="linear"
        )
        ours = [
            learning_rate(config, case["resume_step"] + i)
            for i in range(len(case["lr_used_by_optimizer_at_step"]))
        ]
        assert ours == pytest.approx(case["lr_used_by_optimizer_at_step"])


@pytest.mark.skipif(
    not (ROOT / "training" / "train_steps.safetensors").exists(), reason="only in the full set"
)
def test_training_steps_of_the_original() -> None:
    """Four steps of AdamW and two averages.

    The original adds up the means of its two microbatches, twice the mean over the batch: so do
    the loss weights here. Its learning rate is that of the step before, except at step 0.
    """
    golden = arrays("training/train_steps.safetensors")
    meta = golden.meta
    network = config_from_constructor("UNetModel", meta["constructor_args"])
    assert isinstance(network, UNetConfig)
    diffusion = DiffusionConfig(num_timesteps=meta["diffusion"]["T"], loss="rescaled_mse")
    task = make_task(network, diffusion)
    config = TrainingConfig(
        steps=100, batch_size=4, microbatch=2, lr=meta["lr"], weight_decay=meta["weight_decay"],
        ema_rates=tuple(meta["ema_rates"]), ema_warmup=False,
    )  # fmt: skip
    init = {n.removeprefix("init."): golden[n].float() for n in golden.names("init.")}
    trainer = Trainer(task, config, device=torch.device("cpu"), init=init)
    gradient = {}
    for k in range(meta["steps"]):
        inputs = Inputs(
            golden["batch"][k], golden["y"][k], golden["t"][k], golden["weights"][k] * 2,
            golden["noise"][k],
        )  # fmt: skip
        object.__setattr__(trainer.config, "lr", float(golden["lr"][k]))
        losses = task.losses(trainer.model, inputs)
        close(losses["loss"], golden["loss.f64"][k], relative=1e-4)
        close(losses["mse"], golden["mse.f64"][k], relative=1e-4)
        close(losses["vb"], golden["vb.f64"][k], relative=1e-4)
        result = trainer.train_step(inputs)
        assert result.grad_norm == pytest.approx(float(golden["grad_norm.f64"][k]), rel=1e-4)
        if k == 0:
            for name, p in zip(trainer.names, trainer.parameters, strict=True):
                assert p.grad is not None
                close(p.grad, golden[f"grad_step0.{name}"], relative=1e-4, absolute=1e-7)
                gradient[name] = golden[f"grad_step0.{name}"].abs() > 1e-6
    for prefix, weights in (
        ("final.", dict(zip(trainer.names, trainer.parameters, strict=True))),
        ("ema0.9.", trainer.averaged(0)),
        ("ema0.999.", trainer.averaged(1)),
    ):
        names = golden.names(prefix)
        assert names
        for name in names:
            key = name.removeprefix(prefix)
            mask = gradient[key]
            close(weights[key].detach()[mask], golden[name][mask], absolute=5e-6)


def test_microbatches_average_truly() -> None:
    """Cutting a batch up changes nothing, unlike in the original, also in uneven pieces."""
    golden = arrays("training/classifier_losses.safetensors")
    logits = golden["logits"].double().requires_grad_()
    total = 0.0
    start = 0
    for size in golden["microbatch_sizes"].tolist():
        part = slice(start, start + size)
        start += size
        metrics = classifier_metrics(logits[part], golden["labels"][part])
        loss = metrics["loss"].sum() / 24
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    assert total == pytest.approx(float(golden["mean_loss.f64"]))
    assert logits.grad is not None
    close(logits.grad, golden["grad_logits_full_batch.f64"], absolute=1e-12)
