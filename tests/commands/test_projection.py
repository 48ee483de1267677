"""Back projection from the command line: defaults, recipes, going on, made again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adm_cli.checkpoints.format import save_model
from adm_cli.checkpoints.header import ModelInfo
from adm_cli.checkpoints.loading import build_model
from adm_cli.checkpoints.sources import find_upsampler
from adm_cli.config import SamplingConfig
from adm_cli.errors import ConfigError
from adm_cli.pictures.decode import fit_picture
from adm_cli.pictures.images import open_picture
from adm_cli.sampling.drawing.pipeline import enlarge, generate, load_pipeline
from adm_cli.sampling.folder import RunFolder
from adm_cli.sampling.run import Stage
from tests.commands.conftest import plain_grid
from tests.commands.test_stacks import contents, recipe
from tests.conftest import TOY_CLASSES, TOY_DIFFUSION, TOY_UPSAMPLER, Result, Toys, randomise

Run = Callable[..., Result]
NAME = "0003_star_seed000001.png"


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """An upsampler that says it was trained by adm."""
    path = tmp_path / "trained.safetensors"
    info = ModelInfo(TOY_UPSAMPLER, TOY_DIFFUSION, TOY_CLASSES, training={"steps": 1})
    save_model(path, randomise(build_model(TOY_UPSAMPLER), 2).state_dict(), info)
    return path


@pytest.fixture
def stack(draw: Run, trained: Path) -> Run:
    """`adm sample` through both models; an option given again wins."""

    def call(*arguments: object) -> Result:
        upsampling = ("--upsampler", trained, "--upsample-steps", 2)
        return draw("--class", "0,3", "--num", 1, "-b", 2, *upsampling, "--out", "o", *arguments)

    return call


def gap(large: Any, small: Any) -> float:
    """How far pictures made half their size are from others, of 255, at most."""
    height, width, _ = np.shape(small)
    values = np.reshape(large, (height, 2, width, 2, 3)).mean(axis=(1, 3))
    return float(np.abs(values - np.asarray(small)).max())


def gaps_of(upsampler: str | Path, class_id: int | None, side: int) -> list[float]:
    """Without projection, with 8 passes, and by default, of `enlarge`."""
    noise = np.random.default_rng(0).integers(30, 225, (8, 8, 3), dtype=np.uint8)
    small = fit_picture(noise, (side, side))[None]
    pipeline = load_pipeline(find_upsampler(upsampler), device="cpu")
    config = SamplingConfig(seeds=(0,), classes=(class_id,), sampler="ddim", steps="ddim4")
    found = []
    for passes in (0, 8, None):
        (batch,) = enlarge(pipeline, small, replace(config, project=passes))
        found.append(gap(batch.images[0].numpy(), small[0]))
    return found


def test_halved_it_is_what_was_enlarged(trained: Path) -> None:
    """To rounding, where the detail alone is predicted; nearer by far where all is."""
    assert max(gaps_of("tiny_upsampler", None, 32)) <= 1
    without, with_8, by_default = gaps_of(trained, 0, 8)
    assert with_8 < without / 2
    assert by_default == with_8  # adm trained it, and projects as the command does
    config = SamplingConfig(seeds=(0,), classes=(0,), sampler="ddim", steps="ddim4")
    with pytest.raises(ConfigError, match="only an upsampler takes"):
        generate(load_pipeline("tiny", guided=False), replace(config, project=1))


def test_it_is_in_the_recipe(stack: Run) -> None:
    gaps = {}
    for passes in (None, 20, 0):
        options = () if passes is None else ("--upsample-project", passes)
        done = stack("--keep-base", *options, "--out", f"o{passes}")
        assert done.code == 0, done.err
        folder = Path(f"o{passes}")
        pair = (folder / NAME, folder / "base" / NAME)
        gaps[passes] = gap(*(open_picture(path)[0] for path in pair))
        made = recipe(folder / NAME)
        assert made.get("project", 0) == (8 if passes is None else passes)
        assert "project" not in made["base"]
    assert gaps[20] < gaps[None] < gaps[0]


def test_off_for_the_published(stack: Run, toys: Toys) -> None:
    """Whose recipes and plans say nothing of it: they are what they were."""
    assert stack("--upsampler", toys.upsampler).code == 0
    assert "project" not in recipe(f"o/{NAME}")
    stage = RunFolder(Path("o")).read().last
    assert isinstance(stage, Stage)
    assert stage.project == 0


def test_a_run_keeps_its_setting(stack: Run, adm: Run, toys: Toys, trained: Path) -> None:
    assert stack("--grid", "--animate", "f.webp").code == 0
    done = stack("--upsample-project", 3)
    assert (done.code, "upsampler_project 8 -> 3" in done.err) == (1, True)
    models = ("--model", toys.model, "--classifier", toys.classifier, "--upsampler", trained)
    before = contents("o")
    Path("o", NAME).unlink()
    assert adm("verify", "o", "--repair", *models).code == 0
    assert contents("o") == before
    assert adm("repro", f"o/{NAME}", *models).out == "identical\n"
    with Image.open("f.webp") as film:
        film.seek(3)
        assert np.array_equal(np.asarray(film.convert("RGB")), plain_grid("o"))
    shown = json.loads(stack("--dry-run", "--json").out)
    assert shown["upsampler_project"] == 8


def test_pictures_of_ones_own(stack: Run, adm: Run, trained: Path) -> None:
    assert stack("--no-upsample", "--out", "s").code == 2  # stands alone
    assert stack("--keep-base").code == 0
    options = ("--model", trained, "--steps", 2, "--device", "cpu", "-b", 2)
    assert adm("upsample", "o/base", *options, "--out", "two").code == 0
    assert contents("two") == contents("o")
    shown = json.loads(
        adm("upsample", "o/base", *options, "--project", 0, "--dry-run", "--json").out
    )
    assert shown["project"] == 0
    done = adm("upsample", "o/base", *options, "--project", 101)
    assert (done.code, "project must be from 0 to 100" in done.err) == (2, True)
