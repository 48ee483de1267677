"""A run: everything that decides its images, resolved, as ``run.json`` holds it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from adm_cli.checkpoints.presets import ENLARGEMENTS
from adm_cli.config import MOST_BATCH
from adm_cli.diffusion.modifiers import NEUTRAL, Modifiers
from adm_cli.errors import ConfigError, RunError, UsageError, trim, why_unread
from adm_cli.files.budget import finite_number, parse_json
from adm_cli.files.differences import differences
from adm_cli.files.disk import explain_os_error, read_file
from adm_cli.files.own import if_sweep
from adm_cli.files.sealed import as_written, sealed_json
from adm_cli.files.strict import read_config
from adm_cli.sampling.choosing.images import Images, row_from_json, row_to_json
from adm_cli.sampling.editing import UNEDITED, Editing

FORMAT = 2
_MOST_BYTES = 2**31  # of run.json: so many rows at 200 bytes each
_MOST_ENTRIES = 2**27
_MOST_STEPS = 10**6
# What a recipe leaves out where it is as here: most pictures have none of it.
UNSAID: Mapping[str, Any] = MappingProxyType(
    {
        "guide_interval": None,
        "entropy_scaling": False,
        "cfg": 1.0,
        "cfg_interval": None,
        "project": 0,
        "low_res_noise": None,
        "plain": False,
        "weak_model": None,
        "weak_model_sha256": None,
        **NEUTRAL,
        **UNEDITED,
    }
)
_NAMES = ("model", "classifier", "weak_model")  # of a stage: a file may be called otherwise


@dataclass(frozen=True, kw_only=True)
class Stage(Modifiers, Editing):
    """One pass of a network, every setting resolved: it draws images, or enlarges pictures."""

    model: str
    model_sha256: str
    classifier: str | None = None  # what guides, if anything does
    classifier_sha256: str | None = None
    weak_model: str | None = None  # what autoguidance leads away from, if anything
    weak_model_sha256: str | None = None
    upsampler: bool = False
    scale: float  # of guidance, for images without their own; 0 is off
    cfg: float = 1.0  # of classifier-free guidance, likewise; 1 is off
    guide_interval: tuple[float, float] | None = None  # None: everywhere
    cfg_interval: tuple[float, float] | None = None
    entropy_scaling: bool = False
    sampler: str
    steps: str  # respacing; "" for every timestep
    num_steps: int
    eta: float | None
    clip_denoised: bool
    project: int = 0
    low_res_noise: float | None = None
    size: tuple[int, int]  # height, width
    dtype: Literal["float32", "bfloat16", "float16", "float64"]
    plain: bool = False  # the networks as written, on a CPU too, where rounding differs

    def __post_init__(self) -> None:
        super().__post_init__()
        Editing.__post_init__(self)
        if not 1 <= self.num_steps <= _MOST_STEPS or not 1 <= min(self.size) <= max(self.size):
            raise ConfigError(f"a stage of {self.num_steps} steps and size {self.size}")


@dataclass(frozen=True, kw_only=True)
class Filter:
    """An enlargement without weights."""

    model: str  # a method of `presets.ENLARGEMENTS`
    size: tuple[int, int]  # height, width

    num_steps = 0  # nothing is sampled

    def __post_init__(self) -> None:
        if self.model not in ENLARGEMENTS:
            raise ConfigError(f"{trim(self.model)} enlarges nothing")


@dataclass(frozen=True, kw_only=True)
class Run:
    """Images, and the stages that each one passes."""

    stages: tuple[Stage | Filter, ...]  # the first is a Stage
    images: Images
    device: str  # its kind: cpu, cuda, mps
    threads: int | None  # of the CPU, on which rounding depends
    batch_size: int  # images computed at once
    format: str  # of the files: png, webp
    versions: Mapping[str, str]  # adm, torch, pillow: a change is told
    value_range: tuple[float, float] | None = None  # of what is enlarged, in files of 16 bits
    metadata: bool = True  # the pictures carry their recipes
    # Settings left to the program, not asked for: a run that is there keeps its own.
    chosen: tuple[str, ...] = field(default=(), compare=False)

    @property
    def first(self) -> Stage:
        """The stage that draws, or enlarges pictures that were there before."""
        stage = self.stages[0]
        assert isinstance(stage, Stage)
        return stage

    @property
    def last(self) -> Stage | Filter:
        return self.stages[-1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.last.size

    @property
    def num_steps(self) -> int:
        return sum(stage.num_steps for stage in self.stages)

    @property
    def command(self) -> str:
        """Which command makes such a run."""
        if self.first.strength is not None:
            return "edit"
        if self.images[0].to_seed is not None:
            return "interpolate"
        return "upsample" if self.first.upsampler else "sample"

    def base(self) -> Run:
        """The run of the small pictures of a stack."""
        return dataclasses.replace(self, stages=self.stages[:1], chosen=())


def settings(run: Run) -> dict[str, Any]:
    """All that decides an image's bytes and must not change, by name."""
    found: dict[str, Any] = {"command": run.command}
    for stage, prefix in zip(run.stages, ("", "upsampler_"), strict=False):
        if isinstance(stage, Filter):
            found["upsampler"] = stage.model
            continue
        for name, value in dataclasses.asdict(stage).items():
            if name not in (*_NAMES, "size", "upsampler"):
                found[f"{prefix}{name}"] = value
    names = ["size", "device", "threads", "batch_size", "format"]
    names += [] if run.value_range is None else ["value_range"]
    names += [] if run.metadata else ["metadata"]
    return found | {name: getattr(run, name) for name in names}


