"""`adm evaluate --judge` and `--copies-of` on toy models and made-up pictures."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from adm_cli.checkpoints.format import save_model
from adm_cli.checkpoints.header import ModelInfo
from adm_cli.checkpoints.loading import build_model
from tests.conftest import TOY_CLASSES, TOY_CLASSIFIER, TOY_DIFFUSION, Result, Toys, randomise
from tests.training.conftest import draw_pictures

Adm = Callable[..., Result]


def save_judge(path: str, best: int, noised: bool = False) -> None:
    """A classifier that always gives the same answer."""
    model = randomise(build_model(replace(TOY_CLASSIFIER)), 5)
    state = model.state_dict()
    state["out.2.c_proj.weight"].zero_()
    state["out.2.c_proj.bias"] = torch.eye(5)[best]
    training = {"settings": {"noised": noised}}
    save_model(Path(path), state, ModelInfo(TOY_CLASSIFIER, TOY_DIFFUSION, TOY_CLASSES, training))


@pytest.fixture
def judged(adm: Adm) -> Adm:
    """`adm evaluate` by a judge that says square; folders of squares and stars are there."""
    save_judge("judge.safetensors", best=1)
    save_pictures("samples", {"square": 6, "star": 18})
    save_pictures("real", {"circle": 4, "square": 12, "star": 12}, seed=1)
    return lambda *arguments: adm(
        "evaluate", *arguments, "--judge", "judge.safetensors", "--device", "cpu"
    )


def save_pictures(folder: str, counts: dict[str, int], seed: int = 0, size: int = 8) -> None:
    rng = np.random.default_rng(seed)
    for name, count in counts.items():
        Path(folder, name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(Path(folder, name, f"{i:03}.png"))


def facts(result: Result) -> dict[str, Any]:
    assert result.code == 0, result.err
    (line,) = result.out.splitlines()
    return json.loads(line)  # type: ignore[no-any-return]


def test_agreement_beside_real_pictures(judged: Adm) -> None:
    found = facts(judged("samples", "--real", "real", "--json"))
    assert (found["samples"], found["images"]) == ("samples", 24)
    told = found["agreement"]
    assert (told["judge"], told["judge_noised"], told["judge_classes"]) == ("judge", False, 3)
    assert (told["asked"], told["images"], told["real_images"]) == (2, 24, 24)
    for name in ("among_asked", "among_known"):
        assert told[name]["samples"]["value"] == 0.25
        assert told[name]["samples"]["error"] == pytest.approx((0.25 * 0.75 / 24) ** 0.5)
        assert (told[name]["real"]["value"], told[name]["ratio"]["value"]) == (0.5, 0.5)
    assert (told["fd_images"], told["fd_to"]) == (12, "the other half of the real pictures")
    assert told["fd_judge"]["samples"]["value"] > 0
    assert "per_class" not in told
    notes = found["notes"]
    assert any("the classes have other shares" in note for note in notes)
    assert not any("noisy" in note for note in notes)


def test_tables_for_a_person(judged: Adm) -> None:
    shown = judged("samples", "--real", "real", "--per-class")
    assert shown.code == 0
    title, judge, heading, asked, known, distance, empty, classes, star, square = (
        shown.out.splitlines()
    )
    assert title == "samples (24 images) beside real (24 images)"
    assert judge.startswith("judge: judge (")
    assert judge.endswith("), 3 classes, trained on clean pictures")
    assert heading.split("  ")[-1].strip() == "x real"
    assert asked.split() == [
        "class", "agreement", "among", "2", "0.250", "±", "0.088", "0.50", "±", "0.10", "0.50",
        "±", "0.20",
    ]  # fmt: skip
    assert known.startswith("class agreement among 3")
    assert distance.startswith("Fréchet distance")
    assert (empty, classes.split()[:3]) == ("", ["class", "name", "images"])
    assert star.split() == ["3", "star", "18", "0", "0", "12", "0", "0"]
    assert square.split() == ["1", "square", "6", "6", "6", "12", "12", "12"]
    alone = judged("samples", "--per-class", "-q")
    assert alone.err == ""
    assert alone.out.splitlines()[0] == "samples (24 images)"
    assert alone.out.splitlines()[-1].split() == ["1", "square", "6", "6", "6"]


def test_an_npz_of_another_size_with_labels(judged: Adm) -> None:
    data = np.random.default_rng(0).integers(0, 256, (8, 12, 12, 3), dtype=np.uint8)
    np.savez("samples.npz", arr_0=data, arr_1=np.array([1, 1, 1, 1, 1, 1, 3, 4]))
    found = facts(judged("samples.npz", "--json"))
    assert found["agreement"]["among_asked"]["samples"]["value"] == pytest.approx(6 / 7)
    assert found["agreement"]["among_asked"]["real"] == {"value": None, "error": None}
    assert found["agreement"]["resizing"].startswith("centre crop as in training")
    assert "left out: 1 sample of no class that judge knows" in found["notes"]


def test_the_guide_as_a_judge_is_told(adm: Adm, toys: Toys) -> None:
    draw = ("--model", toys.model, "--classifier", toys.classifier, "--steps", 2)
    assert adm("sample", *draw, "--class", "all", "--num", 2, "--out", "run").code == 0
    judge = ("--judge", toys.classifier, "--device", "cpu", "--json")
    notes = facts(adm("evaluate", "run", *judge))["notes"]
    assert notes[0].startswith("toy_classifier guided these samples")
    assert notes[1].startswith("toy_classifier does not say whether it was trained on noisy")
    save_judge("other.safetensors", best=3, noised=True)
    found = facts(adm("evaluate", "run", "--judge", "other.safetensors", "--json"))
    assert found["agreement"]["among_known"]["samples"]["value"] == pytest.approx(1 / 3)
    (note,) = found["notes"]
    assert note.startswith("other was trained on noisy pictures")


def test_features_of_the_guide_are_told(adm: Adm, toys: Toys) -> None:
    model = ("--model", toys.model, "--classifier", toys.classifier, "--steps", 2, "--scale", 1)
    assert adm("sample", *model, "--class", 1, "--num", 6, "--out", "run").code == 0
    assert adm("sample", *model[:6], "--scale", 0, "--num", 7, "--out", "other").code == 0
    beside = ("--ref", "other", "--features", toys.classifier, "--device", "cpu", "--json")
    flattered = "toy_classifier guided these samples, and its own features flatter them"
    for samples in (("run",), (*model, "--num", 6)):
        notes = facts(adm("evaluate", *samples, *beside))["notes"]
        assert any(note.startswith(flattered) for note in notes), samples
    notes = facts(adm("evaluate", "other", *beside))["notes"]
    assert not any(note.startswith(flattered) for note in notes)


def test_a_judge_of_our_own_making(adm: Adm, tmp_path: Path) -> None:
    """A clean classifier's file says that it is one."""
    shapes = draw_pictures(tmp_path / "shapes", count=3)
    model = ("--size", "8", "--set", "num_res_blocks=1", "--set", "channel_mult=[1,1]")
    steps = ("--steps", 1, "--batch-size", 2, "--workers", 0, "--out", "trained", "-q")
    made = adm("train-classifier", shapes, *model, "--no-noise", *steps)
    assert made.code == 0, made.err
    judge = ("--judge", "trained/model.safetensors", "--device", "cpu", "--json")
    found = facts(adm("evaluate", shapes, *judge))
    assert found["agreement"]["judge_noised"] is False
    assert found["notes"] == []


