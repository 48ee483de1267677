"""Bits per dimension of a set of pictures, from the names of files to numbers that can be resumed.

found = nll("photos", model="tiny", num=32, steps=50)
found.bits_per_dim, found.stderr
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adm_cli.checkpoints.finding import find_weights
from adm_cli.checkpoints.format import read_tensors, write_tensors
from adm_cli.checkpoints.header import AGAIN, ModelFile
from adm_cli.checkpoints.loading import hasten_on_cpu, load_model
from adm_cli.checkpoints.supplying import supplied
from adm_cli.config import UNetConfig
from adm_cli.devices import choose_device, choose_dtype, made_on_cpu
from adm_cli.diffusion.schedule import NoiseSchedule
from adm_cli.errors import (
    AdmError,
    CheckpointError,
    OutputError,
    UsageError,
    how_many,
    told_of,
    why_unread,
)
from adm_cli.events import (
    AnyPath,
    Count,
    Note,
    OnEvent,
    SoFar,
    as_paths,
    as_words,
    ignore,
)
from adm_cli.files.disk import check_writable, explained, refuse_existing
from adm_cli.files.links import remove
from adm_cli.files.own import refuse_foreign
from adm_cli.files.strict import type_checked
from adm_cli.files.tables import NO_PLOT, Panel, Points, draw_panels, write_csv
from adm_cli.models.unet import UNet
from adm_cli.pictures.datasets import ImageSet, open_images
from adm_cli.pictures.ranges import with_value_range
from adm_cli.reports.likelihood import LikelihoodReport, likelihoods
from adm_cli.reports.pictures import (
    Row,
    check_pictures,
    choose_batch_size,
    labelled_pictures,
    some_pictures,
)
from adm_cli.sampling.defaults import choose_schedule

_FORMAT = "adm-nll"


@dataclass(frozen=True)
class Likelihood:
    """The bound over some pictures, with its standard errors; rows are as in the tables."""

    settings: Mapping[str, Any]  # what was measured, and whether it is ``complete``
    totals: Row
    quarters: list[Row]  # of the noise, the least first
    steps: list[Row]  # of the schedule, the least noise first
    pictures: int  # of those that were to be measured
    seconds: float

    @property
    def bits_per_dim(self) -> float:
        return float(self.totals["bits_per_dim"])

    @property
    def stderr(self) -> float | None:
        """Of `bits_per_dim`; None for a single picture."""
        error = self.totals["bits_per_dim_stderr"]
        return None if error is None else float(error)

    @property
    def complete(self) -> bool:
        return bool(self.settings["complete"])

    def to_json(self) -> dict[str, Any]:
        """All but the steps."""
        return {**self.settings, **self.totals, "quarters": self.quarters}


@dataclass(frozen=True)
class Measurement:
    """What `nll` is about to do: checked, and nothing loaded yet."""

    file: ModelFile
    schedule: NoiseSchedule
    images: ImageSet
    seed: int
    clip: bool
    steps: str | None
    device: torch.device
    dtype: torch.dtype
    plain: bool
    batch_size: int

    def settings(self) -> dict[str, Any]:
        """What decides the numbers, but for the pictures."""
        return {
            "model": self.file.name,
            "model_sha256": self.file.content_sha256,
            "steps": self.steps,
            "num_steps": len(self.schedule),
            "seed": self.seed,
            "clip_denoised": self.clip,
            "labels": bool(self.images.classes),
        }

    def key(self) -> str:
        """Two measurements with the same key may share what was measured."""
        facts = {
            **self.settings(),
            "dtype": str(self.dtype),
            "plain": self.plain,
            "set": self.images.fingerprint(),
        }
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


@type_checked
@made_on_cpu()
@supplied
def nll(
    data: AnyPath | Sequence[AnyPath],
    *,
    model: str = "tiny",
    num: int | None = None,
    steps: str | int | None = None,
    labels: str = "auto",
    value_range: str | None = None,
    class_: str | int | Sequence[str | int] | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    skip_bad: bool = False,
    clip: bool = True,
    device: str = "auto",
    dtype: str = "auto",
    plain: bool = False,
    out: AnyPath | None = None,
    overwrite: bool = False,
    fetch: bool = False,
    on_event: OnEvent = ignore,
) -> Likelihood:
    """Bits per dimension of pictures under a diffusion model: the variational bound.

    ``data`` are folders, zips or uncompressed tars; ``num`` of them are taken, spread over the
    set. ``steps`` respaces the process, by default every timestep is visited. ``out`` is a .csv
    of every step's terms, with a plot beside it; what was measured is kept in ``out``.part until
    it is done, and the same call goes on there. ``on_event`` takes `Note`, `Count` and, after
    every batch, a `SoFar` of the pictures measured.

    Raises UsageError for options that make no sense, OutputError for an ``out`` that is there or
    was begun by another measurement, AdmError for pictures that cannot be read.
    """
    what = plan_nll(
        data, model=model, num=num, steps=steps, labels=labels, value_range=value_range,
        class_=class_, seed=seed, batch_size=batch_size, clip=clip, device=device, dtype=dtype,
        plain=plain, out=out, overwrite=overwrite, on_event=on_event,
    )  # fmt: skip
    place = None if out is None else Path(out)
    check_pictures(what.images, on_event, skip_bad=skip_bad)
    report, done = LikelihoodReport(what.schedule), 0
    if place is not None and not overwrite:
        done = _resume(_part(place), what, report)
        if done:
            on_event(Note(f"measured before: {done} of {len(what.images)} pictures"))
    found = _measure(what, report, done, place, skip_bad=skip_bad, on_event=on_event)
    if place is not None:
        _write(found, place, on_event)
        with explained(f"cannot remove {_part(place)}"):
            remove(_part(place))
    return found


def plan_nll(
    data: AnyPath | Sequence[AnyPath], *, model: str, num: int | None, steps: str | int | None,
    labels: str, value_range: str | None, class_: str | int | Sequence[str | int] | None,
    seed: int, batch_size: int | None, clip: bool, device: str, dtype: str, plain: bool,
    out: AnyPath | None, overwrite: bool, on_event: OnEvent,
) -> Measurement:  # fmt: skip
    """The options of `nll`, resolved and checked."""
    file = find_weights(model)
    if file.info.kind == "classifier":
        raise UsageError(f"{model} holds a classifier, expected a diffusion model or upsampler")
    if seed < 0:
        raise UsageError(f"--seed must be at least 0, got {seed}")
    spacing = None if steps is None else str(steps)
    schedule = choose_schedule(file.info.diffusion, spacing or "")
    where = choose_device(device)
    compute = choose_dtype(dtype, where, use_fp16=file.info.config.use_fp16)
    batch = choose_batch_size(where, file.info.config, batch_size)
    _check_output(None if out is None else Path(out), overwrite=overwrite)
    images = _pictures(file, as_paths(data), labels, as_words(class_), value_range, on_event)
    for text in images.notes:
        on_event(Note(text))
    images = some_pictures(images, num, seed)
    return Measurement(file, schedule, images, seed, clip, spacing, where, compute, plain, batch)


def _check_output(out: Path | None, *, overwrite: bool) -> None:
    """Everything that could go wrong with the output, before any work."""
    if out is None:
        return
    if out.suffix.lower() != ".csv":
        raise UsageError(f"--out {out}: expected a name that ends in .csv")
    if not overwrite:
        refuse_existing([out, out.with_suffix(".png")])
    refuse_foreign([out.with_suffix(".png"), _part(out)], "choose another --out")
    check_writable(out.parent)


def _pictures(
    file: ModelFile, data: list[Path], labels: str, classes: list[str] | None,
    values: str | None, on_event: OnEvent,
) -> ImageSet:  # fmt: skip
    """The pictures, with labels as the model knows them if it is to see any."""
    config = file.info.config
    assert isinstance(config, UNetConfig)
    none = [spec.strip().lower() for spec in classes or ()] == ["none"]
    if config.num_classes is None:
        if classes and not none:
            raise UsageError(f"{file.called} is unconditional: leave out --class")
        return with_value_range(open_images(data, labels="none"), values)
    if none:
        if not config.null_class:
            raise UsageError(
                f"{file.called} was not trained without classes: leave out --class none"
            )
        return with_value_range(open_images(data, labels="none"), values)
    try:
        images, dropped = labelled_pictures(
            data, file.info.classes, labels=labels, classes=classes, values=values
        )
    except UsageError as error:
        hint = " (--class none judges the model without classes)" if config.null_class else ""
        raise UsageError(f"{error}{hint}") from None
    if dropped:
        on_event(Note(f"left out: {how_many(dropped, 'picture')} of classes new to {file.called}"))
    return images


def _measure(
    what: Measurement, report: LikelihoodReport, done: int, out: Path | None, *,
    skip_bad: bool, on_event: OnEvent,
) -> Likelihood:  # fmt: skip
    """Goes on after the first ``done`` pictures, to the last."""
    net = load_net(what)
    total, started = len(what.images), time.monotonic()

    def result() -> Likelihood:
        settings = {**what.settings(), "complete": done == total}
        taken = time.monotonic() - started
        tables = (report.totals(), report.quarters(), report.steps())
        return Likelihood(settings, *tables, total, taken)

    def on_step(batch: int, left: int) -> None:
        on_event(Count("pictures", done + batch * (1 - left / len(what.schedule)), total))

    rest = what.images.part(range(done, total))
    places = {id(picture): i for i, picture in enumerate(what.images.pictures)}
    for part, found in likelihoods(
        net, what.file.info.diffusion, what.schedule, rest,
        batch_size=what.batch_size, seed=what.seed, device=what.device, dtype=what.dtype,
        clip_denoised=what.clip, skip_bad=skip_bad, on_step=on_step,
        on_note=lambda text: on_event(Note(text)),
    ):  # fmt: skip
        report.add(found)
        done = places[id(part.pictures[-1])] + 1  # pictures passed over after it are met again
        on_event(Count("pictures", done, total))
        if out is not None and done < total:
            facts = {"format": _FORMAT, "key": what.key(), "done": str(done)}
            write_tensors(_part(out), report.state(), facts)
        if done < total:
            on_event(SoFar(result()))
    done = total
    if not report.images:
        raise AdmError(f"none of {how_many(total, 'picture')} can be read")
    return result()


def load_net(what: Measurement) -> UNet:
    """What is judged, ready."""
    net = load_model(what.file, device=what.device, dtype=what.dtype)
    assert isinstance(net, UNet)
    if not what.plain:
        hasten_on_cpu(net, what.device)
    return net


def _part(out: Path) -> Path:
    return out.with_name(f"{out.name}.part")


def _resume(path: Path, what: Measurement, report: LikelihoodReport) -> int:
    """How many of the pictures were measured before, now in ``report``."""
    if not path.exists():
        return 0
    another = f"{path} is not of this measurement: pass --overwrite to begin anew, or another --out"
    try:
        tensors, facts = read_tensors(path)
        if facts.get("format") != _FORMAT or facts.get("key") != what.key():
            raise OutputError(another)
        done = int(facts["done"])
        report.load_state(tensors)
    except (CheckpointError, KeyError, ValueError, RuntimeError) as error:
        wrong = told_of(path, why_unread(error).removesuffix(AGAIN))
        raise OutputError(f"{wrong}; pass --overwrite to begin anew") from None
    if not 0 < report.images <= done < len(what.images):
        raise OutputError(another)
    return done


def _write(found: Likelihood, out: Path, on_event: OnEvent) -> None:
    rows = found.steps
    write_csv(out, rows)

    def line(name: str) -> Points:
        return [row["timestep"] for row in rows], [row[name] for row in rows]

    errors = {"of eps": line("mse"), "of x_0": line("xstart_mse")}
    panels = [
        Panel("timestep", "bits per dimension", {"bits per dimension": line("vb")}, log=True),
        Panel("timestep", "mean squared error", errors, log=True),
    ]
    if not draw_panels(out.with_suffix(".png"), panels):
        on_event(Note(NO_PLOT))
