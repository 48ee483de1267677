"""The pictures that a run draws now and then: of which classes, and the sheet they are shown on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from adm_cli.pictures.images import Pixels
from adm_cli.pictures.sheets import contact_sheet

SAMPLES = 16
_MOST_ROWS = 8  # classes with a row each; of more, four pictures to a row
_ROW = 4


def sample_labels(classes: Mapping[int, str]) -> Tensor:
    """Class ids int64 [16], spread over the classes where there are more."""
    ids = sorted(classes) or [0]
    spread = [
        ids[i * len(ids) // SAMPLES] if len(ids) > SAMPLES else ids[i % len(ids)]
        for i in range(SAMPLES)
    ]
    return torch.tensor(sorted(spread))


def samples_sheet(
    pictures: Sequence[Pixels | None], labels: Sequence[int], classes: Mapping[int, str]
) -> Pixels:
    """uint8 [H', W', 3]: a row a class with its name, or rows of four; None is left grey."""
    known = sorted(set(labels))
    if classes and len(known) <= _MOST_ROWS:
        groups = [[i for i, label in enumerate(labels) if label == row] for row in known]
        names = [classes.get(label, "no class") for label in known]
    else:
        groups = [list(range(i, min(i + _ROW, len(labels)))) for i in range(0, len(labels), _ROW)]
        names = ["\n".join(classes.get(labels[i], "") for i in group) for group in groups]
    wide = max(map(len, groups))
    cells = [[pictures[i] for i in group] + [None] * (wide - len(group)) for group in groups]
    return contact_sheet(cells, names, [str(i + 1) for i in range(wide)]).pixels
