"""Finished images to measure: folders, archives, the original's npz. As they are, of one size.

Nothing is held in memory but the batches under way, which are read ahead of whoever takes them.
"""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from adm_cli.errors import AdmError, UsageError
from adm_cli.storage.datasets import ImageSet, open_images
from adm_cli.storage.images import Pixels
from adm_cli.storage.pictures import center_crop, decode_picture

_MOST_BATCH_BYTES = 2**28
_MOST_DIM = 8192  # of stored statistics
_MOST_SIDE = 2**15
_STATISTICS = ("mu", "sigma", "mu_s", "sigma_s")  # the original's names

Array = npt.NDArray[Any]


class PixelSet(Protocol):
    """Images of one size (height, width), read as often as wanted, always in the same order."""

    path: Path
    size: tuple[int, int]

    def __len__(self) -> int: ...

    def batches(self, batch_size: int) -> Iterator[Pixels]: ...  # uint8 [n, H, W, 3]


def open_pixels(path: Path, resize: tuple[int, int] | None = None) -> PixelSet:
    """A folder, zip, uncompressed tar, npz with ``arr_0`` uint8 [N, H, W, 3], or a run's folder.

    ``resize`` crops and scales every picture as training does. Without it, pictures of different
    sizes are refused. Raises UsageError where there is nothing to read, AdmError for damage.
    """
    if path.suffix.lower() == ".npz":
        return NpzPixels(path, resize)
    images = open_images([path], labels="none")
    if os.path.isfile(path / "run.json"):
        images = _of_run(images, path)
    return PicturePixels(images, path, resize)


def _of_run(images: ImageSet, folder: Path) -> ImageSet:
    """The images of a run in the order of its manifests, without contact sheets and the like."""
    places = {picture.name: i for i, picture in enumerate(images.pictures)}
    listed: dict[str, None] = {}
    for manifest in sorted(folder.glob("manifest*.jsonl")):
        for line in manifest.read_text("utf-8", "replace").splitlines():
            try:
                record = json.loads(line)
                if "seed" in record:  # contact sheets and animations have none
                    listed[str(record["file"])] = None
            except (ValueError, KeyError, TypeError, RecursionError):
                continue  # a line torn by a crash: its image counts as not drawn
    mine = [places[name] for name in listed if name in places]
    if not mine:
        raise UsageError(f"the run in {folder} has no finished images yet")
    return images.part(mine)


class PicturePixels:
    """Picture files, decoded by threads."""

    def __init__(self, images: ImageSet, path: Path, resize: tuple[int, int] | None) -> None:
        self.images, self.path, self.resize = images, path, resize
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
        pending: deque[Future[Pixels]] = deque()
        try:
            for i in range(len(self)):
                pending.append(pool.submit(self._checked, i))
                if len(pending) >= window:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _checked(self, index: int) -> Pixels:
        pixels = self._decode(index)
        if pixels.shape[:2] != tuple(self.size):
            raise AdmError(
                f"{self.images.name(index)} is {_text(pixels.shape[:2])}, {self.images.name(0)} is "
                f"{_text(self.size)}: images must be of one size, or pass --resize SIZE"
            )
        return pixels

    def _decode(self, index: int) -> Pixels:
        image = decode_picture(self.images.read(index), self.images.name(index))
        return np.asarray(image) if self.resize is None else center_crop(image, self.resize)


class NpzPixels:
    """``arr_0`` of an npz, as the original writes samples and reference batches."""

    def __init__(self, path: Path, resize: tuple[int, int] | None) -> None:
        self.path, self.resize = path, resize
        with _open_npz(path) as archive, _open_member(archive, path, "arr_0") as member:
            shape, dtype = member.shape, member.dtype
        if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3:
            raise UsageError(
                f"{path}: arr_0 is {dtype} {list(shape)}, expected uint8 images [N, H, W, 3]"
            )
        if 0 in shape or max(shape[1:3]) > _MOST_SIDE:
            raise UsageError(f"{path}: arr_0 has shape {list(shape)}: no images to measure")
        self.stored = (shape[1], shape[2])
        self.size = self.stored if resize is None else resize
        self.count = shape[0]

    def __len__(self) -> int:
        return self.count

    def batches(self, batch_size: int) -> Iterator[Pixels]:
        return _ahead(self._batches(_fitting(batch_size, self.stored)))

    def _batches(self, batch_size: int) -> Iterator[Pixels]:
        shape = (*self.stored, 3)
        with _open_npz(self.path) as archive, _open_member(archive, self.path, "arr_0") as member:
            for begin in range(0, self.count, batch_size):
                n = min(batch_size, self.count - begin)
                data = _read_exactly(member.file, n * math.prod(shape), self.path)
                batch = np.frombuffer(data, dtype=np.uint8).reshape(n, *shape)
                yield batch if self.resize is None else self._resized(batch, self.resize)

    @staticmethod
    def _resized(batch: Pixels, size: tuple[int, int]) -> Pixels:
        from PIL import Image

        return np.stack([center_crop(Image.fromarray(pixels), size) for pixels in batch])


