"""``adm sample --like PICTURE``: what was not asked for is as the picture's recipe has it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adm_cli.checkpoints.header import ModelFile
from adm_cli.checkpoints.presets import ENLARGEMENTS
from adm_cli.checkpoints.sources import Sources
from adm_cli.devices import choose_device
from adm_cli.diffusion.modifiers import (
    NEUTRAL,
    OF_CHURN,
    OF_EITHER_GUIDANCE,
    OF_GUIDANCE,
    PART_OF,
    modifiers,
)
from adm_cli.errors import DeviceError, RunError, UsageError
from adm_cli.events import AnyPath
from adm_cli.files.differences import BESIDE, differences
from adm_cli.sampling.arguments import text_or_none
from adm_cli.sampling.choosing.images import ORIGIN
from adm_cli.sampling.defaults import EVERYWHERE
from adm_cli.sampling.recipes.differences import differing_inputs, differing_settings
from adm_cli.sampling.recipes.recipe import (
    check_recipe,
    image_recipe,
    is_enlarged,
    is_plain,
    open_recipe,
    recorded_run,
    stage_recipe,
)
from adm_cli.sampling.recipes.recorded import Whereabouts, remaking_batch, stage_sources
from adm_cli.sampling.run import Filter, Run, Stage

Asked = Mapping[str, Any]  # keywords of `sample.sample`


@dataclass(frozen=True)
class Likeness:
    """A picture whose settings are taken."""

    picture: Path
    recipe: Mapping[str, Any]
    drawn: Run  # of its first stage, one image
    enlarged: Stage | str | None  # its second stage: a network's, or a filter's name

    def fill(self, asked: Asked) -> dict[str, Any]:
        """The keywords with those of the picture where nothing was asked for.

        Raises RunError where a weights file of the recorded name holds other weights, UsageError
        where there is none; another file may be asked for.
        """
        return {
            **asked,
            **self._machine(asked),
            **self._first_stage(asked),
            **self._second_stage(asked),
            **self._images(asked),
        }

    def _first_stage(self, asked: Asked) -> dict[str, Any]:
        stage = self.drawn.first
        found: dict[str, Any] = {
            name: _or(asked[name], value)
            for name, value in (
                ("scale", stage.scale), ("cfg", stage.cfg), ("clip", stage.clip_denoised),
                ("steps", stage.steps), ("sampler", stage.sampler),
            )
        }  # fmt: skip
        if asked["sampler"] is None:
            found["eta"] = _or(asked["eta"], stage.eta)
        if found["scale"] != 0:
            found["guide_interval"] = _or(
                asked["guide_interval"], stage.guide_interval or EVERYWHERE
            )
            found["entropy_scaling"] = _or(asked["entropy_scaling"], stage.entropy_scaling)
        if found["cfg"] != 1:
            found["cfg_interval"] = _or(asked["cfg_interval"], stage.cfg_interval or EVERYWHERE)
        found |= self._modifiers(asked, found["scale"] != 0, found["cfg"] != 1)
        sources = self._weights(asked)
        found["model"] = _or(asked["model"], stage.model)
        if sources.classifier is not None:
            found["classifier"] = _or(asked["classifier"], stage.classifier)
        return found

    def _modifiers(self, asked: Asked, guided: bool, free: bool) -> dict[str, Any]:
        """Those of the picture where none were asked for, but what they are part of is as there."""
        stage = self.drawn.first
        off = (() if guided else OF_GUIDANCE) + (() if guided or free else OF_EITHER_GUIDANCE)
        off += () if asked["sampler"] is None else OF_CHURN
        off += tuple(part for part, whole in PART_OF.items() if asked[whole] is not None)
        found = {
            name: _or(asked[name], value)
            for name, value in modifiers(stage).items()
            if name not in off
        }
        if stage.weak_model is None:
            found.pop("weak_scale")
            return found
        return {**found, "weak_model": _or(asked["weak_model"], stage.weak_model)}

    def _weights(self, asked: Asked) -> Sources:
        """Of the first stage; raises RunError where they are not the picture's, unasked."""
        stage = self.drawn.first
        if asked["scale"] is not None:
            stage = replace(stage, scale=asked["scale"])
        if asked["weak_scale"] == NEUTRAL["weak_scale"]:
            stage = replace(stage, weak_model=None, weak_model_sha256=None)
        if asked["classifier_on"] is not None:
            stage = replace(stage, classifier_on=asked["classifier_on"])
        if stage.scale == 0:
            stage = replace(stage, classifier=None, classifier_sha256=None)
        names = ("model", "classifier", "weak_model")
        model, classifier, weak = (text_or_none(asked[name]) for name in names)
        now = Whereabouts(() if model is None else (model,), classifier, weak_model=weak)
        sources = stage_sources(stage, now, self.picture)
        if model is None:
            self._check("--model", stage.model, sources.model, stage.model_sha256)
        if weak is None and stage.weak_model_sha256 is not None:
            self._check("--weak-model", stage.weak_model, sources.weak, stage.weak_model_sha256)
        if classifier is None and stage.classifier_sha256 is not None:
            self._check(
                "--classifier", stage.classifier, sources.classifier, stage.classifier_sha256
            )
        return sources

    def _check(
        self, option: str, name: str | None, file: ModelFile | None, digest: str
    ) -> None:  # fmt: skip
        here = "" if file is None else file.content_sha256
        if here != digest:
            raise RunError(
                f"{self.picture} was drawn with weights {name} of SHA-256 {digest[:12]}, those "
                f"here have {here[:12]}: pass {option} {name} to take them all the same"
            )

    def _second_stage(self, asked: Asked) -> dict[str, Any]:
        given = asked["upsampler"]
        own = {name: asked[name] for name in asked if name.startswith("upsample_")}
        if self.enlarged is None:
            alone = given is None and not asked["keep_base"]
            alone = alone and all(value is None for value in own.values())
            return {"no_upsample": asked["no_upsample"] or alone}
        if asked["no_upsample"]:
            return {}
        if isinstance(self.enlarged, str):
            return {"upsampler": _or(given, self.enlarged)}
        if given in ENLARGEMENTS:
            return {}
        stage = self.enlarged
        now = Whereabouts(upsampler=text_or_none(given))
        sources = stage_sources(stage, now, self.picture, "--upsampler")
        if given is None:
            self._check("--upsampler", stage.model, sources.model, stage.model_sha256)
        recorded = (
            stage.sampler, stage.steps, stage.project, stage.low_res_noise, stage.temperature
        )  # fmt: skip
        names = ("sampler", "steps", "project", "noise", "temperature")
        return {
            "upsampler": _or(given, stage.model),
            **{
                f"upsample_{name}": _or(own[f"upsample_{name}"], value)
                for name, value in zip(names, recorded, strict=True)
            },
        }

    def _images(self, asked: Asked) -> dict[str, Any]:
        """Its class, and its seed where none was asked for."""
        image = self.drawn.images[0]
        found: dict[str, Any] = {}
        if asked["classes_file"] is not None:
            return {}
        if asked["class_"] is None and self._weights(asked).classes:
            one = "none" if image.class_id is None else str(image.class_id)
            found["class_"] = [image.mixture or one]
        if asked["seeds"] is None and asked["seed"] is None:
            several = asked["num"] is not None or asked["total"] is not None
            found["seed" if several else "seeds"] = image.seed
        return found

    def _machine(self, asked: Asked) -> dict[str, Any]:
        """What rounding depends on, where this machine has it."""
        found: dict[str, Any] = {"plain": _or(asked["plain"], self.drawn.first.plain)}
        found["batch_size"] = _or(asked["batch_size"], remaking_batch(self.drawn))
        if asked["device"] is None:
            try:
                choose_device(self.drawn.device)
                found["device"] = self.drawn.device
            except DeviceError:
                return found
        if asked["dtype"] is None and found.get("device") is not None:
            found["dtype"] = self.drawn.first.dtype
        return found

    def differences(self, run: Run) -> list[str]:
        """In words, what the first image of a run has otherwise, but for its seed."""
        drawn = self.recipe["base"] if self.enlarged is not None else self.recipe
        image = run.images[0]
        now = image_recipe(stage_recipe(run, run.first), image, None, run.batch_size)
        found = _compared(drawn, now)
        last = run.last if len(run.stages) > 1 else None
        name = last.model if isinstance(last, Filter) else None
        if isinstance(last, Stage) and isinstance(self.enlarged, Stage):
            later = image_recipe(stage_recipe(run, last), image, None, run.batch_size)
            return found + [f"of the upsampler, {text}" for text in _compared(self.recipe, later)]
        mine = self.enlarged.model if isinstance(self.enlarged, Stage) else self.enlarged
        other = last.model if isinstance(last, Stage) else name
        return found + differences({"upsampler": mine}, {"upsampler": other}, BESIDE)


