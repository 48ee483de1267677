"""Help in panels: the usual options of a command first, the others by what they are about."""

from __future__ import annotations

import re
from typing import Any

USUAL = "Options"  # the panel that comes first
_IMAGES = "seed seeds total classes_file like profile"
_GUIDANCE = (
    "cfg cfg_interval negative_class scale_schedule pag_scale sag_scale weak_model weak_scale"
)
_CLASSIFIER = (
    "classifier classifier_on guide_interval guide_every entropy_scaling guide_adam guide_by "
    "divergence_weight"
)
_TRAJECTORY = "eps_scale threshold churn churn_noise churn_min churn_max temperature"
_SAMPLER = f"sampler steps spacing eta clip {_TRAJECTORY}"
_MACHINE = "batch_size device dtype plain workers shard fetch"
_OUTPUT = "format grid gallery animate no_metadata overwrite dry_run json quiet"

# By command: its usual options, in this order, then panels. What is named nowhere keeps its own
# panel (`training_options`), or is in "More".
PANELS: dict[str, dict[str, str]] = {
    "sample": {
        USUAL: "class_ scale num model out",
        "Images": _IMAGES,
        "Guidance": _GUIDANCE,
        "Guidance by the classifier": _CLASSIFIER,
        "Sampler": _SAMPLER,
        "Second stage": "upsampler no_upsample keep_base upsample_sampler upsample_steps "
        "upsample_project upsample_noise upsample_temperature",
        "Machine": _MACHINE,
        "Output": _OUTPUT,
    },
    "edit": {
        USUAL: "class_ strength mask model out",
        "Images": "num seed seeds value_range",
        "Trajectory": "invert from_class resample jump",
        "Guidance": f"scale {_GUIDANCE}",
        "Guidance by the classifier": _CLASSIFIER,
        "Sampler": _SAMPLER,
        "Second stage": "upsampler no_upsample keep_base",
        "Machine": f"{_MACHINE} fetch",
        "Output": _OUTPUT,
    },
    "interpolate": {
        USUAL: "class_ seeds frames model out",
        "Guidance": f"scale {_GUIDANCE}",
        "Guidance by the classifier": _CLASSIFIER,
        "Sampler": _SAMPLER,
        "Second stage": "upsampler no_upsample keep_base",
        "Machine": _MACHINE,
        "Output": _OUTPUT,
    },
    "upsample": {
        USUAL: "model steps class_ seed out",
        "Images": "seeds resize",
        "Sampler": f"sampler spacing eta clip project noise {_TRAJECTORY}",
        "Machine": _MACHINE,
        "Output": _OUTPUT,
    },
    "sweep": {
        USUAL: "model class_ seeds scale out",
        "Axes: a value, or several with commas": "steps sampler cfg scale_schedule "
        "negative_class pag_scale sag_scale weak_scale "
        f"spacing {_TRAJECTORY}",
        "Axes of the classifier's guidance": "guide_by divergence_weight guide_every "
        "guide_adam classifier_on",
        "Of all cells": "eta guide_interval cfg_interval entropy_scaling classifier weak_model",
        "Images": "num total seed",
        "Scores": "ref metrics features inception",
        "Machine": "batch_size device dtype clip fetch",
        "Output": f"rows {_OUTPUT}",
    },
    "evaluate": {
        USUAL: "ref features metrics judge out",
        "Judge and copies": "real per_class copies_of copies_in copy_ratio",
        "Draw the samples": "model class_ num seed scale",
        "Guidance of the samples": _GUIDANCE,
        "Their guidance by the classifier": _CLASSIFIER,
        "Their sampler": f"sampler steps spacing eta {_TRAJECTORY}",
        "Reading": "resize value_range inception half",
        "Machine": _MACHINE,
        "Output": _OUTPUT,
    },
    "nll": {
        USUAL: "model num steps class_ out",
        "Pictures": "labels value_range skip_bad seed",
        "Machine": f"{_MACHINE} clip",
        "Output": _OUTPUT,
    },
    "evaluate-classifier": {
        USUAL: "classifier num timesteps at out",
        "Pictures": "class_ labels value_range skip_bad seed",
        "Machine": _MACHINE,
        "Output": _OUTPUT,
    },
    "reference": {
        USUAL: "out features resize device batch_size",
        "More": "inception value_range fetch overwrite dry_run json quiet",
    },
    "fetch": {
        USUAL: "source offline overwrite dry_run keep_original",
        "More": "accept_changed retries timeout json quiet",
    },
    "convert": {
        USUAL: "output preset flags classes weights",
        "Reading the flags": "kind flags_of strict_flags command null_class",
        "Output": "overwrite dry_run json quiet",
    },
    "train-diffusion": {USUAL: "out size steps label_dropout init"},
    "train-classifier": {USUAL: "out size steps match init"},
    "train-upsampler": {USUAL: "out size low_size steps init"},
}
GROUPS = {  # of commands, in this order
    "Draw": "sample edit interpolate upsample sweep",
    "Train": "train-diffusion train-classifier train-upsampler",
    "Measure": "evaluate reference nll evaluate-classifier",
    "Weights": "models classes fetch convert export cache",
    "Runs and results": "gallery info repro verify merge",
    "This program": "doctor bench help",
}


def arrange(group: Any) -> None:
    """Puts commands and options of the program in their panels, and in that order."""
    places = {name: panel for panel, names in GROUPS.items() for name in names.split()}
    order = {name: i for i, name in enumerate(places)}
    rows = sorted(group.commands.items(), key=lambda row: order.get(row[0], len(order)))
    group.commands.clear()
    group.commands.update(rows)
    for name, command in group.commands.items():
        command.rich_help_panel = places.get(name, "More")
        command.help = re.sub(r"(?<=\S)\n(?=\S)", " ", command.help or "")  # rows of the source
        if name in PANELS:
            _arrange_options(command, PANELS[name])


def _arrange_options(command: Any, panels: dict[str, str]) -> None:
    places = {name: panel for panel, names in panels.items() for name in names.split()}
    order = {name: i for i, name in enumerate(places)}
    row = {panel: i for i, panel in enumerate(panels)}
    for param in command.params:
        if param.name in places:
            param.rich_help_panel = places[param.name]
        elif param.param_type_name == "option" and param.rich_help_panel is None:
            param.rich_help_panel = "More"
    command.params.sort(
        key=lambda param: (
            row.get(param.rich_help_panel, len(row)),
            order.get(param.name, len(order)),
        )
    )