def test_a_reference_and_a_judge_together(judged: Adm) -> None:
    """The judge's features are compared, and labelled pictures of --ref stand for --real."""
    both = facts(judged("samples", "--ref", "real", "--metrics", "fid", "--json"))
    assert (both["features"], both["features_weights"]) == ("classifier", "judge")
    assert both["agreement"]["real"] == "real"
    assert both["agreement"]["fd_to"] == "the other half of the real pictures"
    save_pictures("training", {"circle": 9, "square": 9}, seed=2)
    apart = ("--ref", "training", "--real", "real", "--metrics", "fid", "--json")
    found = facts(judged("samples", *apart))
    told = found["agreement"]
    assert (told["fd_to"], told["fd_images"]) == ("training", 24)
    assert told["fd_judge"]["samples"]["value"] == pytest.approx(
        found["metrics"]["fd_adm"]["value"]
    )
    plain = [Path("plain", f"{i}.png") for i in range(8)]
    Path("plain").mkdir()
    for path, source in zip(plain, sorted(Path("real/star").iterdir()), strict=False):
        path.write_bytes(source.read_bytes())
    unlabelled = facts(judged("samples", "--ref", "plain", "--metrics", "fid", "--json"))
    assert unlabelled["agreement"]["real"] is None
    assert any(note.startswith("no agreement on real pictures") for note in unlabelled["notes"])


