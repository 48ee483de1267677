"""The original's npz: ``arr_0`` uint8 [N, H, W, 3], ``arr_1`` int64 [N] labels where there are any.

Ours adds ``seeds`` and ``adm``, the recipe of the run. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from adm_cli.errors import AdmError, UsageError
from adm_cli.storage.images import Pixels

_MOST_COMPRESSED = 4 * 2**30  # bytes to unpack into memory
_LOCAL_HEADER = 30  # of a zip member, before its name


@dataclass(frozen=True)
class ImageArrays:
    """What an npz holds; ``images`` stay in the file where they are not compressed."""

    path: Path
    images: Pixels  # [N, H, W, 3]
    labels: npt.NDArray[np.int64] | None
    seeds: npt.NDArray[np.uint64] | None
    recipe: dict[str, Any] | None  # of the run, if ours


def read_image_arrays(path: Path) -> ImageArrays:
    """Opens an npz of pictures; raises AdmError for anything else."""
    try:
        with zipfile.ZipFile(path) as archive:
            images = _array(path, archive, "arr_0")
            if images is None:
                raise UsageError(
                    f"{path}: expected pictures under arr_0, "
                    f"it holds {', '.join(archive.namelist()[:5]) or 'nothing'}"
                )
            labels, seeds = _array(path, archive, "arr_1"), _array(path, archive, "seeds")
            text = _array(path, archive, "adm")
    except (OSError, zipfile.BadZipFile) as error:
        raise AdmError(f"cannot read {path} as npz: {error}") from None
    except (ValueError, EOFError, KeyError, struct.error, NotImplementedError) as error:
        raise AdmError(f"{path} is a damaged npz: {error}") from None
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or not images.size:
        raise UsageError(
            f"{path}: arr_0 is {images.dtype} {list(images.shape)}, expected uint8 [N, H, W, 3]"
        )
    for name, array in (("arr_1", labels), ("seeds", seeds)):
        if array is not None and (array.shape != images.shape[:1] or array.dtype.kind not in "iu"):
            raise UsageError(
                f"{path}: {name} is {array.dtype} {list(array.shape)}, "
                f"expected a whole number for each of {len(images)} pictures"
            )
    return ImageArrays(path, images, labels, seeds, _recipe(text))


def _array(path: Path, archive: zipfile.ZipFile, name: str) -> npt.NDArray[Any] | None:
    """A member, mapped from the file if it is not compressed; its size is checked first."""
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError:
        return None
    with archive.open(info) as file:
        shape, fortran, dtype = _read_header(file)
        start = file.tell()
        if dtype.hasobject or dtype.itemsize * _count(shape) != info.file_size - start:
            raise ValueError(f"{name} is {dtype} {list(shape)} in {info.file_size - start} bytes")
        if info.compress_type != zipfile.ZIP_STORED or not shape or not _count(shape):
            if info.file_size > _MOST_COMPRESSED:
                raise UsageError(
                    f"{path}: {name} is compressed, and {info.file_size / 1e9:.1f} GB are too "
                    f"much to unpack at once: save it with numpy.savez"
                )
            data = file.read()
            order: Any = "F" if fortran else "C"
            return np.frombuffer(data, dtype).reshape(shape, order=order)
        while file.read(1 << 24):
            pass  # the archive's own checksum is compared at the end
    offset = _data_offset(path, info) + start
    return np.memmap(path, dtype, "r", offset, shape, "F" if fortran else "C")


def _read_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version != (2, 0):
        raise ValueError(f"npy format {version}")
    return np.lib.format.read_array_header_2_0(file)


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for side in shape:
        count *= int(side)
    return count


def _data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    with path.open("rb") as file:
        file.seek(info.header_offset)
        header = file.read(_LOCAL_HEADER)
    name, extra = struct.unpack("<26x2H", header)
    return info.header_offset + _LOCAL_HEADER + int(name) + int(extra)


def _recipe(text: npt.NDArray[Any] | None) -> dict[str, Any] | None:
    if text is None or text.dtype.kind != "U" or text.ndim:
        return None
    try:
        recipe = json.loads(str(text[()]))
    except (ValueError, RecursionError):
        return None
    return recipe if isinstance(recipe, dict) else None
