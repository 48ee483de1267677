"""``adm sweep``: the same seeds over a grid of scales, steps, samplers and models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from adm_cli.commands import console, options
from adm_cli.commands.drawing import Telling
from adm_cli.commands.sample_outputs import FRESH
from adm_cli.commands.selection import DEFAULT_NUM, Wanted, select_images
from adm_cli.commands.sweep_cells import Grid, Prepared, open_judge, prepare_cells
from adm_cli.commands.sweep_run import Sweep
from adm_cli.errors import UsageError
from adm_cli.storage.sweeps import SweepFolder

if TYPE_CHECKING:
    from adm_cli.sources import Sources

DEFAULT_ROWS = 10


def sweep(
    model: options.Model = "tiny",
    classifier: options.Classifier = None,
    scale: Annotated[
        Optional[str], typer.Option("--scale", "-s", help="Guidance scales, such as 0,1,2.5,4.")
    ] = None,
    cfg: Annotated[
        Optional[str],
        typer.Option("--cfg", help="Weights of classifier-free guidance, such as 1,1.5,3."),
    ] = None,
    steps: Annotated[
        Optional[str], typer.Option("--steps", help="Respacings, such as 25,250,ddim25.")
    ] = None,
    sampler: Annotated[
        Optional[str], typer.Option("--sampler", help="Samplers, such as ddpm,ddim,dpm++2m.")
    ] = None,
    class_: Annotated[
        Optional[list[str]], typer.Option("--class", "-c", help="As in adm sample.")
    ] = None,
    num: Annotated[
        Optional[int],
        typer.Option(
            "--num", "-n", help=f"Images of each class in a cell. Default: {DEFAULT_NUM}."
        ),
    ] = None,
    total: Annotated[
        Optional[int],
        typer.Option("--total", help="Images in a cell, shared out evenly over the classes."),
    ] = None,
    seed: Annotated[
        Optional[int], typer.Option("--seed", help="Of the first image in each cell. Default: 0.")
    ] = None,
    seeds: Annotated[
        Optional[str], typer.Option("--seeds", help="Exact seeds of every class, such as 0-63.")
    ] = None,
    eta: options.Eta = None,
    guide_interval: options.GuideInterval = None,
    entropy_scaling: options.EntropyScaling = False,
    cfg_interval: options.CfgInterval = None,
    ref: Annotated[
        Optional[Path],
        typer.Option(
            "--ref",
            "-r",
            help="Measure each cell against this: a file of adm reference, or images.",
        ),
    ] = None,
    metrics: Annotated[
        Optional[str],
        typer.Option(
            "--metrics",
            autocompletion=options.complete_metrics,
            help="Of fid,sfid,is,kid,pr,dc. Default: all there are.",
        ),
    ] = None,
    features: options.Features = "inception",
    inception: options.InceptionFile = None,
    rows: Annotated[
        int, typer.Option("--rows", help="Images of each cell on the contact sheet, at most.")
    ] = DEFAULT_ROWS,
    batch_size: Annotated[
        Optional[int],
        typer.Option("--batch-size", "-b", help="Images computed at once, as in adm sample."),
    ] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    clip: options.Clip = True,
    out: Annotated[
        Optional[Path],
        typer.Option(
            "--out", "-o", help="Folder of the sweep: begun, or gone on with. Default: under ./out."
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the cells and their cost, and draw nothing.")
    ] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw the same seeds over a grid of settings: contact sheet, table, curves.

    adm sweep --class 207 --scale 0,1,2,4,8 --steps 25,100 --out sweep

    adm sweep --class all --num 20 --scale 0,2,4 --ref photos --features classifier --out sweep
    """
    from adm_cli.devices import choose_device
    from adm_cli.storage.outputs import fresh_folder, make_fresh_folder

    if rows < 1:
        raise UsageError(f"--rows must be at least 1, got {rows}")
    if ref is None and not (metrics is None and inception is None and features == "inception"):
        raise UsageError("--metrics, --features and --inception are for measuring: pass --ref")
    samplers, respacings = _words("sampler", sampler), _words("steps", steps)
    grid = Grid(
        samplers, respacings, _numbers("scale", scale), _numbers("cfg", cfg), eta, batch_size, clip,
        options.read_interval(guide_interval), entropy_scaling,
        options.read_interval(cfg_interval, "--cfg-interval"),
    )  # fmt: skip
    guided = any(value is None or value != 0 for value in grid.scales)
    models = _find_models(model, classifier, guided=guided)
    pairs = select_images(models[0][1], class_, seed=seed, seeds=seeds, num=num, total=total)
    images = [Wanted(class_id, own_seed) for class_id, own_seed in pairs]
    _check_same_classes(models, images)
    folder = fresh_folder(FRESH) if out is None else out
    cells = prepare_cells(
        models, grid, images, folder, choose_device(device), dtype, overwrite=overwrite
    )
    whole = Sweep(SweepFolder(folder), cells, rows, Telling(json, quiet, images=False))
    whole.begin(overwrite=overwrite)
    if dry_run:
        _show_plan(cells, json=json, overwrite=overwrite)
        return
    judge = None
    if ref is not None:
        judge = open_judge(ref, metrics, features, inception, cells, device, quiet=quiet)
    if out is not None:
        whole.run(judge, device, dtype, overwrite=overwrite)
        return
    whole.move(make_fresh_folder(FRESH))
    try:
        whole.run(judge, device, dtype, overwrite=overwrite)
    finally:
        whole.discard_if_empty()


