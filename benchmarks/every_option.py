"""All samplers against evaluations of the network, all guidance options against their scale.

    python -m benchmarks.every_option TRAINING HELD_OUT IDS [OUT] [--num 100] [--only guidance]

The embedded models draw --num pictures a point, as many of each of their ten classes, by the same
seeds. The judge of `outside_judge.py` (which says how to have it) names them among the ten classes
and among IDS, a JSON list of ImageNet ids. In its features: Fréchet distance to TRAINING as a
multiple of that of as many pictures of HELD_OUT, precision and recall against TRAINING; both are
zips or folders of 64x64 pictures in folders of WordNet ids. Interrupted, the same command goes on;
with a larger --num every point is drawn on. OUT gets table.md, table.csv and, with matplotlib,
figure.png.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

import adm_cli
from adm_cli.evaluation.agreement import agreement, best_class, frechet_beside_real
from adm_cli.evaluation.metrics import Estimate, Gaussian, drawn
from adm_cli.evaluation.neighbours import precision_recall
from benchmarks.outside_judge import gaussian, load_judge, look

MODEL, CLASSES = "tiny", 10
NUMBERS = {
    "ten": "among ten", "ids": "among 200", "distance": "distance, x real",
    "precision": "precision", "recall": "recall",
}  # fmt: skip
AXES = {"sampler": "evaluations", "guidance": "scale", "beside": "value"}


@dataclass(frozen=True, eq=False)
class Point:
    """A place on a curve: how pictures are drawn, and what that costs or how strong it is."""

    group: str  # "sampler" or "guidance"
    curve: str
    at: float  # evaluations of the network, or the scale
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.group} {self.curve} {self.at:g}".replace(" ", "_").replace("/", "-")


GUIDED: dict[str, Any] = {"cfg": 4, "cfg_interval": "0,0.8", "scale": 4, "guide_interval": "0,0.85"}
WAY: dict[str, Any] = {"sampler": "dpm++2m", "eta": 1, "steps": 10}


def sampler_points() -> list[Point]:
    """All guided alike; evaluations are of pairs where it acts."""
    samplers: dict[str, dict[str, Any]] = {
        "ddpm": {"sampler": "ddpm"},
        "ddim": {"sampler": "ddim"},
        "ddim --eta 1": {"sampler": "ddim", "eta": 1},
        "dpm++2m": {"sampler": "dpm++2m"},
        "dpm++2m --eta 1": {"sampler": "dpm++2m", "eta": 1},
        "dpm++3m": {"sampler": "dpm++3m"},
        "unipc": {"sampler": "unipc"},
        "unipc2": {"sampler": "unipc2"},
        "dpm++2m --spacing rho": {"sampler": "dpm++2m", "spacing": "rho"},
    }
    points = [
        Point("sampler", name, steps, {**GUIDED, **said, "steps": steps})
        for name, said in samplers.items()
        for steps in (5, 10, 20)
    ]
    for steps in (3, 5, 10):  # two evaluations a step, but for the last
        settings = {**GUIDED, "sampler": "heun", "steps": steps}
        points.append(Point("sampler", "heun", 2 * steps - 1, settings))
        churned = {**settings, "spacing": "rho", "churn": 3}
        points.append(Point("sampler", "heun --spacing rho --churn 3", 2 * steps - 1, churned))
    return points


def guidance_points() -> list[Point]:
    """Each guidance alone, by one sampler; nothing but a curve's option guides."""
    plain: dict[str, Any] = {**WAY, "cfg": 1, "scale": 0}

    def by(option: str, curve: str, values: tuple[float, ...], **more: Any) -> list[Point]:
        return [Point("guidance", curve, v, {**plain, **more, option: v}) for v in values]

    def by_scale(curve: str, scales: tuple[float, ...] = (2, 4, 8), **more: Any) -> list[Point]:
        return by("scale", curve, scales, guide_interval="0,0.85", **more)

    return [
        Point("guidance", "none", 0, plain),
        *by_scale("--scale", (1, 2, 4, 8, 16)),
        *(p for d in ("rkl", "js", "fkl") for p in by_scale(f"--guide-by {d}", guide_by=d)),
        *by_scale("--entropy-scaling", entropy_scaling=True),
        *by_scale("--guide-every 2", (4, 8), guide_every=2),
        *by_scale("--guide-adam 0.9/0.995", (0.03, 0.1, 0.3), guide_adam="0.9/0.995"),
        *by_scale("--classifier-on x0", classifier_on="x0"),
        *by_scale("--scale-schedule cosine", scale_schedule="cosine"),
        *by("cfg", "--cfg, --cfg-interval 0,1", (2, 3, 5), cfg_interval="0,1"),
        *by("cfg", "--cfg, --cfg-interval 0,0.8", (1.5, 2, 3, 4, 5), cfg_interval="0,0.8"),
        *by("pag_scale", "--pag-scale", (1.5, 2)),
        *by("sag_scale", "--sag-scale", (1.1, 1.5)),
    ]


