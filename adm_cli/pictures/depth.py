"""Pictures of more than 8 bits a channel: their stored values, and what range these have."""

from __future__ import annotations

import io
import math
import re
import sys
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from adm_cli.errors import UsageError

# a 16-bit grey picture as Pillow opens it; colours of 16 bits it opens without their low bytes
GREY_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
FULL = 65535
_USUAL = (255, 1023, 4095, 16383)  # the highest values of 8, 10, 12 and 14 bits
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
        raise UsageError(f"--value-range {text!r:.40}: expected the value of white, such as 4095")
    return ValueRange(low, high, given=True)


def guess_range(peak: float) -> ValueRange | None:
    """The usual range that 16-bit pictures have whose highest value is ``peak``; None for all."""
    high = next((high for high in _USUAL if peak <= high), None)
    return None if high is None or peak <= 0 else ValueRange(0, high, given=False)


def is_deep_colour(image: Image.Image) -> bool:
    """Whether a picture that was opened, but not loaded, has 16 bits for each of its colours."""
    return image.mode in ("RGB", "RGBA") and any(map(_swapped, getattr(image, "tile", ())))


def stored_values(data: bytes, formats: tuple[str, ...]) -> Values | None:
    """[H, W] or [H, W, 3 or 4] as the file has them; None where 8 bits a channel are all.

    Raises what Pillow raises.
    """
    with Image.open(io.BytesIO(data), formats=formats) as image:
        if image.mode in (*GREY_MODES, "F"):
            return np.asarray(image)
        if not is_deep_colour(image):
            return None
        high = np.asarray(image).astype(np.int64)
    with Image.open(io.BytesIO(data), formats=formats) as image:
        # the bytes in the other order: so Pillow takes the low ones for the high ones
        opened: Any = image
        opened.tile = [_swapped(tile) or tile for tile in opened.tile]
        low = np.asarray(image)
    values: Values = 256 * high + low
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


def to_eight_bits(values: Values, within: ValueRange | None) -> Image.Image:
    """A picture of stored values, all of 16 bits or those ``within`` becoming 0 to 255.

    What is outside is cut off if the range was given; raises ValueError if it was a guess.
    """
    if values.ndim == 3 and values.shape[2] == 4:  # alpha has all 16 bits whatever the colours have
        colours = to_eight_bits(values[..., :3], within)
        colours.putalpha(to_eight_bits(values[..., 3], None))
        return colours
    if not np.isfinite(values).all():
        raise ValueError("its values are NaN or infinite")
    low, high, given = within or (0, FULL, True)
    if not given and values.max() > high:
        raise ValueError(
            f"values up to {values.max():g}, others end at {high:g}: pass --value-range {FULL}"
        )
    scaled = (values.clip(low, high) - low) * (255 / (high - low))
    return Image.fromarray(scaled.round().astype(np.uint8))
