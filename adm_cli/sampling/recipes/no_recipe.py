"""Pictures that carry no recipe: of which of a run's images one is, and what to say of it."""

from __future__ import annotations

import shlex
from pathlib import Path

from adm_cli.errors import RunError
from adm_cli.files.own import is_own
from adm_cli.sampling.choosing.images import Image
from adm_cli.sampling.folder import RunFolder


def image_beside(picture: Path) -> Image | None:
    """What a picture is, as the run in its folder says; None where it is none of that run's."""
    try:
        images = RunFolder(picture.parent).read().images
    except RunError:
        return None
    place = images.find(picture.name)
    return None if place is None else images[place]


def why_no_recipe(picture: Path) -> str:
    """Why a picture carries none, and which folder says what made it, if any does."""
    if image_beside(picture) is not None:
        typed = shlex.quote(str(picture.parent))
        return (
            f"{picture} carries no recipe, its run's folder has it: adm info {typed} shows it, "
            f"adm repro {typed} draws all again"
        )
    if is_own(picture):
        return (
            f"{picture} carries no recipe: it is a sheet, or was drawn with --no-metadata, and "
            f"the folder that adm wrote it into says what made it"
        )
    return f"{picture} carries no recipe: it was not made by adm, or was re-saved"
