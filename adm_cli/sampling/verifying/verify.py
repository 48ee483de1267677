"""`adm_cli.verify`: whether a run or a sweep is as it was written, and mending it."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Sequence
from contextlib import suppress
from pathlib import Path

from adm_cli.checkpoints.presets import known_weights
from adm_cli.devices import own_threads
from adm_cli.errors import RunError, UsageError, how_many
from adm_cli.events import AnyPath, Note, OnEvent, as_paths
from adm_cli.files.strict import type_checked
from adm_cli.sampling.arguments import text_or_none
from adm_cli.sampling.events import Costs, Event, Finding, follow
from adm_cli.sampling.folder import RunFolder
from adm_cli.sampling.recipes.recorded import Whereabouts
from adm_cli.sampling.sweeps.folder import SweepFolder
from adm_cli.sampling.sweeps.results import mend_sweep
from adm_cli.sampling.verifying.check import LOST, check_run
from adm_cli.sampling.verifying.costs import repair_costs
from adm_cli.sampling.verifying.repair import mend

Findings = Generator[Event, None, list[Finding]]


@type_checked
@own_threads()
def verify(
    folder: AnyPath,
    repair: bool = False,
    model: str | Sequence[str] | None = None,
    classifier: AnyPath | None = None,
    upsampler: AnyPath | None = None,
    inputs: AnyPath | Sequence[AnyPath] | None = None,
    device: str | None = None,
    weak_model: AnyPath | None = None,
    dry_run: bool = False,
    *,
    on_event: OnEvent | None = None,
) -> list[Finding]:
    """Checks every file of a run or sweep against its manifest; returns what is wrong at the end.

    As ``adm verify``, whose options these are: ``repair`` removes what is damaged and draws it
    again, with ``dry_run`` it tells what that would cost (`events.Costs`). ``on_event`` sees every
    `events.Event`, each `events.Finding` among them. Raises AdmError where nothing can be said of
    the folder, or weights for a repair are not found.
    """
    if dry_run and not repair:
        raise UsageError("--dry-run says what --repair would cost: pass it, too")
    now = Whereabouts(
        (model,) if isinstance(model, str) else tuple(model or ()), text_or_none(classifier),
        text_or_none(upsampler), as_paths(inputs or ()), device, text_or_none(weak_model),
    )  # fmt: skip
    if Path(folder).is_file():
        raise RunError(f"{folder} is a file: expected the folder of a run or of a sweep")
    return follow(_verify(Path(folder), now if repair else None, dry_run=dry_run), on_event)


def _verify(folder: Path, now: Whereabouts | None, *, dry_run: bool) -> Findings:
    """Mends where ``now`` says with what."""
    if dry_run and now is not None:
        return (yield from _weigh(folder, now))
    sweep = SweepFolder(folder)
    runs = sweep.cells() if sweep.exists() else [RunFolder(folder)]
    left: list[Finding] = []
    for run in runs:
        for inner in run.bases():
            left += yield from _verify_run(inner, now, inner=True)
        left += yield from _verify_run(run, now)
    if sweep.exists():
        left += yield from _verify_sweep(sweep, now)
    if {finding.kind for finding in left} == {"unfinished"}:
        what = "sweep" if sweep.exists() else "run"
        yield Note(f"the same command that began the {what} goes on with it")
    elif left and now is None:
        with_weights = " --model FILE" if _needs_weights(runs, left) else ""
        yield Note(f"adm verify {shlex.quote(str(folder))} --repair{with_weights} mends it")
    return left


def _needs_weights(runs: Sequence[RunFolder], left: Sequence[Finding]) -> bool:
    """Whether images are to be drawn by weights whose file nobody but the user knows."""
    if not any(finding.kind in LOST for finding in left):
        return False
    models: set[str] = set()
    for run in runs:
        with suppress(RunError):
            models.add(run.read().first.model)
    return not models <= known_weights()


def _weigh(folder: Path, now: Whereabouts) -> Findings:
    """What is wrong with each run, and what mending it would cost."""
    sweep = SweepFolder(folder)
    runs = sweep.cells() if sweep.exists() else [RunFolder(folder)]
    left: list[Finding] = []
    for run in (each for outer in runs for each in (*outer.bases(), outer)):
        findings = yield from _look(run, inner=run not in runs)
        if any(finding.kind != "unfinished" for finding in findings):
            yield Costs(repair_costs(run, findings, now))
        left += findings
    if sweep.exists():
        left += yield from _verify_sweep(sweep, None)
    return left


def _verify_run(run: RunFolder, now: Whereabouts | None, *, inner: bool = False) -> Findings:
    """What is wrong at the end, after mending.

    Of an ``inner`` run, what is not drawn yet is for the outer one to tell.
    """
    findings = yield from _look(run, inner=inner)
    if now is not None and any(finding.kind != "unfinished" for finding in findings):
        gone = yield from mend(run, findings, now)
        yield Note(f"repaired; looking at {run.path} once more")
        findings = yield from _look(run, inner=inner)
        names = {finding.file for finding in findings}
        findings += [finding for finding in gone if finding.file not in names]
    return findings


def _look(run: RunFolder, *, inner: bool) -> Findings:
    """Tells what there is to say, and returns what is wrong."""
    findings = []
    for found in check_run(run):
        if isinstance(found, Finding):
            if inner and found.kind == "unfinished":
                continue
            if found.kind != "foreign":
                findings.append(found)
        yield found
    if not findings:
        count = sum(1 for _ in run.kept(run.read().images))
        yield Note(f"{run.path}: {how_many(count, 'image')}, all there and right")
    return findings


def _verify_sweep(sweep: SweepFolder, now: Whereabouts | None) -> Findings:
    """As `_verify_run`, of what is beside a sweep's cells."""
    findings = list(sweep.verify())
    yield from findings
    if now is not None and any(finding.kind != "unfinished" for finding in findings):
        yield from mend_sweep(sweep, findings)
        findings = list(sweep.verify())
        yield from findings
    if not findings:
        yield Note(f"{sweep.path}: its tables and its sheet are right")
    return findings
