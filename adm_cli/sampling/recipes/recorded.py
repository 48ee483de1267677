"""The weights and pictures that made a run or a picture before, found again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adm_cli.checkpoints.finding import find_weights
from adm_cli.checkpoints.header import ModelFile
from adm_cli.checkpoints.presets import known_weights
from adm_cli.checkpoints.sources import Sources, find_sources, find_upsampler
from adm_cli.errors import RunError, UsageError, trim
from adm_cli.pictures.depth import ValueRange
from adm_cli.sampling.choosing.images import Image
from adm_cli.sampling.choosing.inputs import InputPicture, find_inputs
from adm_cli.sampling.choosing.photos import Photo
from adm_cli.sampling.folder import RunFolder
from adm_cli.sampling.run import Filter, Run, Stage
from adm_cli.sampling.settings import low_res_size

_USUAL_BATCH, _MOST_BATCH = 16, 64  # images computed at once: by default, and to make one again
_MOST_PIXELS = 2**20  # of a batch above the usual one


@dataclass(frozen=True)
class Whereabouts:
    """Where weights and pictures are now, if not where their names say."""

    model: Sequence[str] = ()
    classifier: str | None = None
    upsampler: str | None = None
    inputs: Sequence[Path] = ()
    device: str | None = None
    weak_model: str | None = None


def recorded_weights(
    option: str, given: str | None, recorded: str | None, made: Path
) -> str | None:
    """What was asked for, else what made the picture or run, if that can be found by its name.

    Raises UsageError.
    """
    if given is not None or recorded is None:
        return given
    if recorded not in known_weights():
        raise UsageError(
            f"{made} was made with the weights {trim(recorded, 80)}, which are no preset: "
            f"pass their file with {option}"
        )
    return recorded


def stage_sources(stage: Stage, now: Whereabouts, made: Path, option: str = "--model") -> Sources:
    """The weights of a stage that made a run or a picture; raises UsageError.

    ``option`` is the one by which the user names the model's file.
    """
    given = now.upsampler if option == "--upsampler" else _one_of(now.model, stage.model_sha256)
    name = recorded_weights(option, given, stage.model, made)
    assert name is not None
    if stage.upsampler:
        return find_upsampler(name)
    guided = stage.classifier_sha256 is not None or stage.scale != 0
    guide = stage.classifier if guided else None
    weak = stage.weak_model if stage.weak_model_sha256 is not None else None
    return find_sources(
        name,
        recorded_weights("--classifier", now.classifier, guide, made),
        guided=guided,
        noisy=stage.classifier_on == "xt",
        weak=None if weak is None else recorded_weights("--weak-model", now.weak_model, weak, made),
    )


def remaking_batch(run: Run) -> int:
    """How many images to compute at once to draw as a run was drawn, at most.

    Rounding depends on it; but what a picture says may be more than this machine can.
    """
    most = max(_USUAL_BATCH, min(_MOST_BATCH, _MOST_PIXELS // (run.size[0] * run.size[1])))
    return min(run.batch_size, most)


def _one_of(names: Sequence[str], digest: str) -> str | None:
    """Of several models that were given, the one with this hash."""
    if len(names) > 1:
        names = [n for n in names if find_weights(n).content_sha256 == digest] or names
    return names[0] if names else None


def run_sources(run: Run, folder: RunFolder, now: Whereabouts) -> list[Sources]:
    """The weights of each stage that has any; raises RunError where they are not the run's."""
    found = []
    for i, stage in enumerate(run.stages):
        if isinstance(stage, Filter):
            continue
        option = "--upsampler" if i else "--model"
        sources = stage_sources(stage, now, folder.path, option)
        what = "upsampler" if stage.upsampler else "model"
        _check_same(folder, what, option, sources.model, stage.model_sha256)
        if not stage.upsampler:
            guide = stage.classifier_sha256
            _check_same(folder, "classifier", "--classifier", sources.classifier, guide)
            weak = stage.weak_model_sha256
            _check_same(folder, "weak model", "--weak-model", sources.weak, weak)
        found.append(sources)
    return found


def _check_same(
    folder: RunFolder, what: str, option: str, file: ModelFile | None, digest: str | None
) -> None:
    if (None if file is None else file.content_sha256) != digest:
        raise RunError(f"{folder.path} was drawn with another {what}: pass its file with {option}")


@dataclass(frozen=True)
class EnlargedPictures:
    """The pictures that images were made from, by the image's file, and the images without one."""

    found: dict[str, InputPicture]
    without: dict[str, str]  # and where that was
    size: tuple[int, int]


def recorded_pictures(
    images: Sequence[Image], folder: RunFolder, sources: Sources, now: Whereabouts
) -> EnlargedPictures:
    """What images of a run were enlarged from, by name and hash."""
    size = low_res_size(sources)
    wanted = [(str(image.input), str(image.small_sha256)) for image in images]
    made = EnlargedPictures({}, {}, size)
    within = folder.read().value_range
    values = None if within is None else ValueRange(*within, given=True)
    pictures = find_inputs(wanted, folder.path, now.inputs, size, values)
    for image, (where, _), picture in zip(images, wanted, pictures, strict=True):
        if picture is None:
            made.without[image.file] = where
        else:
            made.found[image.file] = picture
    return made


def recorded_photos(
    images: Sequence[Image], near: Path, now: Whereabouts, within: tuple[float, float] | None
) -> tuple[dict[str, Photo], dict[str, str]]:
    """What images are edits of and their masks, by name and hash; and the images without one.

    Of these, where it was. Names are looked for as by `inputs.find_inputs`, ``within`` is the
    range of values of 16-bit pictures.
    """
    values = None if within is None else ValueRange(*within, given=True)
    wanted = [(str(image.input), str(image.photo_sha256)) for image in images]
    wanted += [(str(image.mask), str(image.mask_sha256)) for image in images if image.mask_sha256]
    opened = find_inputs(wanted, near, now.inputs, None, values)
    pictures = dict(zip(wanted, opened, strict=True))
    found: dict[str, Photo] = {}
    without: dict[str, str] = {}
    for image in images:
        picture = pictures[str(image.input), str(image.photo_sha256)]
        mask = pictures.get((str(image.mask), str(image.mask_sha256)))
        if picture is None:
            without[image.file] = str(image.input)
        elif mask is None and image.mask_sha256 is not None:
            without[image.file] = str(image.mask)
        else:
            found[image.file] = Photo(picture, mask)
    return found, without
