"""``adm train-diffusion``, ``adm train-classifier`` and ``adm train-upsampler``."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from adm_cli.commands import console
from adm_cli.commands.training_options import (
    ClassifierOptions,
    CommonOptions,
    DiffusionOptions,
    UpsamplerOptions,
    from_dataclass,
    given,
    stored,
)
from adm_cli.errors import AdmError, RunError, UsageError
from adm_cli.spellings import spell_dtype

if TYPE_CHECKING:
    import torch

    from adm_cli.models.classifier import NoisyClassifier
    from adm_cli.storage.checkpoints import ModelFile
    from adm_cli.storage.training_runs import RunFolder
    from adm_cli.training.distributed import World
    from adm_cli.training.loop import Run
    from adm_cli.training.setup import Data, Kind, Settings


@from_dataclass(DiffusionOptions)
def train_diffusion(options: DiffusionOptions) -> None:
    """Train a diffusion model on your own pictures.

    Example: adm train-diffusion photos/ --out runs/base --label-dropout 0.1
    """
    _train("diffusion", options)


@from_dataclass(ClassifierOptions)
def train_classifier(options: ClassifierOptions) -> None:
    """Train the classifier of noisy pictures that guides a diffusion model.

    Example: adm train-classifier photos/ --out runs/classifier
    """
    _train("classifier", options)


@from_dataclass(UpsamplerOptions)
def train_upsampler(options: UpsamplerOptions) -> None:
    """Train a diffusion model that enlarges small pictures.

    Example: adm train-upsampler photos/ --size 64 --low-size 32 --out runs/upsampler
    """
    _train("upsampler", options)


def _train(kind: Kind, options: CommonOptions) -> None:
    from adm_cli.training.distributed import find_world, joined

    world = find_world()
    quiet = options.quiet or not world.writes
    with joined(world, options.device) as device:
        settings, data, folder, resuming = _prepare(kind, options, world, device, quiet=quiet)
        if options.dry_run:
            _dry_run(settings, data, device, options)
            return
        assert folder is not None
        with _alone(folder, world, device, resume=resuming):
            run = _begin(settings, data, folder, world, device, resume=resuming, quiet=quiet)
            with _stop_signals() as should_stop:
                if world.writes:
                    folder.save_settings(settings.to_json())
                _follow(run, should_stop, quiet=quiet)
        if world.writes:
            _report(run, folder, json=options.json)
        if run.stopped:
            if not quiet:
                console.note(
                    f"stopped after step {run.trainer.step} of {run.config.steps}; go on with: "
                    f"adm train-{kind} --resume --out {folder.path}"
                )
            raise typer.Exit(console.INTERRUPTED)


def _prepare(
    kind: Kind, options: CommonOptions, world: World, device: torch.device, *, quiet: bool
) -> tuple[Settings, Data, RunFolder | None, bool]:
    """Settings, pictures, and the run's folder (None for a dry run), which may be resumed."""
    from adm_cli.storage.files import check_writable
    from adm_cli.storage.training_runs import RunFolder
    from adm_cli.training.original_flags import take_over
    from adm_cli.training.setup import describe_classes, open_data, refuse_changes, resolve

    chosen = given(options)
    if "flags" in chosen:
        chosen, notes = take_over(kind, chosen)
        if not quiet:
            for text in notes:
                console.note(text)
    folder = None if options.out is None else RunFolder(options.out)
    before: dict[str, Any] | None = None
    if options.resume:
        if folder is None:
            raise UsageError("--resume needs --out, the folder of the run to go on with")
        if folder.used():
            before = folder.load_settings()
            kept = stored(before, type(options))
            for rival, other in (("steps", "kimg"), ("kimg", "steps")):
                if rival in chosen:
                    kept.pop(other, None)
            chosen = {**kept, **chosen}
        elif not quiet:
            console.note(f"{options.out} holds no run yet: beginning one")
    elif folder is not None and folder.used() and not options.dry_run:
        raise UsageError(
            f"{options.out} holds a run already: pass --resume to go on with it, "
            f"or choose another --out"
        )
    if device.type == "cuda":
        chosen.setdefault("dtype", "bfloat16")
        chosen.setdefault("channels_last", True)
    if "dtype" in chosen:
        chosen["dtype"] = spell_dtype(str(chosen["dtype"]))
    if chosen.get("dtype") == "float16" and device.type != "cuda":
        raise UsageError("--dtype float16 needs CUDA: float32 and bfloat16 train on a CPU")
    data = open_data(kind, chosen)
    settings = resolve(kind, chosen, data)
    if settings.training.batch_size % world.size:
        raise UsageError(
            f"--batch-size {settings.training.batch_size} cannot be shared out among "
            f"{world.size} processes: make it a multiple"
        )
    if before is not None:
        refuse_changes(before, settings)
    for text in () if quiet else data.notes:
        console.note(text)
    if not quiet and not options.dry_run:
        held = len(data.validation or ())
        console.note(f"{len(data.training)} pictures to train on, {held} to validate")
        if data.training.classes:
            console.note(f"classes: {describe_classes(data.training)}")
    if options.dry_run:
        return settings, data, None, False
    if folder is None:
        folder = RunFolder(_fresh_folder(world))
    folder.check()
    check_writable(folder.path)
    world.wait()  # nobody writes before all have seen what is there
    return settings, data, folder, before is not None and bool(folder.states())