def read_likeness(picture: AnyPath) -> Likeness:
    """The recipe of a picture that `adm sample` drew, enlarged once at most.

    Raises AdmError where a recipe is missing or damaged, UsageError for a picture of another kind.
    """
    path = Path(picture)
    recipe = open_recipe(path)
    if not {*(recipe.get("base") or {}), *recipe}.isdisjoint(ORIGIN):
        raise UsageError(
            f"{path} was edited or lies between two seeds: --like takes what adm sample draws; "
            f"adm info {shlex.quote(str(path))} shows its settings"
        )
    if not is_enlarged(recipe):
        return Likeness(path, recipe, recorded_run(recipe), None)
    base = recipe["base"]
    if base is None or is_enlarged(base):
        what = "a picture without a recipe" if base is None else "a picture that was enlarged, too"
        raise UsageError(
            f"{path} was enlarged from {what}: --like takes what adm sample draws; "
            f"adm info {shlex.quote(str(path))} shows its settings"
        )
    check_recipe(base)
    second = recipe["model"] if is_plain(recipe) else recorded_run(recipe).first
    return Likeness(path, recipe, recorded_run(base), second)


def _compared(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Settings, weights, versions and machine of one stage."""
    hidden = ("base", "small_sha256")
    mine, other = ({k: v for k, v in each.items() if k not in hidden} for each in (old, new))
    return differing_settings(mine, other) + differing_inputs(mine, other)


def _or(asked: Any, recorded: Any) -> Any:
    return recorded if asked is None else asked
