"""``adm verify``: whether a run is as it was written, and mending it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from adm_cli.commands import console, options
from adm_cli.commands.drawing import Telling, draw_into, sampled, write_grid_of, write_npz
from adm_cli.errors import RunError

if TYPE_CHECKING:
    from adm_cli.pipeline import Sources
    from adm_cli.storage.plans import Item
    from adm_cli.storage.runs import RunFolder
    from adm_cli.storage.verifying import Finding


def verify(
    folder: Annotated[Path, typer.Argument(help="Folder of a run.", show_default=False)],
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Remove what is damaged and draw it again, as it was."),
    ] = False,
    model: Annotated[
        Optional[str],
        typer.Option("--model", "-m", help="For --repair: weights file, if it is not a preset."),
    ] = None,
    classifier: options.Classifier = None,
    device: Annotated[
        Optional[str], typer.Option("--device", help="For --repair. Default: the kind of the run.")
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Check every file of a run against its manifest, and say what is to be done again.

    Exit code 0 if every image is there and right, 1 if not. Damaged, missing and unfinished
    images are also drawn by running the same command again; --repair does no more than restore
    what was there.
    """
    from adm_cli.storage.runs import RunFolder
    from adm_cli.storage.verifying import repair_run

    run, tell = RunFolder(folder), Telling(json, quiet, images=False)
    findings = _look(run, tell)
    wrong = [finding for finding in findings if finding.kind != "foreign"]
    mendable = [finding for finding in wrong if finding.kind != "unfinished"]
    if repair and mendable:
        sources = None
        images = {item.file for item in run.read().items}
        if any(finding.file in images for finding in mendable):
            sources = _find_weights(run, model, classifier)  # before anything is removed
        lost = repair_run(run, findings)
        _make_again(run, lost, sources, device, tell)
        tell.note(f"repaired; looking at {folder} once more")
        wrong = [finding for finding in _look(run, tell) if finding.kind != "foreign"]
    if wrong:
        raise typer.Exit(1)


def _look(run: RunFolder, tell: Telling) -> list[Finding]:
    """Reports and returns what is wrong."""
    from adm_cli.storage.verifying import verify_run

    printed = time.monotonic()

    def on_file(done: int, total: int) -> None:
        nonlocal printed
        if time.monotonic() - printed >= 2:
            printed = time.monotonic()
            tell.note(f"{done:,} of {total:,} files")

    findings = []
    for finding in verify_run(run, on_file):
        findings.append(finding)
        if tell.json:
            facts = {"kind": finding.kind, "file": finding.file, "text": finding.text}
            console.print_json(facts)
        else:
            print(console.one_line(finding.text), flush=True)
    kinds = {finding.kind for finding in findings} - {"foreign"}
    if not kinds:
        tell.note(f"{run.path}: all {len(run.read().items):,} images are there and right")
    elif kinds == {"unfinished"}:
        tell.note("the same command that began the run goes on with it")
    else:
        tell.note(f"adm verify {run.path} --repair mends it; so does the same command again")
    return findings


def _find_weights(run: RunFolder, model: str | None, classifier: str | None) -> Sources | None:
    """Those that drew the run; None where another command did. Raises RunError if they differ."""
    from adm_cli.pipeline import find_sources

    plan = run.read()
    if plan.kind != "sample":
        return None
    guided = plan.settings["classifier_sha256"] is not None
    names = plan.environment
    sources = find_sources(
        options.recorded_weights("--model", model, names["model"], run.path),
        options.recorded_weights(
            "--classifier", classifier, names["classifier"] if guided else None, run.path
        ),
        guided=guided,
    )
    files = {"model": sources.model, "classifier": sources.classifier}
    for name, file in files.items():
        digest = None if file is None else file.content_sha256
        if digest != plan.settings[f"{name}_sha256"]:
            raise RunError(f"{run.path} was drawn with another {name}: pass its file with --{name}")
    return sources


def _make_again(
    run: RunFolder,
    names: set[str],
    sources: Sources | None,
    device: str | None,
    tell: Telling,
) -> None:
    """What was removed: images from the run's settings, the rest from the images."""
    from adm_cli.storage.runs import Shard

    plan = run.read()
    items = [item for item in plan.items if item.file in names]
    if items and sources is None:
        tell.note(f"{len(items)} images are to be drawn: run the command that began it again")
    elif items and sources is not None:
        _draw_again(run, items, sources, device, tell)
    for name in sorted(names - {item.file for item in items}):
        if name == "grid.png":
            write_grid_of(run, plan.items, Shard(), tell)
        elif name.endswith(".npz"):
            write_npz(run, Shard(), tell)
        else:
            tell.note(f"{name} cannot be made again from the images: it was removed")


def _draw_again(
    run: RunFolder,
    items: Sequence[Item],
    sources: Sources,
    device: str | None,
    tell: Telling,
) -> None:
    from adm_cli.devices import use_threads
    from adm_cli.pipeline import load_pipeline
    from adm_cli.recipes import plan_config
    from adm_cli.storage.runs import Shard

    plan = run.read()
    config = plan_config(plan, items)
    use_threads(plan.settings.get("threads", plan.environment.get("threads")))
    pipeline = load_pipeline(
        sources,
        guided=config.guided,
        device=device or plan.settings["device"],
        dtype=plan.settings["dtype"],
    )
    draw = sampled(pipeline, config, tell)
    draw_into(run, Shard(), items, draw, steps=plan.settings["num_steps"], tell=tell)
