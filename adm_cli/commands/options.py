"""Options that several commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

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
Pictures = Annotated[
    list[Path],
    typer.Argument(help="Folders, zips or uncompressed tars of pictures.", show_default=False),
]
Labels = Annotated[
    str,
    typer.Option(
        "--labels",
        help="Class of a picture: auto, folders, names (up to the first underscore), none, or a "
        "CSV file.",
    ),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Pass over unreadable pictures.")]
SomePictures = Annotated[
    Optional[int],
    typer.Option("--num", "-n", help="This many, spread over the set. Default: all."),
]
NoiseSeed = Annotated[
    int, typer.Option("--seed", help="Of the noise and of the choice of pictures.")
]
PictureBatch = Annotated[
    Optional[int],
    typer.Option(
        "--batch-size",
        "-b",
        help="Pictures computed at once. Default: as many as fit, at most 16.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")]
Json = Annotated[bool, typer.Option("--json", help="Results as JSON, one object a line.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes.")]
WeightsFile = Annotated[Path, typer.Argument(help="A file.", show_default=False)]
