"""Options that several commands share, each declared once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from adm_cli.checkpoints.places import checkpoint_path
from adm_cli.checkpoints.presets import CHECKPOINTS, PRESETS
from adm_cli.classes.imagenet import imagenet_classes
from adm_cli.commands import completing
from adm_cli.files.disk import peek_classes

SAMPLERS = f"{', '.join(completing.SAMPLER_NAMES[:-1])} or {completing.SAMPLER_NAMES[-1]}"
METRICS = f"{','.join(completing.METRIC_NAMES)}"
SPACINGS = f"{', '.join(completing.SPACING_NAMES[:-1])} or {completing.SPACING_NAMES[-1]}"
SCALE_SCHEDULES = ", ".join(completing.SCALE_SCHEDULE_NAMES)
GUIDE_BY = f"{', '.join(completing.GUIDE_BY_NAMES[:-1])} or {completing.GUIDE_BY_NAMES[-1]}"
LOW_RES_NOISE_HELP = (
    "Noise on what is enlarged, from 0 to the most the upsampler was trained with. Default: a "
    "tenth of that."
)
PROJECT_HELP = (
    "Passes that make the result, made small again, what was enlarged; 0: none. Default: 8, and "
    "none for the published upsamplers."
)


def complete_class(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Ids and names of the model's classes, for the shell's completion.

    ImageNet's, where the model's file is not here or cannot be read.
    """
    names = model_classes(str(context.params.get("model") or "tiny"))
    if not names:
        names = {row.id: row.names[0] for row in imagenet_classes()}
    return completing.class_words(names, incomplete)


complete_model = completing.complete_model
complete_sampler = completing.complete_word(*completing.SAMPLER_NAMES)
complete_device = completing.complete_word(*completing.DEVICE_NAMES)
complete_dtype = completing.complete_word(*completing.DTYPE_NAMES)
complete_metrics = completing.complete_list(*completing.METRIC_NAMES)


def _lower(text: str) -> str:
    return text.lower()