def beside_points() -> list[Point]:
    """What may be added to sampler and guidance, or changed of them, one thing at a time."""

    def by(option: str, curve: str, values: tuple[float, ...], **more: Any) -> list[Point]:
        settings = {**WAY, **GUIDED, **more}
        return [Point("beside", curve, v, {**settings, option: v}) for v in values]

    return [
        *by("scale", "--scale", (8,)),
        *by("scale", "--guide-by fkl --scale", (4,), guide_by="fkl"),
        *by("eps_scale", "--eps-scale", (1.004,)),
        *by("threshold", "--threshold", (0.9,)),
        *by("pag_scale", "--pag-scale", (1.5,)),
        *by("sag_scale", "--sag-scale", (1.1,)),
    ]


class Judge:
    """The network with what it says of the real pictures."""

    def __init__(self, training: Path, held_out: Path, ids: Path) -> None:
        self.network = load_judge()
        self.training = look(self.network, training)[0]  # [M, 1280]
        self.reference: Gaussian = gaussian(self.training)
        self.real, self.logits, self.labels = look(self.network, held_out)
        self.ten = sorted(set(self.labels.tolist()))
        self.ids: list[int] = json.loads(ids.read_text())

    def named(self, logits: Tensor, labels: Tensor) -> dict[str, Estimate]:
        ways = {"ten": self.ten, "ids": self.ids}
        return {way: agreement(best_class(logits, among), labels) for way, among in ways.items()}

    def numbers(self, run: Path) -> dict[str, Estimate]:
        """Of the pictures of a run."""
        features, logits, labels = look(self.network, run)
        distance = frechet_beside_real(features, self.real, self.reference).ratio
        precision, recall = precision_recall(features, self.training)
        others = {"distance": distance, "precision": precision, "recall": recall}
        return {**self.named(logits, labels), **others}

    def of_real(self, count: int) -> dict[str, Any]:
        """The row of held-out pictures: as many of them, where they are compared by number."""
        precision, recall = precision_recall(drawn(self.real, count), self.training)
        numbers = {**self.named(self.logits, self.labels), "distance": Estimate(1, 0)}
        numbers |= {"precision": precision, "recall": recall}
        return row_of(Point("real", "held-out pictures", 0, {}), count, numbers)


def row_of(point: Point, images: int, numbers: dict[str, Estimate]) -> dict[str, Any]:
    row: dict[str, Any] = {"group": point.group, "curve": point.curve, "at": point.at}
    row["images"] = images
    for name in NUMBERS:
        row[name], row[f"{name}_error"] = numbers[name]
    return row


