"""Stages with their weights in memory: images through one of them, or through both of a stack.

What is painted comes as events and, batch by batch, as lists of `DrawnImage`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, Union

import numpy as np
import torch
from torch import Tensor

from adm_cli.diffusion.steps import SampleStep
from adm_cli.events import Note
from adm_cli.pictures.enlarging import enlarge_picture
from adm_cli.pictures.images import Pixels, to_model_range, to_uint8
from adm_cli.sampling.choosing.images import Image
from adm_cli.sampling.choosing.inputs import InputPicture, InputPictures, pixels_sha256
from adm_cli.sampling.choosing.photos import BatchPhotos, Photos, PhotosAt
from adm_cli.sampling.defaults import choose_sampler, choose_schedule
from adm_cli.sampling.drawing.batch import ImageBatch
from adm_cli.sampling.drawing.guiding import GuidanceKind, guidance_kind
from adm_cli.sampling.drawing.pipeline import Pipeline, draw_batches
from adm_cli.sampling.drawing.writer import DrawnImage
from adm_cli.sampling.editing import editing
from adm_cli.sampling.events import Step
from adm_cli.sampling.recipes.recipe import (
    enlarged_recipe,
    image_recipe,
    plain_recipe,
    ranged,
    stage_config,
    stage_recipe,
    whole_recipe,
)
from adm_cli.sampling.run import Filter, Run, Stage

DrawnBatch = list[DrawnImage]  # images that were computed at once
Painted = Union[Step, Note, DrawnBatch]


class ImageTask(NamedTuple):
    """An image to paint, and how many are to be computed at once with it, as its line says."""

    image: Image
    batch_sizes: Mapping[str, int] = {}


class Painter(Protocol):
    """A stage that is ready."""

    steps: int  # of a batch

    def paint(
        self, images: Sequence[Image], size: int, small: InputPictures | None
    ) -> Iterator[Painted]:
        """The images, ``size`` at once, made of the pictures ``small`` if the stage enlarges."""
        ...

    def preview(self, x: Tensor) -> Tensor:
        """What the stage would make, roughly, of ``x`` [N, 3, H, W] in [-1, 1], for a film."""
        ...


class NetworkPainter:
    """A `Stage` and its weights."""

    def __init__(
        self, run: Run, stage: Stage, pipeline: Pipeline, photos: Photos = MappingProxyType({})
    ) -> None:
        """``photos`` are the pictures that the images are edits of, where they are."""
        self.run, self.stage, self.pipeline = run, stage, pipeline
        self.photos = PhotosAt(photos, stage.size)
        self.schedule = choose_schedule(pipeline.diffusion, stage.steps, stage.spacing)
        self.sampler = choose_sampler(stage.sampler, stage.eta, stage, len(self.schedule))
        self.steps = stage.edited_steps(len(self.schedule))
        self.most = run.batch_size  # smaller, once memory ran out
        self._common = stage_recipe(run, stage)

    def preview(self, x: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(x, self.stage.size)

    def paint(
        self, images: Sequence[Image], size: int, small: InputPictures | None
    ) -> Iterator[Painted]:
        if small is None:  # guided and unguided images share no batch: one kind after the other
            images = sorted(images, key=partial(_kind, self.stage))
        config, done = stage_config(self.stage, images, min(size, self.most)), 0
        edits = None
        if any(self._edited(image) for image in images):
            edits = BatchPhotos(self.photos, images, editing(self.stage))
        ways = [image.toward for image in images]
        toward = [way for way in ways if way is not None] or None  # all have one, or none
        for found in draw_batches(
            self.pipeline, config, self.schedule, self.sampler, small, edits, toward
        ):
            if isinstance(found, SampleStep):
                yield Step(found.i, len(found.x), partial(_itself, found.x))
            elif isinstance(found, str):
                yield Note(found)
            else:
                if found.batch_size < min(size, self.most):  # memory ran out
                    self.most = found.batch_size
                yield [
                    self._finished(images[done + i], found, i, small, done + i)
                    for i in range(len(found.seeds))
                ]
                done += len(found.seeds)

    def _finished(
        self, image: Image, batch: ImageBatch, i: int, small: InputPictures | None, place: int
    ) -> DrawnImage:
        classes = self.pipeline.sources.classes
        name = image.class_name(classes)
        seen = image._replace(scale=None, cfg=None) if self.stage.upsampler else image
        if not self._edited(image):
            seen = seen._replace(photo_sha256=None)
        recipe = image_recipe(self._common, seen, name, batch.batch_size)
        if small is None and image.photo_sha256 is not None:
            recipe |= ranged(self.run.value_range)
        if small is not None:
            recipe = enlarged_recipe(
                recipe,
                small_sha256=small.items[place].pixels_sha256,
                base=whole_recipe(small.items[place].recipe),
                resized=small.resized(place),
                value_range=self.run.value_range,
            )
        return DrawnImage(image, batch.picture(i), recipe)

    def _edited(self, image: Image) -> bool:
        """Whether this stage begins with the image's picture, or keeps a part of it."""
        return self.stage.strength is not None or image.mask_sha256 is not None