def changed_settings(old: Run, new: Run) -> list[str]:
    """In words, what of `settings` differs, but for what ``new`` chose by itself.

    Of a second stage that is of another kind now, its name alone.
    """
    sides = [settings(run) for run in (old, new)]
    if len({type(run.stages[1]) if run.stages[1:] else None for run in (old, new)}) > 1:
        for side, run in zip(sides, (old, new), strict=True):
            for name in [name for name in side if name.startswith("upsampler_")]:
                del side[name]
            side["upsampler"] = run.stages[1].model if run.stages[1:] else None
    before, after = ({n: v for n, v in side.items() if n not in new.chosen} for side in sides)
    return differences(before, after)


def environment(run: Run) -> dict[str, Any]:
    """Versions and names, of which a change is only told."""
    first = {name: getattr(run.first, name) for name in _NAMES}
    first = {name: value for name, value in first.items() if value or name != "weak_model"}
    later = {"upsampler": run.last.model} if isinstance(run.last, Stage) and run.stages[1:] else {}
    return {**run.versions, **first, **later}


def render_run(run: Run) -> bytes:
    """``run.json``: an image or a run of seeds a line, its own SHA-256 at the end."""
    head = {
        "format": FORMAT,
        "stages": [_stage_to_json(stage) for stage in run.stages],
        "device": run.device,
        "threads": run.threads,
        "batch_size": run.batch_size,
        "picture_format": run.format,
        "versions": dict(run.versions),
        **({} if run.value_range is None else {"value_range": run.value_range}),
        **({} if run.metadata else {"metadata": False}),
    }
    rows = (row_to_json(row) for row in run.images.rows)
    return sealed_json({**head, "images": rows}, rows="images")


def _stage_to_json(stage: Stage | Filter) -> dict[str, Any]:
    facts = dataclasses.asdict(stage)
    for name, neutral in {
        "weak_model": None,
        "weak_model_sha256": None,
        **NEUTRAL,
        **UNEDITED,
    }.items():  # the rest after what every stage has
        if (value := facts.pop(name, neutral)) != neutral:
            facts[name] = value
    return facts


def read_run(path: Path) -> Run:
    """Reads ``run.json``, to the last byte; raises RunError if it is damaged or missing."""
    try:
        data = read_file(path, _MOST_BYTES)
    except FileNotFoundError:
        no_run = f"{path.parent} is no run: it has no {path.name}"
        raise RunError(if_sweep(path.parent) or no_run) from None
    except OSError as error:
        raise RunError(explain_os_error(f"cannot read {path}", error)) from None
    if (whole := as_written(data)) is None:
        raise RunError(f"{path} is damaged: its hash is not its content's")
    try:
        value = parse_json(whole, most=_MOST_BYTES, entries=_MOST_ENTRIES)
        if value["format"] != FORMAT:
            raise RunError(
                f"{path} has format {trim(value['format'], 20)}, expected {FORMAT}: another "
                f"version of adm made it, which can go on with it"
            )
        return _run_from(value)
    except (
        ValueError, KeyError, TypeError, AttributeError, RecursionError, UsageError, ConfigError,
    ) as error:  # fmt: skip
        raise RunError(f"{path} is no run of adm: {why_unread(error)}") from None


def _value_range(found: Any) -> tuple[float, float] | None:
    if found is None:
        return None
    if not isinstance(found, list) or len(found) != 2:
        raise ValueError(f"value_range is {trim(found, 40)}, expected two numbers")
    low, high = map(finite_number, found)
    if not low < high:
        raise ValueError(f"value_range is {trim(found, 40)}")
    return low, high


def _run_from(value: Mapping[str, Any]) -> Run:
    if not isinstance(value["versions"], dict):
        raise TypeError(f"versions is {trim(value['versions'], 40)}, expected an object")
    stages: list[Stage | Filter] = []
    for row in value["stages"]:
        stages.append(read_config(Stage, row) if "sampler" in row else read_config(Filter, row))
    run = Run(
        stages=tuple(stages),
        images=Images(map(row_from_json, value["images"])),
        device=value["device"],
        threads=value["threads"],
        batch_size=value["batch_size"],
        format=value["picture_format"],
        versions=MappingProxyType(dict(value["versions"])),
        value_range=_value_range(value.get("value_range")),
        metadata=value.get("metadata", True),
    )
    if not 1 <= len(stages) <= 2 or not isinstance(stages[0], Stage):
        raise ValueError(f"{len(stages)} stages")
    texts = (run.device, run.format, *run.versions, *run.versions.values())
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("device, picture_format and versions must be texts")
    if type(run.metadata) is not bool:
        raise TypeError(f"metadata is {trim(run.metadata, 40)}, expected true or false")
    if type(run.batch_size) is not int or not 1 <= run.batch_size <= MOST_BATCH:
        raise TypeError(f"batch_size is {trim(run.batch_size, 40)}")
    return run
