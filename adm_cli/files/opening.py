"""Opening pictures of strangers: the only place that calls Pillow for it.

Its plugins read a file part by part, for as long as there are parts: millions of empty ones would
take minutes before the first pixel is asked for.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from PIL import Image, ImageFile

from adm_cli.files.budget import TooMuchError, few_reads

_MOST_SIDE = 2**14  # of a WebP's picture; the canvas that a file claims may be 2^24 wide


@contextmanager
def open_image(
    source: bytes | IO[bytes], formats: tuple[str, ...]
) -> Iterator[ImageFile.ImageFile]:
    """A picture of one of these formats, not yet decoded.

    Raises what Pillow raises, and TooMuchError for one of more parts than a picture has.
    """
    file = few_reads(io.BytesIO(source) if isinstance(source, bytes) else source)
    try:
        _check_canvas(file)
        with Image.open(file, formats=formats) as image:
            yield image
    finally:
        vars(file).pop("read", None)  # which refers to the file, and would keep its bytes


def _check_canvas(file: IO[bytes]) -> None:
    """Raises TooMuchError for a WebP of too many pixels: Pillow makes its canvas to open it."""
    start = file.read(30)
    file.seek(0)
    if start[:4] != b"RIFF" or start[8:16] != b"WEBPVP8X":
        return
    width, height = (1 + int.from_bytes(start[i : i + 3], "little") for i in (24, 27))
    if max(width, height) > _MOST_SIDE or width * height > (Image.MAX_IMAGE_PIXELS or 0):
        raise TooMuchError(f"{width}x{height} pixels are too many for a picture")
