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

from adm_cli.files.budget import few_reads


@contextmanager
def open_image(
    source: bytes | IO[bytes], formats: tuple[str, ...]
) -> Iterator[ImageFile.ImageFile]:
    """A picture of one of these formats, not yet decoded.

    Raises what Pillow raises, and TooMuchError for one of more parts than a picture has.
    """
    file = few_reads(io.BytesIO(source) if isinstance(source, bytes) else source)
    try:
        with Image.open(file, formats=formats) as image:
            yield image
    finally:
        vars(file).pop("read", None)  # which refers to the file, and would keep its bytes
