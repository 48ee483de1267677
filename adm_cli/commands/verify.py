"""``adm verify``: whether a run is as it was written, and mending it."""

from __future__ import annotations

import time
from collections.abc import Sized
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from adm_cli.commands import completing, console, options
from adm_cli.commands.drawing import Telling, write_grid_of, write_npz
from adm_cli.errors import NotFiniteError

if TYPE_CHECKING:
    from adm_cli.commands.repairing import Given, Load, Lost
    from adm_cli.storage.runs import RunFolder
    from adm_cli.storage.sweeps import SweepFolder
    from adm_cli.storage.verifying import Finding


def verify(
    folder: Annotated[
        Path, typer.Argument(help="Folder of a run, or of a sweep.", show_default=False)
    ],
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Remove what is damaged and draw it again, as it was."),
    ] = False,
    model: Annotated[
        Optional[list[str]],
        typer.Option(
            "--model",
            "-m",
            help="For --repair: weights file, if it is not a preset; repeat for a sweep's.",
        ),
    ] = None,
    classifier: options.Classifier = None,
    upsampler: Annotated[
        Optional[str],
        typer.Option(
            "--upsampler",
            autocompletion=completing.complete_upsampler,
            help="For --repair: a stack's, if it is not a known one.",
        ),
    ] = None,
    inputs: Annotated[
        Optional[list[Path]],
        typer.Option(
            "--input", help="For --repair: what adm upsample enlarged, where it is now; repeat."
        ),
    ] = None,
    device: Annotated[
        Optional[str],
        typer.Option(
            "--device",
            autocompletion=options.complete_device,
            help="For --repair. Default: the kind of the run.",
        ),
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Check every file of a run against its manifest, and say what is to be done again.

    Of a stack the small pictures that were kept, and of a sweep every cell, its tables and its
    sheet. Exit code 0 if every image is there and right, 1 if not. Damaged, missing and unfinished
    images are also drawn by running the same command again; --repair does no more than restore
    what was there.
    """
    from adm_cli.commands.repairing import Given
    from adm_cli.storage.runs import RunFolder
    from adm_cli.storage.sweeps import SweepFolder

    tell = Telling(json, quiet, images=False)
    given = Given(model or (), classifier, upsampler, inputs or (), device) if repair else None
    sweep = SweepFolder(folder)
    runs = sweep.cells() if sweep.exists() else [RunFolder(folder)]
    left: list[Finding] = []
    for run in runs:
        for inner in run.bases():
            left += _verify_run(inner, given, tell, inner=True)
        left += _verify_run(run, given, tell)
    if sweep.exists():
        left += _verify_sweep(sweep, given, tell)
    if {finding.kind for finding in left} == {"unfinished"}:
        what = "sweep" if sweep.exists() else "run"
        tell.note(f"the same command that began the {what} goes on with it")
    elif left and not repair:
        tell.note(f"adm verify {folder} --repair mends it; so does the same command again")
    if left:
        raise typer.Exit(1)


def _verify_run(
    run: RunFolder, given: Given | None, tell: Telling, *, inner: bool = False
) -> list[Finding]:
    """What is wrong at the end, after mending where ``given`` is.

    Of an ``inner`` run, what is not drawn yet is for the outer one to tell.
    """
    findings = _look(run, tell, inner=inner)
    if given is not None and any(finding.kind != "unfinished" for finding in findings):
        gone = _mend(run, findings, given, tell)
        tell.note(f"repaired; looking at {run.path} once more")
        findings = _look(run, tell, inner=inner)
        names = {finding.file for finding in findings}
        findings += [finding for finding in gone if finding.file not in names]
    return findings


def _look(run: RunFolder, tell: Telling, *, inner: bool) -> list[Finding]:
    """Reports what there is to say, and returns what is wrong."""
    from adm_cli.storage.verifying import verify_run

    printed = time.monotonic()

    def on_file(done: int, total: int) -> None:
        nonlocal printed
        if time.monotonic() - printed >= 2:
            printed = time.monotonic()
            tell.note(f"{done:,} of {total:,} files")

    findings = []
    for finding in verify_run(run, on_file):
        if inner and finding.kind == "unfinished":
            continue
        _tell_of(finding, tell)
        if finding.kind != "foreign":
            findings.append(finding)
    if not findings:
        count = len(run.kept(run.read().items))
        tell.note(f"{run.path}: all {count:,} images are there and right")
    return findings


def _tell_of(finding: Finding, tell: Telling) -> None:
    if tell.json:
        console.print_json({"kind": finding.kind, "file": finding.file, "text": finding.text})
    else:
        print(console.one_line(finding.text), flush=True)


def _mend(run: RunFolder, findings: list[Finding], given: Given, tell: Telling) -> list[Finding]:
    """Removes what is wrong and makes it again; returns what is gone for good.

    Images that cannot be made again stay as they are.
    """
    from adm_cli.commands.repairing import find_loader, find_lost
    from adm_cli.storage.verifying import LOST, repair_run

    plan = run.read()
    lost, load = find_lost(run, plan, findings), None
    if lost.items(plan):
        load, without = find_loader(run, plan, lost, given, tell)  # before anything is removed
        if without:
            name, where = next(iter(without.items()))
            tell.note(
                f"{name}{_and_more(without)} cannot be made again: {where}, which was enlarged, "
                f"is gone or has changed: pass what holds that picture with --input"
            )
            wanted = {item.file for item in plan.items} - set(without)
            findings = [f for f in findings if f.kind not in LOST or f.file in wanted]
            lost = find_lost(run, plan, findings)
    repair_run(run, findings)
    if load is not None and lost.items(plan):
        _draw_again(run, lost, load, tell)
    gone = _make_again(run, lost, tell)
    _compare(run, lost, tell)
    return gone


def _draw_again(run: RunFolder, lost: Lost, load: Load, tell: Telling) -> None:
    """Images and films."""
    from adm_cli.commands.films import film_again
    from adm_cli.commands.jobs import draw_images
    from adm_cli.commands.sample_outputs import Outputs
    from adm_cli.commands.stacks import drop_base
    from adm_cli.devices import use_threads
    from adm_cli.storage.runs import Shard

    plan = run.read()
    use_threads(plan.settings.get("threads", plan.environment.get("threads")))
    loaded = load()
    outputs = Outputs(run.path, plan.settings["format"], False, None, False, Shard())
    if lost.images:
        try:
            draw_images(loaded, run, plan, lost.images, outputs, tell)
        except NotFiniteError as error:  # all others are there; these will be found missing
            tell.note(str(error))
    for name, film in lost.films.items():
        if film is not None:
            film_again(run, plan, run.path / name, film, loaded, tell)
    drop_base(run, plan)


def _make_again(run: RunFolder, lost: Lost, tell: Telling) -> list[Finding]:
    """What is made of the images; returns what cannot be.

    It is forgotten, but for a film whose line says how to draw it, on a larger machine.
    """
    from adm_cli.storage.runs import Shard
    from adm_cli.storage.verifying import Finding, forget

    plan = run.read()
    beside = lost.names - {item.file for item in plan.items}
    if "grid.png" in beside:
        write_grid_of(run, plan.items, Shard(), tell)
    if any(name.endswith(".npz") for name in beside):
        write_npz(run, Shard(), tell)
    gone = beside - set(run.present())
    found = []
    for name in sorted(gone):
        how = "the command that began the run makes it"
        if lost.films.get(name):
            how = "its images do not fit into memory together now, as they did"
        elif name in lost.films:
            how += " with --overwrite"
        found.append(Finding("missing", name, f"{name} cannot be made again: {how}"))
        tell.note(found[-1].text)
    gone -= {name for name, film in lost.films.items() if film}
    if gone:
        forget(run, gone)
    return found


def _compare(run: RunFolder, lost: Lost, tell: Telling) -> None:
    """Says so where what was made again is not what it was."""
    before, now = lost.records, run.records()
    both = [name for name in sorted(lost.names) if name in before and name in now]
    other = [name for name in both if before[name]["sha256"] != now[name]["sha256"]]
    if other:
        tell.note(
            f"{other[0]}{_and_more(other)} is not byte for byte what it was: another version of "
            f"adm or torch, or another machine, made it"
        )


def _and_more(names: Sized) -> str:
    return f" (and {len(names) - 1:,} more)" if len(names) > 1 else ""


def _verify_sweep(sweep: SweepFolder, given: Given | None, tell: Telling) -> list[Finding]:
    """As `_verify_run`, of what is beside a sweep's cells."""
    from adm_cli.commands.sweep_results import mend_sweep

    def look() -> list[Finding]:
        findings = list(sweep.verify())
        for finding in findings:
            _tell_of(finding, tell)
        return findings

    findings = look()
    if given is not None and any(finding.kind != "unfinished" for finding in findings):
        mend_sweep(sweep, findings, tell)
        findings = look()
    if not findings:
        tell.note(f"{sweep.path}: its tables and its sheet are right")
    return findings
