"""Finished images to measure: folders, archives, the original's npz. As they are, of one size.

Nothing is held in memory but the batches under way, which are read ahead of whoever takes them.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image

from adm_cli.errors import AdmError, UsageError, size_words
from adm_cli.files.manifests import Manifests
from adm_cli.pictures.datasets import ImageSet, open_images
from adm_cli.pictures.decode import center_crop
from adm_cli.pictures.images import Pixels
from adm_cli.pictures.npz import ENDINGS, Array, Npz, image_array
from adm_cli.pictures.ranges import with_value_range
from adm_cli.pictures.references import check_statistics
from adm_cli.pictures.unreadable import refuse_unreadable

_MOST_BATCH_BYTES = 2**28
_MOST_DIM = 2048  # of stored statistics, which are Inception's
_STATISTICS = ("mu", "sigma", "mu_s", "sigma_s")  # the original's names


class PixelSet(Protocol):
    """Images of one size (height, width), read as often as wanted, always in the same order."""

    @property
    def path(self) -> Path: ...

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def notes(self) -> tuple[str, ...]: ...  # lines for a person

    def __len__(self) -> int: ...

    def batches(self, batch_size: int) -> Iterator[Pixels]: ...  # uint8 [n, H, W, 3]


def open_pixels(
    path: Path, resize: tuple[int, int] | None = None, values: str | None = None
) -> PixelSet:
    """A folder, zip, uncompressed tar, npz with ``arr_0`` uint8 [N, H, W, 3], a bare .npy
    of that, or a run's folder.

    ``resize`` crops and scales every picture as training does. Without it, pictures of different
    sizes are refused. ``values`` is ``--value-range``. Raises UsageError where there is nothing to
    read, AdmError for damage.
    """
    if path.suffix.lower() in ENDINGS:
        if statistics_only(path):
            raise UsageError(f"{path} holds statistics and no images: adm evaluate --ref takes it")
        return NpzPixels(path, resize)
    images = open_images([path], labels="none")
    if os.path.isfile(path / "run.json"):
        images = _of_run(images, path)
    return PicturePixels(with_value_range(images, values), path, resize)


def _of_run(images: ImageSet, folder: Path) -> ImageSet:
    """The images of a run in the order of its manifests, without contact sheets and the like."""
    places = {picture.name: i for i, picture in enumerate(images.pictures)}
    records = Manifests(folder).records()
    listed = [name for name, record in records.items() if "seed" in record]  # sheets have none
    mine = [places[name] for name in listed if name in places]
    if not mine:
        raise UsageError(f"the run in {folder} has no finished images yet")
    return replace(images.part(mine), notes=())  # whatever else is there, it is of the run


class PicturePixels:
    """Picture files, decoded by threads."""

    def __init__(self, images: ImageSet, path: Path, resize: tuple[int, int] | None) -> None:
        self.images, self.path, self.resize = images, path, resize
        self.notes = images.notes
        with self._naming_all():
            self.size = resize if resize is not None else self._decode(0).shape[:2]

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, batch_size: int) -> Iterator[Pixels]:
        return _ahead(self._batches(_fitting(batch_size, self.size)))

    def _batches(self, batch_size: int) -> Iterator[Pixels]:
        batch = []
        for pixels in self._decoded(2 * batch_size):
            batch.append(pixels)
            if len(batch) == batch_size:
                yield np.stack(batch)
                batch = []
        if batch:
            yield np.stack(batch)

    def _decoded(self, window: int) -> Iterator[Pixels]:
        pool = ThreadPoolExecutor(max(1, min(8, os.cpu_count() or 1)))
        pending: deque[tuple[int, Future[Pixels]]] = deque()
        try:
            for i in range(len(self)):
                pending.append((i, pool.submit(self._decode, i)))
                if len(pending) >= window:
                    yield self._checked(*pending.popleft())
            while pending:
                yield self._checked(*pending.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _checked(self, index: int, coming: Future[Pixels]) -> Pixels:
        with self._naming_all():
            pixels = coming.result()
        if pixels.shape[:2] != tuple(self.size):
            raise AdmError(
                f"{self.images.name(index)} is {size_words(pixels.shape[:2])}, "
                f"{self.images.name(0)} is {size_words(self.size)}: "
                f"images must be of one size, or pass --resize SIZE"
            )
        return pixels

    @contextmanager
    def _naming_all(self) -> Iterator[None]:
        try:
            yield
        except AdmError:
            refuse_unreadable(self.images)
            raise

    def _decode(self, index: int) -> Pixels:
        image = self.images.decode(index)
        return np.asarray(image) if self.resize is None else center_crop(image, self.resize)


class NpzPixels:
    """``arr_0`` of an npz, as the original writes samples and reference batches."""

    notes: tuple[str, ...] = ()

    def __init__(self, path: Path, resize: tuple[int, int] | None) -> None:
        self.path, self.resize = path, resize
        with Npz(path) as npz:
            self.count, height, width, _ = image_array(npz).shape
        self.stored = (height, width)
        self.size = self.stored if resize is None else resize

    def __len__(self) -> int:
        return self.count

    def batches(self, batch_size: int) -> Iterator[Pixels]:
        return _ahead(self._batches(_fitting(batch_size, self.stored)))

    def _batches(self, batch_size: int) -> Iterator[Pixels]:
        with Npz(self.path) as npz:
            images = image_array(npz)
            for begin in range(0, self.count, batch_size):
                batch = images.read(begin, min(batch_size, self.count - begin))
                yield batch if self.resize is None else crop_batch(batch, self.resize)


def crop_batch(batch: Pixels, size: tuple[int, int]) -> Pixels:
    """uint8 [n, H, W, 3] at ``size`` (height, width), each cropped and scaled as training does."""
    if batch.shape[1:3] == tuple(size):
        return batch
    return np.stack([center_crop(Image.fromarray(pixels), size) for pixels in batch])


def read_npz_statistics(path: Path) -> dict[str, Array] | None:
    """``mu`` [D] and ``sigma`` [D, D], perhaps ``mu_s`` and ``sigma_s``, of a reference batch.

    As the original stores them, float64; None where there are none. Raises AdmError for damage.
    """
    with Npz(path) as npz:
        there = [name for name in _STATISTICS if name in npz.names]
        found = {name: _read_statistic(npz, name) for name in there}
    for mean, covariance in (("mu", "sigma"), ("mu_s", "sigma_s")):
        if (mean in found) != (covariance in found):
            raise AdmError(f"{path}: {mean} and {covariance} do not belong together")
        if mean in found:
            try:
                check_statistics(*(torch.from_numpy(found[name]) for name in (mean, covariance)))
            except ValueError as error:
                raise AdmError(
                    f"{path}: {mean} and {covariance} do not belong together: {error}"
                ) from None
    return found if "mu" in found else None


def holds_statistics(path: Path) -> bool:
    """Whether a file is one of the original's reference batches, not samples."""
    if path.suffix.lower() != ".npz":
        return False
    with Npz(path) as npz:
        return "mu" in npz.names


