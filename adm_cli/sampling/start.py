"""What a person at a terminal is told as a run begins: where it computes, which classes."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from adm_cli.devices import device_name, has_bfloat16
from adm_cli.sampling.choosing.images import Images
from adm_cli.sampling.run import Filter, Run
from adm_cli.sampling.settings import Machine

_MOST_NAMED = 8  # classes


def machine_line(run: Run, asked_device: str, where: Machine) -> str:
    """``"tiny on cpu (torch sees no GPU), float32, 16 at once"``: device and dtype, and why."""
    asked = asked_device.strip().lower() != "auto"
    why = "as asked" if asked else _why(where.device)
    first, last = run.first, run.last
    names = first.model if last is first else f"{first.model} and {last.model}"
    types = [stage.dtype for stage in run.stages if not isinstance(stage, Filter)]
    precision = " and ".join(dict.fromkeys(types))
    if where.dtype == "auto" and "float16" in types:
        precision += " (as published)"
    elif where.dtype != "auto":
        precision += " (as asked)"
    elif where.device.type == "cpu" and has_bfloat16(where.device):
        precision += " (--dtype bfloat16 is faster here)"
    return f"{names} on {where.device} ({why}), {precision}, {run.batch_size} at once"


def _why(device: torch.device) -> str:
    return "torch sees no GPU" if device.type == "cpu" else device_name(device)


def classes_lines(images: Images, names: Mapping[int, str]) -> list[str]:
    """Which classes the seeds chose, and how others are."""
    ids = list(dict.fromkeys(row.first.class_id for row in images.rows))
    known = [f"{i} {names[i]}" for i in ids[:_MOST_NAMED] if i is not None]
    more = ", ..." if len(ids) > _MOST_NAMED else ""
    following = max(row.first.seed + row.length for row in images.rows)
    return [
        f"by seed: {', '.join(known)}{more}",
        f"--seed {following} draws others; --class asks for some",
    ]
