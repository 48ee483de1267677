"""Pictures of more than 8 bits a channel: their stored values, and what range these have."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from adm_cli.errors import UsageError, trim
from adm_cli.files.opening import open_image

# a 16-bit grey picture as Pillow opens it; colours of 16 bits it opens without their low bytes
GREY_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
FULL = 65535
_USUAL = (255, 1023, 4095, 16383)  # the highest values of 8, 10, 12 and 14 bits
_AT_ONCE = 2**20  # values in floating point
_MOST_DEEP = 2**24  # pixels of 16 bits a colour, each of which is held four times
_GREY_ALPHA = "LA;16B"  # which Pillow opens as RGBA of 8 bits
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}

Values = npt.NDArray[Any]


class ValueRange(NamedTuple):
    """What of the stored values is black and what white; ``given`` by a person, or else a guess."""

    low: float
    high: float
    given: bool


def parse_value_range(text: str) -> ValueRange:
    """``4095`` (from 0) or ``100,4095``; raises UsageError."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    low, high = (0.0, *numbers) if len(numbers) == 1 else (*numbers, math.nan, math.nan)[:2]
    if len(numbers) > 2 or not -math.inf < low < high < math.inf:
        raise UsageError(
            f"--value-range {trim(text, 40)}: expected the value of white, such as 4095"
        )
    return ValueRange(low, high, given=True)


def guess_range(peak: float) -> ValueRange | None:
    """The usual range that 16-bit pictures have whose highest value is ``peak``; None for all.

    A peak of one more than a usual one, a power of two, is white itself: no camera gives it, values
    that were multiplied by it do.
    """
    high = next((high for high in _USUAL if peak <= high + 1), None)
    return None if high is None or peak <= 0 else ValueRange(0, max(high, peak), given=False)


def is_deep_colour(image: Image.Image) -> bool:
    """Whether a picture that was opened, but not loaded, has 16 bits for each of its colours."""
    tiles = getattr(image, "tile", ())
    return image.mode in ("RGB", "RGBA") and (
        any(map(_swapped, tiles)) or _mode(tiles) == _GREY_ALPHA or _ppm_most(tiles) > 255
    )


def _mode(tiles: Any) -> str:
    args = tiles[0][3] if tiles else ""
    return str(args if isinstance(args, str) else args[0] if args else "")


def _ppm_most(tiles: Any) -> int:
    """The highest value of a binary PPM, 0 of anything else."""
    args = tiles[0][3] if tiles and tiles[0][0] == "ppm" else ()
    return args[1] if isinstance(args, tuple) and len(args) == 2 and args[0] == "RGB" else 0


def bands(image: Image.Image) -> Iterator[Values]:
    """The values of a picture, so many rows at a time that memory stays small."""
    return (np.asarray(part) for _, part in strips(image))


def strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Rows of a picture, so many at a time, each part with its first row; a small one whole."""
    width, height = image.size
    rows = max(1, _AT_ONCE // width)
    for top in range(0, height, rows):
        part = image if rows >= height else image.crop((0, top, width, min(height, top + rows)))
        yield top, part


def stored_values(data: bytes, formats: tuple[str, ...]) -> Values | None:
    """[H, W, 3 or 4], uint16, as the file has them; None where 8 bits a colour are all.

    Raises what Pillow raises, and ValueError for more pixels than memory can be taken for.
    """
    with open_image(data, formats) as image:
        if not is_deep_colour(image):
            return None
        if image.width * image.height > _MOST_DEEP:
            raise ValueError(
                f"{image.width}x{image.height} pixels of 16 bits a colour are too many: save it "
                f"with 8 bits"
            )
        if most := _ppm_most(image.tile):
            found = np.frombuffer(data, ">u2", 3 * image.width * image.height, image.tile[0][2])
            full = ((np.arange(FULL + 1) * FULL + most // 2) // most).clip(0, FULL)
            scaled: Values = full.astype(np.uint16)[found]
            return scaled.reshape(image.height, image.width, 3)
        if _mode(image.tile) == _GREY_ALPHA:  # two bytes each: what four of 8 bits are, too
            both: Any = image
            both.tile = [(codec, box, at, "RGBA") for codec, box, at, _ in both.tile]
            parts = np.asarray(image)
            grey, alpha = (_of_bytes(parts[..., i], parts[..., i + 1]) for i in (0, 2))
            return np.stack([grey, grey, grey, alpha], axis=-1)
        high = np.asarray(image)
    with open_image(data, formats) as image:
        # the bytes in the other order: so Pillow takes the low ones for the high ones
        opened: Any = image
        opened.tile = [_swapped(tile) or tile for tile in opened.tile]
        return _of_bytes(high, np.asarray(image))


def _of_bytes(high: Values, low: Values) -> Values:
    values: Values = high.astype(np.uint16)
    values <<= 8
    values |= low
    return values


def _swapped(tile: Any) -> tuple[Any, ...] | None:
    """A tile of 16 bits a colour with its bytes in the other order; None if it is another."""
    codec, extents, offset, args = tile
    mode = args if isinstance(args, str) else args[0] if args else ""
    found = re.fullmatch(r"(RGBA?;16)([BLN])", str(mode))
    if found is None:
        return None
    other = found[1] + _OTHER_ORDER[found[2]]
    return codec, extents, offset, other if isinstance(args, str) else (other, *args[1:])


def to_eight_bits(parts: Iterable[Values], within: ValueRange | None, height: int) -> Image.Image:
    """A picture of stored values, all of 16 bits or those ``within`` becoming 0 to 255.

    ``parts`` are its ``height`` rows, some at a time: [H, W] or [H, W, 3 or 4]. What is outside is
    cut off if the range was given; raises ValueError if it was a guess.
    """
    found: Values = np.empty(0, dtype=np.uint8)
    top = 0
    for part in parts:
        rows = _eight_bits(part, within)
        if not top:
            found = np.empty((height, *rows.shape[1:]), dtype=np.uint8)
        found[top : top + len(rows)] = rows
        top += len(rows)
    if found.ndim > 2:
        return Image.fromarray(found)
    size = (found.shape[1], found.shape[0])
    return Image.frombuffer("L", size, found, "raw", "L", 0, 1)  # without a copy


def in_parts(values: Values) -> Iterator[Values]:
    """The rows of a picture, some at a time."""
    rows = max(1, _AT_ONCE // values[0].size)
    return (values[top : top + rows] for top in range(0, len(values), rows))


def _eight_bits(values: Values, within: ValueRange | None) -> Values:
    if values.ndim == 3 and values.shape[2] == 4:  # alpha has all 16 bits whatever the colours have
        colours, alpha = _eight_bits(values[..., :3], within), _eight_bits(values[..., 3:], None)
        return np.concatenate([colours, alpha], axis=-1)
    if not np.isfinite(values).all():
        raise ValueError("its values are NaN or infinite")
    low, high, given = within or (0, FULL, True)
    if values.min() < 0 and (within is None or not given):
        raise ValueError(
            f"values from {values.min():.9g} to {values.max():.9g}: what of these is black and "
            f"what white? pass --value-range={values.min():.9g},{values.max():.9g}"
        )
    if within is None and values.max() > FULL:
        raise ValueError(
            f"values up to {values.max():.9g}, more than 16 bits hold: what of these is white? "
            f"pass --value-range {values.max():.9g}"
        )
    if not given and values.max() > high:
        wider = guess_range(values.max())
        raise ValueError(
            f"values up to {values.max():g}, others end at {high:g}: pass --value-range "
            f"{FULL if wider is None else wider.high:g}"
        )
    scaled = (values.astype(np.float64).clip(low, high) - low) * (255 / (high - low))
    return scaled.round().astype(np.uint8)
