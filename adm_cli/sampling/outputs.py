"""Where the images of a run go, and what is made beside them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from adm_cli.errors import UsageError, did_you_mean
from adm_cli.files.fresh import fresh_folder
from adm_cli.files.links import remove_folder
from adm_cli.sampling.folder import RunFolder, Shard

FORMATS = ("png", "webp", "npz")
PAGE = "gallery.html"  # in a run's folder, of --gallery
SEQUENCE = "interpolation.webp"  # likewise, of adm interpolate
FRESH = Path("out")  # holds the folders of runs without --out


@dataclass(frozen=True)
class Extras:
    """What is made of the images once they are safe."""

    npz: bool = False
    grid: bool = False
    film: Path | None = None
    gallery: bool = False
    sequence: bool = False  # a film of the images, in their order


@dataclass(frozen=True)
class Outputs:
    """Where the results of one run go, and in which form."""

    out: Path | None  # None: a fresh folder
    suffix: str  # of the images
    beside: Extras
    overwrite: bool
    shard: Shard
    metadata: bool = True  # False: the pictures carry no recipes

    @property
    def folder(self) -> RunFolder:
        """The run's; where it is a fresh one, what would be made now."""
        return RunFolder(fresh_folder(FRESH) if self.out is None else self.out)

    @property
    def format(self) -> str:
        """What was asked for: png, webp or npz."""
        return "npz" if self.beside.npz else self.suffix[1:]


def choose_outputs(
    out: Path | None, format: str, grid: bool | None, animate: Path | None, gallery: bool,
    overwrite: bool, shard: Shard, *, metadata: bool = True,
) -> Outputs:  # fmt: skip
    """The options, checked; raises UsageError."""
    if format not in FORMATS:
        hint = did_you_mean(format, FORMATS)
        raise UsageError(f"unknown --format {format!r}{hint} (there are {', '.join(FORMATS)})")
    if animate is not None and animate.suffix.lower() not in (".gif", ".webp"):
        raise UsageError(f"--animate {animate}: expected a name that ends in .gif or .webp")
    whole = grid or gallery or animate is not None or format == "npz"
    if shard.count > 1 and (overwrite or whole):
        raise UsageError(
            f"shard {shard} sees a part of the run: draw every shard without --grid, --gallery, "
            f"--animate, --format npz and --overwrite, then run the same command without "
            f"--shard, or adm merge"
        )
    suffix = ".webp" if format == "webp" else ".png"
    beside = Extras(format == "npz", bool(grid), animate, gallery)
    return Outputs(out, suffix, beside, overwrite, shard, metadata)


def remove_if_empty(folder: Path) -> None:
    """Takes back a folder in which a failed run left nothing."""
    with suppress(OSError):
        remove_folder(folder)
