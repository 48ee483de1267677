"""`adm sample --profile`: a word for many settings, which any option beside it overrides."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any

import pytest

import adm_cli
from adm_cli.checkpoints.presets import PRESETS, find_checkpoint
from adm_cli.errors import UsageError
from adm_cli.sampling.defaults import EVERYWHERE, choose_sampler, choose_schedule
from adm_cli.sampling.profiles import PROFILES, fill_profile, in_words, profile_contents
from tests.conftest import Result, Toys

Run = Callable[..., Result]
KEYWORDS = inspect.signature(adm_cli.sample).parameters


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_every_preset_has_contents_that_can_be(name: str, preset: Any) -> None:
    contents = profile_contents(name, preset.name)
    assert set(contents) <= set(KEYWORDS)
    assert contents == profile_contents(name, preset.model) or preset.upsampler
    sampler = contents.get("sampler", preset.sampler)
    choose_sampler(sampler, contents.get("eta"))
    if preset.classifier is None:
        assert not {"scale", "guide_interval", "entropy_scaling"} & set(contents)


@pytest.mark.parametrize(
    "preset", [row for row in PRESETS if row.model != "tiny"], ids=lambda preset: preset.name
)
def test_the_papers_are_the_presets(preset: Any) -> None:
    """Whose steps and scales are its, with everything later turned off; fast takes fewer."""
    contents = profile_contents("paper", preset.name)
    assert (contents["sampler"], contents["steps"]) == (preset.sampler, preset.steps)
    assert contents["cfg"] == contents["temperature"] == 1
    if preset.classifier is not None:
        assert (contents["scale"], contents["guide_interval"]) == (preset.scale, EVERYWHERE)
    diffusion = find_checkpoint(preset.model).diffusion
    fast = profile_contents("fast", preset.name)["steps"]
    few, many = (len(choose_schedule(diffusion, steps)) for steps in (fast, preset.steps))
    assert few * 4 <= many


def test_a_dry_run_shows_what_it_sets(adm: Run) -> None:
    stack = ("sample", "--model", "tiny-stack", "--profile", "paper", "--dry-run")
    facts = json.loads(adm(*stack, "--json").out)
    names = ("profile", "sampler", "steps", "scale", "cfg", "upsampler_steps", "num_steps")
    assert [facts[name] for name in names] == ["paper", "ddpm", "250", 1.0, 1.0, "250", 250]
    assert "guide_interval" not in facts
    assert facts["profile_sets"]["upsample_project"] == facts["upsampler_project"] == 0
    shown = adm(*stack).out
    assert "'guide_interval': (0.0, 1.0)" in shown


@pytest.mark.parametrize("name", PROFILES)
def test_a_dry_run_shows_it_without_the_weights(adm: Run, name: str) -> None:
    done = adm("sample", "--model", "imagenet64", "--profile", name, "--dry-run")
    assert (done.code, done.out) == (1, "")
    told, error = done.err.splitlines()
    assert told == f"adm: profile {name}: {in_words(profile_contents(name, 'imagenet64'))}"
    assert error.startswith("adm: error: the weights of 64x64_diffusion are not on this machine")


def test_off_is_asked_for(adm: Run) -> None:
    """Also where it is as without the profile."""
    contents = profile_contents("best", "imagenet256")
    asked = {**dict.fromkeys(KEYWORDS), "no_upsample": False, "keep_base": False}
    assert contents["entropy_scaling"]
    for name in contents:
        said = False if name == "entropy_scaling" else 0
        assert fill_profile(contents, {**asked, name: said})[name] == said
    done = adm("sample", "--profile", "paper", "--no-entropy-scaling", "--dry-run", "--json")
    assert "entropy_scaling" not in json.loads(done.out)


def test_what_is_asked_for_wins(adm: Run) -> None:
    asked = ("--sampler", "ddim", "--scale", 3, "--upsampler", "lanczos")
    facts = json.loads(adm("sample", "--profile", "fast", *asked, "--dry-run", "--json").out)
    names = ("sampler", "steps", "scale", "upsampler")
    assert [facts[name] for name in names] == ["ddim", "7", 3.0, "lanczos"]
    assert set(facts["profile_sets"]) == {"steps"}


@pytest.mark.parametrize("model", ["tiny", "tiny-stack"])
def test_the_best_of_the_embedded_models_is_noisy_in_more_steps(adm: Run, model: str) -> None:
    """And enlarged by a model."""
    options = ("sample", "--model", model, "--dry-run", "--json")
    usual, best = (json.loads(adm(*options, *more).out) for more in ((), ("--profile", "best")))
    assert (usual["sampler"], usual["steps"], usual["cfg"]) == ("unipc", "10", 5)
    assert [best[name] for name in ("sampler", "eta", "steps", "cfg")] == ["dpm++2m", 1, "20", 4]
    assert best["upsampler"] == "tiny_upsampler"
    alike = ("scale", "cfg_interval", "guide_interval")
    assert [best[name] for name in alike] == [usual[name] for name in alike]


@pytest.mark.parametrize("asked", [("--scale", 0), ("--class", "none"), ("--no-upsample",)])
@pytest.mark.parametrize("name", PROFILES)
def test_what_does_not_fit_is_left_out(adm: Run, name: str, asked: tuple[object, ...]) -> None:
    done = adm("sample", "--profile", name, *asked, "--dry-run", "--json")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    if asked[0] == "--no-upsample":
        assert not any(key.startswith("upsample") for key in facts["profile_sets"])
    else:
        assert (facts["scale"], facts["classifier"]) == (0.0, None)
        assert "guide_interval" not in facts["profile_sets"]


def test_scale_0_is_asked_for() -> None:
    asked = {**dict.fromkeys(KEYWORDS), "no_upsample": False, "keep_base": False, "scale": 0.0}
    filled = fill_profile(profile_contents("best", "imagenet256"), asked)
    assert (filled["scale"], filled["entropy_scaling"], filled["sampler"]) == (0.0, None, "ddpm")


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_of_a_file(adm: Run, toys: Toys, name: str) -> None:
    model = ("--model", toys.model, "--class", 0, "--num", 1, "--steps", 2, "--device", "cpu")
    for guide in ((), ("--classifier", toys.classifier)):
        planned = adm("sample", *model, *guide, "--profile", name, "--dry-run", "--json")
        assert planned.code == 0, planned.err
    drawn = adm("sample", *model, "--profile", name)
    assert drawn.code == 0
    assert f"adm: profile {name}: " in drawn.err
    again = adm("repro", drawn.out.strip(), "--model", toys.model)
    assert again.out == "identical\n", again.err


def test_in_words_as_it_is_typed() -> None:
    words = in_words({"sampler": "ddim", "entropy_scaling": True, "guide_interval": (0.0, 1.0)})
    assert words == "--sampler ddim --entropy-scaling --guide-interval 0,1"


def test_what_is_refused(adm: Run) -> None:
    wrong = adm("sample", "--profile", "papre", "--dry-run")
    assert wrong.code == 2
    assert "(there are paper, fast, best)" in wrong.err
    with pytest.raises(UsageError, match="pass one of them"):
        adm_cli.sample(like="x.png", profile="fast")
