"""What a training would be and cost, without training: ``--dry-run``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from adm_cli.config import Kind
from adm_cli.events import OnEvent, ignore
from adm_cli.files.disk import check_writable
from adm_cli.training.distributed import find_world, joined
from adm_cli.training.estimate import estimate
from adm_cli.training.options import CommonOptions
from adm_cli.training.runs import TrainingFolder
from adm_cli.training.sets import describe_classes
from adm_cli.training.train import prepare


def plan_training(
    kind: Kind, options: CommonOptions, *, on_event: OnEvent = ignore
) -> dict[str, Any]:
    """The resolved settings and what `estimate` says of them. Raises as `train.train_diffusion`."""
    world = find_world()
    with joined(world, options.device) as device:
        ready = prepare(kind, options, world, device, on_event)
        if options.out is not None:
            folder = TrainingFolder(options.out)
            folder.check()
            # which may be to be made
            check_writable(next(p for p in (folder.path, *folder.path.parents) if p.exists()))
        settings, data = ready.settings, ready.data
        return {
            "kind": settings.kind,
            "pictures": len(data.training),
            "validation_pictures": len(data.validation or ()),
            "classes": describe_classes(data.training) or None,
            **asdict(settings.config),
            **asdict(settings.diffusion),
            **asdict(settings.training),
            **estimate(settings, device),
        }
