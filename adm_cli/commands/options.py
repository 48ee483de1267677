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
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")]
Json = Annotated[bool, typer.Option("--json", help="Results as JSON, one object a line.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes.")]
WeightsFile = Annotated[Path, typer.Argument(help="A file.", show_default=False)]
