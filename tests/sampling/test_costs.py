"""What a dry run says of evaluations, and what is evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import adm_cli
from adm_cli.models.unet import UNet
from adm_cli.pictures.images import save_image
from tests.sampling.test_modifiers import null_toy, options, weak_toy

__all__ = ["null_toy", "options", "weak_toy"]  # fixtures

HEUN = {"sampler": "heun"}
MASK = {"mask": "mask.png", "steps": 7}


@pytest.fixture
def photos(options: dict[str, Any]) -> None:
    """A picture and a mask in the empty folder that ``options`` made."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    save_image(Path("photo.png"), pixels)
    pixels[:4] = 255
    save_image(Path("mask.png"), pixels)


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize(
    ("command", "asked", "wanted"),
    [
        ("sample", {}, 4),
        ("sample", {"cfg": 2.0, "class_": "0+1"}, 4),
        ("sample", HEUN, 7),
        ("sample", {**HEUN, "churn": 5.0}, 7),
        ("sample", {"sag_scale": 1.5, "pag_scale": 2.0}, 12),
        ("sample", {**HEUN, "weak_scale": 2.0}, 14),
        ("interpolate", {**HEUN, "seeds": "3,4", "frames": 2}, 14),
        ("edit", {"strength": 0.5}, 2),
        ("edit", {"strength": 0}, 0),
        ("edit", {**HEUN, "strength": 0.75}, 5),
        ("edit", {**HEUN, "strength": 0.75, "invert": True}, 7),
        ("edit", {"strength": 0.75, "invert": True, "pag_scale": 2.0}, 8),
        ("edit", {**MASK, "resample": 1}, 7),
        ("edit", {**MASK, "resample": 3, "jump": 2}, 19),
        ("edit", {**MASK, **HEUN, "resample": 3, "jump": 2}, 35),
        ("edit", {**MASK, **HEUN, "resample": 2, "jump": 9}, 13),
    ],
)
def test_evaluations_are_counted_rightly(
    command: str, asked: dict[str, Any], wanted: int, options: dict[str, Any], weak_toy: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    asked = {**options, "scale": 0.0, "batch_size": 1, **asked}
    del asked["classifier"]
    asked |= {"weak_model": weak_toy} if "weak_scale" in asked else {}
    if command == "edit":
        asked["inputs"] = "photo.png"
    called, forward = [0], UNet.forward

    def counted(self: UNet, *arguments: Any, **more: Any) -> Any:
        called[0] += 1
        return forward(self, *arguments, **more)

    monkeypatch.setattr(UNet, "forward", counted)
    run = getattr(adm_cli, command)
    assert run(**asked, dry_run=True).settings["evaluations"] == wanted
    run(**asked, out="o")
    assert called[0] == wanted
