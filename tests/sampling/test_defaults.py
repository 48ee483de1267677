"""What is drawn where nobody said how: the preset's word, the file's, or the schedule's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from adm_cli import SamplingConfig, edit, generate, load_pipeline
from adm_cli.checkpoints.header import read_model_file
from adm_cli.checkpoints.presets import PRESETS, find_preset
from adm_cli.checkpoints.sources import Sources, find_sources
from adm_cli.config import DiffusionConfig, Recommended
from adm_cli.errors import ConfigError
from adm_cli.sampling.defaults import (
    SAFE_INTERVAL,
    guidance_runs_away,
    remarks,
    resolve,
    taken_from,
)
from adm_cli.sampling.drawing.pipeline import Pipeline
from tests.conftest import Toys

COSINE, LINEAR = DiffusionConfig(noise_schedule="cosine"), DiffusionConfig()


@pytest.fixture(scope="module")
def own(toys: Toys) -> Sources:
    return find_sources(toys.model, toys.classifier)


def saying(sources: Sources, recommended: Recommended | None, **diffusion: Any) -> Sources:
    """The same weights, whose file recommends this."""
    info = sources.model.info
    info = replace(info, recommended=recommended, diffusion=replace(info.diffusion, **diffusion))
    return replace(sources, model=replace(sources.model, info=info))


def ask(**settings: Any) -> SamplingConfig:
    return SamplingConfig(**{"seeds": (0,), "classes": (0,), **settings})


def test_the_preset_decides() -> None:
    preset = find_preset("tiny")
    assert preset is not None
    found = resolve(find_sources("tiny"), ask(classes=(207,)))
    for name in ("sampler", "steps", "eta", "scale", "cfg"):
        assert getattr(found, name) == getattr(preset, name), name
    assert found.guide_interval == (preset.guide_interval if preset.scale else None)


def test_the_file_decides(own: Sources) -> None:
    recommended = Recommended(
        sampler="dpm++2m", steps="7", scale=3.0, guide_interval=(0.1, 0.6), cfg=2.0
    )
    found = resolve(saying(own, recommended), ask())
    assert (found.sampler, found.steps, found.scale) == ("dpm++2m", "7", 3.0)
    assert (found.guide_interval, found.cfg) == ((0.1, 0.6), 2.0)


def test_a_sampler_that_is_named_has_no_noise_but_what_is_asked_for(own: Sources) -> None:
    noisy = saying(own, Recommended(sampler="dpm++2m", steps="7", eta=0.5))
    assert resolve(noisy, ask()).eta == 0.5
    assert resolve(noisy, ask(eta=0.0)).eta == 0.0
    for named in ("dpm++2m", "ddim", "ddpm"):
        assert resolve(noisy, ask(sampler=named)).eta is None
    assert resolve(noisy, ask(sampler="ddim", eta=0.2)).eta == 0.2


def test_a_latent_is_decoded_without_the_noise_that_is_recommended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = find_preset("tiny")
    assert preset is not None
    noisy = replace(preset, sampler="ddim", eta=1.0)
    monkeypatch.setattr("adm_cli.checkpoints.presets.PRESETS", (noisy,))
    Image.new("RGB", (32, 32)).save(tmp_path / "photo.png")

    def eta(**how: Any) -> object:
        photo = tmp_path / "photo.png"
        found = edit(photo, class_=963, dry_run=True, out=tmp_path / "o", **how).settings
        return found["eta"]

    assert eta() == 1
    assert eta(invert=True) is None
    assert eta(invert=True, eta=0.3) == 0.3


def test_what_is_asked_for_wins(own: Sources) -> None:
    recommended = Recommended(sampler="dpm++2m", steps="7", scale=3.0, guide_interval=(0.1, 0.6))
    asked = ask(
        sampler="ddim", steps="4", scale=-1.0, guide_interval=(0.0, 1.0), cfg=1.0, temperature=1.0,
        project=0,
    )  # fmt: skip
    assert resolve(saying(own, recommended), asked) == asked
    assert resolve(own, asked) == asked


def test_a_file_that_says_nothing_is_drawn_as_the_original_draws(own: Sources) -> None:
    found = resolve(saying(own, None), ask())
    assert (found.sampler, found.steps, found.scale, found.cfg) == ("ddpm", None, 1.0, 1.0)


@pytest.mark.parametrize("classes", [(None,), (None, None)])
def test_nothing_to_guide_by(own: Sources, classes: Any) -> None:
    recommended = Recommended(scale=3.0, cfg=2.0, guide_interval=(0.1, 0.6))
    found = resolve(saying(own, recommended), ask(classes=classes, seeds=(0,) * len(classes)))
    assert (found.scale, found.cfg, found.guide_interval, found.cfg_interval) == (0, 1, None, None)


def test_without_a_classifier_there_is_no_scale(own: Sources) -> None:
    assert resolve(own, ask(), guided=False).scale == 0


@pytest.mark.parametrize(
    ("schedule", "settings", "expected"),
    [
        ("cosine", {"sampler": "ddim"}, SAFE_INTERVAL),
        ("cosine", {"sampler": "dpm++2m"}, SAFE_INTERVAL),
        ("cosine", {"sampler": "ddpm"}, None),
        ("cosine", {"sampler": "ddim", "scale": 0.0}, None),
        ("cosine", {"sampler": "ddim", "guide_interval": (0.0, 1.0)}, (0.0, 1.0)),
        ("linear", {"sampler": "ddim"}, None),
    ],
)
def test_guidance_that_would_run_away_is_kept_to_an_interval(
    own: Sources, schedule: str, settings: dict[str, Any], expected: object
) -> None:
    """At every door, since all of them resolve their settings here."""
    sources = saying(own, None, noise_schedule=schedule, num_timesteps=1000)
    found = resolve(sources, ask(steps="20", **settings))
    assert found.guide_interval == expected
    asked_for_all = expected == (0.0, 1.0)
    assert bool(list(remarks(found, sources.model.info.diffusion))) is asked_for_all


@pytest.mark.parametrize(
    ("diffusion", "steps", "settings", "expected"),
    [
        (COSINE, "20", {}, True),
        (COSINE, "20", {"sampler": "ddpm"}, False),
        (COSINE, "20", {"sampler": "dpm++2m"}, True),
        (COSINE, "20", {"scale": 0.0}, False),
        (COSINE, "20", {"guide_interval": (0.0, 0.95)}, False),
        (COSINE, "ddim20", {}, False),
        (LINEAR, "20", {}, False),
    ],
)
def test_guidance_that_runs_away(
    diffusion: DiffusionConfig, steps: str, settings: dict[str, Any], expected: bool
) -> None:
    config = ask(**{"scale": 1.0, "sampler": "ddim", "steps": steps, **settings})
    assert guidance_runs_away(config, diffusion) is expected


def test_remarks_name_what_repels() -> None:
    assert len(list(remarks(ask(scale=-1.0, cfg=-2.0, sampler="ddpm"), COSINE))) == 2


def test_generate_draws_what_the_command_would(toys: Toys) -> None:
    """Nothing but seeds and classes given, and everything given: the same bytes."""
    pipeline = load_pipeline(toys.model, toys.classifier, device="cpu")
    told = Recommended(sampler="dpm++2m", steps="3", scale=2.0)
    pipeline = Pipeline(
        saying(pipeline.sources, told),
        pipeline.model, pipeline.classifier, pipeline.device, pipeline.dtype,
    )  # fmt: skip
    (short,) = generate(pipeline, ask())
    full = ask(sampler="dpm++2m", steps="3", scale=2.0, cfg=1.0)
    (spelled,) = generate(pipeline, full)
    assert torch.equal(short.images, spelled.images)
    assert short.scales == (2.0,)


def test_notes_reach_python(toys: Toys) -> None:
    notes: list[str] = []
    pipeline = load_pipeline(toys.model, toys.classifier, device="cpu")
    config = ask(sampler="ddim", steps="2", scale=-1.0)
    list(generate(pipeline, config, on_note=notes.append))
    assert any("repelled" in note for note in notes)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"scale": float("nan")}, {"cfg": float("inf")}, {"guide_interval": (0.5, 0.2)}),
        *({"eta": 1.5}, {"eta": float("nan")}),
    ],
)
def test_recommendations_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Recommended(**wrong)


def test_presets_recommend() -> None:
    assert all(isinstance(preset, Recommended) for preset in PRESETS)


def test_a_file_keeps_its_recommendation(toys: Toys, tmp_path: Path) -> None:
    from adm_cli.checkpoints.format import read_tensors, save_model

    tensors, _ = read_tensors(toys.model)
    info = read_model_file(toys.model).info
    recommended = Recommended(sampler="ddim", steps="5", guide_interval=(0.0, 0.5), cfg=1.5)
    save_model(tmp_path / "m.safetensors", tensors, replace(info, recommended=recommended))
    assert read_model_file(tmp_path / "m.safetensors").info.recommended == recommended
    assert read_model_file(toys.model).info.recommended is None


def test_a_file_says_what_it_decided(own: Sources) -> None:
    told = saying(own, Recommended(sampler="dpm++2m", steps="7"))
    text = taken_from(told, ask(), resolve(told, ask()))
    assert text == f"dpm++2m, 7 steps: what {own.model_name} recommends"
    for asked, words in ((ask(steps="3"), "dpm++2m"), (ask(sampler="ddim"), "7 steps")):
        text = taken_from(told, asked, resolve(told, asked))
        assert text == f"{words}: what {own.model_name} recommends"
    assert taken_from(own, ask(), resolve(own, ask())) is None  # its 5 steps are soon done
    long = saying(own, None, num_timesteps=1000, respacing=None)
    text = taken_from(long, ask(), resolve(long, ask()))
    assert text
    assert "ddpm, 1000 steps" in text
    full = ask(sampler="ddim", steps="5")
    assert taken_from(own, full, resolve(own, full)) is None
    text = taken_from(own, ask(steps="ddim3"), resolve(own, ask(steps="ddim3")))
    assert text
    assert text.startswith("ddpm at the timesteps ddim3")
    ddim = ask(steps="ddim3", sampler="ddim")
    assert taken_from(own, ddim, resolve(own, ddim)) is None
    tiny = find_sources("tiny")
    assert taken_from(tiny, ask(classes=(1,)), resolve(tiny, ask(classes=(1,)))) is None
