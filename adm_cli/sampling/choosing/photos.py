"""Pictures to edit, and masks of what is drawn anew: by an image's file, at the size of a stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from adm_cli.pictures.decode import fit_picture
from adm_cli.pictures.images import Pixels, to_model_range
from adm_cli.sampling.choosing.images import Image
from adm_cli.sampling.choosing.inputs import InputPicture, InputPictures, Size
from adm_cli.sampling.drawing.edited_batch import EditedBatch
from adm_cli.sampling.editing import Editing

DrawnAnew = npt.NDArray[np.bool_]  # [H, W]
_MOST_KEPT = 64  # small pictures in memory
_HALF = 128  # of white


class Photo(NamedTuple):
    """A picture that is edited, and its mask; both as they are stored, of one size."""

    picture: InputPicture
    mask: InputPicture | None = None


Photos = Mapping[str, Photo]  # by the file of the image


class PhotosAt:
    """Photos as a stage sees them, read as they are asked for."""

    def __init__(self, photos: Photos, size: Size) -> None:
        self._photos, self._size = photos, size
        self._kept: dict[tuple[str, str | None], tuple[Pixels, DrawnAnew | None]] = {}

    def at(self, file: str) -> tuple[Pixels, DrawnAnew | None]:
        """The picture of an image, uint8 [H, W, 3], and what of it is drawn anew.

        Raises AdmError if a file is no longer what it was.
        """
        picture, mask = self._photos[file]
        key = picture.pixels_sha256, None if mask is None else mask.pixels_sha256
        if key not in self._kept:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            drawn = None if mask is None else drawn_anew(_read(mask), self._size)
            self._kept[key] = fit_picture(_read(picture), self._size), drawn
        return self._kept[key]

    def with_kept(self, image: Image, pixels: Pixels) -> Pixels:
        """``pixels`` of an image, with what is kept of its picture."""
        if image.mask_sha256 is None:
            return pixels
        kept, drawn = self.at(image.file)
        assert drawn is not None
        return np.where(drawn[..., None], pixels, kept)


class BatchPhotos:
    """The pictures of images in their order, for batches of them."""

    def __init__(self, photos: PhotosAt, images: Sequence[Image], how: Editing) -> None:
        self._photos, self._images, self._how = photos, images, how

    def batch(self, first: int, count: int, size: int) -> EditedBatch:
        """``count`` of them, padded to ``size``."""
        found = [self._photos.at(image.file) for image in self._images[first : first + count]]
        found += found[-1:] * (size - count)
        x_0 = to_model_range(torch.from_numpy(np.stack([pixels for pixels, _ in found])))
        masks = [drawn for _, drawn in found if drawn is not None]
        drawn = torch.from_numpy(np.stack(masks))[:, None] if masks else None
        return EditedBatch(x_0, drawn, self._how)


def drawn_anew(mask: Pixels, size: Size) -> DrawnAnew:
    """Where a mask, uint8 [H, W, 3], is at least half white, at ``size``."""
    shown: DrawnAnew = fit_picture(mask, size).mean(axis=2) >= _HALF
    return shown


def _read(picture: InputPicture) -> Pixels:
    return InputPictures([picture], None)[0]
