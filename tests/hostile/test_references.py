"""Hostile reference files, weights of Inception, and tables of sweeps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from adm_cli.checkpoints.format import read_tensors, write_tensors
from adm_cli.files.sealed import seal
from tests.conftest import Toys
from tests.hostile.files import entry, safetensors
from tests.hostile.sandbox import Arguments, harmless, in_groups, refused, slug
from tests.hostile.test_arrays import PIXELS, WHOLE
from tests.hostile.test_pickles import PICKLES, WRAPPINGS, zips
from tests.hostile.test_weights import DEEP, HEADERS

Tensors = dict[str, Tensor]
Change = Callable[[Tensors, dict[str, Any]], object]


def features(toys: Toys) -> Arguments:
    return ["--features", toys.classifier, "--device", "cpu", "--quiet"]


@pytest.fixture
def good(folder: Path, toys: Toys) -> Path:
    """A reference of eight pictures, and the pictures."""
    (folder / "good.npz").write_bytes(WHOLE)
    path = folder / "good.safetensors"
    (done,) = harmless(folder, ["reference", "good.npz", "-o", path, *features(toys)], codes=(0,))
    assert done.out.strip() == str(path)
    return path


def tensors(**changes: Any) -> Change:
    return lambda values, _facts: values.update({n: torch.tensor(v) for n, v in changes.items()})


def element(name: str, value: float, *place: Any) -> Change:
    return lambda values, _facts: values[name].__setitem__(place, value)


def without(*names: str) -> Change:
    return lambda values, facts: [(values.pop(n, None), facts.pop(n, None)) for n in names]


def facts(**changes: Any) -> Change:
    return lambda _values, known: known.update(changes)


def scaled(name: str, factor: float) -> Change:
    return lambda values, _facts: values[name].mul_(factor)


def typed(name: str, dtype: torch.dtype) -> Change:
    return lambda values, _facts: values.update({name: values[name].to(dtype)})


CHANGES: dict[str, Change] = {
    "mu not a number": element("mu", float("nan"), 0),
    "mu infinite": element("mu", float("inf"), 0),
    "mu 1e300": element("mu", 1e300, 0),
    "mu short": tensors(mu=[0.0]),
    "mu empty": tensors(mu=[]),
    "mu a matrix": lambda v, _: v.update(mu=v["sigma"]),
    "mu half": typed("mu", torch.float32),
    "sigma not a number": element("sigma", float("nan"), 0, 1),
    "sigma not symmetric": lambda v, _: v["sigma"][0].add_(7.0),
    "sigma a vector": lambda v, _: v.update(sigma=v["mu"]),
    "sigma negative": scaled("sigma", -1),
    "sigma indefinite": lambda v, _: v["sigma"].fill_diagonal_(0).add_(
        torch.ones_like(v["sigma"]).fill_diagonal_(0)),
    "sigma 1e300": scaled("sigma", 1e300),
    "sigma half": typed("sigma", torch.float16),
    "features not numbers": element("kept", float("nan"), 0, 0),
    "features 1e38": element("kept", 1e38, 0, 0),
    "features short": lambda v, _: v.update(kept=v["kept"][:, :-1].clone()),
    "features a vector": lambda v, _: v.update(kept=v["kept"][0].clone()),
    "features a number": tensors(kept=1.0),
    "features double": typed("kept", torch.float64),
    "no mu": without("mu"),
    "no sigma": without("sigma"),
    "no features": without("kept"),
    "no tensors": lambda v, _: v.clear(),
    "spatial half": tensors(mu_s=[0.0]),
    "spatial negative": lambda v, _: v.update(
        mu_s=torch.zeros(2).double(), sigma_s=-torch.eye(2).double()),
    "of other features": lambda v, _: v.update(
        mu=torch.zeros(3).double(), sigma=torch.eye(3).double(), kept=torch.zeros(8, 3)),
    "no facts": lambda _, f: f.clear(),
    "no size": without("size"),
    "size text": facts(size="8x8"),
    "size of one": facts(size=[8]),
    "size negative": facts(size=[-8, -8]),
    "size null": facts(size=None),
    "size infinite": facts(size=[float("inf"), 8]),
    "images text": facts(images="many"),
    "images negative": facts(images=-8),
    "images infinite": facts(images=float("inf")),
    "images a list": facts(images=[8]),
    "another network": facts(features_sha256="0" * 64),
    "another network that clears": facts(features="\x1b[2J", features_sha256="\x1b]0;x\x07"),
    "another size that clears": facts(size=[16, 16], source="\x1b[2J\nadm: all is well"),
    "a source of 1 MB": facts(size=[16, 16], source="[red]" * 200_000),
}  # fmt: skip


def changed(path: Path, good: Path, change: Change, **metadata: str) -> Path:
    """A reference whose content hash is right, and whose content lies."""
    values, known = read_tensors(good)
    values = {name: value.clone() for name, value in values.items()}
    said = json.loads(known["reference"])
    change(values, said)
    known.pop("content_sha256")
    write_tensors(path, values, {**known, "reference": json.dumps(said), **metadata})
    return path


def test_references(folder: Path, good: Path, toys: Toys) -> None:
    commands: list[Arguments] = []
    for i, change in enumerate(CHANGES.values()):
        path = changed(folder / f"{i}.safetensors", good, change)
        commands.append(["evaluate", "good.npz", "--ref", path, *features(toys)])
    refused(folder, *commands)


METADATA: dict[str, dict[str, str]] = {
    "another format": {"format": "adm"},
    "version 2": {"format_version": "2"},
    "version that clears": {"format_version": "\x1b[2J"},
    "no JSON": {"reference": "{"},
    "a list": {"reference": "[]"},
    "a number": {"reference": "7"},
    "deep": {"reference": "[" * DEEP},
    "5,000 digits": {"reference": '{"images": ' + "9" * 5000 + "}"},
    "NUL": {"reference": "\0"},
}


def test_metadata_and_headers(folder: Path, good: Path, toys: Toys) -> None:
    paths = [
        changed(folder / f"{i}.safetensors", good, lambda *_: None, **metadata)
        for i, metadata in enumerate(METADATA.values())
    ]
    whole = good.read_bytes()
    for i in range(1, len(whole), len(whole) // 12):
        paths.append(folder / f"cut{i}.safetensors")
        paths[-1].write_bytes(whole[:i])
        paths.append(folder / f"flip{i}.safetensors")
        paths[-1].write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
    for name in list(HEADERS)[::4]:
        paths.append(folder / f"{slug(name)}.safetensors")
        paths[-1].write_bytes(HEADERS[name])
    paths.append(folder / "claims.safetensors")
    claim = {"__metadata__": {"format": "adm-reference"}, "mu": entry()}
    paths[-1].write_bytes(safetensors(claim, bytes(16)))
    commands: list[Arguments] = []
    for path in paths:
        commands += [["evaluate", "good.npz", "--ref", path, *features(toys)], ["info", path]]
    refused(folder, *commands)


def test_what_a_reference_says_of_itself(folder: Path, good: Path, toys: Toys) -> None:
    """A source's name is shown as text, on a line of its own."""
    for source in (
        "\x1b[2J",
        "[red]x[/red]",
        "[link=file:///etc/passwd]x[/link]",
        "a\nb",
        "\u202e",
    ):
        path = changed(
            folder / "x.safetensors", good, facts(source=source, pixels_sha256="\x1b[2J")
        )
        evaluate: Arguments = ["evaluate", "good.npz", "--ref", path, *features(toys)]
        for done in harmless(folder, ["info", path], evaluate, [*evaluate, "--json"], codes=(0,)):
            if "[" in source[:1]:
                assert source in done.out


