"""Whether a run's folder is as it was written: every file, every line, and ``run.json`` itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from adm_cli.errors import RunError, how_many
from adm_cli.events import Count
from adm_cli.files.disk import explain_os_error, explained, file_digest
from adm_cli.files.links import is_link, remove
from adm_cli.files.manifests import damaged_lines, rewrite_manifest, whole_records
from adm_cli.files.own import is_own
from adm_cli.files.sealed import is_whole
from adm_cli.sampling.choosing.images import Images
from adm_cli.sampling.drawing.film import film_in
from adm_cli.sampling.events import Finding
from adm_cli.sampling.folder import RunFolder
from adm_cli.sampling.outputs import PAGE, SEQUENCE
from adm_cli.sampling.run import read_run

LOST = ("damaged", "missing", "unrecorded")  # to be made again
_MOST_LINES = 100  # of a manifest that are told one by one


def check_run(run: RunFolder) -> Iterator[Finding | Count]:
    """Everything that is wrong with a run, in words; reads every byte of it.

    Raises RunError if nothing can be said: no run, or neither copy of its settings can be read.
    """
    if not run.file.exists() and not run.copy.exists():
        run.read()  # raises
    yield from _books(run)
    images, records = run.read().images, run.records()
    for i, name in enumerate(records):
        yield Count("files", i, len(records))
        record = records[name]
        if finding := check_digest(run.path / name, record["sha256"], record["bytes"]):
            yield finding
    names = sorted(os.listdir(run.path))
    strays = list(_strays(run, images, names))
    yield from strays
    strange = {finding.file for finding in strays if finding.kind == "foreign"}
    begun = {name for name in (*names, *records) if images.find(name) is not None} - strange
    if len(begun) < len(images):
        first = next(image.file for image in images if image.file not in begun)
        missing = len(images) - len(begun)
        were = "was" if missing == 1 else "were"
        text = f"{missing} of {len(images)} images {were} not drawn yet"
        yield Finding("unfinished", first, text)


def _books(run: RunFolder) -> Iterator[Finding]:
    good = 0
    for path in (run.file, run.copy):
        try:
            read_run(path)
            if is_whole(path):
                good += 1
            else:
                text = f"{path}: its line ends or layout are not those written"
                yield Finding("run", path.name, text)
        except RunError as error:
            yield Finding("run", path.name, str(error))
    if good == 2 and not run.whole():
        yield Finding("run", run.copy.name, f"{run.copy} differs from {run.file}")
    for path in run.manifests():
        if is_link(path):
            yield Finding(
                "run", path.name, f"{path} is a link, to which nothing is added: remove it"
            )
        more = 0
        for count, number in enumerate(damaged_lines(path)):
            if number is None:
                yield Finding("line", path.name, f"{path}: the last line is incomplete")
            elif count < _MOST_LINES:
                yield Finding("line", path.name, f"{path}, line {number} is damaged")
            else:
                more += 1
        if more:
            yield Finding(
                "line",
                path.name,
                f"{path}: {how_many(more, 'more line is', 'more lines are')} damaged",
            )


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


def _strays(run: RunFolder, images: Images, names: Sequence[str]) -> Iterator[Finding]:
    records = run.records()
    for name in names:
        path = run.path / name
        if name.startswith(".adm-") and path.suffix == ".tmp":
            text = f"{path} was left behind by a killed process, or is being written"
            yield Finding("temporary", name, text)
        elif name in records:
            continue
        elif (images.find(name) is not None or _is_extra(path, images)) and is_own(path):
            text = f"{path} is in no manifest: its line was lost, or never written"
            yield Finding("unrecorded", name, text)
        elif path.suffix in (".png", ".webp") or _is_extra(path, images):
            yield Finding("foreign", name, f"{path} is none of this run's")


def _is_extra(path: Path, images: Images) -> bool:
    """Whether a file is one that is made beside a run's images."""
    if path.name in ("grid.png", PAGE, SEQUENCE) or path.match("samples_*.npz"):
        return True
    if path.suffix.lower() not in (".gif", ".webp"):
        return False
    film = film_in(path)
    return film is not None and all(images.find(name) is not None for name in film["images"])


def repair_run(run: RunFolder, findings: Sequence[Finding]) -> None:
    """Takes out of a run what is not right.

    Damaged files, lines and temporaries go; ``run.json`` is written anew from its other copy.
    Whole lines of lost files stay until these are made again: they say how. Pictures that never
    belonged to the run stay too. Raises RunError while another process draws.
    """
    with _alone(run):
        run.restore()
        with explained(f"cannot repair {run.path}"):
            for finding in findings:
                if finding.kind in ("damaged", "temporary"):
                    remove(run.path / finding.file)
        for path in run.manifests():
            if next(damaged_lines(path), 0) != 0:
                rewrite_manifest(path, whole_records(path))


def forget(run: RunFolder, names: set[str]) -> None:
    """Takes files that are gone for good out of the manifests. Raises as `repair_run`."""
    with _alone(run):
        for path in run.manifests():
            if any(record["file"] in names for record in whole_records(path)):
                kept = (r for r in whole_records(path) if r["file"] not in names)
                rewrite_manifest(path, kept)


@contextmanager
def _alone(run: RunFolder) -> Iterator[None]:
    with ExitStack() as stack:
        for path in run.manifests():
            stack.enter_context(run.lock(path.stem))
        stack.enter_context(run.lock("run"))
        yield