@contextmanager
def _alone(
    folder: RunFolder, world: World, device: torch.device, *, resume: bool
) -> Iterator[None]:
    """No other run trains in the folder meanwhile: process 0 has its lock, the others wait for it.

    Raises RunError where another has it, or had it since this one looked whether to ``resume``.
    """
    with ExitStack() as stack:
        refusal: AdmError | None = None
        if world.writes:
            try:
                stack.enter_context(folder.lock())
                if bool(folder.states()) != resume:
                    raise RunError(
                        f"another process has trained in {folder.path} just now: pass --resume to "
                        f"go on with what it made, or choose another --out"
                    )
            except AdmError as error:
                refusal = error
        if world.any(refusal is not None, device):
            raise refusal or typer.Exit(1)
        yield


def _fresh_folder(world: World) -> Path:
    from adm_cli.sampling.outputs import make_fresh_folder

    if world.size > 1:
        raise UsageError("several processes need --out, so that they agree on the folder")
    return make_fresh_folder(Path("training"))


def _begin(
    settings: Settings, data: Data, folder: RunFolder, world: World, device: torch.device,
    *, resume: bool, quiet: bool,
) -> Run:  # fmt: skip
    """Decodes the pictures and builds the model."""
    import torch

    from adm_cli.devices import DTYPES
    from adm_cli.loading import find_weights
    from adm_cli.storage.checkpoints import ModelInfo
    from adm_cli.training.feed import decode_validation, make_feed
    from adm_cli.training.loop import Job, Run
    from adm_cli.training.setup import (
        DEFAULT_VAL_IMAGES,
        feed_options,
        initial_weights,
        recommended_sampling,
    )
    from adm_cli.training.tasks import make_task
    from adm_cli.training.trainer import Trainer

    chosen = settings.options
    training = settings.training
    start = find_weights(chosen["init"]) if "init" in chosen else None
    weights, anew = initial_weights(settings, data.training.classes, start)
    if not quiet:
        for text in anew:
            console.note(f"--init: {text}")
    options = feed_options(settings, (world.rank, world.size))
    with _decoding(quiet=quiet) as on_decoded:
        feed = make_feed(data.training, options, on_decoded)
    bad = list(feed.bad)
    validation = None
    if data.validation is not None and len(data.validation):
        most = int(chosen.get("val_images", DEFAULT_VAL_IMAGES))
        images, labels, more = decode_validation(data.validation, options, most)
        validation = images, labels
        bad += more
    if bad and not quiet:
        console.note(f"passed over {len(bad)} unreadable pictures, e.g. {bad[0]}")
    save_dtype = spell_dtype(str(chosen.get("save_dtype", "float32")))
    if save_dtype not in DTYPES:
        raise UsageError(f"--save-dtype {save_dtype}: expected {', '.join(DTYPES)}")
    trainer = Trainer(
        make_task(
            settings.config,
            settings.diffusion,
            noised=training.noised,
            label_smoothing=training.label_smoothing,
        ),
        training,
        device=device,
        world=world,
        init=weights,
    )
    conditional = settings.config.num_classes is not None
    info = ModelInfo(
        config=settings.config,
        diffusion=settings.diffusion,
        classes=data.training.classes if conditional else {},
        source=_origin(start),
        recommended=recommended_sampling(settings),
        training={
            "settings": asdict(training),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        },
    )
    job = Job(
        folder, feed, info, validation, _load_guide(settings, device),
        float(chosen.get("scale", 1.0)), DTYPES[save_dtype], bool(chosen.get("tensorboard")),
    )  # fmt: skip
    return Run(trainer, job, resume=resume)


