"""Memory that runs out: batches are halved, each line says so, and what was lost is drawn so."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import torch

import adm_cli.sampling.drawing.memory as memory_module
import adm_cli.sampling.drawing.pipeline as pipeline_module
from adm_cli.diffusion.steps import SampleStep
from adm_cli.files.manifests import render_line
from adm_cli.pictures.images import open_picture
from tests.conftest import Result, Toys
from tests.manifests import read_manifest

Run = Callable[..., Result]
Files = dict[str, str]
Memory = Callable[[int, list[int]], int]  # side of the pictures, seeds: how many fit at once


def shrinking(_side: int, seeds: list[int]) -> int:
    """Less and less memory, whoever asks."""
    return 1 if max(seeds) > 6 else 2 if max(seeds) > 3 else 4


def second_stage(side: int, seeds: list[int]) -> int:
    """The large pictures fit two at a time at first, then one; the small ones then two."""
    large = side == 16
    return (1 if large else 2) if max(seeds) > 4 else 2 if large and max(seeds) > 2 else 4


class Listener:
    """Counts batches, runs out of memory, and is interrupted at the ``stop``-th call."""

    def __init__(self, patch: pytest.MonkeyPatch, memory: Memory, stop: int = 0) -> None:
        self.memory, self.stop, self.calls, self.failed = memory, stop, 0, 0
        self.real = pipeline_module._sample_batch
        patch.setattr(pipeline_module, "_sample_batch", self)

    def __call__(self, pipeline: Any, *arguments: Any) -> Generator[SampleStep, None, torch.Tensor]:
        self.calls += 1
        if self.calls == self.stop:
            raise KeyboardInterrupt
        seeds, side = arguments[3], pipeline.model.config.image_size[0]
        if len(seeds) > self.memory(side, seeds):
            self.failed += 1
            raise torch.OutOfMemoryError("out of memory")
        return self.real(pipeline, *arguments)


@pytest.fixture(params=["sample", "stack", "apart", "upsample", "sweep"])
def command(
    request: pytest.FixtureRequest, adm: Run, toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> tuple[Callable[[str], Result], Memory]:
    """Nine images in batches of four into a folder, by each command that draws."""
    models = ("--model", toys.model, "--classifier", toys.classifier, "--class", 3, "--num", 9)
    upsampler = ("--upsampler", toys.upsampler, "--upsample-steps", 1)
    cheap = ("--steps", 1, "--device", "cpu", "-b", 4)
    if request.param == "apart":
        monkeypatch.setattr(memory_module, "free_bytes", lambda _device: 10**6)
    if request.param == "upsample":
        assert adm("sample", *models, *cheap, "--out", "small").code == 0
    arguments: dict[str, tuple[object, ...]] = {
        "sample": ("sample", *models),
        "stack": ("sample", *models, *upsampler),
        "apart": ("sample", *models, *upsampler),
        "upsample": ("upsample", "small", "--model", toys.upsampler),
        "sweep": ("sweep", *models, "--scale", 2),
    }
    memory = second_stage if request.param in ("stack", "apart") else shrinking
    return lambda out: adm(*arguments[request.param], *cheap, "--out", out), memory


def images(folder: str) -> Files:
    paths = sorted(Path(folder).rglob("*seed*.png"))
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


def test_interrupted_anywhere_and_gone_on_with(
    command: tuple[Callable[[str], Result], Memory], monkeypatch: pytest.MonkeyPatch, slow: bool
) -> None:
    """What is there stays; the rest is drawn, in batches as large as fit then."""
    call, memory = command
    with monkeypatch.context() as patch:
        watch = Listener(patch, memory)
        assert call("whole").code == 0
        calls = watch.calls
    assert watch.failed >= 2
    for stop in range(1, calls + 1) if slow else (1, 2, calls // 2, calls - 1, calls):
        with monkeypatch.context() as patch:
            Listener(patch, memory, stop)
            assert call("o").code == 130
        before = images("o") if Path("o").exists() else {}
        with monkeypatch.context() as patch:
            Listener(patch, memory)
            done = call("o")
        assert done.code == 0, done.err
        found = images("o")
        assert {name: found.get(name) for name in before if ".base" not in name}.items() <= (
            before.items()
        )
        assert set(found) == set(images("whole"))
        shutil.rmtree("o")


def test_what_was_lost_is_drawn_as_it_was(
    command: tuple[Callable[[str], Result], Memory], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each at the batch size of its line, whatever memory there is now."""
    call, memory = command
    with monkeypatch.context() as patch:
        Listener(patch, memory)
        assert call("o").code == 0
    whole = images("o")
    for lost in (list(whole), list(whole)[1::3]):
        for name in lost:
            Path("o", name).unlink()
        done = call("o")
        assert done.code == 0, done.err
        assert images("o") == whole


def test_lines_say_what_differs_from_the_setting(
    adm: Run, toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = ("--model", toys.model, "--classifier", toys.classifier, "--class", 3, "--num", 12)
    stack = ("--upsampler", toys.upsampler, "--upsample-steps", 1, "--steps", 1, "-b", 4)
    Listener(monkeypatch, second_stage)
    done = adm("sample", *models, *stack, "--out", "o", "--json")
    assert "out of memory: going on with batches of 2" in done.err
    records = read_manifest(Path("o/manifest.jsonl")).records
    for record, told in zip(records, map(json.loads, done.out.splitlines()), strict=True):
        recipe = open_picture(Path("o") / record["file"])[1]
        assert recipe is not None
        pairs = (recipe["batch_size"], recipe["base"]["batch_size"])
        assert (record.get("batch_size", 4), record.get("base_batch_size", 4)) == pairs
        assert record.get("batch_size") == told.get("batch_size") != 4
    assert [r.get("batch_size", 4) for r in records] == [2] * 4 + [1] * 8
    assert [r.get("base_batch_size", 4) for r in records] == [4] * 4 + [2] * 8


@pytest.mark.parametrize("size", [0, -1, "2", [2], True, 10**9, 1.5])
def test_a_batch_size_that_cannot_be_is_none(adm: Run, toys: Toys, size: Any) -> None:
    options = ("--model", toys.model, "--class", 3, "--scale", 0, "--steps", 1, "-b", 2)
    assert adm("sample", *options, "--seeds", "0-1", "--out", "o").code == 0
    before, path = images("o"), Path("o/manifest.jsonl")
    records = [{**record, "batch_size": size} for record in read_manifest(path).records]
    path.write_bytes(b"".join(map(render_line, records)))
    for name in before:
        Path("o", name).unlink()
    assert adm("sample", *options, "--seeds", "0-2", "--out", "o").code == 0
    assert images("o").items() >= before.items()