def model_classes(name: str) -> dict[int, str]:
    """What a preset, checkpoint or file was trained on, by its header, without torch."""
    checkpoint = next((row.model for row in PRESETS if row.name == name), name)
    row = next((row for row in CHECKPOINTS if row.name == checkpoint), None)
    if row is None:
        return peek_classes(Path(name))
    return peek_classes(checkpoint_path(row))


Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        envvar="ADM_MODEL",
        autocompletion=complete_model,
        help="Preset, checkpoint name or weights file (adm models lists presets).",
    ),
]
Classifier = Annotated[
    Optional[str],
    typer.Option(
        "--classifier",
        autocompletion=completing.complete_classifier,
        help="Classifier that guides; by default the preset's.",
    ),
]
Eta = Annotated[
    Optional[float],
    typer.Option(
        "--eta",
        help="Noise of ddim and dpm++2m: 0 none, 1 as much as ddpm's. Default: 0; without "
        "--sampler what the model recommends.",
    ),
]
GuideInterval = Annotated[
    Optional[str],
    typer.Option(
        "--guide-interval",
        help="Guide only at these noise levels, such as 0.2,0.8: 0 is no noise, 1 the last "
        "timestep. Default: the preset's, else all.",
    ),
]
Cfg = Annotated[
    Optional[float],
    typer.Option(
        "--cfg",
        help="Weight of classifier-free guidance, alone or beside --scale; 1 is off. "
        "Default: the preset's.",
    ),
]
CfgInterval = Annotated[
    Optional[str],
    typer.Option("--cfg-interval", help="As --guide-interval, for --cfg."),
]
_SURE = "Guide more strongly where the classifier is sure."
EntropyScaling = Annotated[bool, typer.Option("--entropy-scaling", help=_SURE)]
EntropyScalingOrNot = Annotated[
    Optional[bool], typer.Option("--entropy-scaling/--no-entropy-scaling", help=_SURE)
]
GuideBy = Annotated[
    str,
    typer.Option(
        "--guide-by",
        autocompletion=completing.complete_word(*completing.GUIDE_BY_NAMES),
        help=f"{GUIDE_BY}: whose gradient guides, log p or log p minus a divergence.",
    ),
]
DivergenceWeight = Annotated[
    float, typer.Option("--divergence-weight", help="Of the divergence of --guide-by; 0 is off.")
]
GuideEvery = Annotated[
    int,
    typer.Option(
        "--guide-every", help="The classifier guides at every K-th step it could; 1: all."
    ),
]
GuideAdam = Annotated[
    Optional[str],
    typer.Option(
        "--guide-adam",
        help="Betas, such as 0.9/0.995: the classifier's gradient over its own size, as in Adam. "
        "Needs a --scale of its own, about 0.1.",
    ),
]
ClassifierOn = Annotated[
    str,
    typer.Option(
        "--classifier-on",
        autocompletion=completing.complete_word(*completing.CLASSIFIER_ON_NAMES),
        help="What the classifier sees: xt, the noisy image, or x0, the predicted clean one (for "
        "classifiers trained without noise).",
    ),
]
ScaleSchedule = Annotated[
    str,
    typer.Option(
        "--scale-schedule",
        autocompletion=completing.complete_word(*completing.SCALE_SCHEDULE_NAMES),
        help=f"--scale and --cfg over the noise: {SCALE_SCHEDULES}. The mean stays.",
    ),
]
NegativeClass = Annotated[
    Optional[str],
    typer.Option(
        "--negative-class",
        autocompletion=complete_class,
        help="Lead away from this class: --cfg instead of from none, --scale besides.",
    ),
]
SagScale = Annotated[
    float,
    typer.Option("--sag-scale", help="Weight of self-attention guidance, such as 1.1; 1 is off."),
]
PagScale = Annotated[
    float,
    typer.Option(
        "--pag-scale", help="Weight of perturbed-attention guidance, such as 2; 1 is off."
    ),
]
Spacing = Annotated[
    str,
    typer.Option(
        "--spacing",
        autocompletion=completing.complete_word(*completing.SPACING_NAMES),
        help=f"Which timesteps a number of --steps visits: {SPACINGS}.",
    ),
]
EpsScale = Annotated[
    float, typer.Option("--eps-scale", help="Divides the predicted noise, such as 1.004; 1 is off.")
]
Threshold = Annotated[
    Optional[str],
    typer.Option(
        "--threshold",
        help="Dynamic thresholding: scale each predicted x_0 by this quantile, such as 0.995.",
    ),
]
Churn = Annotated[
    float,
    typer.Option(
        "--churn", help="Noise of --sampler heun over all its steps (EDM's S_churn), such as 40."
    ),
]
ChurnNoise = Annotated[
    float, typer.Option("--churn-noise", help="Multiplies that noise (S_noise), such as 1.003.")
]
ChurnMin = Annotated[
    float, typer.Option("--churn-min", help="Churn from this sigma on, instead of 0.05 (S_tmin).")
]
ChurnMax = Annotated[
    float, typer.Option("--churn-max", help="Churn up to this sigma, instead of 50 (S_tmax).")
]
Temperature = Annotated[
    Optional[float],
    typer.Option(
        "--temperature",
        help="Scales all noise: below 1 pictures are smoother and more alike. "
        "Default: what the model recommends, 1 "
        "for most.",
    ),
]
WeakModel = Annotated[
    Optional[str],
    typer.Option(
        "--weak-model",
        autocompletion=complete_model,
        help="A weaker model of the same kind, whose errors autoguidance leads away from.",
    ),
]
WeakScale = Annotated[
    Optional[float],
    typer.Option(
        "--weak-scale", help="Weight of autoguidance by --weak-model, such as 1.5; 1 is off."
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        autocompletion=complete_device,
        help="auto, cpu, cuda, cuda:1 or mps. auto: CUDA, MPS, CPU.",
    ),
]
Dtype = Annotated[
    str,
    typer.Option(
        "--dtype",
        autocompletion=complete_dtype,
        help="auto, float32, bfloat16, float16 or float64. auto: float32, on CUDA what the "
        "model was published with.",
    ),
]
Plain = Annotated[
    bool,
    typer.Option(
        "--plain/--no-plain",
        help="On a CPU: the networks as written down, without what makes them faster.",
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
        "file: CSV, JSON.",
    ),
]
ValueRange = Annotated[
    Optional[str],
    typer.Option(
        "--value-range",
        help="What is white in files of 16 bits, such as 4095, or BLACK,WHITE. Default: as "
        "the values tell.",
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
ShardOption = Annotated[
    Optional[str],
    typer.Option(
        "--shard", help="i/n: only the i-th of n parts, from 1; torchrun's processes share it."
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        "--workers", help="Processes that share the run and the CPU's cores; for bulk, one a core."
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
Batch = Annotated[
    Optional[int],
    typer.Option(
        "--batch-size",
        "-b",
        help="Images computed at once. Default: as many as fit, at most 16.",
    ),
]
Clip = Annotated[
    bool, typer.Option("--clip/--no-clip", help="Clamp each predicted x_0 to [-1, 1].")
]
RunOut = Annotated[
    Optional[Path],
    typer.Option(
        "--out",
        "-o",
        help="Folder of the run: begun, or gone on with. Default: a new one under ./out.",
    ),
]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        "-f",
        callback=_lower,
        autocompletion=completing.complete_word(*completing.FORMAT_NAMES),
        help="png, webp, or npz: PNGs, and a samples_*.npz of them.",
    ),
]
Grid = Annotated[
    Optional[bool],
    typer.Option(
        "--grid/--no-grid",
        help="Also write grid.png, a contact sheet with a row a class. On a terminal it is made "
        "of 2 to 100 images.",
        show_default=False,
    ),
]
Animate = Annotated[
    Optional[Path],
    typer.Option("--animate", help="Also write the first batch's denoising as GIF or WebP."),
]
Gallery = Annotated[
    bool, typer.Option("--gallery", help="Also write gallery.html, a page of the run's images.")
]
NoMetadata = Annotated[
    bool,
    typer.Option(
        "--no-metadata",
        help="Pictures without their recipes, to publish; the run's folder keeps what made them.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show the resolved settings and draw nothing.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace files that are there; begin a run anew.")
]
Replace = Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")]
Fetch = Annotated[
    bool, typer.Option("--fetch", help="Fetch published weights that are not here, then go on.")
]
Json = Annotated[bool, typer.Option("--json", help="Results as JSON, one object a line.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes.")]


def asked(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a command that its Python function takes: all but how it speaks."""
    how = ("json", "quiet", "context", "changes")
    given = {**arguments, **arguments.get("changes", {})}  # those of `modifier_options`
    return {name: value for name, value in given.items() if name not in how}
