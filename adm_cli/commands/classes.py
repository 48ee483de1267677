"""``adm classes``: search ids and names."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Optional

import typer

from adm_cli.classes.groups import group_ids, group_members, group_words
from adm_cli.classes.imagenet import imagenet_classes, imagenet_names, search_classes
from adm_cli.commands import console, options
from adm_cli.errors import UsageError, did_you_mean


def classes(
    query: Annotated[
        Optional[list[str]],
        typer.Argument(help="Words of a name, a kind (dog), an id, or a WordNet id."),
    ] = None,
    model: Annotated[
        Optional[str],
        typer.Option("--model", "-m", help="Only the classes that this model was trained on."),
    ] = None,
    json: options.Json = False,
) -> None:
    """Search the classes by id and name: all of ImageNet's, or those of a model."""
    known = imagenet_names() if model is None else _classes_of(model)
    text = " ".join(query or [])
    found = _find(text, known)
    if not found:
        hint = did_you_mean(text, [*known.values(), *group_words()])
        raise UsageError(f"no class matches {text!r}{hint}")
    rows = imagenet_classes()
    for class_id in found:
        name = known[class_id]
        ours = class_id < len(rows) and rows[class_id].names[0] == name
        names = rows[class_id].names if ours else (name,)
        if json:
            wnid = rows[class_id].wnid if ours else None
            console.print_json({"id": class_id, "wnid": wnid, "names": list(names)})
        else:
            print(f"{class_id:4d}  {', '.join(names)}")
    if not json and model is None:
        _tell_of_default(text, found)


def _find(text: str, known: Mapping[int, str]) -> list[int]:
    """What ``text`` is a group of (dog), then the others whose names have its words."""
    names = imagenet_names()
    ours = all(names.get(i) == name for i, name in known.items())
    group = [i for i in group_members(text) if i in known] if ours else []
    named = search_classes(text, known) or search_classes(text.replace("_", " "), known)
    return [*group, *(i for i in named if i not in group)]


def _tell_of_default(text: str, found: Sequence[int]) -> None:
    """Which of them `adm sample` can draw as it is; ImageNet's ids mean nothing to other models."""
    sys.stdout.flush()  # whoever reads it may have had enough
    model = os.environ.get("ADM_MODEL") or "tiny"
    known, names = options.model_classes(model), imagenet_names()
    if ids := group_ids(text):
        console.note(f"{text}: ids {ids}")
    if not known or any(names.get(i) != name for i, name in known.items()):
        return
    drawn = [f"{i} {known[i]}" for i in found if i in known]
    if len(known) < len(names):
        listed = ", ".join(drawn) if drawn else f"none (adm classes --model {model} lists its own)"
        console.note(f"of these, the default model, {model}, draws {listed}")


def _classes_of(model: str) -> dict[int, str]:
    """What a model can be asked for: with the preset's classifier, or as its own file says."""
    from adm_cli.checkpoints.finding import find_weights
    from adm_cli.checkpoints.sources import find_sources

    info = find_weights(model).info
    known = dict(info.classes) if info.kind != "diffusion" else find_sources(model).classes
    if not known:
        raise UsageError(f"{model} is unconditional: it has no classes")
    return known
