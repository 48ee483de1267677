"""The range of a set's values, where its pictures have more than 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from adm_cli.pictures.datasets import ImageSet
from adm_cli.pictures.decode import peak_value
from adm_cli.pictures.depth import FULL, ValueRange, guess_range, parse_value_range

_LOOKED_AT = 16  # pictures, spread over the set
_DEEP_ENDINGS = (".png", ".tif", ".tiff", ".jp2", ".j2k", ".pgm", ".ppm", ".pnm")


def with_value_range(images: ImageSet, asked: str | None) -> ImageSet:
    """The set with the range of its values: as asked for, or guessed from some, which a note says.

    A guess is needed where 16-bit files hold fewer bits: these would be nearly black. Raises
    UsageError for no range.
    """
    if asked is not None:
        return replace(images, values=parse_value_range(asked))
    found, notes = guess_by_peaks([p.name for p in images.pictures], images.read_quietly)
    return replace(images, values=found, notes=(*images.notes, *notes))


def guess_by_peaks(
    names: Sequence[str], read: Callable[[int], bytes]
) -> tuple[ValueRange | None, list[str]]:
    """The range of those pictures that have 16 bits, guessed from some, and a note that says so.

    None for all 16 bits, with a note where no picture uses the upper half of them.

    ``read`` gives the bytes of the one of an index.
    """
    deep = [i for i, name in enumerate(names) if name.lower().endswith(_DEEP_ENDINGS)]
    some = deep[:: max(1, len(deep) // _LOOKED_AT)][:_LOOKED_AT]
    peaks = [peak for i in some if (peak := peak_value(read(i))) is not None]
    if not peaks:
        return None, []
    peak = max(peaks)
    found = guess_range(peak)
    high = FULL if found is None else found.high
    dark = 0 < peak < high / 2
    if found is None and not dark:
        return None, []
    note = f"16-bit files with values up to {peak:g}: {high:g} is white"
    return found, [
        f"{note}, far above them all (--value-range {peak:g} makes them brighter)"
        if dark
        else f"{note} (or --value-range)"
    ]
