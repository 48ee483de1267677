"""Hostile files of training runs, and lists of classes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adm_cli.checkpoints.format import read_tensors, write_tensors
from adm_cli.files.manifests import render_line
from adm_cli.files.sealed import seal
from tests.conftest import Toys
from tests.hostile.sandbox import Arguments, harmless, listing, refused
from tests.hostile.test_pictures import labelled
from tests.hostile.test_weights import FLAGS

BEGIN: Arguments = [
    "train-classifier", "set", "--size", 8, "--channels", 32, "--device", "cpu", "--steps", 2,
    "--batch-size", 2, "--val-split", 0, "--save-every", 1, "--quiet", "--out", "run",
]  # fmt: skip
RESUME: Arguments = ["train-classifier", "--resume", "--out", "run", "--quiet", "--steps", 3]


@pytest.fixture
def run(folder: Path) -> Path:
    """A training run of two steps."""
    labelled(folder / "set")
    (done,) = harmless(folder, BEGIN, codes=(0,))
    assert done.out.split() == ["run/model.safetensors"]
    return folder / "run"


PASSED_OVER = (
    "a tensor more",
    "scaler text",
    "scaler a list",
    "no scaler",
    "step 10^12",
)  # no harm


def resumed_refuses(folder: Path, damage: dict[str, Callable[[Path], object]]) -> None:
    shutil.copytree(folder / "run", folder / "good")
    for name, change in damage.items():
        shutil.rmtree(folder / "run")
        shutil.copytree(folder / "good", folder / "run")
        change(folder / "run")
        (done,) = harmless(folder, RESUME)
        errors = [line for line in done.err.splitlines() if line.startswith("adm: error: ")]
        assert len(errors) == bool(done.code), (name, done)
        assert done.code or name in PASSED_OVER, name
        assert len(done.err) < 4000, name
        assert not list((folder / "run").glob(".adm-*")), name


def edit(*path: str, value: Any) -> Callable[[Path], object]:
    """Sets a value of settings.json."""

    def change(run: Path) -> None:
        settings = json.loads((run / "settings.json").read_text())
        inner = settings
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        (run / "settings.json").write_text(json.dumps(settings))

    return change


def text(value: bytes) -> Callable[[Path], object]:
    return lambda run: (run / "settings.json").write_bytes(value)


def test_settings(folder: Path, run: Path) -> None:
    whole = (run / "settings.json").read_bytes()
    damage: dict[str, Callable[[Path], object]] = {
        **{f"cut at {i}": text(whole[:i]) for i in range(0, len(whole) - 3, len(whole) // 12)},
        "a list": text(b"[]"),
        "a number": text(b"7"),
        "not UTF-8": text(b"\xff\xfe{}"),
        "deep": text(b"[" * 10**5),
        "5,000 digits": text(b'{"a": ' + b"9" * 5000 + b"}"),
        "empty": text(b"{}"),
        "options a list": edit("options", value=["data"]),
        "options a number": edit("options", value=7),
        "options null": edit("options", value=None),
        "data a number": edit("options", "data", value=7),
        "data of numbers": edit("options", "data", value=[7]),
        "data elsewhere": edit("options", "data", value=["/etc"]),
        "data with NUL": edit("options", "data", value=["a\0b"]),
        "size a list": edit("options", "size", value=[8]),
        "channels text": edit("options", "channels", value="many"),
        "channels 10^9": edit("options", "channels", value=10**9),
        "batch size text": edit("options", "batch_size", value="2"),
        "batch size null": edit("options", "batch_size", value=None),
        "batch size -1": edit("options", "batch_size", value=-1),
        "learning rate text": edit("options", "lr", value="fast"),
        "seed a list": edit("options", "seed", value=[1]),
        "init a pickle": edit("options", "init", value="/etc/passwd"),
        "init a number": edit("options", "init", value=3),
        "set a text": edit("options", "set", value="x"),
        "set code": edit("options", "set", value=["__class__=1"]),
        "validation a number": edit("options", "val_split", value="most"),
        "unknown option": edit("options", "exec", value="touch canary"),
        "workers -5": edit("options", "workers", value="many"),
        "config other": edit("config", "model_channels", value=64),
        "config a list": edit("config", value=[]),
        "training deep": edit("training", "lr", value=[[[[]]]]),
    }
    resumed_refuses(folder, damage)


def facts(**changes: Any) -> Callable[[Path], object]:
    """States whose hash is right and whose facts lie; None leaves one out."""

    def change(run: Path) -> None:
        for path in run.glob("state-*"):
            tensors, metadata = read_tensors(path)
            merged = {**json.loads(metadata["facts"]), **changes}
            kept = {k: v for k, v in merged.items() if v is not None}
            metadata = {"format": "adm-training", "facts": json.dumps(kept)}
            write_tensors(path, {n: t.clone() for n, t in tensors.items()}, metadata)

    return change


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    def apply(run: Path) -> None:
        for path in run.glob("state-*"):
            values, metadata = read_tensors(path)
            values = {name: value.clone() for name, value in values.items()}
            change(values)
            metadata.pop("content_sha256")
            write_tensors(path, values, metadata)

    return apply


def each_state(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    def apply(run: Path) -> None:
        for path in run.glob("state-*"):
            path.write_bytes(change(path.read_bytes()))

    return apply


def test_states(folder: Path, run: Path) -> None:
    path = next(run.glob("state-*"))
    _, metadata = read_tensors(path)
    known = json.loads(metadata["facts"])
    damage: dict[str, Callable[[Path], object]] = {
        "empty": each_state(lambda data: b""),
        "half": each_state(lambda data: data[: len(data) // 2]),
        "flipped": each_state(lambda data: data[:-1] + bytes([data[-1] ^ 1])),
        "pickles": each_state(lambda data: b"\x80\x02cos\nsystem\n(X\x0c\0\0\0touch canarytR."),
        "another model": lambda run: [
            shutil.copy(run / "model.safetensors", p) for p in run.glob("state-*")],
        **{f"no {name}": facts(**{name: None}) for name in known},
        **{f"{name} text": facts(**{name: "many"}) for name in known},
        "step 10^12": facts(step=10**12),
        "step -1": facts(step=-1),
        "no tensors": tensors(lambda values: values.clear()),
        "a tensor less": tensors(lambda values: values.popitem()),
        "a tensor more": tensors(lambda values: values.update(more=torch.zeros(3))),
        "a shape": tensors(lambda values: values.update(
            {name: torch.zeros(3, 3, 3) for name in list(values)[:1]})),
    }  # fmt: skip
    resumed_refuses(folder, damage)


CLASSES: dict[str, bytes] = {
    "binary": bytes(range(256)),
    "not UTF-8": b"\xff\xfe1 x\n",
    "no ids": b"cat\ndog\n",
    "no names": b"1\n2\n",
    "twice": b"1 a\n1 b\n",
    "out of range": b"1000000 a\n",
    "negative": b"-1 a\n",
    "5,000 digits": b"9" * 5000 + b" a\n",
    "clears the screen": b"1 \x1b[2J\n",
    "right to left": "1 \u202ea\n".encode(),
    "NUL": b"1 a\0b\n",
    "nothing": b"",
    "blank": b"\n\n\n",
    "a long name": b"1 " + b"\x07" * 10**6 + b"\n",
}


def test_lists_of_classes(folder: Path) -> None:
    from adm_cli.checkpoints.flags.model import openai_flags
    from adm_cli.checkpoints.loading import build_model

    flags = f"{FLAGS} --class_cond True --num_classes 5"
    torch.save(build_model(openai_flags(flags)[0]).state_dict(), folder / "m.pt")
    (folder / "folder").mkdir()
    (folder / "zero").symlink_to("/dev/zero")
    for i, data in enumerate(CLASSES.values()):
        (folder / f"{i}.txt").write_bytes(data)
    names = ["@gone", "@folder", "@zero", "@", "@\x1b[2J", "@" + "x" * 5000, "zebra\x1b", "9" * 99]
    names += [f"@{i}.txt" for i in range(len(CLASSES))]
    convert: Arguments = [
        "convert",
        "m.pt",
        "--flags",
        flags,
        "--output",
        "x.safetensors",
        "--classes",
    ]
    commands: list[Arguments] = [[*convert, name] for name in names]
    refused(folder, *commands)


SPECS = [
    "", ",", "-", "--", "9" * 5000, "0-" + "9" * 20, "0-99999999999", "5-1", "-1", "1e9", "٣", "²",
    "\x1b[2J", "a\nb", "x" * 10**5, "0," * 10**5 + "q", "all,all", "none", "random,1", "$(id)",
]  # fmt: skip


@pytest.mark.parametrize("option", ["--class", "--seeds", "--steps", "--num", "--scale", "--eta",
                                    "--seed", "--batch-size", "--sampler", "--format", "--dtype",
                                    "--device", "--animate"])  # fmt: skip
def test_options(folder: Path, option: str) -> None:
    values = [spec for spec in SPECS if (option, spec) != ("--class", "all,all")]
    commands: list[Arguments] = [["sample", "--dry-run", f"{option}={value}"] for value in values]
    for done in harmless(folder, *commands):
        assert len(done.err.splitlines()) == bool(done.code), done
        assert len(done.err) < 4000


def sealed(text: str) -> bytes:
    """A run.json of this text, its hash right."""
    return seal(text.encode())


STAGE: dict[str, Any] = {
    "model": "../../etc/passwd", "model_sha256": "0" * 64, "scale": 0, "sampler": "ddpm",
    "steps": "2", "num_steps": 2, "eta": None, "clip_denoised": True, "size": [8, 8],
    "dtype": "float32",
}  # fmt: skip


def run_of(*rows: object, **changes: Any) -> bytes:
    facts = {
        "format": 2, "stages": [STAGE], "device": "cpu", "threads": 1, "batch_size": 2,
        "picture_format": "png", "versions": {}, "images": list(rows),
    }  # fmt: skip
    return sealed(json.dumps({**facts, **changes})[:-1] + ",\n")


def stage(**changes: Any) -> bytes:
    return run_of(ROW, stages=[{**STAGE, **changes}])


ROW = {"file": "seed000000.png", "class": None, "seed": 0}
MANY = {"file": "seed*.png", "class": None}
RUNS: dict[str, bytes] = {
    "nothing": b"",
    "zeros": bytes(5000),
    "no hash": b'{"format": 2}',
    "a list": sealed("[],"),
    "deep": sealed("[" * 10**5),
    "5,000 digits": run_of({**ROW, "seed": 0}).replace(b'"seed": 0', b'"seed": ' + b"9" * 5000),
    "format 1": run_of(ROW, format=1),
    "format a list": run_of(ROW, format=[]),
    "no images": run_of(),
    "images null": run_of(images=None),
    "images numbers": run_of(1, 2),
    "twice": run_of(ROW, ROW),
    "twice in ranges": run_of({**MANY, "seeds": "0-9"}, {**MANY, "seeds": "9-12"}),
    "climbs": run_of({**ROW, "file": "../../precious.txt"}),
    "absolute": run_of({**ROW, "file": "/etc/passwd"}),
    "hidden": run_of({**ROW, "file": ".bashrc"}),
    "control": run_of({**ROW, "file": "\x1b[2J.png"}),
    "backslash": run_of({**ROW, "file": "..\\x.png"}),
    "long": run_of({**ROW, "file": "x" * 10**6}),
    "a number": run_of({**ROW, "file": 7}),
    "unknown": run_of({**ROW, "exec": "touch canary"}),
    "no seed": run_of({"file": "x.png", "class": None}),
    "class text": run_of({**ROW, "class": "dog"}),
    "scale text": run_of({**ROW, "scale": "4"}),
    "seeds backwards": run_of({**MANY, "seeds": "5-1"}),
    "seeds words": run_of({**MANY, "seeds": "a-b"}),
    "seeds 10^30": run_of({**MANY, "seeds": "0-" + "9" * 30}),
    "seeds climbs": run_of({"file": "../seed*.png", "class": None, "seeds": "0-3"}),
    "seeds in vain": run_of({"file": "x.png", "class": None, "seeds": "0-3"}),
    "11 million": run_of({**MANY, "seeds": "0-9999999"},
                         {"file": "x_seed*.png", "class": None, "seeds": "0-999999"}),
    "no stages": run_of(ROW, stages=[]),
    "stages a text": run_of(ROW, stages="x"),
    "three stages": run_of(ROW, stages=[STAGE] * 3),
    "a filter alone": run_of(ROW, stages=[{"model": "bicubic", "size": [8, 8]}]),
    "a filter of mine": run_of(ROW, stages=[STAGE, {"model": "exec", "size": [8, 8]}]),
    "stage text": run_of(ROW, stages=["x"]),
    "stage unknown": stage(exec="x"),
    "steps a number": stage(steps=2),
    "10^9 steps": stage(num_steps=10**9),
    "no steps": stage(num_steps=0),
    "size text": stage(size="8x8"),
    "size empty": stage(size=[]),
    "dtype of mine": stage(dtype="float8"),
    "scale true": stage(scale=True),
    "versions text": run_of(ROW, versions="x"),
    "versions numbers": run_of(ROW, versions={"adm": 1}),
    "batch size 0": run_of(ROW, batch_size=0),
    "batch size text": run_of(ROW, batch_size="2"),
    "device a list": run_of(ROW, device=[]),
}  # fmt: skip
WHOLE = run_of(ROW)


def test_run_folders(folder: Path, toys: Toys) -> None:
    commands: list[Arguments] = []
    for i, data in enumerate(RUNS.values()):
        run = folder / str(i)
        run.mkdir()
        (run / "run.json").write_bytes(data)
        commands += [
            ["verify", run],
            ["merge", run, "--output", "x.npz"],
            ["sample", "--model", toys.model, "--scale", 0, "--num", 1, "--out", run, "--dry-run"],
        ]
    before = listing(folder.parent)
    for command, done in zip(commands, harmless(folder, *commands, codes=(1, 2)), strict=True):
        assert done.err.count("adm: error: ") == 1 or command[0] == "verify", (command, done)
    assert listing(folder.parent) == before


def test_manifests(folder: Path, toys: Toys) -> None:
    """Lines with a right checksum that name other people's files, or nothing of sense."""
    before = (folder.parent / "precious.txt").read_bytes()
    lines: list[bytes] = [
        *(render_line({"file": name, "bytes": 8, "sha256": "0" * 64})
          for name in ("../../precious.txt", "../precious.txt", "/etc/passwd", "x/../../y", "..",
                       ".", "", "a\0b", "\x1b[2J", "x" * 5000)),
        *(render_line({"file": "seed000000.png", "bytes": size, "sha256": digest})
          for size, digest in ((-1, "0"), (10**30, "0"), ("8", "0"), (8, 7), (8, "\x1b[2J"))),
        bytes(10**6), b"\n" * 10**5, b"[" * 10**5 + b"\n", b"\xff\xfe\n",
        render_line({"file": "seed000000.png", "bytes": 1, "sha256": "0" * 64, "again": 10**400}),
    ]  # fmt: skip
    commands: list[Arguments] = []
    for i, line in enumerate(lines):
        run = folder / str(i)
        run.mkdir()
        (run / "run.json").write_bytes(WHOLE)
        (run / "manifest.jsonl").write_bytes(line)
        commands += [["verify", run], ["merge", run, "--output", "x.npz"],
                     ["verify", run, "--repair"]]  # fmt: skip
    for done in harmless(folder, *commands):
        assert done.code
    assert (folder.parent / "precious.txt").read_bytes() == before
    assert sorted(p.name for p in folder.parent.iterdir()) == ["inside", "precious.txt"]
