"""A training run from options to a model file: `train_diffusion` and its two kin."""

from __future__ import annotations

import dataclasses
import inspect
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import torch

from adm_cli.checkpoints.finding import find_weights
from adm_cli.checkpoints.flags.spellings import spell_dtype
from adm_cli.checkpoints.header import ModelFile, ModelInfo
from adm_cli.checkpoints.loading import load_model
from adm_cli.checkpoints.sources import check_noise, check_pair
from adm_cli.config import Kind
from adm_cli.devices import DTYPES, enough_memory, has_bfloat16, made_on_cpu
from adm_cli.errors import AdmError, RunError, UsageError, check_keywords, how_many, one_of
from adm_cli.events import Count, Hint, Note, OnEvent, ignore
from adm_cli.files.disk import check_writable
from adm_cli.files.fresh import make_fresh_folder
from adm_cli.models.classifier import NoisyClassifier
from adm_cli.pictures.unreadable import name_bad
from adm_cli.training.defaults import why_steps
from adm_cli.training.distributed import World, find_world, joined
from adm_cli.training.feed import decode_validation, make_feed
from adm_cli.training.initial import initial_weights, recommended_sampling
from adm_cli.training.interrupts import after_the_step
from adm_cli.training.loop import Begun, Job, TrainingRun
from adm_cli.training.options import (
    GUIDE_SCALE,
    VAL_IMAGES,
    ClassifierOptions,
    CommonOptions,
    DiffusionOptions,
    O,
    UpsamplerOptions,
    made_as_held,
)
from adm_cli.training.original_flags import take_over
from adm_cli.training.resuming import dtype_of, given, merge_options, refuse_changes
from adm_cli.training.runs import TrainingFolder
from adm_cli.training.sets import describe_classes
from adm_cli.training.setup import (
    Data,
    Settings,
    feed_options,
    open_data,
    settle,
)
from adm_cli.training.tasks import make_task
from adm_cli.training.trainer import Trainer

P = ParamSpec("P")


@dataclass(frozen=True)
class Training:
    """What came of a run, so far if it was ``stopped``."""

    kind: Kind
    folder: Path
    model: Path | None  # the averaged weights of the last step
    best: Path | None  # those of the lowest validation loss
    step: int
    steps: int
    best_step: int | None
    validation: Mapping[str, float]  # at the best step
    images_per_second: float
    seconds: float  # of all sittings, with validating, drawing samples and saving
    epochs: float
    stopped: bool
    settings: Settings
    plot: Path | None  # of the losses; None without matplotlib

    def to_json(self) -> dict[str, Any]:
        """All of it but the settings, which the folder holds."""
        facts = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del facts["settings"]
        for name in ("folder", "model", "best", "plot"):
            facts[name] = None if facts[name] is None else str(facts[name])
        return facts


def _public(
    cls: Callable[P, O],
) -> Callable[[Callable[[O], Training]], Callable[P, Training]]:
    """Gives a function of options the fields of ``cls`` as keywords."""

    def decorate(function: Callable[[O], Training]) -> Callable[P, Training]:
        signature = inspect.signature(cls).replace(return_annotation="Training")

        @wraps(function)
        def call(*args: P.args, **options: P.kwargs) -> Training:
            check_keywords(function.__name__, options, signature.parameters)
            return function(made_as_held(cls(*args, **options)))

        call.__signature__ = signature  # type: ignore[attr-defined]
        return call

    return decorate


@_public(DiffusionOptions)
def train_diffusion(options: DiffusionOptions) -> Training:
    """Trains a diffusion model on pictures: folders, zips or uncompressed tars.

    Keywords are the options of ``adm train-diffusion``, None where nothing is asked for.
    ``on_event`` takes `Note`, `Count` and the events of `training.loop`, of torchrun's processes in
    the first alone but for `Begun`; the run stops after the
    step in which ``should_stop`` says so, and is gone on with by
    the same call; ``fresh`` begins anew.

    Raises UsageError or ConfigError for impossible settings, RunError where another process
    trains in the folder, AdmError where losses stay NaN, OutputError for files that cannot be
    written.
    """
    return _train("diffusion", options)


@_public(ClassifierOptions)
def train_classifier(options: ClassifierOptions) -> Training:
    """Trains a classifier of noisy pictures, as `train_diffusion` trains a diffusion model."""
    return _train("classifier", options)


@_public(UpsamplerOptions)
def train_upsampler(options: UpsamplerOptions) -> Training:
    """Trains a model that enlarges small pictures, as `train_diffusion` trains one that draws."""
    return _train("upsampler", options)


