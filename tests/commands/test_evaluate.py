"""`adm reference` and `adm evaluate` on the toy models and made-up pictures."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from adm_cli.commands import progress
from tests.commands.test_bad_input import refused
from tests.conftest import Result, Toys
from tests.evaluation.rule import rule_weights

Run = Callable[..., Result]


@pytest.fixture
def run(adm: Run, toys: Toys) -> Run:
    """A command with the toy classifier's features; two folders of pictures are there."""
    for name, seed in (("photos", 0), ("samples", 1)):
        save_pictures(Path(name), seed=seed)
    return lambda command, *arguments: adm(
        command, *arguments, "--features", toys.classifier, "--device", "cpu"
    )


def save_pictures(folder: Path, count: int = 24, size: int = 8, seed: int = 0) -> None:
    folder.mkdir(exist_ok=True)
    data = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    for i, pixels in enumerate(data):
        Image.fromarray(pixels).save(folder / f"{i:03}.png")


def facts(result: Result) -> dict[str, Any]:
    assert result.code == 0, result.err
    (line,) = result.out.splitlines()
    return json.loads(line)  # type: ignore[no-any-return]


def test_a_reference_then_samples_against_it(run: Run) -> None:
    made = run("reference", "photos", "-o", "new/ref.safetensors")
    assert (made.code, made.out) == (0, "new/ref.safetensors\n")
    found = facts(run("evaluate", "samples", "--ref", "new/ref.safetensors", "--json"))
    assert list(found["metrics"]) == [
        "fd_adm", "is_adm", "kd_adm", "precision", "recall", "density", "coverage",
    ]  # fmt: skip
    assert (found["images"], found["reference"], found["reference_images"]) == (24, "photos", 24)
    direct = facts(run("evaluate", "samples", "--ref", "photos", "--json"))
    assert direct == found


def test_what_it_would_cost(run: Run, toys: Toys) -> None:
    costs = facts(run("evaluate", "samples", "--ref", "photos", "--dry-run", "--json"))
    assert (costs["samples"], costs["reference_pictures"], costs["feature_passes"]) == (24, 24, 48)
    assert (costs["evaluations"], costs["output_bytes"]) == (0, 0)
    assert costs["memory_bytes"] > 10**6
    assert costs["seconds"] >= 0
    drawn = run("evaluate", "--model", toys.model, "--classifier", toys.classifier, "--num", 24,
                "--steps", 3, "--ref", "photos", "--out", "new/x.csv", "--dry-run")  # fmt: skip
    assert drawn.code == 0, drawn.err
    assert "evaluations    72" in drawn.out
    assert not Path("new").exists()


def test_the_table_names_numbers_images_and_features(run: Run) -> None:
    shown = run("evaluate", "photos", "--ref", "photos", "--metrics", "fid,pr")
    assert shown.code == 0
    title, features, heading, distance, precision, recall = shown.out.splitlines()
    assert title == "photos (24 images) against photos (24 images)"
    assert features.startswith("features: classifier toy_classifier (")
    assert heading.split() == ["metric", "value", "error"]
    assert distance.split()[:2] == ["fd_adm", "0"]
    assert [precision.split(), recall.split()] == [
        ["precision", "1.000", "0.029"],  # 24 of 24 are no certainty
        ["recall", "1.000", "0.029"],
    ]
    assert "Fréchet distances are biased upwards" in shown.err
    assert run("evaluate", "photos", "--ref", "photos", "--metrics", "is", "-q").err == ""


def test_every_kind_of_source(run: Run) -> None:
    pixels = [np.asarray(Image.open(path)) for path in sorted(Path("samples").iterdir())]
    np.savez("samples.npz", arr_0=np.stack(pixels))
    shutil.make_archive("zipped", "zip", "samples")
    shutil.make_archive("shard", "tar", "samples")
    expected = facts(run("evaluate", "samples", "--ref", "photos", "--json"))
    for name in ("samples.npz", "zipped.zip", "shard.tar"):
        found = facts(run("evaluate", name, "--ref", "photos", "--json"))
        assert found == expected | {"samples": name}