def statistics_only(path: Path) -> tuple[str, ...]:
    """The statistics in an npz without images, as pytorch-fid and EDM make them; none elsewhere."""
    if path.suffix.lower() != ".npz" or not os.path.isfile(path):
        return ()
    with Npz(path) as npz:
        if not {"mu", "sigma"} <= set(npz.names) or "arr_0" in npz.names:
            return ()
        return tuple(name for name in _STATISTICS if name in npz.names)


@dataclass(frozen=True)
class StatisticsOnly:
    """An npz without images, in place of a set that was measured; ``size`` is that of the samples,
    since it does not say its own.
    """

    path: Path
    size: tuple[int, int]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return 0

    def batches(self, batch_size: int) -> Iterator[Pixels]:
        return iter(())


def _read_statistic(npz: Npz, name: str) -> Array:
    stored = npz.array(name)
    if stored.dtype.kind != "f" or len(stored.shape) not in (1, 2) or max(stored.shape) > _MOST_DIM:
        raise AdmError(f"{npz.path}: {stored}, expected statistics")
    values = stored.read(0, len(stored)).astype(np.float64)
    if not np.isfinite(values).all():
        raise AdmError(f"{npz.path}: {name} holds NaN or infinite values")
    return values


def _fitting(batch_size: int, size: Sequence[int]) -> int:
    """Fewer where images are so large that a batch would fill the memory."""
    return max(1, min(batch_size, _MOST_BATCH_BYTES // (size[0] * size[1] * 3)))


class _End(NamedTuple):
    pass


def _ahead(items: Iterator[Pixels]) -> Iterator[Pixels]:
    """``items``, the next one made in a thread while this one is worked on."""
    pool = ThreadPoolExecutor(1)
    try:
        coming = pool.submit(next, items, _End())
        while not isinstance(item := coming.result(), _End):
            coming = pool.submit(next, items, _End())
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