def _train(kind: Kind, options: CommonOptions) -> Training:
    world = find_world()
    tell = options.on_event if world.writes else ignore
    with joined(world, options.device) as device, _own_torch(device):
        ready = prepare(kind, options, world, device, tell)
        folder = _open_folder(options, world)
        with (
            _alone(folder, world, device, resume=ready.resuming, fresh=options.fresh),
            enough_memory(device, *_at_once(ready.settings, world, folder)),
        ):
            run = _begin(ready, folder, world, device, tell)
            config, pictures = run.config, len(run.job.feed.images)
            if world.writes and run.trainer.step < config.steps:  # else they trained nothing
                folder.save_settings(ready.settings.to_json())
            options.on_event(Begun(run.trainer.step, config.steps, config.batch_size, pictures))
            with after_the_step(options.should_stop, tell) as (should_stop, tell_safely):
                for event in run.events(should_stop):
                    tell_safely(event)
    return Training(
        kind=kind,
        folder=folder.path,
        model=folder.model if folder.model.exists() else None,
        best=folder.best if folder.best.exists() else None,
        step=run.trainer.step,
        steps=run.config.steps,
        best_step=run.best.step if run.best.step >= 0 else None,
        validation=run.best.metrics,
        images_per_second=round(run.clock.rate() * run.config.batch_size, 2),
        seconds=run.clock.total(),
        epochs=run.trainer.step * run.config.batch_size / max(1, len(run.job.feed.images)),
        stopped=run.stopped,
        settings=ready.settings,
        plot=folder.plot if folder.plot.exists() else None,
    )


@contextmanager
def _own_torch(device: torch.device) -> Iterator[None]:
    """Training seeds torch, needs gradients and makes its numbers on the CPU.

    The caller's state is as before afterwards.
    """
    forked = torch.random.fork_rng([device] if device.type == "cuda" else [])
    with forked, torch.enable_grad(), made_on_cpu():
        yield


@dataclass(frozen=True)
class TrainingPlan:
    """What a run needs, resolved and checked; nothing is decoded or built yet."""

    settings: Settings
    data: Data
    guide: ModelFile | None  # the classifier of the sample pictures
    resuming: bool


def prepare(
    kind: Kind, options: CommonOptions, world: World, device: torch.device, on_event: OnEvent,
) -> TrainingPlan:  # fmt: skip
    """Options, merged with those of a run that is gone on with, to settings and pictures."""
    if options.fresh and (options.resume or options.out is None):
        raise UsageError("--fresh begins anew in --out: pass that, and no --resume")
    chosen = given(options)
    if "flags" in chosen:
        chosen, notes = take_over(kind, chosen)
        for text in notes:
            on_event(Note(text))
    folder = None if options.out is None else TrainingFolder(options.out)
    chosen, before = merge_options(kind, chosen, options, folder, on_event)
    if device.type == "cuda":
        if before is not None:
            chosen.setdefault("dtype", dtype_of(before))
        elif "dtype" not in chosen:
            chosen["dtype"] = "bfloat16" if has_bfloat16(device) else "float16"
        chosen.setdefault("channels_last", True)
    if "dtype" in chosen:
        chosen["dtype"] = spell_dtype(str(chosen["dtype"]))
    if chosen.get("dtype") == "float16" and device.type != "cuda":
        raise UsageError("--dtype float16 needs CUDA: float32 and bfloat16 train on a CPU")
    _save_dtype(chosen)  # raises
    data = open_data(kind, chosen)
    settings = settle(kind, chosen, data)
    if before is not None:
        refuse_changes(before, settings)
    if settings.training.batch_size % world.size:
        mend = "make it a multiple" if before is None else "this run keeps it, so start fewer"
        raise UsageError(
            f"--batch-size {settings.training.batch_size} cannot be shared out among "
            f"{world.size} processes: {mend}"
        )
    guide = _find_guide(settings, data)
    for text in data.notes:
        on_event(Note(text))
    held = len(data.validation or ())
    on_event(Note(f"{how_many(len(data.training), 'picture')} to train on, {held} to validate"))
    if data.training.classes:
        on_event(Note(f"classes: {describe_classes(data.training)}"))
    if not {"steps", "kimg"} & set(chosen):
        training = settings.training
        epochs = training.steps * training.batch_size / max(1, len(data.training))
        text = f"{how_many(training.steps, 'step')} of {how_many(training.batch_size, 'picture')}"
        why = f"{how_many(epochs, 'epoch')}, {why_steps(settings.kind, training.steps)}"
        on_event(Note(f"{text}: {why} (or --steps)"))
    free = device.type == "cpu" and before is None and "dtype" not in chosen
    if free and has_bfloat16(device):
        on_event(Hint("this CPU computes in bfloat16: --dtype bfloat16 trains faster"))
    resuming = folder is not None and before is not None and bool(folder.states())
    return TrainingPlan(settings, data, guide, resuming)


def _at_once(settings: Settings, world: World, folder: TrainingFolder) -> tuple[str, str]:
    """What needs memory, and what mends that there is too little."""
    training = settings.training
    most = training.microbatch or training.batch_size // world.size
    where = shlex.quote(str(folder.path))
    mend = f"pass --microbatch {most // 2}, and --out {where} to go on with this run"
    return f"{how_many(most, 'picture')} at once", mend if most > 1 else "train a smaller model"


