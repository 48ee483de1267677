"""A picture's recipe as a person reads it: what was asked for, the second stage, then hashes."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from adm_cli.checkpoints.presets import ENLARGEMENTS, PRESETS, known_weights
from adm_cli.diffusion.modifiers import NEUTRAL
from adm_cli.sampling.run import UNSAID

Recipe = Mapping[str, Any]
# What somebody asks for, in this order.
_ASKED = (
    *("model", "classifier", "class", "mixture", "class_name", "scale", "cfg", "guide_interval"),
    *("cfg_interval", "entropy_scaling", "weak_model", *NEUTRAL),
    *("strength", "invert", "from_class", "resample", "jump"),
    *("sampler", "steps", "num_steps", "eta", "seed", "to_seed", "fraction", "size"),
)
# Which weights and programs, and where: rounding depends on it.
_PROOF = (
    *("batch_size", "device", "dtype", "threads", "adm", "torch", "pillow"),
    *("model_sha256", "classifier_sha256", "weak_model_sha256", "small_sha256"),
    *("photo_sha256", "mask_sha256"),
)
_DRAWN = ("model", "class", "seed", "scale", "sampler", "steps")  # what a command needs


def without_unsaid(facts: Recipe) -> Recipe:
    """A run's settings, but those that its pictures' recipes leave out; others as they are."""
    if " adm " not in str(facts.get("kind")):
        return facts
    plain = {name: name.removeprefix("upsampler_") for name in facts}
    return {name: value for name, value in facts.items() if value != UNSAID.get(plain[name], ...)}


def recipe_lines(recipe: Recipe, file: str) -> Iterator[tuple[str, Any]]:
    """Names and values, those of each stage: of the one that drew first, that of a stack's base."""
    stages = [recipe]
    while isinstance(stages[0].get("base"), dict):
        stages.insert(0, stages[0]["base"])
    names = ["", *("upsampler " for _ in stages[1:])]
    for stage, prefix in zip(stages, names, strict=True):
        yield from _part(stage, prefix, [n for n in _ASKED if n in stage])
        if not prefix:
            yield from _commands(stages, file)
    for stage, prefix in zip(stages, names, strict=True):
        rest = [n for n in stage if n not in (*_ASKED, *_PROOF, "base")]
        yield from _part(stage, prefix, rest)
    for stage, prefix in zip(stages, names, strict=True):
        yield from _part(stage, prefix, [n for n in _PROOF if n in stage])


def _part(stage: Recipe, prefix: str, names: list[str]) -> Iterator[tuple[str, Any]]:
    yield from ((prefix + name, stage[name]) for name in names)


def _commands(stages: Sequence[Recipe], file: str) -> Iterator[tuple[str, Any]]:
    """The command that makes the picture again, and one for more of its kind."""
    stage = stages[0]
    if not all(name in stage for name in _DRAWN):
        return
    yield "again", shlex.join(["adm", "repro", file, *_own_weights(stages)])
    if not {"small_sha256", "photo_sha256", "to_seed"}.isdisjoint(stage):
        return
    words = ["adm", "sample", "--model", _weights(stage["model"])]
    if stage.get("classifier"):
        words += ["--classifier", _weights(stage["classifier"])]
    one = "none" if stage["class"] is None else stage["class"]
    words += ["--class", stage.get("mixture", one)]
    for option, name in (
        ("--seeds", "seed"), ("--scale", "scale"), ("--cfg", "cfg"), ("--sampler", "sampler"),
        ("--steps", "steps"), ("--eta", "eta"),
        ("--weak-model", "weak_model"),
        *((f"--{name.replace('_', '-')}", name) for name in NEUTRAL),
    ):  # fmt: skip
        value = stage.get(name)
        if name == "weak_model" and value:
            value = _weights(value)
        if value not in (None, ""):
            words += [option, f"{value:.12g}" if isinstance(value, float) else value]
    for name in ("guide_interval", "cfg_interval"):
        if isinstance(interval := stage.get(name), (list, tuple)):
            words += [f"--{name.replace('_', '-')}", ",".join(map(str, interval))]
    words += ["--entropy-scaling"] if stage.get("entropy_scaling") is True else []
    words += _second_stage(stages)
    yield "more like it", shlex.join(map(str, words))


def _second_stage(stages: Sequence[Recipe]) -> list[str]:
    """A filter, or none, where the model's preset has another; networks have settings of theirs."""
    preset = next((row for row in PRESETS if row.name == stages[0]["model"]), None)
    usual = None if preset is None else preset.upsampler
    if len(stages) == 1:
        return [] if usual is None else ["--no-upsample"]
    model = str(stages[1].get("model"))
    return [] if model == usual or model not in ENLARGEMENTS else ["--upsampler", model]


def _own_weights(stages: Sequence[Recipe]) -> list[str]:
    """Options that name the files of weights which no name brings: a recipe has no paths."""
    words: list[str] = []
    for stage in stages:
        model = "--upsampler" if "small_sha256" in stage else "--model"
        options = {model: "model", "--classifier": "classifier", "--weak-model": "weak_model"}
        for option, name in options.items():
            weights = str(stage.get(name) or "")
            if weights and _weights(weights) != weights:
                words += [option, _weights(weights)]
    return words


def _weights(name: object) -> str:
    """What a command takes for weights of that name; if they are nobody's known, their file."""
    known = str(name) in known_weights() | {*ENLARGEMENTS}
    return str(name) if known else f"{name}.safetensors"
