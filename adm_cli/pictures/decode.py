"""Pictures to train on: decoding whatever people have, and the original's crops."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image, ImageChops, UnidentifiedImageError, features

from adm_cli.config import LEAST_CROP
from adm_cli.errors import AdmError, why_unread
from adm_cli.files.opening import open_image
from adm_cli.pictures.depth import (
    GREY_MODES,
    ValueRange,
    Values,
    bands,
    in_parts,
    is_deep_colour,
    stored_values,
    strips,
    to_eight_bits,
)
from adm_cli.pictures.images import BOMBS, MOST_PIXELS, Pixels

MOST_BYTES = 512 * 2**20  # no picture file is this large; a mislabelled archive may be
_MOST_AVERAGED = 2**24  # values in floating point at once; those of 9,000 squared fill gigabytes
_MOST_RATIO = 200  # of the sides: to crop a hair, all its length would have to be enlarged
# not in every Pillow; those before 11.3 warn of an unknown name
_AVIF = "avif" in features.modules and features.check("avif")
_JPEG2000 = features.check("jpg_2000")
_FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM"),
    *(("AVIF",) if _AVIF else ()),
    *(("JPEG2000",) if _JPEG2000 else ()),
)
EXTENSIONS = (
    *(".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".ppm"),
    *(".jfif", ".jpe", ".jif", ".mpo", ".apng", ".dib", ".pgm", ".pbm", ".pnm"),
    *((".avif",) if _AVIF else ()),
    *((".jp2", ".j2k", ".jpx", ".jpf", ".j2c") if _JPEG2000 else ()),
)

SOME_ENDINGS = ".jpg, .png, .webp, .tiff and such"  # for a person

_PHOTOMETRIC, _SAMPLE_FORMAT = 262, 339  # tags of TIFF
_TURNS = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Damaged EXIF and the like do no harm. Not by catch_warnings around each picture: threads decode
# at once and share the filters.
warnings.filterwarnings("ignore", module=r"PIL\.")


class BadPictureError(AdmError):
    """A picture that cannot be read."""


def decode_picture(data: bytes, name: str, values: ValueRange | None = None) -> Image.Image:
    """An RGB picture from a file's bytes.

    Turned upright by its EXIF orientation, laid on white where transparent, scaled down from 16
    bits (all of them, or the range ``values``), the first frame if animated. Raises
    BadPictureError for anything unreadable, cut short, far too narrow, or of so many pixels that
    it must be a trap.
    """
    if len(data) > MOST_BYTES:
        raise BadPictureError(f"{name}: over {MOST_BYTES / 1e6:.0f} MB is too large for a picture")
    try:
        with open_image(data, _FORMATS) as image:
            _check_size(image.size)
            deep = values is not None and is_deep_colour(image)
            image.load()
            stored = stored_values(data, _FORMATS) if deep else None
            turn = _turn(image)
            found = _to_rgb(image, stored, values)
            return found if turn is None else found.transpose(turn)
    except UnidentifiedImageError:  # whose text is a memory address
        raise BadPictureError(f"{name}: not a picture, or damaged") from None
    except BOMBS:
        raise BadPictureError(f"{name}: of too many pixels for a picture") from None
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:
        raise BadPictureError(f"{name}: {why_unread(error, 'damaged')}") from None
    except Exception:  # Pillow's plugins raise many kinds for damaged files
        raise BadPictureError(f"{name}: damaged") from None


def peak_value(data: bytes) -> float | None:
    """The highest value that a picture of 16 bits stores; None for any other, and for no picture.

    Alpha does not count.
    """
    try:
        with open_image(data, _FORMATS) as image:
            _check_size(image.size)
            if image.mode not in GREY_MODES and not is_deep_colour(image):
                return None
            if image.mode in GREY_MODES:
                return float(max(part.max() for part in bands(image)))
        stored = stored_values(data, _FORMATS)
        return None if stored is None else float(stored[..., :3].max())
    except Exception:  # told when it is its turn
        return None


def _check_size(size: tuple[int, int]) -> None:
    if size[0] * size[1] > MOST_PIXELS:
        raise ValueError(f"{size[0]}x{size[1]} pixels are too many for a picture")
    if max(size) > _MOST_RATIO * min(size):
        raise ValueError(f"{size[0]}x{size[1]} pixels are too narrow to crop")


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What makes a picture upright, as the EXIF orientation of its file says."""
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF raises many kinds, and the pixels are there all the same
        return None


def _to_rgb(image: Image.Image, stored: Values | None, values: ValueRange | None) -> Image.Image:
    if image.mode == "F" and values is None:
        raise ValueError(
            "floating-point pixels have no known range: pass --value-range LOW,HIGH, such as 0,1"
        )
    if stored is not None:
        image = to_eight_bits(in_parts(stored), values, len(stored))
    elif image.mode in (*GREY_MODES, "F"):
        eight = to_eight_bits(bands(image), values, image.height)
        negative = _tag(image, _PHOTOMETRIC) == 0  # white is 0, which of 8 bits Pillow knows
        image.close()  # four bytes a pixel, of no use any more
        image = ImageChops.invert(eight) if negative else eight
    elif image.mode == "L" and _tag(image, _SAMPLE_FORMAT) == 2:
        raise ValueError("its values of 8 bits have a sign: save them with 16 bits, or without one")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = _on_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")  # which copies any


