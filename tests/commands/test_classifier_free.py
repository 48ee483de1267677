"""``--cfg`` end to end: in recipes and runs, lists, sweeps, stacks; and what it is refused for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Picture

from adm_cli.checkpoints.presets import Preset
from adm_cli.checkpoints.sources import find_sources
from adm_cli.models.classifier import NoisyClassifier
from adm_cli.pictures.images import open_picture
from adm_cli.sampling.choosing.images import Image
from adm_cli.sampling.settings import StageOptions, sampling_config
from tests.commands.test_repro import edit
from tests.conftest import TOY_UNET, Result, Toys, pictures, save_toy

Run = Callable[..., Result]
FAR = 40  # a toy hears its label faintly


@pytest.fixture(scope="session")
def null_toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy that can also draw without a class."""
    path = tmp_path_factory.mktemp("null") / "null.safetensors"
    return save_toy(path, replace(TOY_UNET, null_class=True))


@pytest.fixture
def draw(adm: Run, toys: Toys, null_toy: Path) -> Run:
    """`adm sample` with it in 2 steps, and a classifier; an option given again wins."""

    def call(*arguments: object) -> Result:
        models = ("--model", null_toy, "--classifier", toys.classifier)
        return adm("sample", *models, "--steps", 2, "--device", "cpu", "--scale", 0, *arguments)

    return call


def refused(done: Result, code: int, *words: str) -> None:
    """One line on stderr that holds the words, and nothing on stdout."""
    assert (done.code, done.out, len(done.err.splitlines())) == (code, "", 1), done.err
    assert all(word in done.err for word in words), done.err


def recipe(path: Path | str) -> dict[str, Any]:
    found = open_picture(Path(path))[1]
    assert found is not None
    return found


def values(path: Path | str) -> bytes:
    return open_picture(Path(path))[0].tobytes()


ONE = ("--class", 3, "--num", 1)