def measure(point: Point, out: Path, num: int, judge: Judge) -> dict[str, Any]:
    """The numbers of a point, each with its standard error; drawn and measured if not there yet."""
    place = out / "points" / f"{point.name}.json"
    if place.exists():
        stored: dict[str, Any] = json.loads(place.read_text())
        if stored["images"] >= num:
            return stored
    run = out / "runs" / point.name
    adm_cli.sample(
        model=MODEL, class_="all", seeds=range(num // CLASSES), batch_size=20, grid=False,
        out=run, **point.settings,
    )  # fmt: skip
    row = row_of(point, num, judge.numbers(run))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(row))
    return row


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """A table for each group of points."""
    lines = []
    for group, axis in AXES.items():
        lines += ["", f"| {group} | {axis} | {' | '.join(NUMBERS.values())} |"]
        lines += ["| --- | --- |" + " --- |" * len(NUMBERS)]
        for row in rows:
            if row["group"] in (group, "real"):
                said = [f"{row[n]:.2f} ± {row[f'{n}_error']:.2f}" for n in NUMBERS]
                at = "" if row["group"] == "real" else f"{row['at']:g}"
                lines.append(f"| {row['curve']} | {at} | {' | '.join(said)} |")
    return "\n".join(lines).strip() + "\n"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Samplers against evaluations above; below, what guidance trades as its scale grows."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no figure: pip install matplotlib")
        return
    figure = Figure(figsize=(15, 8), layout="constrained")
    grid = figure.subplots(2, 3)
    above = [("at", "ids"), ("at", "distance"), ("at", "precision")]
    below = [("distance", "ids"), ("distance", "ten"), ("recall", "precision")]
    for line, group, panels in zip(grid, ("sampler", "guidance"), (above, below), strict=True):
        curves: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            if row["group"] == group:
                curves.setdefault(row["curve"], []).append(row)
        for axes, (across, up) in zip(line, panels, strict=True):
            for i, (curve, points) in enumerate(curves.items()):
                points = sorted(points, key=lambda row: float(row["at"]))
                axes.errorbar(
                    [p[across] for p in points], [p[up] for p in points],
                    [p[f"{up}_error"] for p in points],
                    label=curve, marker="os^vDPX*"[i % 8], color=f"C{i % 10}",
                    linestyle="-" if i < 10 else ":", linewidth=1, markersize=4, elinewidth=0.4,
                )  # fmt: skip
            axes.set_xlabel(NUMBERS.get(across, AXES[group]))
            axes.set_ylabel(NUMBERS[up])
        line[-1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=80)


def by_turns(points: list[Point]) -> list[Point]:
    """One of every curve first, from its middle on: what is there early says something of all."""
    curves: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        curves.setdefault((point.group, point.curve), []).append(point)
    for curve in curves.values():
        curve.insert(0, curve.pop(len(curve) // 2))
    rounds = itertools.zip_longest(*curves.values())
    return [point for each in rounds for point in each if point is not None]


def write(rows: list[dict[str, Any]], out: Path) -> None:
    with (out / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (out / "table.md").write_text(as_markdown(rows))
    draw(rows, out / "figure.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("training", type=Path)
    parser.add_argument("held_out", type=Path)
    parser.add_argument("ids", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=Path("out/every-option"))
    parser.add_argument("--num", type=int, default=100, help="pictures a point, of ten classes")
    parser.add_argument("--only", choices=tuple(AXES))
    args = parser.parse_args()
    if args.num % CLASSES:
        parser.error(f"--num {args.num}: expected a multiple of {CLASSES}, the classes")
    points = [*sampler_points(), *guidance_points(), *beside_points()]
    points = [point for point in points if args.only in (None, point.group)]
    judge = Judge(args.training, args.held_out, args.ids)
    args.out.mkdir(parents=True, exist_ok=True)
    real = judge.of_real(args.num)
    found: dict[Point, dict[str, Any]] = {}
    for i, point in enumerate(by_turns(points), 1):
        row = found[point] = measure(point, args.out, args.num, judge)
        print(
            f"{i}/{len(points)} {point.name}: {row['ids']:.2f}, {row['distance']:.2f}", flush=True
        )
        write([real, *(found[point] for point in points if point in found)], args.out)
    print((args.out / "table.md").read_text())


if __name__ == "__main__":
    main()
