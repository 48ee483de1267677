"""Files that somebody writes to, or cuts short, while a command that read them still needs them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from adm_cli.checkpoints import converting
from adm_cli.checkpoints.flags.model import openai_flags
from adm_cli.checkpoints.format import load_original, read_tensors, write_tensors
from adm_cli.checkpoints.loading import build_model
from tests.conftest import Result, Toys, randomise
from tests.hostile.sandbox import fork
from tests.hostile.test_overwritten import cut_short, in_place
from tests.hostile.test_weights import FLAGS

Adm = Callable[..., Result]
CHANGES = [in_place, cut_short]


def as_pt(path: Path, seed: int) -> Path:
    """Random weights that `FLAGS` describe, as `torch.save` writes them."""
    torch.save(randomise(build_model(openai_flags(FLAGS)[0]), seed).state_dict(), path)
    return path


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_what_was_read_stays(
    toys: Toys, tmp_path: Path, ending: str, change: Callable[[Path, bytes], None]
) -> None:
    """Were the file mapped, the process would be killed, or see the other values."""
    path = as_pt(tmp_path / "x.pt", 0)
    other = as_pt(tmp_path / "other.pt", 7).read_bytes()
    if ending == "safetensors":
        path = tmp_path / "x.safetensors"
        path.write_bytes(toys.model.read_bytes())
        other = bytes(path.stat().st_size)

    def child() -> int:
        found = load_original(path)
        assert isinstance(found, dict)
        before = {name: value.clone() for name, value in found.items()}
        change(path, other)
        return int(not all(torch.equal(before[name], value) for name, value in found.items()))

    assert fork(child)[0] == 0


@pytest.mark.parametrize("change", CHANGES)
def test_states_and_references_are_read_once(
    tmp_path: Path, change: Callable[[Path, bytes], None]
) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"kept": torch.randn(1 << 12)}, {})

    def child() -> int:
        tensors, _ = read_tensors(path)
        before = tensors["kept"].clone()
        change(path, bytes(path.stat().st_size))
        return int(not torch.equal(before, tensors["kept"]))

    assert fork(child)[0] == 0


@pytest.mark.parametrize("when", ["file_sha256", "save_model"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_conversion_is_of_one_file(
    adm: Adm,
    toys: Toys,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path, bytes], None],
    when: str,
) -> None:
    """Once its recorded hash was that of the new file, its tensors those of the old one."""
    path = as_pt(tmp_path / "x.pt", 0)
    other = as_pt(tmp_path / "other.pt", 7).read_bytes()
    real = getattr(converting, when)

    def changing(*arguments: object, **more: object) -> object:
        change(path, other)
        return real(*arguments, **more)

    monkeypatch.setattr(converting, when, changing)
    done = adm("convert", "x.pt", "--flags", FLAGS, "-o", "new.safetensors")
    assert done.code == 1
    assert "was changed meanwhile" in done.err
    assert not (tmp_path / "new.safetensors").exists()
    assert not list(tmp_path.glob(".adm-*"))
