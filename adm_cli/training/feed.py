"""Batches of pictures: which picture, crop and flip at which step is a function of the seed.

N pictures, B the global batch, H W the model's image size.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from adm_cli.config import LEAST_CROP
from adm_cli.devices import free_bytes
from adm_cli.errors import AdmError, how_many
from adm_cli.pictures.datasets import ImageSet
from adm_cli.pictures.decode import (
    center_crop,
    cut,
    draw_short_side,
    random_crop,
    resize_for_crop,
    shrink_for_crops,
)
from adm_cli.pictures.images import Pixels
from adm_cli.pictures.unreadable import name_bad, refuse_any
from adm_cli.training.randomness import generator, uniforms

_MOST_CACHE = 4 * 2**30  # bytes of pixels kept in memory, and at most a third of what is free
_MOST_RESIZED = 2**30  # bytes of resized pictures kept for random crops
_PROBE = 32  # pictures decoded to guess how much the rest need
_MOST_TRIES = 50  # pictures passed over before a streamed batch gives up

OnDecoded = Callable[[int, int], None]  # pictures done, pictures in all
Decode = Callable[[ImageSet, int, tuple[int, int]], Pixels]  # of a set, an index and a size


@dataclass(frozen=True)
class FeedOptions:
    """How pictures become batches. ``share`` is (rank, processes)."""

    size: tuple[int, int]
    batch_size: int
    seed: int
    random_crop: bool = False
    least_crop: float = LEAST_CROP
    flip: bool = True
    share: tuple[int, int] = (0, 1)
    workers: int = 2  # processes that decode a set too large for memory; threads otherwise
    skip_bad: bool = False  # pass over unreadable pictures instead of refusing the set
    cache: bool | None = None  # None: if it fits


class Batch(NamedTuple):
    """This process's share of a step: uint8 [b, H, W, 3], int64 [b] (-1: none), bad pictures."""

    images: Tensor
    labels: Tensor
    bad: list[str]


class Draw(NamedTuple):
    """A picture of a batch: its index in the set, three numbers for its crop, and its flip."""

    picture: int
    crop: tuple[float, float, float]
    flip: bool