def test_copies_of_training_pictures(adm: Adm, toys: Toys) -> None:
    save_pictures("samples", {"star": 8})
    save_pictures("training", {"star": 20}, seed=1)
    copied = Path("training/star/013.png")
    Path("samples/star/005.png").write_bytes(copied.read_bytes())
    pixels = ("samples", "--copies-of", "training", "--copies-in", "pixels")
    told = facts(adm("evaluate", *pixels, "--json"))["copies"]
    assert (told["share"]["value"], told["training_images"]) == (1 / 8, 20)
    assert told["in"] == "pixels 8x8"
    assert told["ratio"] == pytest.approx(1 / 3)
    worst = {"sample": "samples/star/005.png", "training": str(copied), "ratio": 0.0}
    assert told["worst"][0] == worst
    seen = ("samples", "--copies-of", "training", "--features", toys.classifier, "--device", "cpu")
    told = facts(adm("evaluate", *seen, "--copy-ratio", "0.01", "--json"))["copies"]
    assert told["share"]["value"] == 1 / 8
    assert told["worst"][0] == worst
    assert told["in"].startswith("classifier toy_classifier (")
    shown = adm("evaluate", *pixels, "-q").out.splitlines()
    assert shown[0] == "samples (8 images): copies of training (20 images), in pixels 8x8"
    assert shown[1].startswith("copies: 0.12 ± 0.12 (nearest training picture within 0.333")
    assert shown[3].split() == ["samples/star/005.png", str(copied), "0.000"]


def test_results_as_files(judged: Adm) -> None:
    asked = ("samples", "--real", "real", "--copies-of", "real", "--per-class")
    found = facts(judged(*asked, "--json", "--out", "a.json"))
    assert json.loads(Path("a.json").read_text()) == found
    assert judged(*asked, "--out", "a.csv", "-q").code == 0
    with open("a.csv", newline="") as file:
        rows = {row["metric"]: row for row in csv.DictReader(file)}
    assert list(rows) == [
        *(f"{n}{of}" for n in ("among_asked", "among_known", "fd_judge")
          for of in ("", "_real", "_ratio")),
        "copies",
    ]  # fmt: skip
    assert float(rows["among_asked_ratio"]["value"]) == 0.5
    assert rows["copies"]["samples"] == "samples"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["samples", "--real", "real"], 2, "--real and --per-class need --judge"),
        (["samples", "--per-class"], 2, "--real and --per-class need --judge"),
        (["samples", "--ref", "real", "--copy-ratio", "0.5"], 2, "need --copies-of"),
        (["samples", "--copies-of", "real", "--copies-in", "air"], 2, "features or pixels"),
        (["samples", "--copies-of", "real", "--copy-ratio", "1.5"], 2, "between 0 and 1, got 1.5"),
        (["samples", "--copies-of", "no", "--copies-in", "pixels"], 2, "no such folder or file"),
        (["samples", "--copies-of", "real"], 1, "adm fetch inception"),
        (["samples", "--judge", "judge.safetensors", "--metrics", "fid"], 2, "--ref, which is"),
        (["samples", "--judge", "judge.safetensors", "--half"], 2, "--ref, which is"),
        (["samples", "--judge", "judge.safetensors", "--features", "classifier"], 2, "need --ref"),
        (["samples", "--judge", "nowhere.safetensors"], 2, "no such file: nowhere.safetensors"),
        (["samples", "--judge", "tiny"], 2, "holds a diffusion model"),
        (["samples", "--judge", "inception"], 2, "expected a classifier's file"),
        (["--model", "tiny", "--judge", "judge.safetensors"], 2, "for SAMPLES that are stored"),
        (["plain", "--judge", "judge.safetensors"], 2, "say no class"),
        (["samples", "--judge", "judge.safetensors", "--real", "plain"], 2, "say no class"),
        (["samples", "--judge", "judge.safetensors", "--real", "circles"], 1, "none of the sam"),
    ],
)
def test_wrong_usage(adm: Adm, arguments: list[str], code: int, message: str) -> None:
    save_judge("judge.safetensors", best=1)
    save_pictures("samples", {"square": 6, "star": 6})
    save_pictures("real", {"square": 2})
    save_pictures("circles", {"circle": 1, "sphere": 1})
    Path("plain").mkdir()
    for i, source in enumerate(sorted(Path("samples/star").iterdir())):
        Path(f"plain/{i}.png").write_bytes(source.read_bytes())
    done = adm("evaluate", *arguments)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert done.err.splitlines()[-1].startswith("adm: error: ")
    assert done.err.count("\n") == 1
