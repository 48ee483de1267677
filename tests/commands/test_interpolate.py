"""`adm interpolate`: the way from one seed's noise to another's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from adm_cli.diffusion.noise import Toward, noise_source, slerp, source_between
from adm_cli.pictures.images import open_picture
from tests.conftest import Result, Toys, pictures

Run = Callable[..., Result]


@pytest.fixture
def walk(adm: Run, toys: Toys) -> Run:
    """`adm interpolate` of a star with the toy models in 2 steps."""

    def call(*arguments: object) -> Result:
        models = ("--model", toys.model, "--classifier", toys.classifier)
        what = () if "--class" in arguments else ("--class", "star")
        return adm("interpolate", *models, "--steps", 2, "--device", "cpu", *what, *arguments)

    return call


def made(result: Result) -> list[Any]:
    assert result.code == 0, result.err
    lines = [line for line in result.out.splitlines() if "interpolation.webp" not in line]
    return [open_picture(Path(line))[0] for line in lines]


def test_slerp() -> None:
    a, b = torch.tensor([[3.0, 0.0]] * 4), torch.tensor([[0.0, 3.0]] * 4)
    found = slerp(a, b, [0.0, 0.5, 1.0, 1 / 3])
    root = 3 / 2**0.5
    wanted = [[3, 0], [root, root], [0, 3], [3 * 3**0.5 / 2, 1.5]]
    assert torch.allclose(found, torch.tensor(wanted))
    assert torch.equal(found[::2], torch.stack([a[0], b[0]]))
    assert torch.equal(slerp(a, 2 * a, [0.5] * 4), 1.5 * a)


def test_noise_on_the_way_is_noise() -> None:
    """At the ends a seed's own, draw for draw; between them of length one, too."""
    shape, alone = (3, 32, 32), noise_source([7, 9], (3, 32, 32))
    between = source_between([7, 7, 7], [Toward(9, f) for f in (0.0, 0.5, 1.0)], shape)
    for _ in range(2):
        ends, found = alone(), between()
        assert torch.equal(found[::2], ends)
        assert abs(float(found[1].var()) - 1) < 0.05


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
@pytest.mark.parametrize("second", [False, True])
def test_the_ends_are_samples(
    walk: Run, draw: Run, toys: Toys, sampler: str, second: bool
) -> None:  # fmt: skip
    later = ("--upsampler", toys.upsampler) if second else ()
    how = ("--sampler", sampler, "--batch-size", 2, "--class", "star", *later)
    frames = made(walk("--seeds", "4,9", "--frames", 3, *how))
    ends = made(draw("--seeds", "4,9", *how))
    assert np.array_equal(frames[0], ends[0])
    assert np.array_equal(frames[2], ends[1])
    assert not any(np.array_equal(frames[1], end) for end in ends)


def test_a_way_through_several_seeds_and_back(walk: Run) -> None:
    done = walk("--seeds", "4,9,4", "--frames", 5, "--out", "o", "--json")
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [(row["seed"], row["to_seed"], row["fraction"]) for row in rows[:5]] == [
        (4, 9, 0.0), (4, 9, 0.5), (9, 4, 0.0), (9, 4, 0.5), (9, 4, 1.0),
    ]  # fmt: skip
    assert Path(rows[1]["path"]).name == "0003_star_seed000004_000009_frame0001.png"
    assert (rows[5]["path"], rows[5]["frames"]) == ("o/interpolation.webp", 5)
    first, *_, last = (open_picture(Path(row["path"]))[0] for row in rows[:5])
    assert np.array_equal(first, last)
    with Image.open("o/interpolation.webp") as film:
        assert film.n_frames == 5  # type: ignore[attr-defined]


def test_gone_on_with_repaired_and_made_again(walk: Run, adm: Run, toys: Toys) -> None:
    options = ("--frames", 3, "--out", "o")
    walk(*options)
    before = {name: Path("o", name).read_bytes() for name in pictures("o")}
    lost = "0003_star_seed000000_000001_frame0001.png"
    Path("o", lost).unlink()
    assert "(2 were there)" in walk(*options).err
    Path("o", lost).write_bytes(b"damaged")
    Path("o/interpolation.webp").unlink()
    models = ("--model", toys.model, "--classifier", toys.classifier)
    repaired = adm("verify", "o", "--repair", *models)
    assert repaired.code == 0, repaired.err
    assert {name: Path("o", name).read_bytes() for name in pictures("o")} == before
    again = adm("repro", f"o/{lost}", *models)
    assert again.out == "identical\n", again.err
    refused = adm("sample", "--like", f"o/{lost}")
    assert "lies between two seeds" in refused.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seeds", "4"), "two seeds or more"),
        (("--frames", 1), "--frames must be from 2 to 9999, got 1"),
        (("--seeds", "4,x"), "expected numbers and ranges"),
    ],
)
def test_what_is_refused(walk: Run, arguments: tuple[object, ...], message: str) -> None:
    done = walk(*arguments)
    assert done.code == 2
    assert message in done.err


def test_a_way_between_classes_is_of_mixtures(walk: Run, draw: Run) -> None:
    done = walk("--class", "star,circle", "--seeds", 5, "--frames", 3, "--out", "o", "--json")
    rows = sorted(map(json.loads, done.out.splitlines()), key=lambda row: row["path"])
    names = [Path(row["path"]).name for row in rows[:3]]
    assert names == [f"0003-0000_seed000005_frame000{i}.png" for i in range(3)]
    assert [(row["class"], row.get("mixture")) for row in rows[:3]] == [
        (3, None), (0, "0+3"), (0, None),
    ]  # fmt: skip
    frames = [open_picture(Path(row["path"]))[0] for row in rows[:3]]
    for frame, one in zip(frames, ("star", "star+circle", "circle"), strict=True):
        assert np.array_equal(frame, made(draw("--class", one, "--seeds", 5))[0])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--class", "star,circle", "--seeds", "1,2"), "through seeds or through classes"),
        (("--class", "star,star+circle"), "from one class to another"),
        (("--class", "random"), "expected the class of all frames"),
        (("--class", "star", "--seeds", "1"), "expected two seeds"),
    ],
)
def test_what_is_no_way(walk: Run, arguments: tuple[str, ...], said: str) -> None:
    done = walk(*arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
