"""Every command that writes, as small as can be: the rows of the fault tests."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

import adm_cli.sampling.drawing.memory as memory_module
from adm_cli.commands import main
from tests.conftest import Toys

FLAGS = "--image_size 8 --num_channels 32 --channel_mult 1 --num_res_blocks 1"  # of the original
PUBLISHED = "toy"  # what the server of `conftest` publishes, with those flags
INCEPTION = bytes(1000)  # as it publishes them

Action = Callable[[], tuple[int, str]]  # exit code and stderr


@dataclass(frozen=True)
class Command:
    """Something that writes: what it needs beforehand, and itself, in the present folder."""

    run: Action
    before: Action | None = None  # makes what is there when the command begins
    anew: Action | None = None  # the same, allowed to replace what `run` finds finished
    halfway: Mapping[str, bytes] = field(default_factory=dict)  # files and bytes on the way
    passing: tuple[str, ...] = ()  # files that have other contents on the way, always whole ones
    staying: tuple[str, ...] = ()  # files that may still be there at the end
    appended: tuple[str, ...] = ()  # files whose last line may be torn
    leaves: bool = False  # a temporary file where killed: others may be at work there


def adm(*arguments: object) -> tuple[int, str]:
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        code = main.run([str(a) for a in arguments])
    return code, err.getvalue()


def sample(toys: Toys, *more: object, out: str = "o", num: int = 2) -> Action:
    models = ("--model", toys.model, "--scale", 0, "--steps", 1, "--device", "cpu")
    wanted = ("--class", 0, "--num", num, "-b", 1, "--out", out)
    return partial(adm, "sample", *models, *wanted, *more)


def both(*actions: Action) -> Action:
    def run() -> tuple[int, str]:
        for action in actions:
            code, err = action()
            if code:
                break
        return code, err

    return run


def damage(name: str) -> Action:
    def run() -> tuple[int, str]:
        path = next(Path("o").glob(name))
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        return 0, ""

    return run


def leave(of: str = "") -> Action:
    """What a killed writer left in a run."""
    return file(f"o/.adm-{of}killed.tmp", b"half")


def torn() -> tuple[int, str]:
    with open("o/manifest.jsonl", "ab") as manifest:
        manifest.write(b'{"file": "class0')
    return 0, ""


def little_memory(action: Action) -> Action:
    """Too little for both models of a stack."""

    def run() -> tuple[int, str]:
        with mock.patch.object(memory_module, "free_bytes", return_value=10**6):
            return action()

    return run


def photos(count: int = 1) -> Action:
    def run() -> tuple[int, str]:
        data = np.random.default_rng(0).integers(0, 256, (2, count, 8, 8, 3), dtype=np.uint8)
        for name, images in zip(("circle", "square"), data, strict=True):
            os.makedirs(f"photos/{name}")
            for i, pixels in enumerate(images):
                Image.fromarray(pixels).save(f"photos/{name}/{i}.png")
        return 0, ""

    return run


def file(name: str, data: bytes) -> Action:
    def run() -> tuple[int, str]:
        Path(name).write_bytes(data)
        return 0, ""

    return run


def result(*arguments: object, before: Action | None = None) -> Command:
    """A command whose result is never replaced unasked."""
    run = partial(adm, *arguments)
    return Command(run, before, anew=partial(run, "--overwrite"))


def train(kind: str, *more: object, steps: int) -> Command:
    settings = ("--steps", steps, "--batch-size", 2, "--seed", 1, "--device", "cpu", "--size", 8)
    often = ("--log-every", 1, "--eval-every", 1, "--save-every", 1)
    arguments = ("photos", *settings, *often, "--out", "t", *more)
    return Command(
        partial(adm, f"train-{kind}", *arguments),
        photos(),
        passing=("t/*.safetensors",),
        staying=("t/state-*",),
        appended=("t/metrics.csv",),
    )


def weights(data: bytes) -> Action:
    """An original, and an older model in the place of the new one."""
    return both(file("m.pt", data), file("m.safetensors", b"an older model"))


def commands(toys: Toys, original: bytes) -> dict[str, Command]:
    """Rows by name, which begins with that of the command. ``original`` are weights of `FLAGS`."""
    run, one = sample(toys), sample(toys, num=1)
    stack = sample(toys, "--upsampler", toys.plain_upsampler, "--upsample-steps", 1, num=1)
    enlarge = ("--model", toys.plain_upsampler, "--steps", 1, "-b", 1, "--device", "cpu")
    draw = ("--model", toys.model, "--class", 0, "--num", 1, "-b", 1, "--device", "cpu")
    features = ("--features", toys.classifier, "--device", "cpu")
    reference = partial(adm, "reference", "photos", "-o", "r.safetensors", *features)
    return {
        "sample": Command(run),
        "sample, gone on with": Command(
            run, before=both(one, leave("manifest-"), leave(), torn), staying=("o/.adm-*.tmp",)
        ),
        "sample webp, grid": Command(
            sample(toys, "--format", "webp", "--grid", "--gallery"),
            passing=("o/grid.png", "o/gallery.html"),
        ),
        "sample npz": Command(sample(toys, "--format", "npz")),
        "sample animate": Command(sample(toys, "--animate", "o/x.gif")),
        "sample animate --overwrite": Command(
            sample(toys, "--animate", "x.gif", "--overwrite"),
            before=sample(toys, "--animate", "x.gif"),
        ),
        "sample --overwrite": Command(sample(toys, "--overwrite", "--no-clip"), before=run),
        "sample --shard": Command(
            both(sample(toys, "--shard", "1/2"), sample(toys, "--shard", "2/2"))
        ),
        "sample a stack": Command(stack),
        "sample a stack, one model at a time": Command(
            little_memory(stack), passing=("o/.base/*",)
        ),
        "upsample": Command(partial(adm, "upsample", "o", "--out", "large", *enlarge), before=run),
        "edit": Command(
            partial(adm, "edit", "photos/circle", *draw, "--steps", 1, "--out", "e"),
            before=photos(1),
        ),
        "interpolate": Command(
            partial(adm, "interpolate", *draw[:4], "-b", 1, "--device", "cpu", "--steps", 1,
                    "--frames", 2, "--out", "w"),
        ),
        "sweep": Command(
            partial(adm, "sweep", *draw, "--scale", 0, "--steps", "1,2", "--out", "s"),
            passing=("s/sweep.*", "s/.sweep.*", "s/sheet.png"),
        ),
        "verify --repair": Command(
            partial(adm, "verify", "o", "--repair", "--model", toys.model),
            before=both(run, damage("*0001.png"), damage("manifest.jsonl")),
        ),
        "gallery": result("gallery", "o", "-o", "page.html", before=one),
        "merge npz": result("merge", "o", "--output", "o.npz", before=one),
        "merge zip": result("merge", "o", "--output", "o.zip", before=one),
        "merge tar": result("merge", "o", "--output", "o.tar", before=one),
        "merge --overwrite": Command(
            partial(adm, "merge", "o", "--output", "o.tar", "--overwrite"),
            before=both(one, file("o.tar", b"an older tar")),
        ),
        "repro": result(
            "repro", "o/0000_circle_seed000000.png", "--model", toys.model, "-o", "again/x.png",
            before=one,
        ),
        "convert": Command(
            partial(adm, "convert", "m.pt", "--flags", FLAGS, "-o", "m.safetensors", "--overwrite"),
            before=weights(original),
        ),
        "export to the original": result("export", toys.model, "x.pt", "--to", "original"),
        "export to diffusers": result("export", toys.model, "new/f", "--to", "diffusers"),
        "fetch": Command(
            partial(adm, "fetch", PUBLISHED),
            halfway={f"home/downloads/{PUBLISHED}.pt": original},
            staying=("home/downloads/*",), leaves=True,
        ),
        "fetch inception": Command(
            partial(adm, "fetch", "inception"),
            halfway={"home/downloads/inception.pth": INCEPTION},
            staying=("home/downloads/*",), leaves=True,
        ),
        "reference": result(
            "reference", "photos", "-o", "new/r.safetensors", *features, before=photos(3)
        ),
        "evaluate": result(
            "evaluate", "photos", "--ref", "r.safetensors", "-o", "e.csv", *features,
            before=both(photos(3), reference),
        ),
        "evaluate-classifier": result(
            "evaluate-classifier", "photos", "--classifier", toys.classifier, "--at", "0",
            "-o", "report", "--device", "cpu", before=photos(),
        ),
        "nll": result(
            "nll", "photos", "--model", toys.model, "--steps", "1", "--class", "none",
            "-o", "nll.csv", "--device", "cpu", before=photos(),
        ),
        "nll, a batch after the other": replace(
            result(
                "nll", "photos", "--model", toys.model, "--steps", "1", "--class", "none", "-b", 1,
                "-o", "nll.csv", "--device", "cpu", before=photos(),
            ),
            passing=("nll.csv.part",), staying=("nll.csv.part",),
        ),
        "train-classifier": train("classifier", "--val", "photos", steps=2),
        "train-diffusion": train("diffusion", "--val-split", 0, steps=1),
        "train-upsampler": train("upsampler", "--val-split", 0, "--low-size", 4, steps=1),
    }  # fmt: skip


READING = {  # commands that write nothing, and how to see that
    "models": ("models",),
    "cache": ("cache",),  # rm removes one file after the other
    "classes": ("classes", "golden"),
    "info": ("info", "m.safetensors"),
    "doctor": ("doctor",),
    "help": ("help", "--json"),
    "bench": (
        "bench",
        "--model",
        "m.safetensors",
        "--unguided",
        "-b",
        1,
        "--seconds",
        0.01,
        "--device",
        "cpu",
    ),
}