class Plan:
    """Which pictures a step takes: every epoch in an order of its own, batches across epochs.

    A set smaller than a batch repeats within it.
    """

    def __init__(self, count: int, options: FeedOptions) -> None:
        self.count, self.options = count, options
        self._orders: dict[int, Tensor] = {}

    def draws(self, step: int) -> list[Draw]:
        """This process's pictures of a step, in order."""
        indices, crops, flips = self.arrays(step)
        return [
            Draw(index, (crop[0], crop[1], crop[2]), flip)
            for index, crop, flip in zip(
                indices.tolist(), crops.tolist(), flips.tolist(), strict=True
            )
        ]

    def arrays(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Indices int64 [b], crop numbers [b, 3], flips bool [b]."""
        o = self.options
        places = range(step * o.batch_size, (step + 1) * o.batch_size)
        epochs = range(places.start // self.count, (places.stop - 1) // self.count + 1)
        orders = torch.cat([self._order(epoch) for epoch in epochs])
        first = places.start - epochs.start * self.count
        indices = orders[first : first + o.batch_size]
        u = uniforms(o.seed, step, "picture", o.batch_size, 4)
        mine = share_of(o.batch_size, o.share)
        flips = (u[:, 3] < 0.5) if o.flip else torch.zeros(o.batch_size, dtype=torch.bool)
        return indices[mine], u[mine, :3], flips[mine]

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            if len(self._orders) > self.options.batch_size // self.count + 2:
                self._orders.clear()
            order = torch.randperm(
                self.count, generator=generator(self.options.seed, "order", epoch)
            )
            self._orders[epoch] = order
        return self._orders[epoch]


def share_of(batch_size: int, share: tuple[int, int]) -> slice:
    """The consecutive part of a global batch that process ``rank`` of ``processes`` takes."""
    rank, processes = share
    each = batch_size // processes
    return slice(rank * each, (rank + 1) * each)


class CachedFeed:
    """A set that is decoded once and kept as uint8; batches are then a matter of indexing."""

    def __init__(
        self, images: ImageSet, options: FeedOptions, on_decoded: OnDecoded | None = None
    ) -> None:
        self.options = options
        pixels, good, self.bad = decode_all(images, options, _decoder(options), on_decoded)
        self.images = images.part(good)
        self.labels = torch.from_numpy(self.images.labels())
        self._ragged: list[Pixels] | None = None
        self._resized: dict[tuple[int, int], Pixels] = {}  # by picture and shorter side
        self._kept = 0
        self._pixels = torch.zeros(0, dtype=torch.uint8)
        if options.random_crop:
            self._ragged = pixels
        else:
            self._pixels = torch.from_numpy(np.stack(pixels))  # [N, H, W, 3]
        self.plan = Plan(len(good), options)

    def batch(self, step: int) -> Batch:
        if self._ragged is not None:
            draws = self.plan.draws(step)
            crops = [self._crop(d) for d in draws]
            indices = torch.tensor([d.picture for d in draws])
            return Batch(torch.from_numpy(np.stack(crops)), self.labels[indices], [])
        indices, _, flips = self.plan.arrays(step)
        images = self._pixels[indices]
        images[flips] = images[flips].flip(2)
        return Batch(images, self.labels[indices], [])

    def _crop(self, draw: Draw) -> Pixels:
        """A random crop; resizing is most of its work, so the results are kept while they fit."""
        assert self._ragged is not None
        size, pick = self.options.size, _whole_numbers(draw)
        short = draw_short_side(size, pick, self.options.least_crop)
        resized = self._resized.get((draw.picture, short))
        if resized is None:
            source = Image.fromarray(self._ragged[draw.picture])
            resized = resize_for_crop(source, size, short)
            self._kept += resized.nbytes
            if self._kept < _MOST_RESIZED:
                self._resized[draw.picture, short] = resized
        pixels = cut(resized, size, pick)
        return pixels[:, ::-1] if draw.flip else pixels

    def batches(self, start: int) -> Iterator[Batch]:
        return map(self.batch, count(start))


class StreamedFeed:
    """A set too large for memory: worker processes decode a few batches ahead."""

    bad: tuple[str, ...] = ()

    def __init__(self, images: ImageSet, options: FeedOptions) -> None:
        self.images, self.options = images, options
        self.labels = torch.from_numpy(images.labels())
        self.plan = Plan(len(images), options)

    def batches(self, start: int) -> Iterator[Batch]:
        from torch.utils.data import DataLoader

        workers = self.options.workers
        with warnings.catch_warnings():  # of more workers than cores, which wait for the disk
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            loader: DataLoader[Batch] = DataLoader(
                _Decoder(self.images, self.labels, self.options),  # type: ignore[arg-type]
                batch_sampler=_Steps(self.plan, start),
                collate_fn=_collate,
                num_workers=workers,
                prefetch_factor=4 if workers else None,
                multiprocessing_context="fork" if workers and os.name == "posix" else None,
            )
            batches = iter(loader)
        for batch in batches:
            if not batch.images.numel():
                raise AdmError(f"{batch.bad[-1]}: remove the picture, or pass --skip-bad")
            yield batch


Feed = CachedFeed | StreamedFeed


def make_feed(images: ImageSet, options: FeedOptions, on_decoded: OnDecoded | None = None) -> Feed:
    """A cached feed if the set fits into memory, else a streamed one.

    Raises AdmError for unreadable pictures unless they are to be skipped, or if none is left.
    """
    if not len(images):
        raise AdmError("no pictures to train on")
    fits = options.cache
    if fits is None:
        limit = min(_MOST_CACHE, free_bytes(torch.device("cpu")) // 3)
        fits = _estimate_bytes(images, options) <= limit
    return CachedFeed(images, options, on_decoded) if fits else StreamedFeed(images, options)


def decode_all(
    images: ImageSet,
    options: FeedOptions,
    decode: Decode,
    on_decoded: OnDecoded | None = None,
) -> tuple[list[Pixels], list[int], tuple[str, ...]]:
    """Pixels of all readable pictures, their indices, and what is wrong with the others."""
    pixels, good, bad = [], [], []

    def one(i: int) -> Pixels | AdmError:
        try:
            return decode(images, i, options.size)
        except AdmError as error:
            return error

    with ThreadPoolExecutor(max(1, os.cpu_count() or 1)) as pool:
        for i, result in enumerate(pool.map(one, range(len(images)))):
            if isinstance(result, AdmError):
                bad.append(str(result))
            else:
                pixels.append(result)
                good.append(i)
            if on_decoded is not None:
                on_decoded(i + 1, len(images))
    if not options.skip_bad:
        refuse_any(bad, len(images), skippable=True)
    if not good:
        raise AdmError(f"none of {how_many(len(images), 'picture')} can be read: {name_bad(bad)}")
    return pixels, good, tuple(bad)


def decode_validation(
    images: ImageSet, options: FeedOptions, most: int
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """At most ``most`` pictures, spread over the set: uint8 [N, H, W, 3], labels [N], the bad."""
    if len(images) > most:
        order = torch.randperm(len(images), generator=generator(0, "validation")).tolist()
        images = images.part(sorted(order[:most]))
    pixels, good, bad = decode_all(images, options, _decode_whole)
    labels = torch.from_numpy(images.part(good).labels())
    return torch.from_numpy(np.stack(pixels)), labels, bad


def _estimate_bytes(images: ImageSet, options: FeedOptions) -> float:
    if not options.random_crop:
        return len(images) * options.size[0] * options.size[1] * 3.0
    sizes = []
    for i in range(0, len(images), max(1, len(images) // _PROBE)):
        try:
            sizes.append(_decoder(options)(images, i, options.size).size)
        except AdmError:
            continue  # reported when it is its turn
    return len(images) * (sum(sizes) / len(sizes) if sizes else 0.0)


def _decode_whole(images: ImageSet, index: int, size: tuple[int, int]) -> Pixels:
    return center_crop(images.decode(index), size)


def _decode_for_crops(images: ImageSet, index: int, size: tuple[int, int], least: float) -> Pixels:
    return np.asarray(shrink_for_crops(images.decode(index), size, least))


def _decoder(options: FeedOptions) -> Decode:
    """How far a picture is prepared before its crop and flip are known."""
    if not options.random_crop:
        return _decode_whole
    return partial(_decode_for_crops, least=options.least_crop)


def _finish(source: Pixels, draw: Draw, options: FeedOptions) -> Pixels:
    """Crops and flips a picture that `_decoder` gave."""
    if options.random_crop:
        pick = _whole_numbers(draw)
        source = random_crop(Image.fromarray(source), options.size, pick, options.least_crop)
    return source[:, ::-1] if draw.flip else source


def _whole_numbers(draw: Draw) -> Callable[[int], int]:
    """The crop's numbers, one after the other, as whole numbers below n."""
    numbers = iter(draw.crop)
    return lambda n: min(int(next(numbers) * n), n - 1)


class _Steps:
    """The draws of one step after another, for a DataLoader."""

    def __init__(self, plan: Plan, start: int) -> None:
        self.plan, self.start = plan, start

    def __iter__(self) -> Iterator[list[Draw]]:
        return map(self.plan.draws, count(self.start))


class _Decoder:
    """A DataLoader's data set: an item is a picture drawn."""

    def __init__(self, images: ImageSet, labels: Tensor, options: FeedOptions) -> None:
        self.images, self.labels, self.options = images, labels, options

    def __getitem__(self, draw: Draw) -> tuple[Pixels, int, list[str]]:
        bad: list[str] = []
        decode = _decoder(self.options)
        for index in range(draw.picture, draw.picture + _MOST_TRIES):
            index %= len(self.images)
            try:
                source = decode(self.images, index, self.options.size)
            except AdmError as error:
                bad.append(str(error))
                if not self.options.skip_bad:
                    break
                continue
            return _finish(source, draw, self.options), int(self.labels[index]), bad
        return np.zeros((0, 0, 3), dtype=np.uint8), -1, bad

    def __len__(self) -> int:
        return len(self.images)


def _collate(items: list[tuple[Pixels, int, list[str]]]) -> Batch:
    bad = [text for _, _, texts in items for text in texts]
    if any(not pixels.size for pixels, _, _ in items):
        return Batch(torch.zeros(0, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64), bad)
    images = np.stack([pixels for pixels, _, _ in items])
    return Batch(torch.from_numpy(images), torch.tensor([label for _, label, _ in items]), bad)
