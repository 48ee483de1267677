"""What a training will cost, told before it; what came of it and what is next, told after."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from adm_cli.commands import console
from adm_cli.commands.progress import duration
from adm_cli.errors import how_many
from adm_cli.files.tables import NO_PLOT

if TYPE_CHECKING:
    from adm_cli.training.train import Training


def tell_costs(facts: Mapping[str, Any]) -> None:
    """The last lines of a dry run: what matters of it."""
    epochs = facts["steps"] * facts["batch_size"] / max(1, facts["pictures"])
    lines = [
        f"{how_many(facts['steps'], 'step')} of {facts['batch_size']}: "
        f"{how_many(epochs, 'epoch')} of {how_many(facts['pictures'], 'picture')}",
        f"{how_many(facts['parameters'], 'parameter')}, {facts['memory_gb']:.2f} GB of memory, "
        f"{facts['free_gb']:.2f} GB are free",
    ]
    if facts["hours"] is not None:
        time, rate = duration(3600 * facts["hours"]), facts["images_per_second"]
        speed = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
        lines.append(f"about {time} at {speed} images/s on this machine")
    if "note" in facts:
        lines.append(str(facts["note"]))
    console.out.print()
    for line in lines:
        console.out.print(line, markup=False)


def tell_end(done: Training, *, alone: bool) -> None:
    """How long it took, what is best, where the losses are, and the next command.

    ``alone``: by one process; what started several, nobody but who typed it knows.
    """
    if done.stopped:
        again = f"go on with: adm train-{done.kind} --resume --out {shlex.quote(str(done.folder))}"
        console.note(
            f"stopped after step {done.step} of {done.steps}; "
            f"{again if alone else 'the same command goes on'}"
        )
        return
    console.note(
        f"{how_many(done.step, 'step')}, {how_many(done.epochs, 'epoch')}, in "
        f"{duration(done.seconds)} "
        f"with validating and saving"
    )
    if done.best_step is not None and "loss" in done.validation:
        loss = done.validation["loss"]
        console.note(f"lowest validation loss: {loss:.4g}, after step {done.best_step:,}")
    if done.plot is None:
        console.note(NO_PLOT)
    else:
        console.note(f"losses: {done.plot}")
    for command in next_commands(done):
        console.note(f"next: {command}")


def next_commands(done: Training) -> Iterator[str]:
    """What the model is made for, as commands to paste."""
    model = shlex.quote(str(done.model))
    options = done.settings.options
    best = shlex.quote(str(done.best or done.model))
    conditional = done.settings.config.num_classes is not None
    data, held = (shlex.join(map(str, options.get(name, ()))) for name in ("data", "val"))
    if done.kind == "diffusion":
        guide = options.get("classifier")
        guided = "" if guide is None else f" --classifier {shlex.quote(guide)} --scale 2"
        classes = " --class all --num 2" if conditional else " --num 8"
        yield f"adm sample --model {model}{guided}{classes} --grid"
    elif done.kind == "upsampler":
        yield f"adm upsample PICTURES --model {model}"
    elif not done.settings.training.noised:
        yield f"adm evaluate SAMPLES --judge {best} --real {held or data}"
    else:
        read = _told(options, "labels", "value_range", "classes", "skip_bad")
        if held:  # of the others it knows some by heart
            yield f"adm evaluate-classifier {held}{read} --classifier {best}"
        read = _told(options, "val", "val_split") + read
        yield f"adm train-diffusion {data}{read} --match {best} --classifier {best} --out runs/base"


def _told(options: Mapping[str, Any], *names: str) -> str:
    """The options of a run among ``names``, each with a space before it."""
    words: list[str] = []
    for name in names:
        option = "--class" if name == "classes" else f"--{name.replace('_', '-')}"
        value = options.get(name, [])
        for one in value if isinstance(value, list) else [value]:
            words += [option] if one is True else [option, str(one)]
    return f" {shlex.join(words)}" if words else ""
