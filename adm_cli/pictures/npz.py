"""npz files, whoever wrote them: the arrays in them, read in their order and never held whole.

The original's layout: ``arr_0`` uint8 [N, H, W, 3], ``arr_1`` int64 [N] labels where there are any;
reference batches have statistics too. Ours adds ``seeds`` and ``adm``, the recipe of the run.

A bare ``.npy`` is read as an npz with that one array, ``arr_0``.

Nothing is ever unpickled. No header is believed: neither numpy's nor the archive's may promise more
than the file holds, and what is read to its end has the archive's checksum.
"""

from __future__ import annotations

import io
import math
import os
import threading
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from adm_cli.errors import AdmError, UsageError, why_unread
from adm_cli.files.budget import MOST_FILES, MOST_TEXT, parse_json
from adm_cli.files.disk import open_file
from adm_cli.files.zips import ForeignZip
from adm_cli.pictures.images import MOST_PIXELS, Pixels

ENDINGS = (".npz", ".npy")
_MOST_LIST = 2**28  # bytes of an array that is read whole
_MOST_ARRAYS = 10_000
_MOST_HEADER = 2**16  # of an array; numpy takes no more than 10,000
_BLOCK = 1 << 24
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

Array = npt.NDArray[Any]
_STATISTICS = (  # what a mean and a covariance of features are called
    ("mu", "mean", "means", "m"), ("sigma", "cov", "covariance", "sig", "s"),
)  # fmt: skip
_PICTURES = frozenset(  # what others call the array of pictures
    "images image imgs samples pictures photos data x X x_train X_train train_images".split()
)