def test_results_as_files(run: Run) -> None:
    options = ("samples", "--ref", "photos", "--metrics", "fid,is")
    found = facts(run("evaluate", *options, "--json", "--out", "new/a.json"))
    assert json.loads(Path("new/a.json").read_text()) == found
    assert run("evaluate", *options, "--out", "a.csv").code == 0
    with open("a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["metric"] for row in rows] == ["fd_adm", "is_adm"]
    assert float(rows[0]["value"]) == found["metrics"]["fd_adm"]["value"]
    assert rows[1]["pixels_sha256"] == found["pixels_sha256"]
    again = run("evaluate", *options, "--out", "a.csv")
    assert again.code == 1
    assert "a.csv exists already: pass --overwrite" in again.err
    assert run("evaluate", *options, "--out", "a.csv", "--overwrite").code == 0


def test_samples_drawn_on_the_fly(run: Run, toys: Toys) -> None:
    guide = ("--classifier", toys.classifier, "--steps", 2, "--seed", 3, "--scale", 1)
    draw = ("--model", toys.model, *guide)
    found = facts(run("evaluate", *draw, "--num", 8, "--ref", "photos", "--json"))
    assert (found["samples"], found["images"]) == ("toy", 8)
    again = facts(run("evaluate", *draw, "--num", 8, "--ref", "photos", "--json"))
    assert found == again


def test_drawn_samples_are_those_of_adm_sample(run: Run, adm: Run, toys: Toys) -> None:
    guide = (
        "--model",
        toys.model,
        "--classifier",
        toys.classifier,
        "--steps",
        2,
        "--class",
        "star",
    )
    assert adm("sample", *guide, "--num", 8, "--device", "cpu", "--out", "drawn").code == 0
    stored = facts(run("evaluate", "drawn", "--ref", "photos", "--json"))
    drawn = facts(run("evaluate", *guide, "--num", 8, "--ref", "photos", "--json"))
    assert drawn["pixels_sha256"] == stored["pixels_sha256"]


HOW = {
    "a mixture": ("--class", "star+circle"),
    "a negative class": ("--negative-class", "star", "--class", "circle"),
    "the gradient": ("--guide-adam", "0.5/0.7", "--scale", 0.1, "--guide-interval", "0,0.9"),
    "self-guidance": ("--pag-scale", 2, "--scale", 0),
    "the trajectory": ("--spacing", "quadratic", "--threshold", 0.6, "--temperature", 0.9),
}


@pytest.mark.parametrize("name", HOW)
def test_however_they_are_drawn(name: str, run: Run, adm: Run, toys: Toys) -> None:
    models = ("--model", toys.model, "--classifier", toys.classifier, "--steps", 4)
    guide = (*models, *HOW[name], "--num", 6)
    assert adm("sample", *guide, "--device", "cpu", "--out", "drawn").code == 0
    stored = facts(run("evaluate", "drawn", "--ref", "photos", "--json"))
    drawn = facts(run("evaluate", *guide, "--ref", "photos", "--json"))
    assert drawn["pixels_sha256"] == stored["pixels_sha256"]


def test_a_way_to_draw_needs_a_model(run: Run) -> None:
    wrong = run("evaluate", "samples", "--ref", "photos", "--guide-by", "js")
    assert (wrong.code, "they need --model" in wrong.err) == (2, True)
    wrong = run("evaluate", "--model", "tiny", "--ref", "photos", "--scale", 0, "--guide-by", "js")
    assert (wrong.code, "guidance: pass a --scale" in wrong.err) == (2, True)


def test_samples_with_statistics_are_measured_by_their_images(run: Run) -> None:
    pixels = [np.asarray(Image.open(path)) for path in sorted(Path("samples").iterdir())]
    np.savez("samples.npz", arr_0=np.stack(pixels), mu=np.zeros(4), sigma=np.eye(4))
    found = facts(run("evaluate", "samples.npz", "--ref", "photos", "--json"))
    expected = facts(run("evaluate", "samples", "--ref", "photos", "--json"))
    assert found["metrics"] == expected["metrics"]
    assert "samples.npz holds statistics, which count for --ref only" in found["notes"][0]


def test_sizes_are_resized_only_when_asked(run: Run) -> None:
    save_pictures(Path("large"), size=20)
    plain = run("evaluate", "large", "--ref", "photos")
    assert plain.code == 2
    assert "toy_classifier takes images of 8x8, these are 20x20: pass --resize 8x8" in plain.err
    assert run("evaluate", "large", "--ref", "photos", "--resize", 8).code == 0
    alone = run("reference", "large", "-o", "ref.safetensors")
    assert alone.code == 2
    assert "takes images of 8x8, these are 20x20: pass --resize 8x8" in alone.err
    assert not Path("ref.safetensors").exists()


def test_a_larger_reference_is_reduced_and_no_sample_enlarged(run: Run) -> None:
    save_pictures(Path("large"), size=20)
    plain = run("evaluate", "photos", "--ref", "large")
    refused(plain, 2, "the images of the reference large 20x20: pass --resize 8x8")
    assert run("evaluate", "photos", "--ref", "large", "--resize", 8).code == 0


def test_runs_that_are_unfinished_or_mixed_are_said(run: Run, adm: Run, toys: Toys) -> None:
    models = ("--model", toys.model, "--scale", 0, "--steps", 2, "--device", "cpu", "-q")
    half = ("--class", "circle", "--num", 13, "--out", "all/half", "--shard", "1/2")
    assert adm("sample", *models, *half).code == 0
    assert adm("sample", *models, "--class", "star", "--num", 6, "--out", "all/whole").code == 0
    unfinished = "all/half is not finished: 7 of 13 images are there"
    alone = facts(run("evaluate", "all/half", "--ref", "photos", "--metrics", "fid", "--json"))
    assert unfinished in alone["notes"][0]
    both = facts(run("evaluate", "all", "--ref", "photos", "--metrics", "fid", "--json"))
    assert both["notes"][0] == "all holds 2 runs, measured together as one set: half, whole"
    assert unfinished in both["notes"][1]
    whole = facts(run("evaluate", "all/whole", "--ref", "photos", "--metrics", "fid", "--json"))
    assert not [note for note in whole["notes"] if "all" in note]
    assert unfinished in run("reference", "all/half", "-o", "ref.safetensors").err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["evaluate", "--ref", "photos"], 2, "either SAMPLES, or --model"),
        (["evaluate", "samples", "--model", "tiny", "--ref", "photos"], 2, "either SAMPLES"),
        (["evaluate", "samples"], 2, "--ref is missing"),
        (["evaluate", "samples", "--ref", "photos", "--num", "5"], 2, "they need --model"),
        (["evaluate", "samples", "--ref", "nowhere"], 2, "no such folder or file of pictures"),
        (
            ["evaluate", "nowhere.npz", "--ref", "photos"],
            2,
            "no such folder or file of pictures: nowhere.npz",
        ),
        (["evaluate", "samples", "--ref", "r.safetensors"], 1, "cannot read r.safetensors"),
        (["evaluate", "samples", "--ref", "photos", "--metrics", "sfid"], 2, "sfid needs"),
        (["evaluate", "samples", "--ref", "photos", "-o", "a.txt"], 2, "ends in .csv or .json"),
        (["evaluate", "samples", "--ref", "photos", "-b", "0"], 2, "at least 1, got 0"),
        (["evaluate", "samples", "--ref", "photos", "--resize", "big"], 2, "WIDTHxHEIGHT"),
        (["evaluate", "samples", "--ref", "photos", "--resize", "0"], 2, "--resize 0"),
        (["reference", "photos", "-o", "ref.npz"], 2, "ends in .safetensors"),
        (["reference", "nowhere", "-o", "ref.safetensors"], 2, "no such folder or file"),
    ],
)
def test_wrong_usage(run: Run, arguments: list[str], code: int, message: str) -> None:
    done = run(*arguments)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert done.err.count("\n") == 1


