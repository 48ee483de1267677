"""All samplers against evaluations of the network, all guidance options against their scale.

python examples/every_option.py DATA JUDGE [OUT] [--num 50] [--weak MODEL] [--only guidance]

DATA is tiny-imagenet-val.zip, or another zip with folders of WordNet ids, JUDGE a classifier of
clean pictures of 64x64 (`train-judge.sh`). The embedded base draws --num pictures a point, as many
of each of its ten classes, by the same seeds; Fréchet distance, precision and recall are in the
judge's features, against the pictures of DATA, halved. Interrupted, the same command goes on; with
a larger --num every point is drawn on. OUT gets table.md, table.csv and, with matplotlib,
figure.png.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

import adm_cli

MODEL = "tiny"
SIZE, SEEN = 32, 64  # of the base's pictures; the judge sees all of them enlarged
CLASSES = (
    "n01443537 n02056570 n02099601 n02129165 n02279972 n02504458 n04146614 n07747607 n07873807 "
    "n09193705"
).split()
NUMBERS = ("fd", "precision", "recall", "agreement")


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


def sampler_points() -> list[Point]:
    """At the guidance by the model itself that the preset takes; evaluations are of pairs."""
    shared = {"cfg": 3, "scale": 0}
    samplers: dict[str, dict[str, Any]] = {
        "ddpm": {"sampler": "ddpm"},
        "ddim": {"sampler": "ddim"},
        "dpm++2m": {"sampler": "dpm++2m"},
        "dpm++2m eta 1": {"sampler": "dpm++2m", "eta": 1},
        "dpm++3m": {"sampler": "dpm++3m"},
        "unipc": {"sampler": "unipc"},
        "unipc2": {"sampler": "unipc2"},
        "dpm++2m rho": {"sampler": "dpm++2m", "spacing": "rho"},
    }
    points = [
        Point("sampler", name, steps, {**shared, **said, "steps": steps})
        for name, said in samplers.items()
        for steps in (5, 10, 20)
    ]
    for steps in (3, 5, 10):  # two evaluations a step, but for the last
        settings = {**shared, "sampler": "heun", "steps": steps}
        points.append(Point("sampler", "heun", 2 * steps - 1, settings))
        churned = {**settings, "spacing": "rho", "churn": 3}
        points.append(Point("sampler", "heun rho churn 3", 2 * steps - 1, churned))
    return points


def guidance_points(weak: str | None) -> list[Point]:
    """All by ten steps of dpm++2m."""
    shared = {"sampler": "dpm++2m", "steps": 10}
    plain = {**shared, "cfg": 1, "scale": 0}

    def by_scale(curve: str, scales: tuple[float, ...], **more: Any) -> list[Point]:
        settings = {**shared, "cfg": 1, **more}
        return [Point("guidance", curve, s, {**settings, "scale": s}) for s in scales]

    def by(option: str, curve: str, values: tuple[float, ...], **more: Any) -> list[Point]:
        return [Point("guidance", curve, v, {**plain, **more, option: v}) for v in values]

    usual = (2.0, 4.0, 8.0)
    points = [
        Point("guidance", "none", 0, plain),
        *by_scale("scale", (1, *usual)),
        *by("cfg", "cfg", (1.5, 2, 3, 5)),
        *(p for d in ("rkl", "js", "fkl") for p in by_scale(f"guide-by {d}", usual, guide_by=d)),
        *by_scale("entropy-scaling", usual, entropy_scaling=True),
        *by_scale("guide-every 2", (4, 8), guide_every=2),
        *by_scale("guide-adam 0.9/0.995", (0.03, 0.1, 0.3), guide_adam="0.9/0.995"),
        *by_scale("classifier-on x0", usual, classifier_on="x0"),
        *by_scale("scale-schedule cosine", usual, scale_schedule="cosine"),
        *by("pag_scale", "pag-scale", (2, 4)),
        *by("sag_scale", "sag-scale", (1.1, 1.5)),
        *by_scale("scale, cfg 3", (0, *usual), cfg=3),
    ]
    if weak is not None:
        points += by("weak_scale", "weak-scale", (1.5, 2, 3), weak_model=weak)
        points += by("weak_scale", "weak-scale, cfg 3", (1.5, 2), weak_model=weak, cfg=3)
    return points


def extract(data: Path, folder: Path) -> Path:
    """The pictures of the model's classes in a zip, at the model's size, a folder each."""
    with zipfile.ZipFile(data) as archive:
        for name in archive.namelist():
            *parents, file = Path(name).parts
            found = [part for part in parents if part in CLASSES]
            if found and not name.endswith("/"):
                target = folder / found[0] / f"{Path(file).stem}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                with Image.open(archive.open(name)) as picture:
                    small = picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BOX)
                small.save(target)
    return folder


def measure(point: Point, out: Path, num: int, judge: str, reference: Path) -> dict[str, Any]:
    """The numbers of a point, each with its standard error; drawn and measured if not there yet."""
    place = out / "points" / f"{point.name}.json"
    if place.exists():
        stored: dict[str, Any] = json.loads(place.read_text())
        if stored["images"] >= num:
            return stored
    run = out / "runs" / point.name
    adm_cli.sample(
        model=MODEL, no_upsample=True, class_="all", seeds=range(num // len(CLASSES)),
        batch_size=10, grid=False, out=run, **point.settings,
    )  # fmt: skip
    found = adm_cli.evaluate(run, ref=reference, judge=judge, metrics="fid,pr", resize=SEEN)
    numbers = found.numbers
    fd = next(name for name in numbers if name.startswith(("fid", "fd_")))
    row: dict[str, Any] = {"group": point.group, "curve": point.curve, "at": point.at}
    row["images"] = found.facts["images"]
    for ours, theirs in zip(NUMBERS, (fd, "precision", "recall", "among_asked"), strict=True):
        error = numbers[theirs].get("error")
        row[ours] = numbers[theirs]["value"]
        row[f"{ours}_error"] = math.nan if error is None else error
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(row))
    return row


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """A table for each group of points."""
    lines = []
    for group, axis in (("sampler", "evaluations"), ("guidance", "scale")):
        chosen = [row for row in rows if row["group"] == group]
        if chosen:
            lines += ["", f"| {group} | {axis} | FD | precision | recall | agreement |"]
            lines += ["| --- | --- | --- | --- | --- | --- |"]
        for row in chosen:
            fd = f"{row['fd']:.1f} ± {row['fd_error']:.1f}"
            rest = [f"{row[n]:.2f} ± {row[f'{n}_error']:.2f}" for n in NUMBERS[1:]]
            lines.append(f"| {row['curve']} | {row['at']:g} | {' | '.join((fd, *rest))} |")
    return "\n".join(lines).strip() + "\n"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Curves with error bars: samplers above, guidance below."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no figure: pip install matplotlib")
        return
    figure = Figure(figsize=(15, 8), layout="constrained")
    grid = figure.subplots(2, len(NUMBERS))
    for line, (group, axis) in enumerate((("sampler", "evaluations"), ("guidance", "scale"))):
        mine = [row for row in rows if row["group"] == group]
        curves = list(dict.fromkeys(row["curve"] for row in mine))
        for axes, number in zip(grid[line], NUMBERS, strict=True):
            for i, curve in enumerate(curves):
                points = [row for row in mine if row["curve"] == curve]
                axes.errorbar(
                    [p["at"] for p in points], [p[number] for p in points],
                    [p[f"{number}_error"] for p in points],
                    label=curve, marker="os^vDPX*"[i % 8], color=f"C{i % 10}",
                    linestyle="-" if i < 10 else ":", linewidth=1, markersize=4, elinewidth=0.6,
                )  # fmt: skip
            axes.set_xscale("log" if group == "sampler" else "symlog", **(
                {} if group == "sampler" else {"linthresh": 0.03}
            ))  # fmt: skip
            axes.set_xlabel(axis)
            axes.set_title({"fd": "Fréchet distance"}.get(number, number), fontsize=10)
        if mine:
            grid[line][-1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
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
    parser.add_argument("data", type=Path)
    parser.add_argument("judge")
    parser.add_argument("out", type=Path, nargs="?", default=Path("out/every-option"))
    parser.add_argument("--num", type=int, default=50, help="pictures a point, of ten classes")
    parser.add_argument("--weak", help="a weaker model, for autoguidance")
    parser.add_argument("--only", choices=("sampler", "guidance"))
    args = parser.parse_args()
    if args.num % len(CLASSES):
        parser.error(f"--num {args.num}: expected a multiple of {len(CLASSES)}, the classes")
    points = [*sampler_points(), *guidance_points(args.weak)]
    points = [point for point in points if args.only in (None, point.group)]
    reference = args.out / "reference.safetensors"
    if not reference.exists():
        args.out.mkdir(parents=True, exist_ok=True)
        pictures = extract(args.data, args.out / "pictures")
        adm_cli.reference(pictures, out=reference, features=args.judge, resize=SEEN)
    found: dict[Point, dict[str, Any]] = {}
    for i, point in enumerate(by_turns(points), 1):
        found[point] = measure(point, args.out, args.num, args.judge, reference)
        print(f"{i}/{len(points)} {point.name}: FD {found[point]['fd']:.1f}", flush=True)
        write([found[point] for point in points if point in found], args.out)
    print((args.out / "table.md").read_text())


if __name__ == "__main__":
    main()
