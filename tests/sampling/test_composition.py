"""Every option with every other, every sampler and every way to make pictures: each pair does what
both do, or is refused with the reason. What there is comes from the tables of options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import adm_cli
from adm_cli.config import SamplingConfig
from adm_cli.diffusion.modifiers import OF_EITHER_GUIDANCE, OF_GUIDANCE, PART_OF
from adm_cli.diffusion.noise import Toward
from adm_cli.diffusion.samplers import SAMPLERS, SAMPLERS_WITH_ETA
from adm_cli.diffusion.steps import SampleStep
from adm_cli.errors import ConfigError, UsageError
from adm_cli.sampling.defaults import choose_sampler, choose_schedule
from adm_cli.sampling.drawing.edited_batch import EditedBatch
from adm_cli.sampling.drawing.pipeline import Pipeline, draw_batches, load_pipeline
from adm_cli.sampling.editing import Editing
from tests.conftest import Toys
from tests.sampling.test_modifiers import CHANGES, OTHERS, null_toy, options, weak_toy

__all__ = ["null_toy", "options", "weak_toy"]  # fixtures

GUIDED: dict[str, Any] = {"scale": 30.0}  # by the classifier
OF_CLASSIFIER = {*OF_GUIDANCE, "entropy_scaling", "guide_interval"}
WAYS: dict[str, dict[str, Any]] = {
    **{name: {**(GUIDED if name in {*OF_CLASSIFIER, *OF_EITHER_GUIDANCE} else {}), **way}
       for name, way in {**CHANGES, **OTHERS}.items()},
    "scale": GUIDED,
    **{f"sampler {name}": {"sampler": name} for name in SAMPLERS},
}  # fmt: skip
# Without clamping, which hides at high noise whatever moves an x_0 that is far out.
BASE: dict[str, Any] = {
    "seeds": (3,), "classes": (1,), "steps": "4", "sampler": "ddim", "scale": 0.0, "cfg": 1.0,
    "temperature": 1.0, "batch_size": 1, "clip_denoised": False,
}  # fmt: skip
# What does not go together, and why not.
REFUSED: list[tuple[Callable[[dict[str, Any]], bool], str]] = [
    (
        lambda s: "churn" in s and s["sampler"] != "heun",
        "--churn has no meaning for the .* sampler",
    ),
    (
        lambda s: "eta" in s and s["sampler"] not in SAMPLERS_WITH_ETA,
        "--eta has no meaning for the .* sampler",
    ),
    (lambda s: s.get("churn_min", 0) > s.get("churn_max", 50), "churn_min .* is above churn_max"),
    (lambda s: "churn" in s and "guide_every" in s, "guide_every counts the timesteps of the step"),
]
# Of pictures that are not drawn from noise alone.
MADE: dict[str, dict[str, Any]] = {
    "an edit": {"strength": 0.7},
    "an inversion": {"strength": 1.0, "invert": True},
    "a mask": {"strength": 1.0, "resample": 2, "jump": 1},
    "a way between seeds": {},
}
BY_SAMPLER = [name for name in WAYS if name.startswith("sampler ")]
KEYS = {"mixture": "mixtures", **dict.fromkeys(BY_SAMPLER, "sampler")}  # of WAYS; others as named
Draw = Callable[..., Tensor]


@pytest.fixture(scope="module")
def pipeline(null_toy: Path, weak_toy: Path, toys: Toys) -> Pipeline:
    return load_pipeline(null_toy, toys.classifier, device="cpu", weak_model=weak_toy)


@pytest.fixture(scope="module")
def exact(null_toy: Path, weak_toy: Path, toys: Toys) -> Pipeline:
    return load_pipeline(
        null_toy, toys.classifier, device="cpu", dtype="float64", weak_model=weak_toy
    )


@pytest.fixture(scope="module")
def path(pipeline: Pipeline) -> Draw:
    """Every x of an image on its way, by settings and what it is made of; each drawn once."""

    @cache
    def drawn(made: str | None, settings: frozenset[tuple[str, Any]]) -> Tensor:
        config = SamplingConfig(**{**BASE, **dict(settings)})
        return torch.cat([step.x for step in walked(pipeline, config, made)])

    return lambda settings, made=None: drawn(made, frozenset(settings.items()))


class Edits:
    """A picture of nothing but grey, the upper half of which may be drawn anew."""

    def __init__(self, how: Editing, *, masked: bool) -> None:
        self.how, self.masked = how, masked

    def batch(self, first: int, count: int, size: int, /) -> EditedBatch:
        drawn = torch.zeros(size, 1, 8, 8, dtype=torch.bool)
        drawn[:, :, :4] = True
        return EditedBatch(torch.zeros(size, 3, 8, 8), drawn if self.masked else None, self.how)


def walked(pipeline: Pipeline, config: SamplingConfig, made: str | None) -> list[SampleStep]:
    schedule = choose_schedule(pipeline.diffusion, config.steps, config.spacing)
    sampler = choose_sampler(config.sampler, config.eta, config, len(schedule))
    how: dict[str, Any] = {}
    if made == "a way between seeds":
        how["toward"] = [Toward(7, 0.5)]
    elif made is not None:
        how["edits"] = Edits(Editing(**MADE[made]), masked=made == "a mask")
    steps = draw_batches(pipeline, config, schedule, sampler, **how)
    return [step for step in steps if isinstance(step, SampleStep)]


def together(first: str, second: str) -> dict[str, Any]:
    """The settings of both; a sampler that is asked for by name wins over one that comes along."""
    rows = sorted((WAYS[first], WAYS[second]), key=lambda row: set(row) == {"sampler"})
    return {**rows[0], **rows[1]}


def reason(settings: dict[str, Any]) -> str | None:
    return next((why for wrong, why in REFUSED if wrong({**BASE, **settings})), None)


def without(settings: dict[str, Any], name: str) -> dict[str, Any]:
    """The same but for the option of that name, and what says more of it."""
    key = KEYS.get(name, name)
    gone = {key, *(part for part, whole in PART_OF.items() if whole == key)}
    return {other: value for other, value in settings.items() if other not in gone}


def acts(path: Draw, settings: dict[str, Any], name: str, made: str | None = None) -> bool:
    """Whether the image goes another way than without the option; as good as where it cannot."""
    less = without(settings, name)
    if {**BASE, **less} == {**BASE, **settings} or reason(less) is not None:
        return True
    return not torch.equal(path(settings, made), path(less, made))


@pytest.mark.parametrize("first", WAYS)
def test_pairs_run_or_say_why_not(first: str, path: Draw) -> None:
    for second in list(WAYS)[: list(WAYS).index(first)]:
        settings = together(first, second)
        if (why := reason(settings)) is not None:
            with pytest.raises(ConfigError, match=why):
                path(settings)
        elif not {first, second} <= set(BY_SAMPLER):
            assert bool(path(settings).isfinite().all())
            for name in (first, second):
                assert acts(path, settings, name), (first, second, name)


@pytest.mark.parametrize("name", sorted({*OF_CLASSIFIER, *OF_EITHER_GUIDANCE}))
def test_what_is_about_guidance_is_refused_without(name: str, options: dict[str, Any]) -> None:
    for free in {} if name in OF_EITHER_GUIDANCE else {"cfg": 3.0}, {}:
        asked = {**options, **WAYS[name], **free, "scale": 0.0}
        with pytest.raises(UsageError, match=r"guidance: pass (a )?--scale"):
            adm_cli.sample(**asked, dry_run=True, out="o")


@pytest.mark.parametrize("made", MADE)
def test_every_option_acts_on_pictures_made_otherwise(made: str, path: Draw) -> None:
    more = {"steps": "6"} if made == "an edit" else {}  # of which it takes four
    for name, settings in WAYS.items():
        settings = {**settings, **more}
        assert bool(path(settings, made).isfinite().all())
        silent = made == "an inversion" and name == "temperature"
        assert acts(path, settings, name, made) != silent, name


@pytest.mark.parametrize("name", WAYS)
def test_no_option_mixes_images(name: str, pipeline: Pipeline) -> None:
    """Whatever is drawn beside it, at one batch size: the same bits."""
    settings = {**BASE, **WAYS[name], "batch_size": 2}
    alone = SamplingConfig(**settings)
    mixtures = None if alone.mixtures is None else ("0+3", *alone.mixtures)
    other = {"seeds": (9, 3), "classes": (2, 1), "mixtures": mixtures}
    beside = SamplingConfig(**{**settings, **other})
    one, two = (list(walked(pipeline, config, None)) for config in (alone, beside))
    for mine, theirs in zip(one, two, strict=True):
        assert torch.equal(mine.x[0], theirs.x[1])


@pytest.mark.parametrize("name", WAYS)
def test_another_batch_size_moves_nothing_but_rounding(name: str, exact: Pipeline) -> None:
    config = SamplingConfig(**{**BASE, **WAYS[name]})
    one, three = (walked(exact, replace(config, batch_size=size), None)[-1].x[0] for size in (1, 3))
    torch.testing.assert_close(one, three, rtol=0, atol=1e-8)
