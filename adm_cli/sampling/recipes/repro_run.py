"""The images of a run drawn again, as many as there are, and compared with those in its folder."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from adm_cli.errors import AdmError, RunError, UsageError
from adm_cli.files.differences import differences
from adm_cli.pictures.images import open_picture
from adm_cli.sampling.drawing.draw import draw, image_tasks, take_threads
from adm_cli.sampling.drawing.easel import Easel
from adm_cli.sampling.drawing.models import Models
from adm_cli.sampling.drawing.writer import DrawnImage
from adm_cli.sampling.events import BatchDone, Ended, Event, Started
from adm_cli.sampling.folder import RunFolder, Shard
from adm_cli.sampling.recipes.recorded import Whereabouts
from adm_cli.sampling.run import Run
from adm_cli.sampling.settings import current_versions
from adm_cli.sampling.verifying.repair import find_models

ROUNDING = 1  # of 255: how far other kernels, threads and batch sizes move a value


@dataclass
class RunReproduction:
    """How far the images of a run and their second making are apart."""

    images: int  # drawn again
    images_identical: int = 0  # every value is the same
    images_rounded: int = 0  # no value is apart by more than 1 of 255
    images_different: int = 0  # one is, or the file is not that of a picture of this size
    largest_difference: int = 0  # of 255
    first_different: str | None = None  # its file
    inputs_that_differ: list[str] = field(default_factory=list)  # in words

    @property
    def identical(self) -> bool:
        """Whether every value of every image is the same."""
        return self.images_identical == self.images

    def facts(self) -> dict[str, Any]:
        """As ``--json`` says it."""
        return {"identical": self.identical, **asdict(self)}

    def compare(self, folder: Path, done: DrawnImage) -> None:
        """Counts an image that was drawn again."""
        gap = _gap(folder / done.image.file, done)
        self.largest_difference = max(self.largest_difference, gap or 0)
        if gap == 0:
            self.images_identical += 1
        elif gap is not None and gap <= ROUNDING:
            self.images_rounded += 1
        else:
            self.images_different += 1
            self.first_different = self.first_different or done.image.file


def _gap(path: Path, done: DrawnImage) -> int | None:
    """The largest difference of a value, of 255; None where they cannot be compared."""
    try:
        pixels = open_picture(path)[0]
    except AdmError:
        return None
    if done.pixels is None or done.pixels.shape != pixels.shape:
        return None
    return int(np.abs(done.pixels.astype(int) - pixels.astype(int)).max())


def repro_run(
    folder: RunFolder, now: Whereabouts, num: int | None
) -> Generator[Event, None, RunReproduction]:
    """Draws the images that are there again, ``num`` of them, spread over the run; writes nothing.

    Raises AdmError where none is there, or its weights or what it was made of are not found.
    """
    run = folder.read()
    names = [record["file"] for record in folder.kept(run.images)]
    if not names:
        raise RunError(f"{folder.path} has no image yet: the command that began the run goes on")
    if num is not None and not 1 <= num <= len(names):
        raise UsageError(f"--num {num}: expected 1 to {len(names):,}, the images of {folder.path}")
    count = len(names) if num is None else num
    names = [names[i * len(names) // count] for i in range(count)]
    models, without = find_models(folder, run, names, now)
    if without:
        name, where = next(iter(without.items()))
        raise UsageError(
            f"{folder.path / name} was made of {where}, which is gone or has changed: pass what "
            f"holds that picture with --input"
        )
    found = RunReproduction(count, inputs_that_differ=_differing(run, models))
    yield from models.prepare(run, keep_base=False)
    run = replace(run, device=models.device.type, versions=current_versions(run.stages))
    yield from take_threads(folder, run)
    with tempfile.TemporaryDirectory(prefix="adm-") as scratch:  # small pictures, if they are apart
        easel = Easel(run, RunFolder(Path(scratch)), models, Shard(), draw)
        places = np.array([run.images.find(name) for name in names])
        yield from easel.begin(image_tasks(run, folder, places))
        yield Started(None, count, 0, easel.steps, "drawing again")
        for tasks in image_tasks(run, folder, places):
            for event in easel.paint(tasks):
                if not isinstance(event, list):
                    yield event
                    continue
                for done in event:
                    found.compare(folder.path, done)
                yield BatchDone(len(event))
        yield Ended(None, count, 0, count, 0.0)
    return found


def _differing(run: Run, models: Models) -> list[str]:
    """Versions and device that are others than when the run was begun."""
    then = {**run.versions, "device": run.device}
    now = {**current_versions(run.stages), "device": models.device.type}
    return differences(then, now)