def _kind(stage: Stage, image: Image) -> GuidanceKind:
    scale = stage.scale if image.scale is None else image.scale
    cfg = stage.cfg if image.cfg is None else image.cfg
    return guidance_kind(scale, cfg, len(image.class_ids))


class FilterPainter:
    """A `Filter`: there are no weights."""

    def __init__(
        self, run: Run, stage: Filter, photos: Photos = MappingProxyType({}), *, alone: bool
    ) -> None:
        """``alone``: the small pictures were there before, and a batch is a step of its own."""
        self.run, self.stage, self.alone = run, stage, alone
        self.photos = PhotosAt(photos, stage.size)
        self.steps = int(alone)

    def preview(self, x: Tensor) -> Tensor:
        small = to_uint8(x).cpu().numpy()
        large = np.stack([enlarge_picture(image, self.stage.model) for image in small])
        # [N, 3, H, W] that becomes these images again in `to_uint8`, which truncates: half more
        return to_model_range(torch.from_numpy(large)) + 0.5 / 127.5

    def paint(
        self, images: Sequence[Image], size: int, small: InputPictures | None
    ) -> Iterator[Painted]:
        assert small is not None
        for first in range(0, len(images), size):
            batch = [
                self._enlarged(images[i], small[i], small.items[i].recipe)
                for i in range(first, min(first + size, len(images)))
            ]
            if self.alone:
                yield Step(0, len(batch), partial(_film_of, batch))
            yield batch

    def _enlarged(self, image: Image, small: Pixels, base: Mapping[str, Any] | None) -> DrawnImage:
        recipe = plain_recipe(
            self.stage,
            self.run.versions,
            small_sha256=pixels_sha256(small),
            base=base,
            value_range=self.run.value_range,
            kept=image.origin() if image.mask_sha256 is not None else {},
        )
        large = enlarge_picture(small, self.stage.model)
        return DrawnImage(image, self.photos.with_kept(image, large), recipe)


def _itself(x: Tensor) -> Tensor:
    return x


def _film_of(batch: DrawnBatch) -> Tensor:
    pixels = np.stack([done.pixels for done in batch if done.pixels is not None])
    return to_model_range(torch.from_numpy(pixels)) + 0.5 / 127.5


def paint(painters: Sequence[Painter], run: Run, tasks: Sequence[ImageTask]) -> Iterator[Painted]:
    """Images through all stages, those computed at the same batch sizes together.

    The larger sizes come first. An image that overflowed in one stage has no pixels.
    """
    names = _names(len(painters))
    for sizes, images in _by_sizes(tasks, names, run.batch_size):
        for found in _through(painters, images, sizes, None):
            yield _with_sizes(run, found) if isinstance(found, list) else found


