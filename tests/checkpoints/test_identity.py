"""A model with the shapes of a published one is that one only if its file is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from adm_cli.checkpoints import converting
from adm_cli.checkpoints.header import read_model_file
from adm_cli.checkpoints.loading import build_model
from adm_cli.checkpoints.presets import Checkpoint
from tests.conftest import TOY_DIFFUSION, TOY_UNET, Result, randomise

State = dict[str, Tensor]
PUBLISHED = Checkpoint(
    name="published", config=TOY_UNET, diffusion=TOY_DIFFUSION, parameters=0, md5="0" * 32
)


@pytest.fixture(scope="module")
def state() -> State:
    return dict(randomise(build_model(TOY_UNET)).state_dict())


@pytest.fixture
def publish(state: State, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a row with these facts in the place of the published checkpoints."""
    parameters = sum(tensor.numel() for tensor in state.values())

    def put(**facts: Any) -> None:
        row = replace(PUBLISHED, parameters=parameters, **facts)
        monkeypatch.setattr(converting, "CHECKPOINTS", (row,))
        monkeypatch.setattr(converting, "find_checkpoint", lambda _name: row)

    return put


def renamed(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def cast(state: State, dtype: torch.dtype, part: str = "") -> State:
    return {n: v.to(dtype) if n.startswith(part) else v for n, v in state.items()}


# How a fine-tune may lie on a disk.
FORMS: dict[str, Callable[[State], Any]] = {
    "float16": lambda s: cast(s, torch.float16),
    "bfloat16": lambda s: cast(s, torch.bfloat16),
    "half the torso": lambda s: cast(s, torch.float16, "input_blocks"),
    "double": lambda s: cast(s, torch.float64),
    "wrapper": lambda s: {"model": s, "step": 100},
    "half wrapper": lambda s: {"state_dict": cast(s, torch.float16)},
    "average": lambda s: {"model": s, "ema": cast(s, torch.bfloat16), "opt": {}},
    "parallel": lambda s: renamed("module.", s),
    "compiled": lambda s: renamed("_orig_mod.", cast(s, torch.float16)),
    "of Lightning": lambda s: {"state_dict": renamed("model.diffusion_model.", s)},
    "a counter beside": lambda s: {**s, "global_step": torch.tensor(100)},
    "schedule beside": lambda s: {**s, "betas": torch.ones(1000)},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["dogs", "published"])
def test_a_fine_tune(
    adm: Callable[..., Result], state: State, publish: Callable[..., None], name: str, form: str
) -> None:
    """Nothing is known of the published file but its shapes and name."""
    publish(md5=None)
    torch.save(FORMS[form](state), f"{name}.pt")
    other = Path("published-other.safetensors") if name == "published" else None
    made = adm("convert", f"{name}.pt", "--json")
    stays_itself(made, name, other)
    assert (f"it becomes {other}" in made.err) == (other is not None)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_fine_tune_as_safetensors(
    adm: Callable[..., Result], state: State, publish: Callable[..., None], dtype: torch.dtype
) -> None:
    publish(md5=None)
    save_file(cast(state, dtype), "published.safetensors")
    made = adm("convert", "published.safetensors", "-o", "o.safetensors")
    stays_itself(made, "published", Path("o.safetensors"))


@pytest.mark.parametrize("known", ["md5", "sha256"])
def test_a_fine_tune_of_the_same_length(
    adm: Callable[..., Result], state: State, publish: Callable[..., None], known: str
) -> None:
    """As the original's own training writes it: the hash alone tells."""
    torch.save(state, "dogs.pt")
    data = Path("dogs.pt").read_bytes()
    publish(**{"file_bytes": len(data), "md5": None, known: "0" * 32})
    stays_itself(adm("convert", "dogs.pt"), "dogs")
    Path("dogs.pt").rename("published.pt")
    for options in ((), ("--preset", "published")):  # perhaps a damaged download
        done = adm("convert", "published.pt", *options)
        assert done.code == 1
        assert "is not published as published" in done.err
        assert "if it is another model, rename it and leave out --preset" in done.err
    publish(**{"file_bytes": len(data), "md5": None, known: hashlib.new(known, data).hexdigest()})
    Path("published.pt").rename("any.pt")
    assert adm("convert", "any.pt").out.endswith("home/models/published.safetensors\n")


def test_a_fine_tune_with_other_names_is_refused(
    adm: Callable[..., Result], state: State, publish: Callable[..., None]
) -> None:
    publish(md5=None)
    other = {name.replace("input_blocks.1", "down.1"): v.half() for name, v in state.items()}
    torch.save(other, "published.pt")
    done = adm("convert", "published.pt")
    assert (done.code, done.out) == (2, "")
    assert "none of the published models" in done.err


def stays_itself(done: Result, name: str, made: Path | None = None) -> None:
    """Beside the original, of no known classes, and said so."""
    assert done.code == 0, done.err
    assert "has the shapes of published and is not that file" in done.err
    assert "its classes are unnamed: pass --classes" in done.err
    file = read_model_file(made or Path(f"{name}.safetensors"))
    assert file.info.classes == {i: f"class {i}" for i in range(5)}
    assert not Path("home/models").exists()
