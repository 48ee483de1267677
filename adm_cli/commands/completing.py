"""What the shell's completion offers. Names are here too, so that it needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

from adm_cli.checkpoints.architectures import ABLATIONS
from adm_cli.checkpoints.presets import CHECKPOINTS, INCEPTION, PRESETS
from adm_cli.diffusion.modifiers import ClassifierOn, GuideBy, ScaleSchedule, Spacing

SAMPLER_NAMES = ("ddpm", "ddim", "dpm++2m", "dpm++3m", "unipc", "unipc2", "heun")
GUIDE_BY_NAMES: tuple[str, ...] = get_args(GuideBy)
CLASSIFIER_ON_NAMES: tuple[str, ...] = get_args(ClassifierOn)
SCALE_SCHEDULE_NAMES: tuple[str, ...] = get_args(ScaleSchedule)
SPACING_NAMES: tuple[str, ...] = get_args(Spacing)
DEVICE_NAMES = ("auto", "cpu", "cuda", "mps")
DTYPE_NAMES = ("auto", "float32", "bfloat16", "float16", "float64")
FORMAT_NAMES = ("png", "webp", "npz")
METRIC_NAMES = ("fid", "sfid", "is", "kid", "pr", "dc")

Offers = list[tuple[str, str]]  # words, each with what it is


def complete_word(*names: str) -> Callable[[str], list[str]]:
    """For an option with one of ``names``."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    complete.words = names  # type: ignore[attr-defined]  # for `adm help --json`
    return complete


def complete_list(*names: str) -> Callable[[str], list[str]]:
    """For an option with some of ``names``, separated by commas."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        left = [name for name in names if name not in before.split(",")]
        return [f"{before}{comma}{name}" for name in left if name.startswith(last)]

    complete.words = names  # type: ignore[attr-defined]
    return complete


def complete_model(incomplete: str) -> Offers:
    """What draws: presets and diffusion models; file names are the shell's own."""
    return _starting(incomplete, _checkpoints("diffusion") | _presets())


def complete_classifier(incomplete: str) -> Offers:
    return _starting(incomplete, _checkpoints("classifier"))


def complete_upsampler(incomplete: str) -> Offers:
    return _starting(incomplete, _checkpoints("upsampler"))


def complete_enlarging(incomplete: str) -> Offers:
    """Upsamplers, and the presets that have one."""
    stacks = {row.name: "preset" for row in PRESETS if row.upsampler is not None}
    return _starting(incomplete, _checkpoints("upsampler") | stacks)


def complete_published(incomplete: str) -> Offers:
    """Checkpoints that are published, which `adm convert` knows by name."""
    return _starting(incomplete, _published())


def complete_trainable(incomplete: str) -> Offers:
    """Architectures to train: presets, checkpoints, and the paper's ablations."""
    names = {row.name: row.kind for row in CHECKPOINTS}
    ablations = {row.name: "ablation" for row in ABLATIONS}
    return _starting(incomplete, _presets() | names | ablations)


def complete_fetch(incomplete: str) -> Offers:
    """What `adm fetch` can bring."""
    names = _published()
    presets = {row.name: "preset" for row in PRESETS if set(row.checkpoints) & set(names)}
    others = {"all": "every checkpoint", INCEPTION.name: "for FID"}
    return _starting(incomplete, names | presets | others)


def _published() -> dict[str, str]:
    return {row.name: row.kind for row in CHECKPOINTS if not row.embedded}


def _checkpoints(kind: str) -> dict[str, str]:
    return {row.name: kind for row in CHECKPOINTS if row.kind == kind}


def _presets() -> dict[str, str]:
    return {row.name: "preset" for row in PRESETS}


def _starting(incomplete: str, names: dict[str, str]) -> Offers:
    return [(name, what) for name, what in names.items() if name.startswith(incomplete)]


def class_words(names: dict[int, str], incomplete: str) -> Offers:
    """Ids and names of classes, with _ for a space: no shell needs quotes for that.

    In lower case until someone types a capital; names with an apostrophe are left to their ids.
    """
    words = [("all", "every class"), ("random", "by each image's seed"), ("none", "no class")]
    for class_id, name in names.items():
        first = name.split(",")[0].strip()
        word = first.replace(" ", "_")
        if incomplete == incomplete.lower():
            word = word.lower()
        words += [(str(class_id), first)]
        words += [(word, str(class_id))] if first and not set(word) & set("'\"\\$`:") else []
    return [(word, what) for word, what in words if word.startswith(incomplete)]
