"""Stacks: `adm sample` with an upsampler behind the base model, together or one after the other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import adm_cli.checkpoints.finding as finding_module
import adm_cli.checkpoints.loading as loading_module
import adm_cli.checkpoints.presets as presets_module
import adm_cli.checkpoints.sources as sources_module
import adm_cli.sampling.drawing.memory as memory_module
import adm_cli.sampling.drawing.pipeline as pipeline_module
import adm_cli.sampling.recipes.recorded as recorded_module
import adm_cli.sampling.upsample as upsample_module
from adm_cli.checkpoints.presets import Checkpoint, Preset
from adm_cli.commands import models as models_module
from adm_cli.config import ClassifierConfig, UNetConfig
from adm_cli.pictures.images import open_picture
from adm_cli.sampling.folder import RunFolder
from tests.commands.conftest import plain_grid
from tests.conftest import (
    TOY_CLASSIFIER,
    TOY_DIFFUSION,
    TOY_UNET,
    TOY_UPSAMPLER,
    Result,
    Toys,
    pictures,
    save_toy,
)

Run = Callable[..., Result]


@pytest.fixture
def stack(draw: Run, toys: Toys) -> Run:
    """`adm sample` through both toy models, 2 steps each; an option given again wins."""

    def call(*arguments: object) -> Result:
        upsampling = ("--upsampler", toys.upsampler, "--upsample-steps", 2)
        return draw("--class", "0,3", "--batch-size", 2, *upsampling, *arguments)

    return call


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "free_bytes", lambda _device: 10**6)


def contents(folder: str) -> dict[str, bytes]:
    names = [name for name in pictures(folder) if name.endswith(".png")]
    return {name: Path(folder, name).read_bytes() for name in names}


def recipe(path: Path | str) -> dict[str, Any]:
    found = open_picture(Path(path))[1]
    assert found is not None
    return found


def test_one_command_is_two(stack: Run, draw: Run, adm: Run, toys: Toys) -> None:
    """To the bytes of every file, however the work is arranged."""
    done = stack("--num", 3, "--out", "one")
    assert done.code == 0, done.err
    assert len(done.out.splitlines()) == 6
    assert pictures("one") == [Path(line).name for line in done.out.splitlines()]
    draw("--class", "0,3", "--num", 3, "--batch-size", 2, "--out", "small")
    options = ("--model", toys.upsampler, "--steps", 2, "--batch-size", 2, "--device", "cpu")
    assert adm("upsample", "small", *options, "--out", "two").code == 0
    assert contents("one") == contents("two")
    assert recipe("one/0003_star_seed000004.png")["base"] == recipe(
        "small/0003_star_seed000004.png"
    )


@pytest.mark.usefixtures("little_memory")
def test_one_model_at_a_time(stack: Run) -> None:
    """Where both do not fit: all small pictures first, in passing; the same images."""
    done = stack("--num", 3, "--out", "o")
    assert "the small pictures come first" in done.err
    assert "6 images in " in done.err
    assert [Path(line).parent.name for line in done.out.splitlines()] == ["o"] * 6
    assert not Path("o/.base").exists()


def test_ways_to_arrange_the_work_agree(stack: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stack("--num", 3, "--out", "together")
    kept = stack("--num", 3, "--out", "kept", "--keep-base")
    assert kept.code == 0
    with monkeypatch.context() as patch:
        patch.setattr(memory_module, "free_bytes", lambda _device: 10**6)
        stack("--num", 3, "--out", "apart")
    assert contents("together") == contents("kept") == contents("apart")
    assert pictures("kept") == sorted(["base", *pictures("together")])
    assert len(contents("kept/base")) == 6
    for name in contents("kept"):
        made, base = recipe(f"kept/{name}"), recipe(f"kept/base/{name}")
        assert made["base"] == base
        assert open_picture(Path("kept/base", name))[0].shape == (8, 8, 3)


def test_no_upsample_and_what_it_rules_out(adm: Run, toys: Toys) -> None:
    options = (["--upsampler", toys.upsampler], ["--keep-base"], ["--upsample-steps", 3])
    for wrong in (*options, ["--upsample-sampler", "ddim"]):
        done = adm("sample", "--no-upsample", *wrong)
        assert (done.code, done.out) == (2, "")
        assert "--no-upsample stands alone" in done.err
    for wrong in options[1:]:
        done = adm("sample", "--model", toys.model, *wrong)
        assert (done.code, done.out) == (2, "")
        assert "pass --upsampler" in done.err


def fail_at(call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = pipeline_module._sample_batch, []

    def interrupted(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(pipeline_module, "_sample_batch", interrupted)


@pytest.mark.parametrize("call", [1, 2, 3, 4])
@pytest.mark.parametrize("memory", [10**12, 10**6])
def test_interrupted_anywhere_and_gone_on_with(
    stack: Run, monkeypatch: pytest.MonkeyPatch, memory: int, call: int
) -> None:
    """Four batches: two of each stage, in either order. Going on may arrange them otherwise."""
    with monkeypatch.context() as patch:
        patch.setattr(memory_module, "free_bytes", lambda _device: memory)
        fail_at(call, patch)
        done = stack("--num", 2, "--out", "o")
    assert done.code == 130
    assert "o/.base goes on" not in done.err
    done = stack("--num", 2, "--out", "o", "--json")
    assert done.code == 0, done.err
    found = [json.loads(line) for line in done.out.splitlines()]
    assert [row["seed"] for row in found] == [0, 1, 2, 3]
    stack("--num", 2, "--out", "whole")
    assert contents("o") == contents("whole")
    assert not Path("o/.base").exists()


@pytest.mark.usefixtures("little_memory")
def test_small_pictures_are_not_drawn_twice(stack: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        fail_at(5, patch)  # the second batch of the second stage
        assert stack("--num", 3).code == 130
    (folder,) = Path("out").iterdir()  # of its own choosing, and still there
    assert len(contents(f"{folder}/.base")) == 6
    shapes: list[Any] = []
    real = pipeline_module._sample_batch

    def watched(pipeline: Any, *arguments: Any) -> Any:
        shapes.append(pipeline.model.config.image_size[0])
        return real(pipeline, *arguments)

    monkeypatch.setattr(pipeline_module, "_sample_batch", watched)
    assert stack("--num", 3, "--out", folder).code == 0
    assert shapes == [16, 16]


@pytest.mark.usefixtures("little_memory")
def test_shards_share_the_small_pictures(stack: Run) -> None:
    stack("--num", 3, "--out", "whole")
    for i in (3, 1, 2):
        assert stack("--num", 3, "--out", "parts", "--shard", f"{i}/3").code == 0
    assert contents("parts") == contents("whole")
    assert not Path("parts/.base").exists()


def test_another_upsampler_is_another_run(stack: Run, toys: Toys) -> None:
    assert stack("--num", 1, "--out", "o").code == 0
    for change, what in (
        (["--upsample-steps", 3], "upsampler_steps 2 -> 3"),
        (["--upsample-sampler", "ddim"], "upsampler_sampler ddpm -> ddim"),
        (["--upsampler", toys.plain_upsampler], "upsampler_model_sha256"),
        (["--steps", 3], "steps 2 -> 3"),
    ):
        done = stack("--num", 1, "--out", "o", *change)
        assert done.code == 1
        assert what in done.err
    assert len(RunFolder(Path("o")).read().stages) == 2


def test_each_stage_has_its_own_settings(stack: Run) -> None:
    options = ("--sampler", "ddim", "--eta", 0.5, "--scale", 2, "--upsample-steps", "ddim3")
    done = stack("--num", 1, "--upsample-sampler", "ddim", *options)
    made = recipe(done.out.splitlines()[0])
    assert (made["sampler"], made["steps"], made["eta"], made["scale"]) == (
        "ddim", "ddim3", None, 0.0,
    )  # fmt: skip
    base = made["base"]
    assert (base["sampler"], base["steps"], base["eta"], base["scale"]) == ("ddim", "2", 0.5, 2.0)


def test_a_scale_of_its_own_for_an_image(stack: Run, draw: Run, toys: Toys) -> None:
    Path("list").write_text("0 1 0\n0 1 3\n3 2\n")
    upsampling = ("--upsampler", toys.upsampler, "--upsample-steps", 2)
    done = draw("--classes-file", "list", "--scale", 1, *upsampling, "--out", "o")
    assert done.code == 0, done.err
    scales = {Path(line).name: recipe(line)["base"]["scale"] for line in done.out.splitlines()}
    assert sorted(scales.values()) == [0.0, 1.0, 3.0]


def test_grid_and_animation_show_the_large_pictures(stack: Run) -> None:
    done = stack("--num", 1, "--grid", "--animate", "f.webp", "--format", "webp", "--out", "o")
    assert done.code == 0, done.err
    grid = plain_grid("o")
    assert grid.shape == (2 + 16 + 2, 2 + 2 * 18, 3)
    assert Path("o/grid.png").is_file()
    with Image.open("f.webp") as film:
        assert getattr(film, "n_frames", 1) == 4  # both stages
        film.seek(3)
        assert np.array_equal(np.asarray(film.convert("RGB")), grid)


def test_a_film_of_the_second_stage_alone(stack: Run) -> None:
    """Where the small pictures were drawn before."""
    done = stack("--num", 1, "--keep-base", "--animate", "f.webp", "--out", "o")
    assert done.code == 0, done.err
    with Image.open("f.webp") as film:
        assert getattr(film, "n_frames", 1) == 2


def test_npz_of_a_stack(stack: Run) -> None:
    done = stack("--num", 2, "--format", "npz", "--out", "o")
    assert done.out == "o/samples_4x16x16x3.npz\n"
    with np.load("o/samples_4x16x16x3.npz") as arrays:
        assert arrays["arr_1"].tolist() == [0, 0, 3, 3]


def test_dry_run_shows_both_stages(stack: Run) -> None:
    shown = json.loads(stack("--num", 2, "--dry-run", "--json").out)
    assert (shown["model"], shown["upsampler"]) == ("toy", "toy_upsampler")
    assert (shown["num_steps"], shown["upsampler_num_steps"], shown["size"]) == (2, 2, [16, 16])
    assert "upsampler_sampler" in stack("--dry-run").out
    assert not Path("out").exists()


def test_stages_that_do_not_belong_together(draw: Run, toys: Toys) -> None:
    other = replace(TOY_UPSAMPLER, low_res_size=(4, 4))
    wrong = save_toy(Path("wrong.safetensors"), other)
    done = draw("--upsampler", wrong)
    assert done.code == 2
    assert "wrong enlarges 4x4 pictures, toy makes 8x8: pass another --upsampler" in done.err
    renamed = save_toy(Path("renamed.safetensors"), TOY_UPSAMPLER, {0: "circle", 3: "sun"})
    assert "class 3 is star to toy but sun to renamed" in draw("--upsampler", renamed).err
    fewer = save_toy(Path("fewer.safetensors"), TOY_UPSAMPLER, {0: "circle"})
    done = draw("--upsampler", fewer, "--class", "star")
    assert "fewer was not trained on class 3" in done.err
    assert "expected an upsampler" in draw("--upsampler", toys.classifier).err
    assert not Path("out").exists()


def test_a_damaged_upsampler_is_found_before_anything_is_drawn(
    stack: Run, toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytearray(toys.upsampler.read_bytes())
    data[-1] ^= 1
    Path("bad.safetensors").write_bytes(data)
    for memory in (10**12, 10**6):
        monkeypatch.setattr(memory_module, "free_bytes", lambda _device, m=memory: m)
        done = stack("--upsampler", "bad.safetensors")
        assert (done.code, done.out) == (1, "")
        assert "bad.safetensors is damaged" in done.err
        assert not list(Path("out").iterdir())


@pytest.fixture
def preset(adm: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Preset:
    """A stack among the presets, its weights where `adm fetch` would put them."""
    configs: dict[str, UNetConfig | ClassifierConfig] = {
        "base": TOY_UNET,
        "guide": TOY_CLASSIFIER,
        "upsampler": TOY_UPSAMPLER,
    }
    rows = []
    for seed, (name, config) in enumerate(configs.items()):
        path = tmp_path / "home" / "models" / f"toy_{name}.safetensors"
        save_toy(path, config, seed=seed, source={"checkpoint": f"toy_{name}"})
        checkpoint = Checkpoint(
            name=f"toy_{name}", config=config, diffusion=TOY_DIFFUSION, parameters=1
        )
        rows.append(checkpoint)
    plain = Preset(name="toy8", model="toy_base", classifier="toy_guide", steps="2", scale=1.0)
    known = (*presets_module.CHECKPOINTS, *rows)
    row = replace(plain, name="toy-stack", upsampler="toy_upsampler", upsampler_steps="3")
    modules = (presets_module, finding_module, loading_module, sources_module, models_module)
    for module in (*modules, recorded_module, upsample_module):
        if hasattr(module, "PRESETS"):
            monkeypatch.setattr(module, "PRESETS", (*presets_module.PRESETS[:1], plain, row))
        if hasattr(module, "CHECKPOINTS"):
            monkeypatch.setattr(module, "CHECKPOINTS", known)
    return row


@pytest.mark.usefixtures("preset")
def test_a_preset_can_be_a_stack(adm: Run, tmp_path: Path) -> None:
    options = ("--class", 3, "--num", 1, "--device", "cpu")
    large = adm("sample", "--model", "toy-stack", *options).out.strip()
    made = recipe(large)
    assert (made["model"], made["steps"], made["size"]) == ("toy_upsampler", "3", [16, 16])
    assert (made["base"]["model"], made["base"]["steps"]) == ("toy-stack", "2")
    assert adm("repro", large).out == "identical\n"
    small = adm("sample", "--model", "toy-stack", "--no-upsample", *options).out.strip()
    again = adm("sample", "--model", "toy8", *options).out.strip()
    pixels = [open_picture(Path(path))[0] for path in (small, again)]
    assert np.array_equal(pixels[0], pixels[1])
    assert pixels[0].shape == (8, 8, 3)
    for name in ("toy-stack", "toy_upsampler"):  # its upsampler alone, with its own steps
        enlarged = adm("upsample", small, "--model", name).out.strip()
        assert np.array_equal(open_picture(Path(enlarged))[0], open_picture(Path(large))[0])
    assert adm("upsample", small).code == 0  # found by the picture's size
    rows = [json.loads(line) for line in adm("models", "--json").out.splitlines()]
    assert rows[-1]["size"] == "16x16"
    assert rows[-1]["present"]
    shutil.rmtree(tmp_path / "home")
    done = adm("sample", "--model", "toy-stack", *options)
    assert done.code == 1
    assert "not on this machine" in done.err