def test_a_corrupt_picture(run: Run) -> None:
    Path("samples/003.png").write_bytes(b"not a picture")
    done = run("evaluate", "samples", "--ref", "photos")
    assert done.code == 1
    assert "samples/003.png" in done.err
    assert done.err.startswith("adm: error: ")


def test_a_reference_is_not_replaced_unasked(run: Run) -> None:
    assert run("reference", "photos", "-o", "ref.safetensors").code == 0
    before = Path("ref.safetensors").read_bytes()
    again = run("reference", "samples", "-o", "ref.safetensors")
    assert again.code == 1
    assert "exists already" in again.err
    assert Path("ref.safetensors").read_bytes() == before
    shown = facts(run("reference", "samples", "-o", "ref.safetensors", "--overwrite", "--json"))
    assert (shown["images"], shown["kept"], shown["size"]) == (24, 24, [8, 8])


def test_info_shows_a_reference(run: Run, adm: Run) -> None:
    assert run("reference", "photos", "-o", "ref.safetensors").code == 0
    found = facts(adm("info", "ref.safetensors", "--json"))
    assert (found["kind"], found["source"], found["images"]) == ("reference", "photos", 24)
    assert (found["features"], found["size"], found["kept"]) == ("classifier", [8, 8], 24)


def test_too_few_samples_are_refused_before_any_work(run: Run) -> None:
    save_pictures(Path("few"), 5)
    done = run("evaluate", "few", "--ref", "photos")
    assert done.code == 1
    assert "5 images, too few to measure: at least 6 are needed" in done.err