@pytest.mark.parametrize("names", in_groups([n for n in PICKLES if n.startswith(("GLOBAL", "a "))],
                                            30), ids=lambda names: slug(names[0]))  # fmt: skip
def test_weights_of_inception_that_would_run_code(folder: Path, names: list[str]) -> None:
    (folder / "good.npz").write_bytes(WHOLE)
    commands: list[Arguments] = []
    for i, name in enumerate(names):
        wrap = list(WRAPPINGS.values())[i % len(WRAPPINGS)]
        (folder / f"{i}.pth").write_bytes(wrap(PICKLES[name]))
        commands.append(["evaluate", "good.npz", "--ref", "good.npz", "--inception", f"{i}.pth"])
    refused(folder, *commands)
    assert not (folder / "canary").exists()


def test_weights_that_are_not_inception_s(folder: Path, toys: Toys) -> None:
    (folder / "good.npz").write_bytes(WHOLE)
    inputs = list(zips().values())[:32] + list(HEADERS.values())[::9]
    for i, data in enumerate(inputs):
        (folder / f"{i}.pth").write_bytes(data)
    evaluate: Arguments = ["evaluate", "good.npz", "--ref", "good.npz", "--inception"]
    refused(
        folder,
        *([*evaluate, f"{i}.pth"] for i in range(len(inputs))),
        [*evaluate, toys.classifier],
        [*evaluate, "/dev/zero"],
        [*evaluate, "."],
        ["reference", "good.npz", "-o", "r.safetensors", "--inception", "0.pth"],
    )


SWEEP: Arguments = [
    "--scale", 0, "--num", 1, "--class", "1", "--steps", "1", "--device", "cpu", "--out", "sweep",
    "--quiet",
]  # fmt: skip


def rows(**changes: Any) -> Callable[[Any], object]:
    return lambda value: value["cells"][0].update(changes)


def top(**changes: Any) -> Callable[[Any], object]:
    return lambda value: value.update(changes)


