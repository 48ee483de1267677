"""``adm nll``: how likely pictures are under a diffusion model, in bits per dimension."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from adm_cli.commands import console, options
from adm_cli.errors import AdmError, UsageError

if TYPE_CHECKING:
    from adm_cli.reports.likelihood import LikelihoodReport
    from adm_cli.storage.checkpoints import ModelFile
    from adm_cli.storage.datasets import ImageSet


def nll(
    data: options.Pictures,
    model: options.Model = "tiny",
    num: options.SomePictures = None,
    steps: Annotated[
        Optional[str],
        typer.Option("--steps", help="Respacing, as in adm sample. Default: every timestep."),
    ] = None,
    labels: options.Labels = "auto",
    value_range: options.ValueRange = None,
    class_: Annotated[
        Optional[list[str]],
        typer.Option(
            "--class",
            "-c",
            help="Only pictures of these classes; none: all pictures, without telling the model "
            "their class.",
        ),
    ] = None,
    seed: options.NoiseSeed = 0,
    batch_size: options.Batch = None,
    skip_bad: options.SkipBad = False,
    clip: Annotated[
        bool, typer.Option("--clip/--no-clip", help="Clamp each predicted x_0 to [-1, 1].")
    ] = True,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    out: Annotated[
        Optional[Path],
        typer.Option(
            "--out", "-o", help="Also write every step's terms to this .csv, and plot them."
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Bits per dimension of pictures: the variational bound, its terms and errors.

    adm nll photos --num 100 --steps 250
    """
    from adm_cli.defaults import choose_schedule
    from adm_cli.devices import choose_device, choose_dtype
    from adm_cli.loading import find_weights, load_model
    from adm_cli.models.unet import UNet
    from adm_cli.reports.likelihood import LikelihoodReport, likelihoods
    from adm_cli.reports.pictures import choose_batch_size, some_pictures

    file = find_weights(model)
    if file.info.kind == "classifier":
        raise UsageError(f"{model} holds a classifier, expected a diffusion model or upsampler")
    if seed < 0:
        raise UsageError(f"--seed must be at least 0, got {seed}")
    schedule = choose_schedule(file.info.diffusion, steps if steps is not None else "")
    where = choose_device(device)
    compute = choose_dtype(dtype, where, use_fp16=file.info.config.use_fp16)
    batch = choose_batch_size(where, file.info.config, batch_size)
    say = console.note if not quiet else (lambda _text: None)
    images = _pictures(file, data, labels, class_, value_range, say)
    for text in images.notes:
        say(text)
    images = some_pictures(images, num, seed)
    _prepare(out, overwrite=overwrite)
    net = load_model(file, device=where, dtype=compute)
    assert isinstance(net, UNet)
    report = LikelihoodReport(schedule)
    progress = console.SamplingProgress(len(images), len(schedule), quiet=quiet)
    complete = False
    try:
        with progress.show():
            for part, found in likelihoods(
                net, file.info.diffusion, schedule, images,
                batch_size=batch, seed=seed, device=where, dtype=compute, clip_denoised=clip,
                skip_bad=skip_bad, on_step=progress.advance, on_note=say,
            ):  # fmt: skip
                report.add(found)
                progress.finish_batch(len(part))
        complete = True
    finally:  # also when interrupted: what was computed is shown, and called a part
        if report.images:
            settings = {
                "model": file.name,
                "model_sha256": file.content_sha256,
                "steps": steps,
                "num_steps": len(schedule),
                "seed": seed,
                "clip_denoised": clip,
                "labels": bool(images.classes),
                "complete": complete,
            }
            _show(report, settings, json=json)
            _write(report, out, say)
            told = f"{report.images} pictures" if report.images > 1 else "1 picture"
            rest = "" if complete else f"only a part, of {len(images)}: "
            say(f"{rest}{told} in {progress.elapsed():.1f} s")
    if not report.images:
        raise AdmError(f"none of the {len(images)} pictures can be read")


def _pictures(
    file: ModelFile,
    data: list[Path],
    labels: str,
    classes: list[str] | None,
    values: str | None,
    say: Callable[[str], None],
) -> ImageSet:
    """The pictures, with labels as the model knows them if it is to see any."""
    from adm_cli.config import UNetConfig
    from adm_cli.reports.pictures import labelled_pictures
    from adm_cli.storage.datasets import open_images
    from adm_cli.storage.ranges import with_value_range

    config = file.info.config
    assert isinstance(config, UNetConfig)
    none = [spec.strip().lower() for spec in classes or ()] == ["none"]
    if config.num_classes is None:
        if classes and not none:
            raise UsageError(f"{file.name} is unconditional: --class would change nothing")
        return with_value_range(open_images(data, labels="none"), values)
    if none:
        if not config.null_class:
            raise UsageError(f"{file.name} was not trained without classes: leave out --class none")
        return with_value_range(open_images(data, labels="none"), values)
    try:
        images, dropped = labelled_pictures(
            data, file.info.classes, labels=labels, classes=classes, values=values
        )
    except UsageError as error:
        hint = " (--class none judges the model without classes)" if config.null_class else ""
        raise UsageError(f"{error}{hint}") from None
    if dropped:
        say(f"{dropped} pictures of classes that {file.name} does not know are left out")
    return images


def _prepare(out: Path | None, *, overwrite: bool) -> None:
    """Everything that could go wrong with the output, before any work."""
    from adm_cli.storage.files import check_writable, refuse_existing

    if out is None:
        return
    if out.suffix.lower() != ".csv":
        raise UsageError(f"--out {out}: expected a name that ends in .csv")
    if not overwrite:
        refuse_existing([out, out.with_suffix(".png")])
    check_writable(out.parent)


def _show(report: LikelihoodReport, settings: dict[str, Any], *, json: bool) -> None:
    totals, quarters = report.totals(), report.quarters()
    if json:
        console.print_json({**settings, **totals, "quarters": quarters})
        return
    print(f"{'noise':12}{'steps':>6}  {'bits/dim':>20}  {'MSE of eps':>10}  {'MSE of x_0':>10}")
    for row in quarters:
        first, last = row["timesteps"]
        print(
            f"{f't {first}-{last}':12}{row['steps']:6}  {_bits(row, 'vb'):>20}  "
            f"{row['mse']:10.6f}  {row['xstart_mse']:10.6f}"
        )
    print(f"{'prior':12}{'':6}  {_bits(totals, 'prior'):>20}")
    print(
        f"{'total':12}{settings['num_steps']:6}  {_bits(totals, 'bits_per_dim'):>20}  "
        f"{totals['mse']:10.6f}  {totals['xstart_mse']:10.6f}"
    )


def _bits(row: dict[str, Any], name: str) -> str:
    error = row[f"{name}_stderr"]
    return f"{row[name]:.6f}" + (f" ± {error:.6f}" if error is not None else " " * 11)


def _write(report: LikelihoodReport, out: Path | None, say: Callable[[str], None]) -> None:
    from adm_cli.storage.tables import Panel, Points, draw_panels, write_csv

    if out is None:
        return
    rows = report.steps()
    write_csv(out, rows)

    def line(name: str) -> Points:
        return [row["timestep"] for row in rows], [row[name] for row in rows]

    errors = {"of eps": line("mse"), "of x_0": line("xstart_mse")}
    panels = [
        Panel("timestep", "bits per dimension", {"bits per dimension": line("vb")}, log=True),
        Panel("timestep", "mean squared error", errors, log=True),
    ]
    if not draw_panels(out.with_suffix(".png"), panels):
        say(console.NO_PLOT)
