"""``adm train-diffusion``, ``adm train-classifier`` and ``adm train-upsampler``."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from adm_cli.commands import console, signals
from adm_cli.commands.progress import Progress
from adm_cli.commands.training_end import tell_costs, tell_end
from adm_cli.commands.training_options import Shown, command_of
from adm_cli.training.options import (
    ClassifierOptions,
    CommonOptions,
    DiffusionOptions,
    UpsamplerOptions,
)

if TYPE_CHECKING:
    from adm_cli.config import Kind
    from adm_cli.training.train import Training


@command_of(DiffusionOptions)
def train_diffusion(options: DiffusionOptions, shown: Shown) -> None:
    """Train a diffusion model on your own pictures.

    Example: adm train-diffusion photos/ --out runs/base --label-dropout 0.1
    """
    _train("diffusion", options, shown)


@command_of(ClassifierOptions)
def train_classifier(options: ClassifierOptions, shown: Shown) -> None:
    """Train the classifier of noisy pictures that guides a diffusion model.

    Example: adm train-classifier photos/ --out runs/classifier
    """
    _train("classifier", options, shown)


@command_of(UpsamplerOptions)
def train_upsampler(options: UpsamplerOptions, shown: Shown) -> None:
    """Train a diffusion model that enlarges small pictures.

    Example: adm train-upsampler photos/ --size 64 --low-size 32 --out runs/upsampler
    """
    _train("upsampler", options, shown)


def _train(kind: Kind, options: CommonOptions, shown: Shown) -> None:
    from adm_cli.training.distributed import find_world

    world = find_world()
    if shown.dry_run:
        _dry_run(kind, options, shown, tells=world.writes)
        return
    from adm_cli.commands.training_display import TrainingDisplay
    from adm_cli.training import train
    from adm_cli.training.loop import Begun

    functions: dict[Kind, Callable[..., Training]] = {
        "diffusion": train.train_diffusion,
        "classifier": train.train_classifier,
        "upsampler": train.train_upsampler,
    }
    display, stopping = TrainingDisplay(quiet=shown.quiet or not world.writes), _StopSignals()

    def on_event(event: object) -> None:
        if isinstance(event, Begun):
            stopping.catch()
        display(event)

    with stopping, display:
        asked = {**vars(options), "on_event": on_event, "should_stop": stopping.asked}
        done = functions[kind](**asked)
    if world.writes:
        _report(done, json=shown.json)
        if not shown.quiet:
            tell_end(done, alone=world.size == 1)
    if done.stopped:
        raise typer.Exit(console.INTERRUPTED)


class _StopSignals:
    """A signal that stops asks to stop after the step; a SIGINT that `insists` stops at once."""

    def __init__(self) -> None:
        self._received: list[int] = []
        self._before: dict[int, Any] = {}

    def asked(self) -> bool:
        return bool(self._received)

    def catch(self) -> None:
        """From here on, until the block ends."""
        for number in signals.heeded():
            self._before[number] = signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: object) -> None:
        self._received.append(number)
        if signals.insists(self._received):
            raise KeyboardInterrupt

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        signals.remember(self._received)
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _report(done: Training, *, json: bool) -> None:
    """The files that were made, on stdout."""
    if json:
        console.print_json(done.to_json())
        return
    for path in (done.model, done.best):
        if path is not None:
            console.out.print(str(path), markup=False)


def _dry_run(kind: Kind, options: CommonOptions, shown: Shown, *, tells: bool) -> None:
    """The resolved settings, and what they will cost; one of torchrun's processes ``tells``."""
    from adm_cli.training.plan import plan_training

    with Progress(quiet=shown.quiet or not tells) as progress:
        facts = plan_training(kind, options, on_event=progress)
    if not tells:
        return
    if shown.json:
        console.print_json(facts)
        return
    for name, value in facts.items():
        console.out.print(f"{name:24} {console.one_line(str(value))}", markup=False)
    tell_costs(facts)