def read_npz_statistics(path: Path) -> dict[str, Array] | None:
    """``mu`` [D] and ``sigma`` [D, D], perhaps ``mu_s`` and ``sigma_s``, of a reference batch.

    As the original stores them, float64; None where there are none. Raises AdmError for damage.
    """
    found: dict[str, Array] = {}
    with _open_npz(path) as archive:
        names = set(archive.namelist())
        for name in _STATISTICS:
            if f"{name}.npy" in names:
                found[name] = _read_statistic(archive, path, name)
    for mean, covariance in (("mu", "sigma"), ("mu_s", "sigma_s")):
        if (mean in found) != (covariance in found) or (
            mean in found and found[covariance].shape != (len(found[mean]),) * 2
        ):
            raise AdmError(f"{path}: {mean} and {covariance} do not belong together")
    return found if "mu" in found else None


def holds_statistics(path: Path) -> bool:
    """Whether a file is one of the original's reference batches, not samples."""
    if path.suffix.lower() != ".npz":
        return False
    with _open_npz(path) as archive:
        return "mu.npy" in archive.namelist()


def _read_statistic(archive: zipfile.ZipFile, path: Path, name: str) -> Array:
    with _open_member(archive, path, name) as member:
        sizes = member.shape
        if member.dtype.kind != "f" or len(sizes) not in (1, 2) or max(sizes) > _MOST_DIM:
            raise AdmError(f"{path}: {name} is {member.dtype} {list(sizes)}, expected statistics")
        data = _read_exactly(member.file, math.prod(sizes) * member.dtype.itemsize, path)
    values = np.frombuffer(data, dtype=member.dtype).reshape(sizes).astype(np.float64)
    if not np.isfinite(values).all():
        raise AdmError(f"{path}: {name} holds NaN or infinite values")
    return values


class _Member:
    """An array of an npz, its header read and its data to come."""

    def __init__(self, file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.file, self.shape, self.dtype = file, shape, dtype

    def __enter__(self) -> _Member:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def _open_npz(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}") from None
    except Exception as error:  # damaged archives raise many kinds
        raise UsageError(f"cannot read {path} as npz: {error or type(error).__name__}") from None


def _open_member(archive: zipfile.ZipFile, path: Path, name: str) -> _Member:
    """Raises AdmError for anything but a plain array whose size is what its header says."""
    if f"{name}.npy" not in archive.namelist():
        raise UsageError(f"{path} has no array {name}: expected an npz of images [N, H, W, 3]")
    entry = archive.getinfo(f"{name}.npy")
    try:
        file = archive.open(entry)
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read(file)
        header = file.tell()
    except Exception as error:  # damaged archives raise many kinds
        raise AdmError(
            f"cannot read {name} of {path}: {str(error) or type(error).__name__}"
        ) from None
    if dtype.hasobject:
        raise AdmError(f"{path}: {name} holds pickled objects: refused, since they could run code")
    if fortran and len(shape) > 1:
        raise AdmError(f"{path}: {name} is stored column by column, expected row by row")
    if entry.file_size != header + math.prod(shape) * dtype.itemsize:
        raise AdmError(f"{path}: {name} is damaged: its size is not what its header says")
    return _Member(file, tuple(shape), dtype)


def _read_exactly(file: IO[bytes], count: int, path: Path) -> bytes:
    try:
        data = file.read(count)
    except Exception as error:  # damaged archives raise many kinds
        raise AdmError(f"cannot read {path}: {str(error) or type(error).__name__}") from None
    if len(data) != count:
        raise AdmError(f"{path} is cut short")
    return data


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


def _text(size: Sequence[int]) -> str:
    return f"{size[0]}x{size[1]}"
