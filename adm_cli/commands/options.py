"""Options that several commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from adm_cli.errors import UsageError

_MOST_SIDE = 8192

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        envvar="ADM_MODEL",
        help="Preset, checkpoint name or weights file (adm models lists presets).",
    ),
]
Classifier = Annotated[
    Optional[str],
    typer.Option("--classifier", help="Classifier that guides; by default the preset's."),
]
Device = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:1 or mps. auto: CUDA, MPS, CPU.")
]
Dtype = Annotated[
    str,
    typer.Option(
        "--dtype",
        help="auto, float32, bfloat16, float16 or float64. auto: float32, on CUDA what the "
        "model was published with.",
    ),
]
Features = Annotated[
    str,
    typer.Option(
        "--features",
        help="Whose features to compare: inception, classifier (the embedded noisy classifier; "
        "needs no download, and is not FID), or a classifier's name or file.",
    ),
]
InceptionFile = Annotated[
    Optional[Path],
    typer.Option(
        "--inception",
        help="Inception's weights. Default: what adm fetch inception brought.",
    ),
]
Resize = Annotated[
    Optional[str],
    typer.Option(
        "--resize", help="Crop and scale every image to this size, 64 or 48x64. Default: as it is."
    ),
]
FeatureBatch = Annotated[
    Optional[int],
    typer.Option("--batch-size", "-b", help="Images the network sees at once. Default: 64."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")]
Json = Annotated[bool, typer.Option("--json", help="Results as JSON, one object a line.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes.")]
WeightsFile = Annotated[Path, typer.Argument(help="A file.", show_default=False)]


def parse_resize(text: str | None) -> tuple[int, int] | None:
    """``--resize`` as (height, width); raises UsageError."""
    if text is None:
        return None
    from adm_cli.training.setup import parse_size

    size = parse_size(text)
    if not 1 <= min(size) <= max(size) <= _MOST_SIDE:
        raise UsageError(f"--resize {text}: expected sides of 1 to {_MOST_SIDE}")
    return size
