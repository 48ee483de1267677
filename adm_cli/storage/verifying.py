"""Whether a run's folder is as it was written: every file, every line, and ``run.json`` itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from adm_cli.errors import OutputError, RunError
from adm_cli.storage.files import explain_os_error, file_digest
from adm_cli.storage.links import remove
from adm_cli.storage.manifests import Record, read_manifest, rewrite_manifest
from adm_cli.storage.plans import Plan, read_plan
from adm_cli.storage.runs import RunFolder
from adm_cli.storage.sealed import is_whole

Kind = Literal[
    "damaged", "missing", "unrecorded", "temporary", "line", "run", "unfinished", "foreign"
]

LOST = ("damaged", "missing", "unrecorded")  # to be made again


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be."""

    kind: Kind
    file: str
    text: str


def verify_run(run: RunFolder, on_file: Callable[[int, int], None]) -> Iterator[Finding]:
    """Everything that is wrong with a run, in words; reads every byte of it.

    ``on_file`` is told how many recorded files of how many are checked. Raises RunError if
    nothing can be said: no run, or neither copy of its settings can be read.
    """
    yield from _books(run)
    plan, records = run.read(), run.records()
    for i, (name, record) in enumerate(records.items()):
        on_file(i, len(records))
        if finding := _check_file(run.path / name, record):
            yield finding
    yield from _strays(run, plan, records)
    rest = [i for i in plan.items if i.file not in records and not (run.path / i.file).exists()]
    if rest:
        yield Finding(
            "unfinished",
            rest[0].file,
            f"{len(rest)} of {len(plan.items)} images were not drawn yet",
        )


def _books(run: RunFolder) -> Iterator[Finding]:
    good = 0
    for path in (run.file, run.copy):
        try:
            read_plan(path)
            if is_whole(path):
                good += 1
            else:
                yield Finding("run", path.name, f"{path}: its line ends are not those written")
        except RunError as error:
            yield Finding("run", path.name, str(error))
    if good == 2 and not run.whole():
        yield Finding("run", run.copy.name, f"{run.copy} differs from {run.file}")
    for path in run.manifests():
        manifest = read_manifest(path)
        for number in manifest.damaged:
            yield Finding("line", path.name, f"{path}, line {number} is damaged")
        if manifest.torn:
            yield Finding("line", path.name, f"{path}: the last line is incomplete")


def _check_file(path: Path, record: Record) -> Finding | None:
    return check_digest(path, record["sha256"], record["bytes"])


def check_digest(path: Path, wanted: str, length: int | None = None) -> Finding | None:
    """What is wrong with a file that should have this SHA-256, and length where it is known."""
    try:
        size, digest = file_digest(path)
    except FileNotFoundError:
        return Finding("missing", path.name, f"{path} is missing")
    except OSError as error:
        return Finding("damaged", path.name, explain_os_error(f"cannot read {path}", error))
    if length not in (None, size):
        text = f"{path} has {size} bytes instead of {length}"
        return Finding("damaged", path.name, text)
    if digest != wanted:
        text = f"{path} is damaged: its content is not what was written"
        return Finding("damaged", path.name, text)
    return None


def _strays(run: RunFolder, plan: Plan, records: dict[str, Record]) -> Iterator[Finding]:
    wanted = {item.file for item in plan.items}
    for path in sorted(run.path.iterdir()):
        if path.name.startswith(".adm-") and path.suffix == ".tmp":
            yield Finding(
                "temporary",
                path.name,
                f"{path} was left behind by a killed process, or is being written",
            )
        elif path.name in records:
            continue
        elif path.name in wanted or _is_extra(path, wanted):
            text = f"{path} is in no manifest: its line was lost, or never written"
            yield Finding("unrecorded", path.name, text)
        elif path.suffix in (".png", ".webp"):
            yield Finding("foreign", path.name, f"{path} is no image of this run")


def _is_extra(path: Path, wanted: set[str]) -> bool:
    """Whether a file is one that is made beside a run's images."""
    if path.name == "grid.png" or path.match("samples_*.npz"):
        return True
    if path.suffix.lower() not in (".gif", ".webp"):
        return False
    from adm_cli.storage.outputs import film_in  # torch and Pillow, which few files need

    film = film_in(path)
    return film is not None and wanted.issuperset(film["images"])


def repair_run(run: RunFolder, findings: Sequence[Finding]) -> None:
    """Takes out of a run what is not right.

    Damaged files, lines and temporaries go; ``run.json`` is written anew from its other copy.
    Whole lines of lost files stay until these are made again: they say how. Pictures that never
    belonged to the run stay too. Raises RunError while another process draws.
    """
    with _alone(run):
        run.restore()
        try:
            for finding in findings:
                if finding.kind in ("damaged", "temporary"):
                    remove(run.path / finding.file)
        except OSError as error:
            raise OutputError(explain_os_error(f"cannot repair {run.path}", error)) from error
        for path in run.manifests():
            manifest = read_manifest(path)
            if manifest.damaged or manifest.torn:
                rewrite_manifest(path, manifest.records)


def forget(run: RunFolder, names: set[str]) -> None:
    """Takes files that are gone for good out of the manifests. Raises as `repair_run`."""
    with _alone(run):
        for path in run.manifests():
            records = read_manifest(path).records
            if any(record["file"] in names for record in records):
                rewrite_manifest(path, [r for r in records if r["file"] not in names])


@contextmanager
def _alone(run: RunFolder) -> Iterator[None]:
    with ExitStack() as stack:
        for path in run.manifests():
            stack.enter_context(run.lock(path.stem))
        stack.enter_context(run.lock("run"))
        yield