def test_a_reference_made_with_other_features_is_refused(run: Run, adm: Run) -> None:
    assert run("reference", "photos", "-o", "ref.safetensors").code == 0
    other = ("--features", "classifier", "--resize", 32, "--device", "cpu")
    done = adm("evaluate", "samples", "--ref", "ref.safetensors", *other)
    assert done.code == 2
    assert "ref.safetensors was made with the features of classifier (" in done.err


def test_progress_is_lines_where_there_is_no_terminal(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    done = run("evaluate", "samples", "--ref", "photos", "--metrics", "fid,pr", "-b", 10)
    lines = [line.split(", about")[0] for line in done.err.splitlines()]
    assert lines[:3] == [f"adm: {n}/24 reference images" for n in (10, 20, 24)]
    assert lines[3:6] == [f"adm: {n}/24 images" for n in (10, 20, 24)]
    assert "adm: 10/10 fd_adm" in lines
    assert "adm: 1/1 precision and recall" in lines
    quiet = run("evaluate", "samples", "--ref", "photos", "--metrics", "fid,pr", "--quiet")
    assert quiet.err == ""


def test_without_inceptions_weights(adm: Run) -> None:
    save_pictures(Path("few"), 6)
    done = adm("evaluate", "few", "--ref", "few")
    assert done.code == 1
    assert "adm fetch inception" in done.err
    assert "--features classifier" in done.err


def test_inception_from_a_file(adm: Run) -> None:
    torch.save(rule_weights(), "inception.pth")
    save_pictures(Path("few"), 6)
    options = ("--inception", "inception.pth", "--device", "cpu", "--json")
    found = facts(adm("evaluate", "few", "--ref", "few", "--metrics", "is,pr", *options))
    assert list(found["metrics"]) == ["is", "precision", "recall"]
    assert found["features_weights"] == "inception.pth"
    assert found["notes"][0].startswith("samples and reference are the same pictures")
    assert found["notes"][1].startswith("6 images, too few for a number called FID")
    assert "inception.pth is not the published file" in found["notes"][2]
