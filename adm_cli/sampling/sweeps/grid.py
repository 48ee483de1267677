"""A grid of sampling settings: its cells, what tells them apart, and curves over them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adm_cli.diffusion.modifiers import NEUTRAL, NUMBERS
from adm_cli.files.tables import Panel

AXES = ("model", "sampler", "steps", "scale", "cfg", "eta", "interval", *NEUTRAL)
_OWN = AXES[:5]  # that every cell tells of
_RARE = AXES[5:7]  # of which cells know only where they differ in them
_CURVES_OVER = {
    "scale": "guidance scale",
    "cfg": "classifier-free guidance",
    **{name: name.replace("_", " ") for name in NUMBERS},
    "num_steps": "steps",
}
# Drawn together where each is a single line: the two halves of one question.
_PAIRS = (("precision", "recall"), ("density", "coverage"))


@dataclass(frozen=True)
class Cell:
    """A point of the grid, its settings resolved."""

    model: str
    sampler: str
    steps: str  # as for --steps; "" for every timestep
    scale: float
    cfg: float = 1.0
    eta: float | None = None
    interval: tuple[float, float] | None = None  # where the classifier guides
    modified: tuple[tuple[str, Any], ...] = ()  # modifiers that are not neutral

    def value(self, axis: str) -> Any:
        """Its place along an axis."""
        if axis in NEUTRAL:
            return dict(self.modified).get(axis, NEUTRAL[axis])
        return getattr(self, axis)

    @property
    def name(self) -> str:
        """Of its folder: ``tiny_ddim_25_scale4``, ``tiny_ddim_25_scale4_cfg2``."""
        parts = [self.model, self.sampler, self.steps or "all", f"scale{number(self.scale)}"]
        parts += [] if self.cfg == 1 else [f"cfg{number(self.cfg)}"]
        parts += [] if self.eta is None else [f"eta{number(self.eta)}"]
        parts += [] if self.interval is None else [f"at{shown_interval(self.interval)}"]
        parts += [f"{name}-{_text(value)}".replace("_", "-") for name, value in self.modified]
        text = re.sub(r"(?<=\d)e\+(?=\d)", "e", "_".join(parts))  # 1e+20 is not 1e-20
        return re.sub(r"[^\w.-]", "-", text)

    def label(self, varied: Sequence[str]) -> str:
        """What tells it from others, a line an axis; its scale if nothing does."""
        texts = {
            "model": self.model,
            "sampler": self.sampler,
            "steps": f"{self.steps or 'all'} steps" if self.steps[:1] != "d" else self.steps,
            "scale": f"scale {number(self.scale)}",
            "cfg": f"cfg {number(self.cfg)}",
            "eta": "" if self.eta is None else f"eta {number(self.eta)}",
            "interval": self.interval and f"at {shown_interval(self.interval)}",
            **{name: _named(name, self.value(name)) for name in NEUTRAL},
        }
        return "\n".join(texts[axis] or "" for axis in varied or ("scale",))


def number(value: float) -> str:
    """``4``, ``0.5``: without a useless fraction, and never rounded."""
    return repr(float(value)).removesuffix(".0")


def shown_interval(interval: Sequence[float]) -> str:
    """``0.2-0.8``."""
    return "-".join(map(number, interval))


def axes_of(cells: Sequence[Cell]) -> dict[str, list[Any]]:
    """The values of each axis, in order."""
    found = {axis: list(dict.fromkeys(cell.value(axis) for cell in cells)) for axis in AXES}
    usual = {**dict.fromkeys(_RARE), **NEUTRAL}
    return {a: v for a, v in found.items() if a in _OWN or v != [usual[a]]}


def varied_axes(cells: Sequence[Cell]) -> list[str]:
    """The axes along which cells differ."""
    return [axis for axis, values in axes_of(cells).items() if len(values) > 1]


def spread(count: int, most: int) -> list[int]:
    """At most ``most`` of ``count`` places, spread evenly from the first on."""
    most = min(count, most)
    return [i * count // most for i in range(most)]


def _named(axis: str, value: Any) -> str:
    """A value of an axis in a legend, where a bare cfg could be taken for a scale."""
    if axis == "interval":
        return f"at {shown_interval(value)}"
    if axis in ("cfg", "eta") or axis in NEUTRAL:
        return f"{axis.replace('_', ' ')} {_text(value)}"
    return str(value)


def _text(value: Any) -> str:
    return number(value) if isinstance(value, (int, float)) else str(value)


def curves(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> list[Panel]:
    """The metrics over the scale, or where there is one only, over cfg or the number of steps.

    ``rows`` have the axes, "num_steps", and the metrics and their errors as far as they are known.
    A line for each combination of the other axes; none if there is nothing to draw a line along.
    """
    rows = [{"cfg": 1.0, **NEUTRAL, **row} for row in rows]
    x = next((a for a in _CURVES_OVER if len({row[a] for row in rows}) > 1), None)
    if x is None or not metrics:
        return []
    others = [a for a in AXES if a not in (x, *_RARE) and not (x == "num_steps" and a == "steps")]
    told = [a for a in others if len({row[a] for row in rows}) > 1]
    told += [a for a in _RARE if len({str(row[a]) for row in rows if row.get(a) is not None}) > 1]

    def panel(title: str, *names: str) -> Panel:
        lines: dict[str, tuple[list[float], list[float]]] = {}
        errors: dict[str, list[float]] = {}
        for metric in names:
            for row in sorted(rows, key=lambda row: float(row[x])):
                if row.get(metric) is not None:
                    name = ", ".join(_named(a, row[a]) for a in told if row.get(a) is not None)
                    name = name or metric
                    points = lines.setdefault(name, ([], []))
                    points[0].append(row[x])
                    points[1].append(row[metric])
                    error = row.get(f"{metric}_error")
                    errors.setdefault(name, []).append(math.nan if error is None else error)
        return Panel(_CURVES_OVER[x], title, dict(lines), errors=errors)

    panels = []
    for metric in metrics:
        pairs = [] if told else [p for p in _PAIRS if metric in p and set(p) <= set(metrics)]
        pair = next(iter(pairs), None)
        if pair is None:
            panels.append(panel(metric, metric))
        elif metric == pair[0]:
            panels.append(panel(" and ".join(pair), *pair))
    return panels
