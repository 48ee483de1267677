"""Weights that somebody writes to, or cuts short, while they are in use."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import torch

import adm_cli.sampling.drawing.pipeline as pipeline_module
from adm_cli.checkpoints import loading
from adm_cli.checkpoints.finding import find_weights
from adm_cli.checkpoints.format import check_finite
from adm_cli.checkpoints.loading import load_model
from adm_cli.config import ClassifierConfig, UNetConfig
from adm_cli.diffusion.steps import SampleStep
from adm_cli.errors import CheckpointError
from tests.conftest import (
    TOY_CLASSIFIER,
    TOY_UNET,
    TOY_UPSAMPLER,
    Result,
    Toys,
    pictures,
    save_toy,
)
from tests.hostile.sandbox import fork

Change = Callable[[Path, bytes], None]


def in_place(path: Path, data: bytes) -> None:
    """As `rsync --inplace` does; the file's own time is set back."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def cut_short(path: Path, data: bytes) -> None:
    """As `cp` does first: to nothing; what is mapped is then gone, and reading it kills."""
    path.open("wb").close()


@pytest.fixture
def mine(toys: Toys, tmp_path: Path) -> dict[Path, bytes]:
    """Copies of the toy weights that may be written to, and other weights of the same shapes."""
    others: dict[Path, UNetConfig | ClassifierConfig] = {
        toys.model: TOY_UNET, toys.classifier: TOY_CLASSIFIER, toys.upsampler: TOY_UPSAMPLER,
    }  # fmt: skip
    found = {}
    for path, config in others.items():
        other = save_toy(tmp_path / "other.safetensors", config, seed=9)
        copy = shutil.copy(path, tmp_path / path.name)
        found[Path(copy)] = other.read_bytes()
        assert len(found[Path(copy)]) == path.stat().st_size
    return found


@pytest.mark.parametrize("change", [in_place, cut_short])
def test_a_loaded_model_keeps_the_weights_of_its_hash(
    mine: dict[Path, bytes], toys: Toys, change: Change
) -> None:
    path, data = next(iter(mine.items()))
    expected = load_model(toys.model).state_dict()

    def child() -> int:  # which would be killed, were the file mapped and cut short
        model = load_model(path)
        change(path, data)
        return int(not all(torch.equal(v, expected[n]) for n, v in model.state_dict().items()))

    assert fork(child)[0] == 0
    assert path.stat().st_size in (0, len(data))


COMMANDS = {
    "sample": ["sample", "--num", 3, "--steps", 1, "--out", "run"],
    "stack": ["sample", "--num", 3, "--steps", 1, "--upsample-steps", 1, "--out", "run"],
    "apart": ["sample", "--num", 3, "--steps", 1, "--upsample-steps", 1, "--keep-base",
              "--out", "run"],
    "sweep": ["sweep", "--num", 3, "--steps", 1, "--scale", "1,2", "--out", "run"],
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("change", [in_place, cut_short])
def test_pictures_are_those_of_the_recorded_weights(
    adm: Callable[..., Result],
    mine: dict[Path, bytes],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    change: Change,
) -> None:
    """The files change after the first batch; a run that needs one again says so, and stops."""
    model, classifier, upsampler = mine
    models = ["--model", model, "--classifier", classifier, "--class", 3, "-b", 1,
              "--device", "cpu"]  # fmt: skip
    if name in ("stack", "apart"):
        models += ["--upsampler", upsampler]
    assert adm(*COMMANDS[name], *models).code == 0
    expected = {p.relative_to("run"): p.read_bytes() for p in Path("run").rglob("*.png")}
    shutil.rmtree("run")
    real, calls = pipeline_module._sample_batch, 0

    def changing(*arguments: Any) -> Generator[SampleStep, None, torch.Tensor]:
        nonlocal calls
        calls += 1
        if calls == 2:
            for path, data in mine.items():
                change(path, data)
        return real(*arguments)

    monkeypatch.setattr(pipeline_module, "_sample_batch", changing)
    done = adm(*COMMANDS[name], *models)
    found = {p.relative_to("run"): p.read_bytes() for p in Path("run").rglob("*.png")}
    found.pop(Path("sheet.png"), None)
    assert found
    assert found == {path: expected[path] for path in found}
    if name == "apart":  # the upsampler is loaded after the small pictures
        assert (done.code, len(pictures("run/base"))) == (1, 3)
        assert "or it was changed while it was read" in done.err
    else:
        assert (done.code, set(expected) - set(found)) == (0, set(expected) & {Path("sheet.png")})


@pytest.mark.parametrize("change", [in_place, cut_short])
def test_a_file_that_changes_while_it_is_read_is_refused(
    mine: dict[Path, bytes], monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    path, data = next(iter(mine.items()))
    file, seen = find_weights(path), 0

    def check(*arguments: object) -> None:
        nonlocal seen
        seen += 1
        if seen == 2:
            change(path, data)
        check_finite(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(loading, "check_finite", check)
    with pytest.raises(CheckpointError, match="or it was changed while it was read"):
        load_model(file)


@pytest.mark.parametrize("change", [in_place, cut_short])
def test_a_file_that_changes_after_its_header_was_read_is_refused(
    mine: dict[Path, bytes], change: Change
) -> None:
    """As the base of a stack is drawn before its upsampler is loaded."""
    path, data = next(iter(mine.items()))
    file = find_weights(path)
    change(path, data)
    with pytest.raises(CheckpointError, match="or it was changed while it was read"):
        load_model(file)
