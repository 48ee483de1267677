"""The training commands, from pictures to sampled images, and what they refuse."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from adm_cli.checkpoints.header import read_model_file
from adm_cli.commands import signals
from adm_cli.commands.train import _StopSignals
from adm_cli.errors import RunError
from adm_cli.events import Hint, ignore
from adm_cli.training.defaults import default_steps
from adm_cli.training.distributed import World
from adm_cli.training.initial import DRAWN
from adm_cli.training.options import DiffusionOptions
from adm_cli.training.train import prepare
from tests.conftest import Result, Toys
from tests.training.conftest import draw_pictures

Adm = Callable[..., Result]
MODEL = ("--size", "8", "--set", "num_res_blocks=1", "--set", "channel_mult=[1]")
SHORT = ("--steps", "4", "--batch-size", "4", "--out", "run")


@pytest.fixture(autouse=True)
def _quick(quick_training: None) -> None:
    """Here, every training in this process is."""


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("shapes") / "shapes", count=10)


def results(result: Result) -> dict[str, Any]:
    assert result.code == 0, result.err
    return json.loads(result.out.splitlines()[-1])  # type: ignore[no-any-return]


def test_pictures_to_guided_samples(
    adm: Adm, shapes: Path, tmp_path: Path, real_plots: None
) -> None:
    """Both models learn: the classifier to tell the shapes apart, the other to remove noise."""
    classifier = results(
        adm("train-classifier", shapes, *MODEL, "--steps", 60, "--batch-size", 16, "--lr", 2e-3,
            "--eval-every", 30, "--out", "classifier", "--json", "-q")
    )  # fmt: skip
    assert classifier["validation"]["loss"] < 0.45  # ln 2 = 0.69 is guessing
    assert classifier["validation"]["acc1_q0"] == 1.0
    diffusion = results(
        adm("train-diffusion", shapes, *MODEL, "--steps", 60, "--batch-size", 16, "--lr", 2e-3,
            "--label-dropout", 0.2, "--classifier", classifier["model"], "--scale", 2,
            "--match", classifier["model"], "--eval-every", 30, "--sample-every", 60,
            "--out", "base", "--json", "-q")
    )  # fmt: skip
    assert diffusion["validation"]["loss"] < 0.7  # 1 is no prediction at all
    pair = ("--model", diffusion["model"], "--classifier", classifier["model"])
    made = adm("sample", *pair, "--class", "square", "--scale", 1, "--steps", 3, "--num", 1)
    assert made.code == 0, made.err
    assert "0001_square" in made.out
    fast = adm("sample", *pair, "--class", "square", "--num", 1)
    assert f"dpm++2m, 20 steps: what {diffusion['model']} recommends" in fast.err
    alone = adm("sample", *pair, "--class", "none", "--steps", 3, "--num", 1)
    assert alone.code == 0, alone.err
    facts = adm("info", diffusion["model"], "--json")
    assert json.loads(facts.out)["classes"] == {"0": "circle", "1": "square"}
    assert json.loads(facts.out)["recommended"]["sampler"] == "dpm++2m"
    with Image.open(tmp_path / "base" / "samples" / "step-00000060.png") as grid:
        assert grid.width > 8 * 64  # eight of a class, each pixel a square, beside its name
        assert grid.height > 2 * 64
    with Image.open(tmp_path / "base" / "metrics.png") as plot:
        assert plot.width > plot.height


def test_upsampler(adm: Adm, shapes: Path) -> None:
    made = results(
        adm("train-upsampler", shapes, *MODEL, "--low-size", "4", *SHORT, "--json", "-q")
    )
    info = read_model_file(Path(made["model"])).info
    assert info.kind == "upsampler"
    assert info.config.low_res_size == (4, 4)  # type: ignore[union-attr]
    assert list(Path("run/samples").iterdir())


def test_plain_lines_and_files_on_stdout(adm: Adm, shapes: Path) -> None:
    done = adm("train-diffusion", shapes, *MODEL, *SHORT)
    assert done.code == 0
    assert done.out.split() == ["run/model.safetensors", "run/best.safetensors"]
    assert "18 pictures to train on, 2 to validate" in done.err
    assert "classes: 0 circle (9), 1 square (9)" in done.err
    assert "step 4/4: loss" in done.err
    assert "validation loss" in done.err
    assert not adm("train-diffusion", shapes, *MODEL, *SHORT[:-1], "quiet", "-q").err


def test_dry_run(adm: Adm, shapes: Path, tmp_path: Path) -> None:
    facts = json.loads(adm("train-diffusion", shapes, *MODEL, *SHORT, "--dry-run", "--json").out)
    assert facts["image_size"] == [8, 8]
    assert facts["steps"] == 4
    assert facts["parameters"] > 10_000
    assert min(facts[n] for n in ("gflop_per_image", "memory_gb", "images_per_second")) > 0
    assert facts["classes"] == "0 circle (9), 1 square (9)"
    images = facts["hours"] * 3600 * facts["images_per_second"]
    assert images > 4 * 4 + 20  # validating and drawing samples count, which take longer here
    shown = adm("train-diffusion", shapes, *MODEL, *SHORT, "--dry-run").out.splitlines()
    assert shown[-3] == "4 steps of 4: 0.9 epochs of 18 pictures"
    assert re.search(r"parameters, 0\.\d+ GB of memory, [\d.]+ GB are free", shown[-2])
    assert shown[-1].endswith("images/s on this machine")
    unsaid = adm("train-diffusion", shapes, *MODEL, "--dry-run", "--batch-size", 100_000)
    assert "2,000 steps of 100,000 pictures" in unsaid.err
    assert "the fewest that adm chooses" in unsaid.err
    assert "(or --steps)" in unsaid.err
    assert not list(tmp_path.iterdir())


def test_ablations_presets_and_flags_by_name(adm: Adm, shapes: Path) -> None:
    def config(command: str, *options: object) -> dict[str, Any]:
        huge = ("--batch-size", 100_000)  # more memory than there is: nothing is measured
        done = adm(command, shapes, *options, *huge, "--dry-run", "--json")
        assert done.code == 0, done.err
        return json.loads(done.out)  # type: ignore[no-any-return]

    ablation = config("train-diffusion", "--preset", "ablation-all")
    assert (ablation["model_channels"], ablation["num_heads"]) == (160, 4)
    assert ablation["num_classes"] == 2
    assert ablation["images_per_second"] is None
    fits = re.search(r"more memory than is free: --microbatch (\d+) fits", ablation["note"])
    assert fits is not None
    assert 0 < int(fits[1]) < 100_000
    assert ablation["memory_gb"] > ablation["free_gb"]
    assert config("train-classifier", "--preset", "imagenet64")["num_res_blocks"] == 4
    assert config("train-upsampler", "--preset", "64_256_upsampler")["low_res_size"] == [64, 64]
    flags = "--image_size 64 --num_channels 96 --learn_sigma True --noise_schedule cosine"
    assert config("train-diffusion", "--flags", flags)["model_channels"] == 96
    sized = config("train-diffusion", "--size", "64x96", "--channels", 64)
    assert sized["image_size"] == [96, 64]  # height, width
    assert config("train-diffusion", "--unconditional")["num_classes"] is None
    assert config("train-diffusion", "--kimg", 200)["steps"] == 2


def test_resume_needs_nothing_repeated(adm: Adm, shapes: Path) -> None:
    options = ("--batch-size", 4, "--save-every", 2, "--anneal", "none")
    whole = ("train-diffusion", shapes, *MODEL, *options, "-q")
    assert adm(*whole, "--steps", 6, "--out", "whole").code == 0
    assert adm(*whole, "--steps", 2, "--out", "cut").code == 0
    again = adm(*whole[:-1], "--steps", 2, "--out", "cut")  # it is finished: nothing to do
    assert again.code == 0, again.err
    assert "going on with the run in cut at step 2 (--fresh begins anew)" in again.err
    told = "this run is finished, at step 2 of 2: a larger --steps goes on, such as --steps 4"
    assert told in " ".join(again.err.split()), again.err
    assert adm("train-diffusion", "--resume", "--out", "cut", "--steps", 6, "-q").code == 0
    a, b = load_file("whole/model.safetensors"), load_file("cut/model.safetensors")
    assert all(torch.equal(a[name], b[name]) for name in a)
    done = adm("train-diffusion", "--resume", "--out", "cut", "--steps", 3)  # it is finished
    assert done.code == 0
    assert "adm: 6 steps, " in done.err
    assert "cut/model.safetensors" in done.out
    assert json.loads(Path("cut/settings.json").read_text())["training"]["steps"] == 6


def test_resume_of_a_size_that_was_typed_height_first(adm: Adm, shapes: Path) -> None:
    """As it was stored before; what the network is says which side is which."""
    run = ("train-diffusion", shapes, *MODEL[2:], *SHORT, "-q")
    assert adm(*run, "--size", "16x8").code == 0
    place = Path("run/settings.json")
    settings = json.loads(place.read_text())
    assert (settings["config"]["image_size"], settings["options"]["size"]) == ([8, 16], "16x8")
    settings["options"]["size"] = "8x16"
    place.write_text(json.dumps(settings))
    done = adm("train-diffusion", "--out", "run", "--resume", "--steps", 6)
    assert done.code == 0, done.err
    assert "at step 4" in done.err
    assert json.loads(place.read_text())["options"]["size"] == "16x8"


def test_resume_refuses_other_settings_and_tells_them(adm: Adm, shapes: Path) -> None:
    assert adm("train-classifier", shapes, *MODEL, *SHORT, "-q").code == 0
    again = ("train-classifier", "--resume", "--out", "run")
    other = adm(*again, "--lr", 1e-5, "--batch-size", 8, "--channels", 64)
    assert other.code == 2
    for text in ("lr 0.0003 -> 1e-05", "batch_size 4 -> 8", "model_channels 32 -> 64", "--init"):
        assert text in other.err
    extra = shapes.parent / "more"
    shutil.copytree(shapes, extra)
    shutil.copy(extra / "circle" / "0.png", extra / "circle" / "new.png")
    changed = adm(*again, extra)
    assert changed.code == 2
    assert "names and labels of the pictures" in changed.err
    (extra / "circle" / "new.png").unlink()
    (extra / "circle").rename(extra / "triangle")
    renamed = adm(*again, extra)
    assert "class 0 circle -> square; class 1 square -> triangle; names and" in renamed.err
    none = adm("train-classifier", "--resume", shapes, *MODEL, *SHORT[:-1], "anew")
    assert none.code == 2
    assert "--resume: anew holds no run to go on with; without --resume" in none.err
    assert not Path("anew").exists()
    assert "needs --out" in adm("train-classifier", "--resume").err


def test_muon_is_asked_for_and_kept(adm: Adm, shapes: Path) -> None:
    done = adm("train-diffusion", shapes, *MODEL, *SHORT, "--optimizer", "muon", "-q")
    assert done.code == 0, done.err
    (state,) = Path("run").glob("state-*4.safetensors")
    tensors = load_file(state)
    weight = "middle_block.0.in_layers.2.weight"
    assert f"exp_avg.{weight}" in tensors
    assert f"exp_avg_sq.{weight}" not in tensors
    other = adm("train-diffusion", "--resume", "--out", "run", "--optimizer", "adamw")
    assert "optimizer muon -> adamw" in other.err
    wrong = adm("train-diffusion", shapes, *MODEL, *SHORT[:-1], "anew", "--optimizer", "lion")
    assert (wrong.code, Path("anew").exists()) == (2, False)
    assert "optimizer has an unexpected value 'lion', expected adamw or muon" in wrong.err


def test_a_run_keeps_what_was_usual_when_it_was_begun(adm: Adm, shapes: Path) -> None:
    whole = ("train-diffusion", shapes, *MODEL, *SHORT, "--optimizer", "adamw")
    assert adm(*whole, "-q").code == 0
    place = Path("run/settings.json")
    before = json.loads(place.read_text())
    assert (before["training"]["lr"], before["training"]["anneal"]) == (1.2e-3, "none")
    assert before["diffusion"]["prediction"] == "v"
    before["training"] |= {"lr": 6e-4, "anneal": "cosine"}
    del before["training"]["optimizer"], before["options"]["optimizer"]  # there was AdamW alone
    before["diffusion"]["prediction"] = "eps"
    place.write_text(json.dumps(before))
    longer = adm("train-diffusion", "--out", "run", "--steps", 6, "-q")
    assert longer.code == 0, longer.err
    now = json.loads(place.read_text())
    stored = now["training"]
    assert (stored["lr"], stored["anneal"], stored["steps"]) == (6e-4, "cosine", 6)
    assert stored["optimizer"] == "adamw"
    assert now["diffusion"]["prediction"] == "eps"


def test_what_nobody_chose_stays_when_a_run_goes_on(adm: Adm, shapes: Path, tmp_path: Path) -> None:
    """Longer, without a longer warmup; on a GPU, still in float32; --set beside --set."""
    whole = ("train-diffusion", shapes, *MODEL, *SHORT[2:], "-q")
    assert adm(*whole, "--steps", 20).code == 0
    longer = adm("train-diffusion", "--out", "run", "--steps", 40, "--set", "save_every=40", "-q")
    assert longer.code == 0, longer.err
    stored = json.loads(Path("run/settings.json").read_text())["training"]
    assert (stored["warmup"], stored["steps"], stored["save_every"]) == (2, 40, 40)
    options = DiffusionOptions(out=tmp_path / "run")
    plan = prepare("diffusion", options, World(), torch.device("cuda"), ignore)
    assert plan.settings.training.dtype == "float32"
    assert plan.settings.training.channels_last


@pytest.mark.parametrize("able", [True, False])
def test_half_precision_of_a_gpu(
    shapes: Path, tmp_path: Path, able: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those before Ampere have no bfloat16, and imitate it slowly."""
    monkeypatch.setattr("adm_cli.training.train.has_bfloat16", lambda _device: able)
    cuda = torch.device("cuda")
    options = DiffusionOptions(data=[shapes], size="8", out=tmp_path / "run")
    plan = prepare("diffusion", options, World(), cuda, ignore)
    assert plan.settings.training.dtype == ("bfloat16" if able else "float16")
    plan = prepare("diffusion", replace(options, dtype="float32"), World(), cuda, ignore)
    assert plan.settings.training.dtype == "float32"