def paint_enlarged(
    painter: Painter, run: Run, tasks: Sequence[ImageTask], pictures: Callable[[str], InputPicture],
    resize: tuple[int, int] | None = None,
) -> Iterator[Painted]:  # fmt: skip
    """Images that are made of ``pictures``, one for each file's name, as `paint`."""
    for sizes, images in _by_sizes(tasks, ("batch_size",), run.batch_size):
        small = InputPictures([pictures(image.file) for image in images], resize)
        for found in painter.paint(images, sizes[0], small):
            yield _with_sizes(run, found) if isinstance(found, list) else found


def batches(run: Run, tasks: Sequence[ImageTask]) -> Iterator[list[Image]]:
    """The images that `paint` computes at once, batch by batch, where memory does not run out."""
    kind = partial(_kind, run.first)
    for sizes, images in _by_sizes(tasks, _names(len(run.stages)), run.batch_size):
        for _, alike in groupby(sorted(images, key=kind), kind):
            row = list(alike)
            yield from (row[i : i + sizes[0]] for i in range(0, len(row), sizes[0]))


def _through(
    painters: Sequence[Painter],
    images: Sequence[Image],
    sizes: Sequence[int],
    small: InputPictures | None,
) -> Iterator[Painted]:
    first, *rest = painters
    for found in first.paint(images, sizes[0], small):
        if not rest or isinstance(found, Note):
            yield found
        elif isinstance(found, Step):
            later = sum(painter.steps for painter in rest)
            yield replace(found, left=found.left + later, view=partial(_previewed, found, rest))
        else:
            yield from _batch_through(rest, found, sizes[1:])


def _previewed(step: Step, rest: Sequence[Painter]) -> Tensor:
    x = step.view()
    for painter in rest:
        x = painter.preview(x)
    return x


def _batch_through(
    painters: Sequence[Painter], batch: DrawnBatch, sizes: Sequence[int]
) -> Iterator[Painted]:
    """A batch of small pictures enlarged, and told as one, so that it is written as one."""
    large = [done for done in batch if done.pixels is None]
    if good := [done for done in batch if done.pixels is not None]:
        small = InputPictures([_in_memory(done) for done in good], None)
        for found in _through(painters, [done.image for done in good], sizes, small):
            if isinstance(found, list):
                large += found
            else:
                yield found
    yield large


def _in_memory(done: DrawnImage) -> InputPicture:
    pixels = done.pixels
    assert pixels is not None
    return InputPicture(
        done.image.file, done.image.file, pixels.shape[:2], pixels_sha256(pixels), done.recipe,
        done.image.class_id, done.image.seed, lambda: pixels,
    )  # fmt: skip


def _names(stages: int) -> tuple[str, ...]:
    """Of a line: the batch size of each stage."""
    return ("batch_size",) if stages == 1 else ("base_batch_size", "batch_size")


def _by_sizes(
    tasks: Sequence[ImageTask], names: Sequence[str], most: int
) -> Iterator[tuple[tuple[int, ...], list[Image]]]:
    groups: dict[tuple[int, ...], list[Image]] = {}
    for task in tasks:
        sizes = tuple(min(most, task.batch_sizes.get(name, most)) for name in names)
        groups.setdefault(sizes, []).append(task.image)
    for sizes in sorted(groups, reverse=True):
        yield sizes, groups[sizes]


def _with_sizes(run: Run, batch: DrawnBatch) -> DrawnBatch:
    """For their lines: how many were computed at once, where that is not the run's setting."""
    return [replace(done, facts=line_sizes(run, done.recipe)) for done in batch]


def line_sizes(run: Run, recipe: Mapping[str, Any] | None) -> dict[str, int]:
    """The batch sizes in a picture's recipe that are not its run's."""
    if recipe is None:
        return {}
    base = (recipe.get("base") or {}) if len(run.stages) > 1 else {}
    sizes = {"batch_size": recipe.get("batch_size"), "base_batch_size": base.get("batch_size")}
    return {
        name: size
        for name, size in sizes.items()
        if type(size) is int and size > 0 and size != run.batch_size
    }