def test_a_picture_says_its_weight_and_is_made_again(
    draw: Run, adm: Run, toys: Toys, null_toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--cfg", FAR, "--cfg-interval", "0.1,1")
    with monkeypatch.context() as patch:
        patch.setattr(NoisyClassifier, "__init__", None)  # --scale 0 loads none
        path = draw(*ONE, *options).out.strip()
    made = recipe(path)
    wanted = {"cfg": FAR, "cfg_interval": [0.1, 1.0], "scale": 0.0, "classifier": None}
    assert {name: made[name] for name in wanted} == wanted
    assert values(path) != values(draw(*ONE).out.strip())
    both = draw(*ONE, *options, "--scale", 2).out.strip()
    assert (recipe(both)["cfg"], recipe(both)["scale"]) == (FAR, 2.0)
    assert values(both) != values(path)
    weights = ("--model", null_toy, "--classifier", toys.classifier)
    for one in (path, both):
        assert "identical" in adm("repro", one, *weights).out
    with Picture.open(both) as image:
        assert "CFG scale: 40.0, " in image.info["parameters"]
        assert image.info["parameters"].endswith("Classifier scale: 2.0")
    told = adm("info", both).out.splitlines()
    assert [line.split(maxsplit=1) for line in told if line.startswith("cfg")] == [
        ["cfg", "40"],
        ["cfg_interval", "0.1, 1"],
    ]


def test_a_weight_of_1_leaves_no_trace(draw: Run) -> None:
    assert draw(*ONE, "--scale", 2, "--out", "a").code == 0
    assert draw(*ONE, "--scale", 2, "--cfg", 1, "--out", "b").code == 0
    for name in ("run.json", *pictures("a")):
        data = Path("a", name).read_bytes()
        assert data == Path("b", name).read_bytes()
        assert name == "run.json" or b"cfg" not in data


def test_another_weight_is_another_run(draw: Run) -> None:
    assert draw(*ONE, "--out", "o").code == 0
    refused(draw(*ONE, "--out", "o", "--cfg", 3), 1, "other settings: cfg 1 -> 3")
    assert draw(*ONE, "--out", "p", "--cfg", 3, "--cfg-interval", "0,0.9").code == 0
    refused(draw(*ONE, "--out", "p", "--cfg", 2.5), 1, "cfg 3 -> 2.5", "cfg_interval")
    refused(draw(*ONE, "--out", "p"), 1, "cfg 3 -> 1")


def test_a_weight_for_each_line_of_a_list(draw: Run) -> None:
    """Each file is what its own settings alone draw, whoever is beside it; so is a mended one."""
    Path("list").write_text("none 4 0 1\n0 1 0 40\n3 2 0 1\n1 3\n0 1 2 40\n")
    options = ("--classes-file", "list", "--cfg", 30, "--cfg-interval", "0,0.9", "-b", 2)
    done = draw(*options, "--out", "o", "--json")
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert {(row["class"], row["seed"], row.get("scale"), row.get("cfg")) for row in rows} == {
        (None, 4, 0.0, 1.0), (0, 1, 0.0, 40.0), (3, 2, 0.0, 1.0), (1, 3, None, None),
        (0, 1, 2.0, 40.0),
    }  # fmt: skip
    assert "0000_circle_scale2_cfg40_seed000001.png" in pictures("o")
    for row in rows:
        made = recipe(row["path"])
        assert made.get("cfg", 1.0) == row.get("cfg", 30.0)
        assert ("cfg_interval" in made) == (made.get("cfg", 1.0) != 1)
        alone = draw(
            "--class", "none" if row["class"] is None else row["class"], "--seeds", row["seed"],
            "--scale", made["scale"], "--cfg", made.get("cfg", 1), "-b", 2,
            *(("--cfg-interval", "0,0.9") if "cfg" in made else ()),
        ).out.strip()  # fmt: skip
        assert Path(alone).read_bytes() == Path(row["path"]).read_bytes()


def test_repair_and_going_on(draw: Run, adm: Run, toys: Toys, null_toy: Path) -> None:
    Path("list").write_text("none 4 0 1\n0 1 0 40\n3 2 2\n")
    options = ("--classes-file", "list", "--cfg", 30, "-b", 2, "--out", "o")
    assert draw(*options).code == 0
    before = {name: Path("o", name).read_bytes() for name in pictures("o")}
    for name in before:
        Path("o", name).write_bytes(b"gone")
    weights = ("--model", null_toy, "--classifier", toys.classifier)
    assert adm("verify", "o", "--repair", *weights).code == 0
    assert {name: Path("o", name).read_bytes() for name in pictures("o")} == before
    assert "nothing to do" in draw(*options).err


def test_a_stack_guides_its_base_alone(draw: Run, adm: Run, toys: Toys, null_toy: Path) -> None:
    upsampling = ("--upsampler", toys.upsampler, "--upsample-steps", 2, "--batch-size", 2)
    options = ("--class", "0,3", "--num", 2, "--cfg", FAR, "--cfg-interval", "0,0.9")
    assert draw(*options, *upsampling, "--out", "one").code == 0
    assert draw(*options, "--batch-size", 2, "--out", "small").code == 0
    model = ("--model", toys.upsampler, "--steps", 2, "--batch-size", 2, "--device", "cpu")
    assert adm("upsample", "small", *model, "--out", "two").code == 0
    name = "0003_star_seed000003.png"
    assert Path("one", name).read_bytes() == Path("two", name).read_bytes()
    made = recipe(f"one/{name}")
    assert "cfg" not in made
    assert (made["base"]["cfg"], made["base"]["cfg_interval"]) == (FAR, [0.0, 0.9])
    weights = ("--model", null_toy, "--upsampler", toys.upsampler)
    assert "identical" in adm("repro", f"one/{name}", *weights).out
    before = Path("one", name).read_bytes()
    Path("one", name).unlink()
    assert adm("verify", "one", "--repair", *weights).code == 0
    assert Path("one", name).read_bytes() == before


def test_a_sweep_over_both_kinds_of_guidance(
    draw: Run, adm: Run, toys: Toys, null_toy: Path
) -> None:
    models = ("--model", null_toy, "--classifier", toys.classifier, "--steps", 2)
    alike = (*models, *ONE, "--scale", "0,2", "--device", "cpu", "--out", "s")
    options = (*alike, "--cfg", "1,40")
    dry = [
        json.loads(line)
        for line in adm("sweep", *options, "--dry-run", "--json").out.split("\n")[:4]
    ]
    done = adm("sweep", *options)
    assert done.code == 0, done.err
    cells = [f"null_ddpm_2_scale{scale}{cfg}" for scale in (0, 2) for cfg in ("", "_cfg40")]
    rows = json.loads(Path("s/sweep.json").read_text())["cells"]
    assert [row["cell"] for row in rows] == [row["cell"] for row in dry] == cells
    assert [row["cfg"] for row in rows] == [1.0, 40.0, 1.0, 40.0]
    assert dry[1]["gflop"] >= dry[0]["gflop"]
    name = "0003_star_seed000000.png"
    assert len({values(f"s/{cell}/{name}") for cell in cells}) == 4
    assert values(draw(*ONE, "--scale", 2, "--cfg", FAR, "-b", 1).out.strip()) == values(
        f"s/{cells[3]}/{name}"
    )
    heading = done.out.splitlines()[0].split()
    assert heading[:2] == ["scale", "cfg"]
    refused(adm("sweep", *alike, "--cfg", "1,x"), 2, "--cfg '1,x'")
    more = adm("sweep", *alike, "--cfg", "40,50")
    refused(more, 1, "cells that are not asked for now (cfg 1,40 -> 40,50)")
    Path("s/sheet.png").unlink()
    assert adm("verify", "s", "--repair").code == 0
    assert Path("s/sheet.png").exists()


def test_measuring_what_is_drawn(draw: Run, adm: Run, toys: Toys, null_toy: Path) -> None:
    drawn = ("--class", 3, "--num", 6)
    assert draw(*drawn, "--cfg", FAR, "--batch-size", 6, "--out", "o").code == 0
    assert draw("--class", 0, "--num", 6, "--out", "ref").code == 0
    judge = ("--ref", "ref", "--features", toys.classifier, "--metrics", "fid", "--json")
    model = ("--model", null_toy, "--scale", 0, "--cfg", FAR, "--steps", 2, "--device", "cpu")
    stored = json.loads(adm("evaluate", "o", *judge).out)
    measured = json.loads(adm("evaluate", *model, *drawn, *judge).out)
    assert measured["pixels_sha256"] == stored["pixels_sha256"]
    refused(adm("evaluate", "o", "--cfg", 2, *judge), 2, "about guidance", "for drawing")


def test_a_dry_run_says_it(draw: Run) -> None:
    facts = json.loads(draw("--cfg", 1.5, "--cfg-interval", "0,0.5", "--dry-run", "--json").out)
    assert (facts["cfg"], facts["cfg_interval"]) == (1.5, [0.0, 0.5])
    off = json.loads(draw("--dry-run", "--json").out)
    assert off["cfg"] == 1
    assert "cfg_interval" not in off


def test_a_preset_recommends(null_toy: Path) -> None:
    preset = Preset(name="p", model="m", steps="2", cfg=2.0, cfg_interval=(0.0, 0.5))
    sources = replace(find_sources(null_toy), preset=preset)
    image = [Image("x.png", 0, 1)]
    asked = sampling_config(sources, image, StageOptions())
    assert (asked.cfg, asked.cfg_interval) == (2.0, (0.0, 0.5))
    own = sampling_config(sources, image, StageOptions(cfg=3.0, cfg_interval=(0.1, 0.2)))
    assert (own.cfg, own.cfg_interval) == (3.0, (0.1, 0.2))
    for off in (
        sampling_config(sources, image, StageOptions(cfg=1.0)),
        sampling_config(sources, [Image("x.png", None, 1)], StageOptions()),
    ):
        assert (off.cfg, off.cfg_interval) == (1.0, None)


def test_negative_weights_are_noted(draw: Run) -> None:
    assert "cfg -2 is negative: images are repelled" in draw(*ONE, "--cfg", -2).err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--cfg", "nan"], ["cfg must be a finite number"]),
        (["--cfg-interval", "0,0.9"], ["--cfg-interval", "pass a --cfg"]),
        (["--cfg", "2", "--cfg-interval", "0.5"], ["--cfg-interval '0.5'", "two numbers"]),
        (["--cfg", "2", "--cfg-interval", "0.5,0.1"], ["cfg_interval", "rising"]),
        (["--cfg", "2", "--class", "none"], ["needs a class for every image", "--cfg 1"]),
        (["--cfg", "1", "--class", "none", "--cfg-interval", "0,0.9"], ["pass a --cfg"]),
    ],
)
def test_wrong_usage(draw: Run, options: list[str], words: list[str]) -> None:
    refused(draw(*options, "--out", "o"), 2, *words)
    assert not Path("o").exists()


def test_models_that_cannot(draw: Run, toys: Toys, tmp_path: Path) -> None:
    words = ("toy was not trained to draw without a class", "train-diffusion --label-dropout 0.1")
    refused(draw("--model", toys.model, "--cfg", 3, "--out", "o"), 2, *words)
    Path("list").write_text("0 1 0 3\n")
    refused(draw("--model", toys.model, "--classes-file", "list", "--out", "o"), 2, *words)
    assert draw("--model", toys.model, "--cfg", 1, *ONE).code == 0
    free = save_toy(tmp_path / "free.safetensors", replace(TOY_UNET, num_classes=None), {})
    refused(draw("--model", free, "--cfg", 3, "--out", "o"), 2, "is unconditional", "--scale")


@pytest.mark.parametrize("cfg", ["3", None, True, [2]])
def test_damaged_recipes(draw: Run, adm: Run, cfg: object) -> None:
    path = Path(draw(*ONE, "--cfg", 2).out.strip())
    edit(path, cfg=cfg)
    refused(adm("repro", path), 1, "recipe is damaged")
    edit(path, cfg=10**400)  # no number that JSON may hold here
    refused(adm("repro", path), 1, "carries no recipe")