def _load_guide(settings: Settings, device: torch.device) -> NoisyClassifier | None:
    """The classifier that guides the sample pictures."""
    from adm_cli.loading import load_model
    from adm_cli.models.classifier import NoisyClassifier

    name = settings.options.get("classifier")
    if name is None:
        return None
    guide = load_model(name, device=device)
    if not isinstance(guide, NoisyClassifier):
        raise UsageError(f"--classifier {name} is not a classifier")
    if guide.config.image_size != settings.config.image_size:
        raise UsageError(f"--classifier {name} is for another image size")
    return guide


def _origin(start: ModelFile | None) -> dict[str, str]:
    """The weights that a fine-tuned model began with."""
    return {} if start is None else {"init": start.name, "content_sha256": start.content_sha256}


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """SIGINT and SIGTERM ask to stop after the step; a second SIGINT stops at once.

    (torchrun sends SIGTERM after the terminal's SIGINT: that is no second one.)
    """
    received: list[int] = []

    def handle(number: int, _frame: object) -> None:
        if number == signal.SIGINT and number in received:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _decoding(*, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Progress of reading the pictures, where it takes long."""
    import time

    last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        if not quiet and time.monotonic() - last >= 2:
            last = time.monotonic()
            console.note(f"read {done} of {total} pictures")

    yield show


def _follow(run: Run, should_stop: Callable[[], bool], *, quiet: bool) -> None:
    from adm_cli.commands.training_display import TrainingDisplay
    from adm_cli.training.loop import Note

    display = TrainingDisplay(run.config.steps, run.trainer.step, quiet=quiet)
    with display.show():
        for event in run.events(should_stop):
            if isinstance(event, Note) and not quiet:
                console.note(event.text)
            display.update(event)


def _report(run: Run, folder: RunFolder, *, json: bool) -> None:
    """The files that were made, on stdout."""
    record: dict[str, Any] = {
        "model": str(folder.model) if folder.model.exists() else None,
        "best": str(folder.best) if folder.best.exists() else None,
        "step": run.trainer.step,
        "steps": run.config.steps,
        "best_step": run.best.step if run.best.step >= 0 else None,
        "validation": run.best.metrics,
        "images_per_second": round(run.clock.rate() * run.config.batch_size, 2),
    }
    if json:
        console.print_json(record)
        return
    for name in ("model", "best"):
        if record[name] is not None:
            console.out.print(record[name], markup=False)


def _dry_run(settings: Settings, data: Data, device: torch.device, options: CommonOptions) -> None:
    """The resolved settings, and what they will cost."""
    from adm_cli.training.estimate import estimate
    from adm_cli.training.setup import describe_classes

    facts: dict[str, Any] = {
        "kind": settings.kind,
        "pictures": len(data.training),
        "validation_pictures": len(data.validation or ()),
        "classes": describe_classes(data.training) or None,
        **asdict(settings.config),
        **asdict(settings.diffusion),
        **asdict(settings.training),
        **estimate(settings, device),
    }
    if options.json:
        console.print_json(facts)
        return
    for name, value in facts.items():
        text = f"{value:,}" if isinstance(value, int) and name == "parameters" else str(value)
        console.out.print(f"{name:24} {console.one_line(text)}", markup=False)
