"""What `test_device_hygiene` shows of a plain guided step, of every option and way to draw: whole
batches on the meta device, where nothing can be read back, and what is sent there is counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch

import adm_cli
from adm_cli.config import SamplingConfig
from adm_cli.diffusion.noise import Toward
from adm_cli.diffusion.steps import SampleStep
from adm_cli.sampling.defaults import choose_sampler, choose_schedule
from adm_cli.sampling.drawing.edited_batch import EditedBatch
from adm_cli.sampling.drawing.pipeline import Pipeline, draw_batches, load_pipeline
from adm_cli.sampling.editing import Editing
from tests.conftest import TOY_CLASSIFIER, TOY_UNET, TOY_UPSAMPLER, Toys, save_toy
from tests.sampling.test_modifiers import CHANGES, OTHERS
from tests.test_device_hygiene import META, Sent, network

WAYS = {**CHANGES, **OTHERS, "mixture": {"mixtures": ("0+1*0.4", "0+3")}}
STEPS = 6


@pytest.fixture(scope="module")
def null_toys(tmp_path_factory: pytest.TempPathFactory, toys: Toys) -> Pipeline:
    """A model that can do without a class, its classifier and a weak one, on the meta device."""
    path = save_toy(
        tmp_path_factory.mktemp("meta") / "null.safetensors", replace(TOY_UNET, null_class=True)
    )
    found = load_pipeline(path, toys.classifier, device="cpu", weak_model=path, plain=True)
    return replace(
        found, model=network(found.model.config), weak=network(found.model.config),
        classifier=network(TOY_CLASSIFIER), device=META,
    )  # fmt: skip


def sent_by_step(pipeline: Pipeline, config: SamplingConfig, **how: Any) -> list[int]:
    """Of a batch of two; what comes after the last step reads it back."""
    schedule = choose_schedule(pipeline.diffusion, config.steps, config.spacing)
    sampler = choose_sampler(config.sampler, config.eta, config, len(schedule))
    steps = draw_batches(pipeline, config, schedule, sampler, **how)
    counts = []
    with Sent() as sent:
        for step in steps:
            assert isinstance(step, SampleStep)
            assert step.x.device == META
            counts.append(sent.count)
            sent.count = 0
            if step.i == 0:
                break
    return counts


def config_of(**settings: Any) -> SamplingConfig:
    return SamplingConfig(
        **{
            "seeds": (3, 4), "classes": (0, 1), "steps": str(STEPS), "sampler": "ddim",
            "scale": 2.0, "cfg": 1.0, "temperature": 1.0, "batch_size": 2, **settings,
        }
    )  # fmt: skip


@pytest.mark.parametrize("name", WAYS)
def test_every_option_sends_its_noise_and_waits_for_nothing(name: str, null_toys: Pipeline) -> None:
    counts = sent_by_step(null_toys, config_of(**WAYS[name]))
    assert len(counts) == STEPS
    # the weight of classifier-free guidance goes along where that first acts
    assert sorted(counts[2:]) in ([1, 1, 1, 1], [1, 1, 1, 2])


class Edits(NamedTuple):
    """Two pictures, the upper half of which may be drawn anew."""

    how: Editing
    masked: bool = False

    def batch(self, first: int, count: int, size: int, /) -> EditedBatch:
        drawn = torch.zeros(size, 1, 8, 8, dtype=torch.bool)
        drawn[:, :, :4] = True
        return EditedBatch(torch.zeros(size, 3, 8, 8), drawn if self.masked else None, self.how)


@pytest.mark.parametrize(
    "edits",
    [
        Edits(Editing(strength=0.7)),
        Edits(Editing(strength=0.9, invert=True)),
        Edits(Editing(strength=1.0, resample=2, jump=2), masked=True),
    ],
    ids=["noise", "inversion", "mask"],
)
def test_an_edit(edits: Edits, null_toys: Pipeline) -> None:
    """Of the second batch, for which all tables are there; one more noise where a stretch is drawn
    again."""
    config = config_of(sag_scale=2.0, eps_scale=1.01)
    sent_by_step(null_toys, config, edits=edits)
    counts = sent_by_step(null_toys, config, edits=edits)
    assert max(counts[2:]) == 1 + (edits.how.resample > 1)


def test_a_way_between_seeds(null_toys: Pipeline) -> None:
    config = config_of(sampler="ddpm", negative_class=3, pag_scale=2.0)
    counts = sent_by_step(null_toys, config, toward=[Toward(7, 0.5)] * 2)
    assert set(counts[2:]) == {1}


def test_back_projection(toys: Toys) -> None:
    found = load_pipeline(adm_cli.find_upsampler(toys.upsampler), device="cpu", plain=True)
    pipeline = replace(found, model=network(TOY_UPSAMPLER), device=META)
    config = config_of(scale=0.0, project=3, eps_scale=1.01, threshold=0.9)
    small = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    counts = sent_by_step(pipeline, config, pictures=small)
    assert set(counts[2:]) == {1}


def test_what_reads_back_is_found(null_toys: Pipeline) -> None:
    """By the same way: a watch on the pictures at each step."""
    for step in draw_batches(
        null_toys, config_of(), choose_schedule(null_toys.diffusion, "3"),
        choose_sampler("ddim", None),
    ):  # fmt: skip
        with pytest.raises((RuntimeError, NotImplementedError)):
            float(step.x.sum())  # type: ignore[union-attr]
        break