def test_a_terminal_is_told_of_a_faster_precision(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the CPU has it, and no dtype was asked for."""
    monkeypatch.setattr("adm_cli.training.train.has_bfloat16", lambda _device: True)

    def hints(**asked: Any) -> list[str]:
        told: list[object] = []
        options = DiffusionOptions(data=[shapes], size="8", out=tmp_path / "run", **asked)
        prepare("diffusion", options, World(), torch.device("cpu"), told.append)
        return [event.text for event in told if isinstance(event, Hint)]

    assert hints() == ["this CPU computes in bfloat16: --dtype bfloat16 trains faster"]
    assert hints(dtype="float32") == hints(dtype="bfloat16") == []
    monkeypatch.setattr("adm_cli.training.train.has_bfloat16", lambda _device: False)
    assert hints() == []


@pytest.mark.parametrize(
    ("batch", "mend"),
    [(4, "4 pictures at once: pass --microbatch 2, and --out run to go on with this run"),
     (1, "1 picture at once: train a smaller model")],
)  # fmt: skip
def test_memory_that_runs_out(
    adm: Adm, shapes: Path, batch: int, mend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def greedy(*_: object, **__: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB")

    command = ("train-diffusion", shapes, *MODEL, "--steps", 4, "--out", "run", "-q")
    with monkeypatch.context() as patch:
        patch.setattr("adm_cli.models.unet.UNet.forward", greedy)
        done = adm(*command, "--batch-size", batch)
    assert done.code == 1
    assert done.err == f"adm: error: not enough memory on cpu for {mend}\n"
    if batch > 1:
        done = adm(*command, "--batch-size", batch, "--microbatch", 2)
        assert done.code == 0, done.err


def test_a_run_of_another_kind_is_not_called_damaged(adm: Adm, shapes: Path) -> None:
    assert adm("train-diffusion", shapes, *MODEL, *SHORT, "--label-dropout", 0.1, "-q").code == 0
    for more in (("--resume",), (shapes,)):
        other = adm("train-classifier", *more, "--out", "run")
        assert other.code == 2
        assert "diffusion model, which adm train-diffusion goes on with" in other.err
        assert "--fresh" not in other.err  # which would remove the other run


def test_a_state_is_no_model(adm: Adm, shapes: Path) -> None:
    """A user's first idea of the newest weights: told where they are, not to convert it."""
    assert adm("train-diffusion", shapes, *MODEL, *SHORT, "-q").code == 0
    state = "run/state-00000004.safetensors"
    for command in (("sample", "--model", state), ("info", state), ("convert", state)):
        done = adm(*command)
        assert done.code == 1
        assert f"{state} is a state that its training goes on from: pass run, whose" in done.err
    assert adm("sample", "--model", "run", "--num", 1, "--steps", 2).code == 0


def test_fresh_begins_anew(adm: Adm, shapes: Path) -> None:
    whole = ("train-classifier", shapes, *MODEL, *SHORT)
    assert adm(*whole, "-q").code == 0
    before = set(Path("run").rglob("*"))
    other = adm(*whole, "--lr", 1e-5, "--steps", 2, "--fresh")
    assert other.code == 0, other.err
    assert "2 steps, 0.4 epochs, in " in other.err
    assert json.loads(Path("run/settings.json").read_text())["training"]["lr"] == 1e-5
    states = [path for path in before if path.name.startswith("state-")]
    assert len(states) == 2
    assert not any(path.exists() for path in states if "4" in path.name)
    assert "begins anew in --out" in adm("train-classifier", shapes, *MODEL, "--fresh").err


def test_the_end_says_what_is_next(adm: Adm, shapes: Path) -> None:
    judge = adm("train-classifier", shapes, *MODEL, *SHORT, "--no-noise").err.splitlines()
    assert (
        judge[-1] == f"adm: next: adm evaluate SAMPLES --judge run/best.safetensors --real {shapes}"
    )
    done = adm("train-diffusion", shapes, *MODEL, *SHORT[:-1], "base").err.splitlines()
    assert done[-1] == (
        "adm: next: adm sample --model base/model.safetensors --class all --num 2 --grid"
    )
    assert done[-2] == "adm: losses: base/metrics.png"
    assert "4 steps, 0.9 epochs, in " in done[-4]


def test_what_is_next_reads_the_pictures_alike(adm: Adm, shapes: Path, tmp_path: Path) -> None:
    """A file of labels, chosen classes and broken pictures; only those held out are judged by."""
    shutil.copytree(shapes / "circle", "my flat")
    Path("my flat/broken.png").write_bytes(b"no picture")
    rows = [f"{p.name},{'ab'[i % 2]}" for i, p in enumerate(sorted(Path("my flat").iterdir()))]
    Path("labels.csv").write_text("\n".join(["filename,label", *rows]))
    how = ("--labels", "labels.csv", "--class", "a,b", "--skip-bad")
    flat = f"'{tmp_path}/my flat'"
    read = f"--labels {tmp_path}/labels.csv --class a,b --skip-bad"
    last = "--match run/best.safetensors --classifier run/best.safetensors --out runs/base"
    split = ("--val-split", 0.2)
    done = adm("train-classifier", "my flat", *split, *how, *MODEL, *SHORT).err.splitlines()
    assert done[-1] == f"adm: next: adm train-diffusion {flat} --val-split 0.2 {read} {last}"
    assert "evaluate-classifier" not in done[-2]
    held = adm("train-classifier", "my flat", "--val", "my flat", *how, *MODEL, *SHORT, "--fresh")
    lines = held.err.splitlines()
    assert lines[-2].endswith(f"classifier {flat} {read} --classifier run/best.safetensors")
    assert lines[-1] == f"adm: next: adm train-diffusion {flat} --val {flat} {read} {last}"
    for line in lines[-2:]:
        words = shlex.split(line.partition("next: adm ")[2])
        short = ("--steps", 1, "--batch-size", 2) if words[0] == "train-diffusion" else ("--at", 0)
        assert adm(*words, *short).code == 0


def test_the_classifier_of_sample_pictures_suits_the_model(adm: Adm, shapes: Path) -> None:
    """As in `adm sample`, and before any picture is read."""
    assert adm("train-classifier", shapes, *MODEL, *SHORT, "-q").code == 0
    others = Path("others")
    for kind, animal in (("circle", "cat"), ("square", "dog")):
        shutil.copytree(shapes / kind, others / animal)
    guided = ("train-diffusion", "--classifier", "run", *MODEL, *SHORT[:-1], "base", "--dry-run")
    assert adm(*guided, shapes).code == 0
    other = adm(*guided, others)
    assert other.code == 2
    assert "class 0 is cat to the model to train but circle to the classifier" in other.err
    noise = adm(*guided, shapes, "--set", "noise_schedule=linear")
    assert noise.code == 2
    assert f"pass another --classifier, or --match {Path('run').absolute()}" in noise.err


@pytest.mark.parametrize(
    ("kind", "pictures", "steps"),
    [
        ("classifier", 608, 500), ("classifier", 2000, 1300), ("classifier", 10, 500),
        ("classifier", 10**6, 5000),
        ("diffusion", 608, 2000), ("upsampler", 10**6, 20_000), ("diffusion", 1, 2000),
        ("diffusion", 4000, 12_500),
    ],
)  # fmt: skip
def test_the_length_suits_the_pictures(kind: Any, pictures: int, steps: int) -> None:
    assert default_steps(kind, pictures, 64) == steps


def test_moved_pictures_are_no_change(adm: Adm, shapes: Path, tmp_path: Path) -> None:
    shutil.copytree(shapes, tmp_path / "here")
    assert adm("train-classifier", "here", *MODEL, *SHORT, "-q").code == 0
    (tmp_path / "here").rename(tmp_path / "there")
    gone = adm("train-classifier", "--resume", "--out", "run", "--steps", 5)
    assert gone.code == 2
    said = "here, which the run in run was begun with, is not there: adm train-classifier PLACE"
    assert f"{said} --out run says where it is now" in gone.err
    done = adm("train-classifier", "there", "--resume", "--out", "run", "--steps", 5)
    assert done.code == 0, done.err


def test_what_a_run_was_begun_with_is_found_from_elsewhere(
    adm: Adm, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training's folder for ``--init`` too, which is a path as a file is; and if it goes."""
    assert adm("train-diffusion", shapes, *MODEL, *SHORT, "-q").code == 0
    tuned = ("--steps", 2, "--batch-size", 2, "-q", "--out", tmp_path / "tuned")
    assert adm("train-diffusion", shapes, "--init", "run", *tuned).code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    on = ("train-diffusion", "--resume", "--out", tmp_path / "tuned")
    assert adm(*on, "--steps", 3).code == 0
    shutil.rmtree(tmp_path / "run")
    gone = adm(*on, "--steps", 4)
    own = tmp_path / "tuned" / "model.safetensors"
    assert gone.code == 2
    assert "adm train-diffusion --init PLACE --out" in gone.err
    assert f"says where it is now; {own} will do" in gone.err
    assert adm(*on, "--steps", 4, "--init", own).code == 0


def test_words_are_no_files(adm: Adm, shapes: Path) -> None:
    """``tiny`` and ``names`` mean what they mean, whatever the present folder holds."""
    for name in ("tiny", "names"):
        Path(name).write_text("nothing of ours")
    asked = ("--init", "tiny", "--labels", "names", "--dry-run", "--batch-size", 1)
    done = adm("train-diffusion", shapes, *asked)
    assert done.code == 0, done.err


def test_fine_tuning(adm: Adm, shapes: Path, toys: Toys, tmp_path: Path) -> None:
    """--init takes the architecture; other classes begin anew, a null class is added."""
    first = results(adm("train-diffusion", shapes, *MODEL, *SHORT, "--json", "-q"))["model"]
    tuned = adm(
        "train-diffusion", shapes, "--init", first, "--label-dropout", 0.5, "--lr", 0,
        "--weight-decay", 0, "--steps", 1, "--out", "tuned",
    )  # fmt: skip
    assert "got a row for no class" in tuned.err
    assert read_model_file(Path("tuned/model.safetensors")).info.recommended == DRAWN
    old, new = load_file(first), load_file("tuned/model.safetensors")
    rows = new["label_emb.weight"]
    assert torch.equal(rows[:2], old["label_emb.weight"])
    torch.testing.assert_close(rows[2], old["label_emb.weight"].mean(dim=0))
    assert all(torch.equal(new[name], old[name]) for name in old if name != "label_emb.weight")
    more = shutil.copytree(shapes, tmp_path / "more")
    for name in ("tile", "wheel"):
        shutil.copytree(shapes / "circle", more / name)
    still = ("--lr", 0, "--weight-decay", 0, "--steps", 1)
    grown = adm("train-diffusion", more, "--init", "tuned", *still, "--out", "grown")
    assert "label_emb.weight got 2 rows for new classes" in grown.err
    wide = load_file("grown/model.safetensors")["label_emb.weight"]
    assert torch.equal(wide[[0, 1, 4]], rows)  # no class stays the last
    torch.testing.assert_close(wide[2:4], rows[:2].mean(dim=0).expand(2, -1))
    animals = tmp_path / "animals"
    for kind, animal in (("circle", "cat"), ("square", "dog")):
        shutil.copytree(shapes / kind, animals / animal)
    others = adm(
        "train-classifier", animals, "--init", toys.classifier, "--steps", 1, "--out", "others"
    )
    assert others.code == 0, others.err
    assert "begins anew" in others.err
    assert read_model_file(Path("others/model.safetensors")).info.classes[0] == "cat"
    wrong = adm("train-diffusion", shapes, "--init", toys.classifier, "--steps", 1)
    assert wrong.code == 2
    assert "holds a classifier model" in wrong.err
    begun = adm("train-classifier", shapes, "--init", first, "--steps", 1, "--out", "begun")
    assert begun.code == 0, begun.err
    assert "the encoder of a diffusion model" in begun.err


def test_float16_weights_for_sharing(adm: Adm, shapes: Path) -> None:
    done = adm("train-diffusion", shapes, *MODEL, *SHORT, "--save-dtype", "float16", "-q")
    assert done.code == 0
    assert {v.dtype for v in load_file("run/model.safetensors").values()} == {torch.float16}
    resumed = adm("train-diffusion", "--resume", "--out", "run", "--steps", 5, "-q")
    assert resumed.code == 0


def test_tensorboard(adm: Adm, shapes: Path, tmp_path: Path) -> None:
    done = adm("train-classifier", shapes, *MODEL, *SHORT, "--tensorboard", "-q")
    assert done.code == 0, done.err
    written = list((tmp_path / "run" / "tensorboard").iterdir())
    assert sum(path.stat().st_size for path in written) > 500


REFUSED: list[tuple[tuple[object, ...], str]] = [
    (("train-classifier", "nowhere"), "no such folder"),
    (("train-classifier",), "expected a folder, zip or tar"),
    (("train-classifier", "{shapes}", "--val", "{shapes}/nothing"), "no such folder"),
    (("train-classifier", "{shapes}/circle"), "at least two classes, got no labels"),
    (("train-classifier", "{shapes}", "--class", "circle"), "one class (circle)"),
    (("train-classifier", "{shapes}", "--labels", "nonw"), "did you mean none?"),
    (("train-diffusion", "{shapes}", "--class", "hexagon"), "unknown class"),
    (("train-diffusion", "{shapes}", "--set", "num_classes=1"), "label 1 (square) is out of range"),
    (("train-diffusion", "{shapes}", "--set", "chanels=3"), "no such setting"),
    (("train-diffusion", "{shapes}", "--set", "dropout=high"), "dropout has an unexpected value"),
    (("train-diffusion", "{shapes}", "--set", "dropout"), "expected NAME=VALUE"),
    (("train-diffusion", "{shapes}", "--set", "respacing=quick"), "expected a number such as 250"),
    (("train-diffusion", "{shapes}", "--set", "respacing=2000"), "cannot take 2,000 steps"),
    (
        ("train-diffusion", "{shapes}", "--set", "in_channels=1", "--set", "out_channels=2"),
        "in_channels is 1, pictures have 3: leave it out",
    ),
    (("train-diffusion", "{shapes}", "--value-range", "white"), "expected the value of white"),
    (("train-diffusion", "{shapes}", "--preset", "ablation-al"), "did you mean ablation-all"),
    (("train-diffusion", "{shapes}", "--preset", "tiny", "--flags", "--image_size 64"), "give one"),
    (("train-diffusion", "{shapes}", "--preset", "tiny", "--size", "64"), "leave --size out"),
    (("train-diffusion", "{shapes}", "--size", "big"), "expected a number"),
    (("train-diffusion", "{shapes}", "--size", "33"), "not divisible"),
    (("train-diffusion", "{shapes}", "--steps", "0"), "steps must be from 1"),
    (("train-diffusion", "{shapes}", "--steps", "5", "--kimg", "1"), "give one"),
    (("train-diffusion", "{shapes}", "--lr", "nan"), "the learning rate must be in"),
    (("train-diffusion", "{shapes}", "--ema", "often"), "expected rates such as"),
    (("train-diffusion", "{shapes}", "--ema", "1"), "must be in [0, 1)"),
    (("train-diffusion", "{shapes}", "--anneal", "slowly"), "anneal"),
    (("train-diffusion", "{shapes}", "--dtype", "float16", "--device", "cpu"), "needs CUDA"),
    (("train-diffusion", "{shapes}", "--label-dropout", "2"), "label_dropout must be in"),
    (
        ("train-diffusion", "{shapes}", "--unconditional", "--label-dropout", "0.1"),
        "needs pictures with classes",
    ),
    (("train-diffusion", "{shapes}", "--val-split", "1.5"), "--val-split must be in"),
    (("train-upsampler", "{shapes}", "--size", "8", "--low-size", "8"), "must be smaller"),
    (("train-upsampler", "{shapes}", "--size", "8", "--crop", "3"), "a multiple of the model's"),
    (("train-upsampler", "{shapes}", "--size", "8", "--crop", "16"), "expected at most 8"),
    (("train-upsampler", "{shapes}", "--noise-augment", "11"), "low_res_noise must be in"),
    (("train-diffusion", "{shapes}", "--set", "crop=4"), "about an upsampler's pictures"),
    (("train-diffusion", "{shapes}", "--set", "low_res_noise=1"), "is for upsamplers only"),
    (("train-diffusion", "{shapes}", "--save-dtype", "int8"), "--save-dtype int8"),
    (
        ("train-diffusion", "{shapes}", "--classifier", "tiny"),
        "holds a diffusion model, expected a classifier",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=lambda v: str(v)[:40])
def test_refused(
    arguments: tuple[object, ...], message: str, adm: Adm, shapes: Path, tmp_path: Path
) -> None:
    done = adm(*(str(a).replace("{shapes}", str(shapes)) for a in arguments))
    assert done.code == 2, done.err
    assert message in done.err
    assert len(done.err.splitlines()) <= 5  # the others tell what was found and chosen
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_small_and_odd_sets(adm: Adm, shapes: Path, tmp_path: Path) -> None:
    """A class with one picture, and a set smaller than the batch, just work."""
    for kind, count in (("circle", 3), ("square", 1)):
        (tmp_path / "few" / kind).mkdir(parents=True)
        for i in range(count):
            shutil.copy(shapes / kind / f"{i}.png", tmp_path / "few" / kind)
    done = adm("train-classifier", "few", *MODEL, *SHORT, "--val-split", 0.4)
    assert done.code == 0, done.err
    assert "0 circle (2), 1 square (1)" in done.err
    none = adm("train-diffusion", "few", *MODEL, *SHORT[:-1], "without", "--val-split", 0)
    assert none.code == 0, none.err
    assert "0 to validate" in none.err
    assert none.out.split() == ["without/model.safetensors"]


def test_unreadable_pictures(adm: Adm, shapes: Path, tmp_path: Path) -> None:
    shutil.copytree(shapes, tmp_path / "damaged")
    names = [f"damaged/circle/{i}.png" for i in (3, 4)]
    for name in names:
        (tmp_path / name).write_bytes(b"not a picture")
    refused = adm("train-classifier", "damaged", *MODEL, *SHORT)
    assert refused.code == 1
    assert all(f"{name}: not a picture" in refused.err for name in names)
    assert not (tmp_path / "run").exists()
    done = adm("train-classifier", "damaged", *MODEL, *SHORT, "--skip-bad")
    assert done.code == 0, done.err
    assert "passed over 2 unreadable pictures: " in done.err
    assert all(f"{name}: not a picture" in done.err for name in names)


def test_separate_validation_pictures(adm: Adm, shapes: Path) -> None:
    done = adm("train-classifier", shapes, "--val", shapes, *MODEL, *SHORT, "--val-images", 5)
    assert done.code == 0, done.err
    assert "20 pictures to train on, 20 to validate" in done.err


def start(shapes: Path, folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "adm_cli", "train-diffusion", str(shapes), *MODEL]
    command += ["--steps", "100000", "--batch-size", "4", "--out", str(folder), *more]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_finish_the_step_and_save(
    number: signal.Signals, shapes: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    process = start(shapes, folder, "--log-every", "1", "--save-every", "100000")
    assert process.stderr is not None
    for line in process.stderr:
        if "step 2/" in line:
            break
    process.send_signal(number)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 128 + number, err
    assert "Traceback" not in err
    assert f"adm train-diffusion --resume --out {folder}" in err
    states = sorted(path.name for path in folder.glob("state-*"))
    assert states[-1] > "state-00000001"


def test_what_is_ignored_stays_so() -> None:
    """As of nohup, or of a job behind a script's ``&``, which a Ctrl-C of its terminal reaches."""
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN if number != signal.SIGTERM else signal.SIG_DFL)
        stopping = _StopSignals()
        with stopping:
            stopping.catch()
            for number in numbers:
                os.kill(os.getpid(), number)
            assert stopping._received == [signal.SIGTERM]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signals._received.clear()


def test_two_processes_equal_one(
    adm: Adm, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchrun with gloo: the same global batch, the same weights but for rounding."""
    monkeypatch.setattr("adm_cli.training.trainer.LEAST_VALIDATED", 64)  # as in those processes
    arguments = [
        "train-diffusion", str(shapes), *MODEL, "--steps", "3", "--batch-size", "8",
        "--microbatch", "2", "--label-dropout", "0.2", "--timestep-sampler",
        "loss-second-moment", "--lr", "1e-4", "-q",  # rounding moves weights by a part of it
    ]  # fmt: skip
    assert adm(*arguments, "--out", "one").code == 0
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
         "-m", "adm_cli", *arguments, "--out", "two"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, two = load_file("one/model.safetensors"), load_file("two/model.safetensors")
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5)
    metrics = [
        (Path(f) / "metrics.csv").read_text().splitlines()[-1].split(",") for f in ("one", "two")
    ]
    assert metrics[0][0] == metrics[1][0]
    assert float(metrics[0][-1]) == pytest.approx(float(metrics[1][-1]), rel=1e-3)


def test_ctrl_c_stops_all_processes_after_a_step(shapes: Path, tmp_path: Path) -> None:
    """A terminal's Ctrl-C goes to torchrun and its processes, and torchrun passes it on."""
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
         "-m", "adm_cli", "train-diffusion", str(shapes), *MODEL, "--steps", "100000",
         "--batch-size", "4", "--log-every", "1", "--save-every", "100000", "--out", str(folder)],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if "step 2/" in line:
            break
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert err.count("adm: stopped after step") == 1, err
    assert "of 100000; the same command goes on\n" in err  # what torchrun was told, only it knows
    assert "adm_cli/" not in err  # no traceback, that is, but torchrun's own
    assert max(path.name for path in folder.glob("state-*")) > "state-00000001"


@pytest.mark.parametrize(
    ("received", "alone", "of_torchrun"),
    [("i", False, False), ("ii", True, False), ("iii", True, True), ("it", False, False),
     ("iti", True, True), ("tt", False, False), ("ti", True, False)],
)  # fmt: skip
def test_who_insists(
    received: str, alone: bool, of_torchrun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = [{"i": signal.SIGINT, "t": signal.SIGTERM}[letter] for letter in received]
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert signals.insists(numbers) is alone
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert signals.insists(numbers) is of_torchrun


def test_a_process_that_is_lost_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from adm_cli.training.distributed import World, joined

    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    gone = RuntimeError("[/pytorch/third_party/gloo/gloo/pair.cc:553] Connection closed by peer")
    lost = pytest.raises(RunError, match="another process of this training ended")
    with lost, joined(World(0, 2), "cpu"):
        raise gone
    with pytest.raises(RuntimeError, match="shapes differ"), joined(World(0, 2), "cpu"):
        raise RuntimeError("shapes differ")


def test_processes_tell_nccl_which_gpu_is_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it guesses, and warns of that."""
    from adm_cli.training import distributed

    told: list[Any] = []
    monkeypatch.setattr(distributed, "choose_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", told.append)
    monkeypatch.setattr(
        torch.distributed, "init_process_group", lambda *args, **how: told.extend([args, how])
    )
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    theirs = torch.device("cuda", 1)
    with distributed.joined(World(3, 4, 1), "cuda") as device:
        assert device == theirs
    assert told == [theirs, ("nccl",), {"device_id": theirs}]


def test_more_processes_than_gpus_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL's own words of it are "Duplicate GPU detected", in a traceback."""
    from adm_cli.errors import DeviceError
    from adm_cli.training import distributed

    monkeypatch.setattr(distributed, "choose_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with (
        pytest.raises(DeviceError, match=r"process 3 .* sees 2 CUDA .*--nproc-per-node 2"),
        distributed.joined(World(2, 4, 2), "cuda"),
    ):
        raise AssertionError("never joined")


def test_processes_must_share_the_batch(
    adm: Adm, shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adm_cli.training import train
    from adm_cli.training.distributed import World

    monkeypatch.setattr(train, "find_world", lambda: World(0, 3))
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    done = adm("train-diffusion", shapes, *MODEL, *SHORT)
    assert done.code == 2
    assert "cannot be shared out among 3 processes: make it a multiple" in done.err
    monkeypatch.setattr(train, "find_world", World)
    assert adm("train-diffusion", shapes, *MODEL, *SHORT).code == 0
    monkeypatch.setattr(train, "find_world", lambda: World(0, 3))
    kept = adm("train-diffusion", "--resume", "--out", "run", "--steps", 5)
    assert "3 processes: this run keeps it, so start fewer" in kept.err
    monkeypatch.setenv("RANK", "first")
    monkeypatch.undo()


def test_a_pipe_that_closes_costs_nothing(shapes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(shapes, folder, "--steps", "3")
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    process.communicate(timeout=300)
    assert (folder / "model.safetensors").exists()


@pytest.mark.parametrize("rank", [0, 1])
def test_one_process_tells_of_a_dry_run(
    adm: Adm, shapes: Path, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    for name, value in {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    done = adm("train-diffusion", shapes, *MODEL, *SHORT, "--dry-run")
    assert done.code == 0
    assert (bool(done.out), bool(done.err)) == (rank == 0, rank == 0)