class Npz:
    """The names and arrays of an npz; they can be read until it is closed.

    Raises UsageError where there is no file, AdmError for what is no npz.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not os.path.isfile(path):  # a pipe would be waited for
            raise UsageError(
                f"{'not a regular' if os.path.exists(path) else 'no such'} file: {path}"
            )
        self._arrays: list[NpzArray] = []
        self._archive: ForeignZip | None = None
        self.names = ["arr_0"]
        if path.suffix.lower() == ".npy":
            return
        try:
            self._archive = ForeignZip(path, _MOST_ARRAYS)
        except Exception as error:  # damaged archives raise many kinds
            raise _unreadable(path, error) from None
        self.names = [name.removesuffix(".npy") for name in self._archive.namelist()]

    def __enter__(self) -> Npz:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for array in self._arrays:
            array.close()
        if self._archive is not None:
            self._archive.close()

    def array(self, name: str) -> NpzArray:
        """Raises AdmError for anything but a plain array whose size is what its header says."""
        if name not in self.names:
            there = ", ".join(self.names[:5]) or "nothing"
            raise UsageError(f"{self.path} has no array {name}: it holds {there}")
        if self.names.count(name) > 1:
            raise AdmError(f"{self.path} is damaged: it has {name} twice")
        if self._archive is None:
            size = os.path.getsize(self.path)
            self._arrays.append(NpzArray(self.path, name, partial(open_file, self.path), size))
        else:
            ended = f"{name}.npy" in self._archive.namelist()  # numpy writes the ending
            entry = self._archive.getinfo(f"{name}.npy" if ended else name)
            _check_stored(self.path, name, entry)
            self._arrays.append(
                NpzArray(self.path, name, partial(self._archive.open, entry), entry.file_size)
            )
        return self._arrays[-1]

    def values(self, name: str, most: int = _MOST_LIST) -> Array | None:
        """A whole small array; None where there is none. Raises AdmError if it is not small."""
        if name not in self.names:
            return None
        array = self.array(name)
        if array.dtype.itemsize * math.prod(array.shape) > most:
            raise AdmError(f"{self.path}: {array} is too large, expected {most:,} bytes at most")
        rows = array.read(0, array.shape[0]) if array.shape else array.read(0, 1)
        return rows.reshape(array.shape)


class NpzArray:
    """An array of ``size`` bytes with its header, read row by row: going on costs nothing, going
    back begins anew.
    """

    def __init__(self, path: Path, name: str, begin: Callable[[], IO[bytes]], size: int) -> None:
        self.path, self.name, self._opened_anew = path, name, begin
        self._lock = threading.Lock()
        self._position = 0  # rows read
        try:
            self.shape, self.dtype, self._start = self._read_header(size)
            self._begin()
        except AdmError:
            raise
        except Exception as error:  # damaged archives raise many kinds
            raise _unreadable(path, error) from None
        self._row = self.dtype.itemsize * math.prod(self.shape[1:])  # bytes

    def __len__(self) -> int:
        return self.shape[0]

    def __str__(self) -> str:
        return f"{self.name} is {self.dtype} {list(self.shape)}"

    def read(self, begin: int, count: int) -> Array:
        """Rows [count, ...] from ``begin`` on; raises AdmError for damage. Threads may share it."""
        with self._lock:
            try:
                if begin < self._position:
                    self._begin()
                self._pass_over((begin - self._position) * self._row)
                data = self._file.read(count * self._row)
            except Exception as error:  # damaged archives raise many kinds
                self.close()
                raise _unreadable(self.path, error) from None
            self._position = begin + count
        if len(data) != count * self._row:
            raise AdmError(f"cannot read {self.path} as npz: it is cut short")
        return np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])

    def close(self) -> None:
        self._file.close()

    def _begin(self) -> None:
        """What is read next are the values, from the first."""
        self._file: IO[bytes] = self._opened_anew()
        self._position = 0
        self._pass_over(self._start)

    def _pass_over(self, count: int) -> None:
        while count and (data := self._file.read(min(count, _BLOCK))):
            count -= len(data)

    def _read_header(self, size: int) -> tuple[tuple[int, ...], np.dtype[Any], int]:
        """Shape, type, and where the values begin."""
        with self._opened_anew() as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers as Python 2 wrote them
            head = io.BytesIO(file.read(_MOST_HEADER))  # which says itself how long it is
            version = np.lib.format.read_magic(head)
            if version not in _HEADERS:
                raise ValueError(f"npy format {version}")
            shape, fortran, dtype = _HEADERS[version](head)
        where, start = f"{self.path}: {self.name}", head.tell()
        if dtype.hasobject:
            raise AdmError(f"{where} holds pickled objects: refused, since they could run code")
        if fortran and len(shape) > 1:
            raise AdmError(
                f"{where} is stored column by column, expected row by row: "
                f"numpy.ascontiguousarray makes it so"
            )
        if (
            any(type(side) is not int or side < 0 for side in shape)
            or not dtype.itemsize  # of which there could be any number in no bytes
            or dtype.itemsize * math.prod(shape) != size - start
        ):
            raise AdmError(
                f"{where} is damaged: {dtype} {list(shape)} in {size - start} bytes, "
                f"its size is not what its header says"
            )
        return tuple(shape), dtype, start


def _check_stored(path: Path, name: str, entry: zipfile.ZipInfo) -> None:
    if entry.compress_type == zipfile.ZIP_STORED and entry.compress_size != entry.file_size:
        raise AdmError(f"{path}: {name} is damaged: its size is not what the archive says")


@dataclass(frozen=True)
class ImageArrays:
    """What an npz of pictures holds; ``images`` stay in the file."""

    path: Path
    images: NpzArray  # uint8 [N, H, W, 3]
    labels: npt.NDArray[np.int64] | None
    seeds: npt.NDArray[np.uint64] | None
    recipe: dict[str, Any] | None  # of the run, if ours

    def image(self, index: int) -> Pixels:
        """uint8 [H, W, 3]"""
        pixels: Pixels = self.images.read(index, 1)[0]
        return pixels

    def __reduce__(self) -> tuple[Any, ...]:
        return read_image_arrays, (self.path,)  # another process opens the file for itself


def image_array(npz: Npz) -> NpzArray:
    """``arr_0``, uint8 [N, H, W, 3]; raises UsageError for anything else."""
    means, covariances = ([n for n in npz.names if n in names] for names in _STATISTICS)
    if "arr_0" not in npz.names and means and covariances:
        stored = f"mu=x[{means[0]!r}], sigma=x[{covariances[0]!r}]"
        raise UsageError(
            f"{npz.path} has no arrays mu and sigma: it holds {', '.join(npz.names[:5])}: "
            f"x = numpy.load({npz.path.name!a}); numpy.savez('statistics.npz', {stored}) mends it"
        )
    if "arr_0" not in npz.names and (found := [n for n in npz.names if n in _PICTURES]):
        load = f"numpy.load({npz.path.name!a})[{found[0]!r}]"
        raise UsageError(
            f"{npz.path} has no array arr_0: it holds {', '.join(npz.names[:5])}: "
            f"numpy.save('pictures.npy', {load}) mends it"
        )
    images = npz.array("arr_0")
    shape = images.shape
    if images.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape:
        raise UsageError(
            f"{npz.path}: {images}, expected uint8 images [N, H, W, 3]{_mending(npz.path, images)}"
        )
    if shape[0] > MOST_FILES:
        raise UsageError(f"{npz.path}: {images}, expected {MOST_FILES:,} images at most")
    if shape[1] * shape[2] > MOST_PIXELS:
        raise UsageError(f"{npz.path}: {images}, which are too many pixels for an image")
    return images


def _mending(path: Path, images: NpzArray) -> str:
    """Python that makes an array of pictures out of what is there."""
    shape, dtype = images.shape, images.dtype
    steps = []
    if len(shape) == 3 and 3 in (shape[0], shape[2]):  # one picture
        steps.append("x = x[None]")
        shape = (1, *shape)
    if len(shape) == 4 and shape[3] != 3 and shape[1] == 3:
        steps.append("x = x.transpose(0, 2, 3, 1)")
    elif len(shape) == 3 or (len(shape) == 4 and shape[3] == 1):
        steps.append(f"x = numpy.stack([x{'[..., 0]' * (len(shape) == 4)}] * 3, -1)")
    elif len(shape) != 4 or shape[3] != 3:
        return ""
    if dtype.kind == "f":  # of -1 to 1, 0 to 1, or 0 to 255
        scaled = "127.5 * (x + 1) if x.min() < 0 else 255 * x if x.max() <= 1 else x"
        steps.append(f"x = ({scaled}).round().clip(0, 255).astype('uint8')")
    elif dtype.kind == "b":
        steps.append("x = 255 * x.astype('uint8')")
    elif dtype.kind in "iu" and dtype != np.uint8:  # of 8 or 16 bits
        steps.append("x = (x // 257 if x.max() > 255 else x).astype('uint8')")
    if not steps:
        return ""
    load = f"x = numpy.load({path.name!a})" + ("['arr_0']" if path.suffix.lower() == ".npz" else "")
    return f": {'; '.join((load, *steps))}; numpy.save('pictures.npy', x) mends it"


def read_image_arrays(path: Path) -> ImageArrays:
    """Opens an npz of pictures; raises AdmError for anything else."""
    npz = Npz(path)
    try:
        return _image_arrays(npz)
    except AdmError:
        npz.close()
        raise


def _image_arrays(npz: Npz) -> ImageArrays:
    path, images = npz.path, image_array(npz)
    labels, seeds = npz.values("arr_1"), npz.values("seeds")
    for name, array in (("arr_1", labels), ("seeds", seeds)):
        if array is not None and (array.shape != images.shape[:1] or array.dtype.kind not in "iu"):
            raise UsageError(
                f"{path}: {name} is {array.dtype} {list(array.shape)}, "
                f"expected a whole number for each of {len(images)} pictures"
            )
    recipe = _recipe(npz.values("adm", 4 * MOST_TEXT))
    return ImageArrays(path, images, labels, seeds, recipe)


def _unreadable(path: Path, error: Exception) -> AdmError:
    return AdmError(f"cannot read {path} as npz: {why_unread(error, 'it is damaged')}")


def _recipe(text: Array | None) -> dict[str, Any] | None:
    if text is None or text.dtype.kind != "U" or text.ndim:
        return None
    try:
        recipe = parse_json(str(text[()]))
    except ValueError:
        return None
    return recipe if isinstance(recipe, dict) else None