TABLES: dict[str, Callable[[Any], object]] = {
    "format 9": top(format=9),
    "facts a number": top(facts=7),
    "files of numbers": top(files={"sheet.png": [7]}),
    "a file that climbs": top(files={"../../precious.txt": "0"}),
    "format deep": top(format=[[[[]]]]),
    "axes a list": top(axes=[1]),
    "axes of numbers": top(axes={"scale": 4}),
    "cells a number": top(cells=7),
    "cells of numbers": top(cells=[1, 2]),
    "cells an object": top(cells={"a": {}}),
    "another cell": top(cells=[{"cell": "\x1b[2J\nadm: all is well"}]),
    "a cell that climbs": top(cells=[{"cell": "../../precious.txt"}]),
    "a cell of 1 MB": top(cells=[{"cell": "x" * 10**6}], axes={"[red]": ["\x1b[2J"]}),
    "drawn text": rows(drawn="many"),
    "drawn true": rows(drawn=True),
    "drawn negative": rows(drawn=-1),
    "drawn 10^400": rows(drawn=10**400),
    "seconds text": rows(seconds="long"),
    "seconds a list": rows(seconds=[1]),
    "seconds negative": rows(seconds=-1.0),
    "seconds not a number": rows(seconds=float("nan")),
    "seconds infinite": rows(seconds=float("inf")),
    "speed text": rows(images_per_second="\x1b[2J"),
    "speed a list": rows(images_per_second=[[]]),
    "metrics text": rows(metrics="fid"),
    "metrics of lists": rows(metrics=[["fid"]]),
    "metrics of numbers": rows(metrics=[1]),
    "scores text": rows(metrics=["fid"], fid="\x1b[2J"),
    "scores lists": rows(metrics=["fid"], fid=[1]),
    "scores infinite": rows(metrics=["fid"], fid=float("inf")),
    "errors text": rows(metrics=["fid"], fid=1.0, fid_error="x"),
}  # fmt: skip
BYTES: dict[str, bytes] = {
    "nothing": b"",
    "zeros": bytes(5000),
    "not UTF-8": b"\xff\xfe{}",
    "a list": b"[]",
    "a number": b"7",
    "deep": b"[" * 10**5,
    "5,000 digits": b'{"format": ' + b"9" * 5000 + b"}",
    "a pickle": b"\x80\x02cos\nsystem\n(X\x0c\0\0\0touch canarytR.",
}


def test_sweeps(folder: Path, toys: Toys) -> None:
    """A table that is damaged costs no image: the command says so, and leaves all as it is."""
    sweep: Arguments = ["sweep", "--model", toys.model, *SWEEP]
    harmless(folder, sweep, codes=(0,))
    whole = (folder / "sweep" / "sweep.json").read_bytes()
    inputs = list(BYTES.values())
    for change in TABLES.values():
        value = json.loads(whole)
        change(value)
        inputs.append(sealed(value))
    inputs += [whole[:i] for i in range(1, len(whole) - 3, len(whole) // 20)]
    commands: list[Arguments] = []
    for i, data in enumerate(inputs):
        shutil.copytree(folder / "sweep", folder / f"sweep{i}")
        (folder / f"sweep{i}" / ".sweep.json.copy").unlink()  # else it stands in
        (folder / f"sweep{i}" / "sweep.json").write_bytes(data)
        commands.append([*sweep, "--out", f"sweep{i}"])
    shutil.copytree(folder / "sweep", folder / "sweep-device")
    (folder / "sweep-device" / "sweep.json").unlink()
    (folder / "sweep-device" / ".sweep.json.copy").unlink()
    (folder / "sweep-device" / "sweep.json").symlink_to("/dev/zero")
    refused(folder, *commands, [*sweep, "--out", "sweep-device"])
    assert not (folder / "canary").exists()


def sealed(value: dict[str, Any]) -> bytes:
    """A table with the hash of its content, as the program writes it."""
    fields = {name: held for name, held in value.items() if name != "sha256"}
    return seal((json.dumps(fields, indent=2)[:-2] + ",\n").encode())


def test_scores_that_are_passed_on_are_shown_as_text(folder: Path, toys: Toys) -> None:
    """Unknown names in a row go into the table, which no terminal obeys."""
    sweep: Arguments = ["sweep", "--model", toys.model, *SWEEP]
    harmless(folder, sweep, codes=(0,))
    path = folder / "sweep" / "sweep.json"
    value = json.loads(path.read_bytes())
    names = ["\x1b[2J", "[red]x", "a\nb"]
    value["cells"][0].update(dict.fromkeys(names, 1.0), metrics=names, note="=1+1\x1b[2J")
    path.write_bytes(sealed(value))
    harmless(folder, sweep, [*sweep, "--json"], codes=(0,))


def test_the_judge_of_a_sweep(folder: Path, good: Path, toys: Toys) -> None:
    """What cannot be measured against is refused before an image is drawn."""
    sweep: Arguments = ["sweep", "--model", toys.model, *SWEEP, "--num", 6, *features(toys)]
    np.savez(folder / "nan.npz", arr_0=PIXELS.astype(float))
    bad = changed(folder / "bad.safetensors", good, element("mu", float("nan"), 0))
    refs = ["nan.npz", bad, "/dev/zero", ".", "gone", toys.model]
    refused(folder, *([*sweep, "--out", "new", "--ref", ref] for ref in refs))