def _words(name: str, text: str | None) -> list[str | None]:
    """Values separated by commas; one None where nothing was said."""
    if text is None:
        return [None]
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise UsageError(f"--{name} {text!r}: expected values separated by commas")
    return list(dict.fromkeys(words))


def _numbers(name: str, text: str | None) -> list[float | None]:
    try:
        values = [None if word is None else float(word) for word in _words(name, text)]
    except ValueError:
        raise UsageError(f"--{name} {text!r}: expected numbers such as 0,1,2.5,4") from None
    return list(dict.fromkeys(values))


def _find_models(text: str, classifier: str | None, *, guided: bool) -> list[tuple[str, Sources]]:
    """Labels, each its own, and weights; ``text`` is one name or several with commas between."""
    from adm_cli.sources import find_sources

    names = [text] if os.path.isfile(text) else [name.strip() for name in text.split(",")]
    found = [find_sources(name, classifier, guided=guided) for name in dict.fromkeys(names)]
    labels = [sources.model_name for sources in found]
    if len(set(labels)) < len(labels):  # runs/a/model.safetensors, runs/b/model.safetensors
        paths = [sources.model.path.absolute() for sources in found]
        labels = [f"{path.parent.name}-{path.stem}" for path in paths]
    if len(set(labels)) < len(labels):
        raise UsageError(f"--model {text}: two of the models have the same name, {labels[0]}")
    return list(zip(labels, found, strict=True))


def _check_same_classes(models: list[tuple[str, Sources]], images: list[Wanted]) -> None:
    """Raises UsageError unless all models draw pictures of one size of the same classes."""
    (first, one), *others = models
    for label, other in others:
        if one.model.info.config.image_size != other.model.info.config.image_size:
            raise UsageError(f"{first} and {label} draw pictures of different sizes")
        for class_id in dict.fromkeys(image.class_id for image in images):
            if class_id is not None and one.classes.get(class_id) != other.classes.get(class_id):
                raise UsageError(f"class {class_id} is not the same to {first} and {label}")


def _show_plan(cells: list[Prepared], *, json: bool, overwrite: bool) -> None:
    """The cells, what is there of each, and what the rest costs."""
    rows = []
    for prepared in cells:
        images, steps = len(prepared.plan.items), prepared.plan.settings["num_steps"]
        missing = images if overwrite else prepared.missing
        rows.append({
            "cell": prepared.cell.name,
            "images": images,
            "to_draw": missing,
            "num_steps": steps,
            "evaluations": missing * steps,
            "gflop": round(missing * steps * prepared.gflop_a_step(), 1),
        })  # fmt: skip
    if json:
        for row in rows:
            console.print_json(row)
        return
    names = ("images", "to_draw", "evaluations", "gflop")
    rows.append({"cell": f"{len(rows)} cells", **{n: sum(row[n] for row in rows) for n in names}})
    console.print_table(
        ["cell", "images", "to draw", "steps", "evaluations", "TFLOP"],
        [
            [
                row["cell"],
                f"{row['images']:,}",
                f"{row['to_draw']:,}",
                str(row.get("num_steps", "")),
                f"{row['evaluations']:,}",
                f"{row['gflop'] / 1000:,.1f}",
            ]
            for row in rows
        ],
    )