def _save_dtype(chosen: Mapping[str, Any]) -> torch.dtype:
    name = spell_dtype(str(chosen.get("save_dtype", "float32")))
    if name not in DTYPES:
        raise UsageError(f"--save-dtype {name}: expected {one_of(DTYPES)}")
    return DTYPES[name]


def _open_folder(options: CommonOptions, world: World) -> TrainingFolder:
    if options.out is not None:
        folder = TrainingFolder(options.out)
    elif world.size > 1:
        raise UsageError("several processes need --out, so that they agree on the folder")
    else:
        folder = TrainingFolder(make_fresh_folder(Path("training")))
    folder.check()
    check_writable(folder.path)
    world.wait()  # nobody writes before all have seen what is there
    return folder


@contextmanager
def _alone(
    folder: TrainingFolder, world: World, device: torch.device, *, resume: bool, fresh: bool = False
) -> Iterator[None]:
    """No other run trains in the folder meanwhile: process 0 has its lock, the others wait for it.

    ``fresh`` removes what another run left there. Raises RunError where another has it, or had it
    since this one looked whether to ``resume``.
    """
    with ExitStack() as stack:
        refusal: AdmError | None = None
        if world.writes:
            try:
                stack.enter_context(folder.lock())
                if fresh:
                    folder.clear()
                if bool(folder.states()) != resume:
                    raise RunError(
                        f"another process has trained in {folder.path} just now: the same command "
                        f"goes on with what it made, or choose another --out"
                    )
            except AdmError as error:
                refusal = error
        if world.any(refusal is not None, device):
            raise refusal or RunError(f"process 0 may not train in {folder.path}")
        yield


def _begin(
    ready: TrainingPlan,
    folder: TrainingFolder,
    world: World,
    device: torch.device,
    on_event: OnEvent,
) -> TrainingRun:
    """Decodes the pictures and builds the model."""
    settings, data = ready.settings, ready.data
    chosen, training = settings.options, settings.training
    start = find_weights(chosen["init"]) if "init" in chosen else None
    weights, anew = initial_weights(settings, data.training.classes, start)
    for text in anew:
        on_event(Note(f"--init: {text}"))
    options = feed_options(settings, (world.rank, world.size))

    def on_decoded(done: int, total: int) -> None:
        on_event(Count("pictures read", done, total))

    feed = make_feed(data.training, options, on_decoded)
    bad = list(feed.bad)
    validation = None
    if data.validation is not None and len(data.validation):
        most = int(chosen.get("val_images", VAL_IMAGES))
        images, labels, more = decode_validation(data.validation, options, most)
        validation = images, labels
        bad += more
    if bad:
        text = f"passed over {how_many(len(bad), 'unreadable picture')}: {name_bad(bad)}"
        on_event(Note(text))
    task = make_task(
        settings.config, settings.diffusion, noised=training.noised,
        label_smoothing=training.label_smoothing, classes=tuple(data.training.classes),
    )  # fmt: skip
    trainer = Trainer(task, training, device=device, world=world, init=weights)
    job = Job(
        folder, feed, _describe(settings, data, start, device), validation,
        _load_guide(ready.guide, device), float(chosen.get("scale", GUIDE_SCALE)),
        _save_dtype(chosen), bool(chosen.get("tensorboard")),
    )  # fmt: skip
    return TrainingRun(trainer, job, resume=ready.resuming)


def _describe(
    settings: Settings, data: Data, start: ModelFile | None, device: torch.device
) -> ModelInfo:
    """What the model's file says of itself."""
    conditional = settings.config.num_classes is not None
    origin = {} if start is None else {"init": start.name, "content_sha256": start.content_sha256}
    return ModelInfo(
        config=settings.config,
        diffusion=settings.diffusion,
        classes=data.training.classes if conditional else {},
        source=origin,  # the weights that a fine-tuned model began with
        recommended=recommended_sampling(settings),
        training={
            "settings": asdict(settings.training),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        },
    )


def _find_guide(settings: Settings, data: Data) -> ModelFile | None:
    """The classifier that guides the sample pictures; UsageError unless it suits the model."""
    name = settings.options.get("classifier")
    if name is None:
        return None
    file = find_weights(name)
    classes = data.training.classes if settings.config.num_classes is not None else {}
    info = ModelInfo(settings.config, settings.diffusion, classes)
    check_pair(info, "to train", file)
    check_noise(info, "to train", file, f"--match {shlex.quote(name)}")
    return file


def _load_guide(file: ModelFile | None, device: torch.device) -> NoisyClassifier | None:
    guide = None if file is None else load_model(file, device=device)
    assert guide is None or isinstance(guide, NoisyClassifier)
    return guide