def _tag(image: Image.Image, number: int) -> object:
    """A TIFF's tag, the first where it has a value a channel; None of anything else."""
    value = getattr(image, "tag_v2", {}).get(number)
    return value[0] if isinstance(value, tuple) and value else value


def _on_white(image: Image.Image) -> Image.Image:
    """What is transparent laid on white, some rows at a time: each is held four times."""
    laid = Image.new("RGB", image.size)
    for top, part in strips(image):
        white = Image.new("RGBA", part.size, (255, 255, 255, 255))
        laid.paste(Image.alpha_composite(white, part.convert("RGBA")).convert("RGB"), (0, top))
    return laid


def pixels_of(image: Image.Image) -> Pixels:
    """uint8 [H, W, 3] of an RGB picture, as numpy.asarray, which takes twice the memory for it."""
    pixels = np.empty((image.height, image.width, 3), dtype=np.uint8)
    for top, part in strips(image):
        pixels[top : top + part.height] = np.asarray(part)
    return pixels


def center_crop(image: Image.Image, size: tuple[int, int]) -> Pixels:
    """The middle of a picture at ``size`` (height, width): uint8 [H, W, 3], as the original."""
    height, width = size
    image = _halve(image, size)
    scale = max(width / image.width, height / image.height)
    image = image.resize(
        (round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC
    )
    top, left = (image.height - height) // 2, (image.width - width) // 2
    return np.asarray(image)[top : top + height, left : left + width]


def fit_picture(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """uint8 [H, W, 3] at ``size`` (height, width), cut centrally to its proportions.

    Shrinks by area averaging, as the small pictures of training are made; enlarges bicubically.
    """
    height, width = size
    if pixels.shape[:2] == size:
        return pixels
    scale = min(pixels.shape[0] / height, pixels.shape[1] / width)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (pixels.shape[0] - rows) // 2, (pixels.shape[1] - columns) // 2
    part = pixels[top : top + rows, left : left + columns]
    if scale < 1:
        return np.asarray(Image.fromarray(part).resize((width, height), Image.Resampling.BICUBIC))
    if part.size <= _MOST_AVERAGED:
        return _averages(part, size)
    return np.concatenate([_row_of_averages(part[a:b], width) for a, b in _areas(rows, height)])


def _row_of_averages(pixels: Pixels, width: int) -> Pixels:
    if pixels.size <= _MOST_AVERAGED:
        return _averages(pixels, (1, width))
    areas = _areas(pixels.shape[1], width)
    return np.concatenate([_averages(pixels[:, a:b], (1, 1)) for a, b in areas], axis=1)


def _areas(side: int, count: int) -> list[tuple[int, int]]:
    """Begin and end of what each of ``count`` means is of."""
    return [(i * side // count, -(-(i + 1) * side // count)) for i in range(count)]


def _averages(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    values = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].double()  # [1, 3, H', W']
    means = F.interpolate(values, size, mode="area")[0].permute(1, 2, 0)
    return means.round().to(torch.uint8).contiguous().numpy()


def random_crop(
    image: Image.Image,
    size: tuple[int, int],
    draw: Callable[[int], int],
    least: float = LEAST_CROP,
) -> Pixels:
    """A crop of ``least`` to 1 of the shorter side at ``size``: uint8 [H, W, 3].

    ``draw(n)`` gives a whole number from 0 to n - 1. The original crops at least 0.8.
    """
    short = draw_short_side(size, draw, least)
    return cut(resize_for_crop(image, size, short), size, draw)


def draw_short_side(
    size: tuple[int, int], draw: Callable[[int], int], least: float = LEAST_CROP
) -> int:
    """To what shorter side a picture is resized before `cut`: 1 to 1 / ``least`` of ``size``'s."""
    return min(size) + draw(math.ceil(min(size) / least) - min(size) + 1)


def resize_for_crop(image: Image.Image, size: tuple[int, int], short: int) -> Pixels:
    """uint8 [H', W', 3] with H' >= H, W' >= W: the deterministic part of `random_crop`."""
    height, width = _enlarged(size, short)
    image = _halve(image, (height, width))
    scale = max(width / image.width, height / image.height)
    image = image.resize(
        (round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC
    )
    return np.asarray(image)


def cut(pixels: Pixels, size: tuple[int, int], draw: Callable[[int], int]) -> Pixels:
    """A window of ``size`` anywhere in [H', W', 3]."""
    height, width = size
    top, left = draw(pixels.shape[0] - height + 1), draw(pixels.shape[1] - width + 1)
    return pixels[top : top + height, left : left + width]


def shrink_for_crops(
    image: Image.Image, size: tuple[int, int], least: float = LEAST_CROP
) -> Image.Image:
    """The halvings that every `random_crop` begins with, so that they need doing only once."""
    return _halve(image, _enlarged(size, math.ceil(min(size) / least)))


def _enlarged(size: tuple[int, int], short: int) -> tuple[int, int]:
    """``size`` in proportion, so that its shorter side is ``short``."""
    return math.ceil(size[0] * short / min(size)), math.ceil(size[1] * short / min(size))


def _halve(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Box-filtered halvings while both sides stay at least ``size``: cleaner than one bicubic."""
    while image.height >= 2 * size[0] and image.width >= 2 * size[1]:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    return image
